// A Workers-style module without any package: routes by hand, a setting, work after the response.
const started = Date.now();

export default {
  async fetch(request, env, ctx) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response(`Hello ${env.GREETED ?? "world"}\n`);
    if (pathname === "/random") return Response.json({ id: crypto.randomUUID() });
    if (pathname === "/sleep") {
      const ms = Math.min(Number(searchParams.get("ms")) || 0, 1000);
      await new Promise((done) => setTimeout(done, ms));
      return new Response(`slept ${ms} ms\n`);
    }
    if (pathname === "/later") {
      ctx.waitUntil(
        (async () => {
          await new Promise((done) => setTimeout(done, 20));
          console.log("done after the response");
        })(),
      );
      return new Response("now\n");
    }
    if (pathname === "/upper" && request.method === "POST") {
      const upper = new TransformStream({
        transform(chunk, controller) {
          controller.enqueue(chunk.toUpperCase());
        },
      });
      const body = request.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(upper)
        .pipeThrough(new TextEncoderStream());
      return new Response(body, { headers: { "content-type": "text/plain" } });
    }
    return new Response(`nothing at ${pathname}, up since ${started}\n`, { status: 404 });
  },
};

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/json") return Response.json({ method: request.method, pathname });
    return new Response("Hello from a worker\n");
  },
};

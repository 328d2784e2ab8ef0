// Hono, unmodified: the same file runs wherever Web-standard frameworks do.
import { Hono } from "hono";
import { streamText } from "hono/streaming";

const app = new Hono();

app.use("*", async (c, next) => {
  await next();
  c.header("X-Powered-By", "Hono");
});
app.get("/", (c) => c.text("Hello Hono\n"));
app.get("/users/:id", (c) => c.json({ id: c.req.param("id"), q: c.req.query("q") ?? null }));
app.post("/echo", async (c) => c.json({ got: await c.req.json() }));
app.post("/form", async (c) => {
  const { name, file } = await c.req.parseBody();
  return c.json({ name, file: file && { name: file.name, text: await file.text() } });
});
app.get("/stream", (c) =>
  streamText(c, async (stream) => {
    for (const word of ["one", "two", "three"]) {
      await stream.writeln(word);
      await stream.sleep(5);
    }
  }),
);
app.onError((error, c) => c.text(`failed: ${error.message}\n`, 500));
app.get("/error", () => {
  throw new Error("on purpose");
});

export default app;

import { Hono } from "hono";

const app = new Hono();

app.get("/", (c) => c.text("Hello Hono\n"));
app.get("/users/:id", (c) => c.json({ id: c.req.param("id"), q: c.req.query("q") ?? null }));
app.post("/echo", async (c) => c.json({ got: await c.req.json() }));

export default app;

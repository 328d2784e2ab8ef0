from tests.api.workers import fake_worker


def test_what_an_app_learns_ends_with_it(opened, run):
    """Its label may be given to another tenant's app."""

    async def main():
        async with (
            opened() as api,
            fake_worker(api.node.settings.run_dir, lambda _question: None) as worker,
        ):
            await api.deployed()
            begun = await api.http.post("/v1/apps/hello/learning", json={"for_s": 900})
            assert begun.json()["until"] > 0
            assert api.routes.get("hello").learns_until > 0
            assert (await api.http.delete("/v1/apps/hello")).status_code == 200
            worker.told.clear()
            await api.deployed()
            assert api.routes.get("hello").learns_until == 0
            assert (await api.get("/v1/apps/hello/learning"))["until"] == 0
            told = [one for one in worker.told if one["op"] == "forget_reached"]
            assert told == [{"op": "forget_reached", "app": "hello"}]

    run(main())

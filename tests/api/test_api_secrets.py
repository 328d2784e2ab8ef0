import pytest


@pytest.mark.parametrize(
    "body", [{"set": {f"K{n}": "x" for n in range(300)}}, {"unset": ["KNOWN"] * 300}]
)
def test_a_change_of_more_than_any_app_may_have_is_refused_before_it_takes_time(opened, run, body):
    async def main():
        async with opened() as api:
            address = "/v1/apps/shop/secrets"
            assert (await api.http.patch(address, json={"set": {"KNOWN": "1"}})).status_code == 200
            response = await api.http.patch(address, json=body)
            assert response.status_code == 400
            error = response.json()["error"]
            assert error["message"] == "at most 200 secrets are changed at once, not 300"
            listed = await api.get(address)
            assert [one["name"] for one in listed["secrets"]] == ["KNOWN"]

    run(main())


def test_a_change_that_is_taken_back_takes_no_later_one_with_it(opened, run, monkeypatch):
    from isopod.control import secrets
    from isopod.errors import DiskFull

    async def main():
        async with opened() as api:
            await api.deployed()
            address, publish = "/v1/apps/hello/secrets", secrets.put_route
            meanwhile = {}

            def full(*given):
                monkeypatch.setattr(secrets, "put_route", publish)
                with api.node.state.transaction() as t:  # somebody else's, meanwhile
                    mine = t.of(given[1]).secrets
                    mine.put("hello", meanwhile, now=1.0)
                raise DiskFull("routes.db: no space")

            for more, names in (({}, []), ({"LATER": "sealed"}, ["LATER", "MINE"])):
                meanwhile.update(more)
                monkeypatch.setattr(secrets, "put_route", full)
                response = await api.http.patch(address, json={"set": {"MINE": "1"}})
                assert response.json()["error"]["code"] == "disk_full"
                listed = (await api.get(address))["secrets"]
                assert [one["name"] for one in listed] == names

    run(main())

from isopod.api.bodies import MOST_BYTES


def test_no_token_makes_control_hold_more_of_a_body_than_it_may_need(opened, run):
    async def main():
        async with opened() as api:
            read_only = await api.tenant("acme", "read")
            taken = 0

            async def endless():
                nonlocal taken
                yield b'{"set": {"A": "'
                for _ in range(16 * MOST_BYTES >> 20):
                    taken += 1 << 20
                    yield b"x" * (1 << 20)

            for content in (b" " * (MOST_BYTES + 1), endless()):
                response = await read_only.http.patch(
                    "/v1/apps/a/secrets",
                    content=content,
                    headers={"content-type": "application/json"},
                )
                error = response.json()["error"]
                assert (response.status_code, error["code"]) == (400, "bad_request")
                assert error["message"] == "the request body is larger than 4 MiB"
            assert taken <= 2 * MOST_BYTES

    run(main())


def test_what_goes_to_the_disk_may_be_larger(opened, run):
    async def main():
        async with opened() as api:
            await api.put(b"x" * (MOST_BYTES + 1))

    run(main())

"""When a tenant's own worker is started and ended."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import IsopodError
from isopod.model.tenant import TenantName
from isopod.server.cordons import Cordons, Plan, plan

A, B, C = (TenantName(name) for name in "abc")
_some = st.sets(st.sampled_from([TenantName(name) for name in "abcdef"]))


def test_workers_are_started_and_ended_as_they_are_wanted():
    assert plan({A, B}, {B, C}, most=9) == Plan(end=(C,), start=(A,))
    assert plan({A}, {A}, most=9) == Plan((), ())


def test_who_has_one_keeps_it_and_a_place_that_is_given_up_is_given_on():
    assert plan({A, B}, {B}, most=1) == Plan((), ())
    assert plan({A}, {B}, most=1) == Plan(end=(B,), start=(A,))
    assert plan({A, B, C}, set(), most=2) == Plan((), (A, B))
    assert plan({A}, set(), most=0) == Plan((), ())


@given(_some, _some, st.integers(0, 4))
def test_there_are_never_more_than_may_be_or_were(wanted, there, most):
    made = plan(wanted, there, most=most)
    left = (there - set(made.end)) | set(made.start)
    assert left <= wanted
    assert len(left) <= max(most, len(there & wanted))


def test_one_that_cannot_be_started_keeps_no_other_from_it(tmp_path):
    said, started, ended = [], [], []

    async def start(tenant: TenantName) -> None:
        if tenant == A:
            raise IsopodError("no memory")
        started.append(tenant)

    async def end(tenant: TenantName) -> None:
        ended.append(tenant)

    async def main() -> None:
        cordons = Cordons(tmp_path, most=9, start=start, end=end, report=said.append)
        for name in ("a", "b", "no--tenant", "UPPER"):
            (tmp_path / name / "routes").mkdir(parents=True)
            (tmp_path / name / "routes" / "routes.db").touch()
        await cordons.follow()
        await cordons.follow()  # not at once again
        assert (started, said) == ([B], ["worker of a: no memory"])
        (tmp_path / "b" / "routes" / "routes.db").unlink()
        await cordons.follow()
        assert ended == [B]

    asyncio.run(main())

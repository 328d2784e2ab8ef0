from isopod.model.job import Outcome


def test_an_outcome_is_no_larger_than_what_is_kept_whatever_a_worker_says():
    said = {"code": "x" * 10**6, "message": "y" * 10**6, "output": "z" * 10**6}
    said |= {"request_id": "r" * 10**6, "status": 10**30, "cpu_ms": "nan"}
    outcome = Outcome.from_json(said)
    assert max(map(len, (outcome.code, outcome.message, outcome.request_id))) == 2000
    assert len(outcome.output) == 64 << 10
    assert (outcome.status, outcome.cpu_ms) == (999, 0.0)


def test_an_outcome_of_ours_stays_as_it_is():
    outcome = Outcome("job_failed", "it answered 500", 500, "r1", 1.5, "out")
    assert Outcome.from_json(outcome.to_json()) == outcome

"""Which backend, what a status means, when one is left out: tables of decisions."""

from __future__ import annotations

import grpc
import pytest

from dicomnode.serving.balancer import (
    VERDICTS,
    Health,
    HealthPolicy,
    Load,
    Verdict,
    after_answer,
    after_failure,
    after_probe,
    choose,
    faded,
    smoothed,
)

POLICY = HealthPolicy(failures=3, base_seconds=1.0, cap_seconds=8.0)


def _load(in_flight: int, *, latency: float | None = None, out: bool = False) -> Load:
    return Load(in_flight=in_flight, limit=4, out=out, latency=latency)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_a_verdict(code: grpc.StatusCode) -> None:
    assert code in VERDICTS


def test_only_statuses_about_the_request_itself_end_a_job() -> None:
    refused = {code.name for code, verdict in VERDICTS.items() if verdict is Verdict.REFUSED}
    assert refused == {"INVALID_ARGUMENT", "ALREADY_EXISTS", "OUT_OF_RANGE"}


@pytest.mark.parametrize(
    ("loads", "turn", "avoid", "chosen"),
    [
        ([_load(2), _load(1), _load(3)], 0, (), 1),  # fewest in flight
        ([_load(1), _load(1)], 0, (), 0),  # equals take turns
        ([_load(1), _load(1)], 1, (), 1),
        ([_load(0, latency=0.1), _load(0, latency=1.0)], 1, (), 0),  # a slow equal waits
        ([_load(0, latency=0.1), _load(0, latency=0.15)], 1, (), 1),  # a similar one does not
        ([_load(3, latency=0.1), _load(0, latency=1.0)], 0, (), 0),  # 4 < 1 * 10 / 2
        ([_load(4, latency=0.1), _load(0, latency=1.0)], 0, (), 1),  # until the fast is full
        ([_load(0, latency=0.005), _load(0, latency=0.05)], 1, (), 1),  # nor one nobody notices
        ([_load(0, latency=0.005), _load(0, latency=0.06)], 1, (), 0),
        ([_load(0, latency=0.1), _load(0)], 1, (), 1),  # one that nobody knows is tried
        ([_load(1, latency=0.1), _load(0, latency=0.19)], 0, (), 1),  # similar: fewest
        ([_load(4), _load(4)], 0, (), None),  # all full
        ([_load(0, out=True), _load(3)], 0, (), 1),  # left out
        ([_load(0), _load(3)], 0, (0,), 1),  # tried before
        ([_load(0)], 0, (0,), None),
        ([], 0, (), None),
    ],
)
def test_the_choice(
    loads: list[Load], turn: int, avoid: tuple[int, ...], chosen: int | None
) -> None:
    assert choose(loads, turn=turn, avoid=avoid) == chosen


def test_a_new_backend_gets_nothing_before_a_probe() -> None:
    assert Health().out


def test_failures_in_a_row_leave_a_backend_out_for_longer_each_time() -> None:
    health = after_probe(Health(), serves=True, now=0.0, policy=POLICY)
    assert not health.out
    for _ in range(2):
        health = after_failure(health, now=10.0, policy=POLICY)
    assert not health.out
    health = after_failure(health, now=10.0, policy=POLICY)
    assert health.out
    assert health.probe_at == 11.0
    waits = []
    for _ in range(5):
        before = health.probe_at
        health = after_probe(health, serves=False, now=before, policy=POLICY)
        waits.append(health.probe_at - before)
    assert waits == [2.0, 4.0, 8.0, 8.0, 8.0]


def test_an_answer_in_between_starts_the_count_again() -> None:
    health = Health(out=False, failures=2)
    assert after_answer(health) == Health(out=False, failures=0)


def test_one_that_returns_is_on_parole() -> None:
    out = Health(out=True, failures=3, ejections=1, probe_at=5.0)
    back = after_probe(out, serves=True, now=5.0, policy=POLICY)
    assert not back.out
    again = after_failure(back, now=6.0, policy=POLICY)
    assert again.out
    assert again.probe_at == 8.0
    assert after_answer(back) == Health(out=False)


def test_a_late_answer_does_not_bring_an_ejected_backend_back() -> None:
    out = Health(out=True, failures=3, ejections=2, probe_at=5.0)
    assert after_answer(out).out
    assert after_answer(out).ejections == 2


def test_a_late_failure_does_not_prolong_the_ejection() -> None:
    out = Health(out=True, failures=3, ejections=1, probe_at=5.0)
    assert after_failure(out, now=4.0, policy=POLICY).probe_at == 5.0


def test_the_average_follows_and_fades() -> None:
    assert smoothed(None, 1.0) == 1.0
    assert smoothed(1.0, 2.0) == pytest.approx(1.2)
    assert faded(1.0, 10.0) == pytest.approx(0.5)
    assert faded(None, 10.0) is None

"""Requests that wait run as one; a bad one fails alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from dicomnode.modelserver.batching import Batcher
from dicomnode.modelserver.errors import RequestError, invalid
from dicomnode.modelserver.signatures import Arrays


class Engine:
    """Doubles its input; runs wait at `gate`; refuses negative numbers."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = threading.Event()
        self.sizes: list[int] = []
        self.whole = False

    def __call__(self, signature: str, inputs: Arrays) -> Arrays:
        self.running.set()
        assert self.gate.wait(10)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise invalid("negative")
        doubled = inputs["x"] * 2
        return {"y": doubled.sum() if self.whole else doubled}


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    made = Batcher(engine, maximum=4, wait_seconds=0.0, limit=6, name="test")
    yield made
    engine.gate.set()
    made.close()


def _submit_while_busy(
    batcher: Batcher, engine: Engine, values: list[Any], *, batchable: bool = True
) -> list[Future[Arrays]]:
    """The first occupies the engine; the others are queued when the gate opens."""
    pool = ThreadPoolExecutor(len(values))
    futures = []
    for number, value in enumerate(values):
        array = np.atleast_1d(np.asarray(value))
        futures.append(
            pool.submit(batcher.submit, "s", {"x": array}, batchable=batchable, timeout=10)
        )
        if number == 0:
            assert engine.running.wait(10)
        else:
            _await_queued(batcher, number)
    engine.gate.set()
    pool.shutdown(wait=True)
    return futures


def _await_queued(batcher: Batcher, count: int) -> None:
    with batcher._changed:
        # submit notifies under this condition, so nothing is missed
        assert batcher._changed.wait_for(lambda: len(batcher._queue) >= count, 10)


def test_requests_that_wait_run_as_one(batcher: Batcher, engine: Engine) -> None:
    futures = _submit_while_busy(batcher, engine, [1, 2, 3, [4, 5]])
    assert [future.result()["y"].tolist() for future in futures] == [[2], [4], [6], [8, 10]]
    assert engine.sizes == [1, 4]


def test_a_batch_is_never_larger_than_allowed(batcher: Batcher, engine: Engine) -> None:
    futures = _submit_while_busy(batcher, engine, [1, [2, 2, 2], [3, 3], [4]])
    assert [len(future.result()["y"]) for future in futures] == [1, 3, 2, 1]
    assert sorted(engine.sizes) == [1, 2, 4]


def test_another_dtype_or_shape_is_not_joined(batcher: Batcher, engine: Engine) -> None:
    futures = _submit_while_busy(batcher, engine, [1, 1.5, [[1, 2]], 2.5])
    assert [future.result()["y"].tolist() for future in futures] == [[2], [3.0], [[2, 4]], [5.0]]
    assert engine.sizes == [1, 2, 1]


def test_a_bad_request_fails_alone(batcher: Batcher, engine: Engine) -> None:
    futures = _submit_while_busy(batcher, engine, [1, 2, -3, 4])
    assert [futures[index].result()["y"].tolist() for index in (0, 1, 3)] == [[2], [4], [8]]
    with pytest.raises(RequestError, match="negative"):
        futures[2].result()


def test_outputs_that_cannot_be_divided_are_run_one_by_one(
    batcher: Batcher, engine: Engine
) -> None:
    engine.whole = True
    futures = _submit_while_busy(batcher, engine, [1, 2, 3])
    assert [int(future.result()["y"]) for future in futures] == [2, 4, 6]


def test_a_signature_with_a_fixed_size_runs_alone(batcher: Batcher, engine: Engine) -> None:
    _submit_while_busy(batcher, engine, [1, 2, 3], batchable=False)
    assert engine.sizes == [1, 1, 1]


def test_a_full_queue_refuses_at_once(batcher: Batcher, engine: Engine) -> None:
    pool = ThreadPoolExecutor(8)
    one = {"x": np.ones(1)}
    futures = [pool.submit(batcher.submit, "s", one, batchable=True, timeout=10)]
    assert engine.running.wait(10)
    futures += [pool.submit(batcher.submit, "s", one, batchable=True, timeout=10) for _ in range(6)]
    _await_queued(batcher, 6)
    with pytest.raises(RequestError, match="queue of this model is full") as error:
        batcher.submit("s", one, batchable=True, timeout=10)
    assert error.value.code is grpc.StatusCode.UNAVAILABLE
    engine.gate.set()
    assert all(future.result()["y"].tolist() == [2] for future in futures)
    pool.shutdown()


def test_a_request_whose_deadline_passed_is_not_run(batcher: Batcher, engine: Engine) -> None:
    pool = ThreadPoolExecutor(1)
    first = pool.submit(batcher.submit, "s", {"x": np.ones(1)}, batchable=True, timeout=10)
    assert engine.running.wait(10)
    with pytest.raises(RequestError) as error:
        batcher.submit("s", {"x": np.ones(1)}, batchable=True, timeout=0.01)
    assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    engine.gate.set()
    first.result()
    batcher.submit("s", {"x": np.ones(3)}, batchable=True, timeout=10)
    assert engine.sizes == [1, 3]
    pool.shutdown()


def test_what_waits_is_answered_before_the_end(engine: Engine) -> None:
    batcher = Batcher(engine, maximum=1, wait_seconds=0.0, limit=6, name="test")
    pool = ThreadPoolExecutor(3)
    futures = [
        pool.submit(batcher.submit, "s", {"x": np.ones(1)}, batchable=True, timeout=10)
        for _ in range(3)
    ]
    _await_queued(batcher, 2)
    engine.gate.set()
    batcher.close()
    assert all(future.result()["y"].tolist() == [2] for future in futures)
    with pytest.raises(RequestError, match="unloaded"):
        batcher.submit("s", {"x": np.ones(1)}, batchable=True, timeout=10)
    pool.shutdown()

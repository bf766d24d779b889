"""What pods and Job say, as facts: tables of objects as the API server gives them."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.submit import progress


def pod(index: int, phase: str = "Running", *, created: str = "1", **state: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase}
    conditions = state.pop("conditions", None)
    if conditions:
        status["conditions"] = conditions
    if "reason" in state:
        status["reason"] = state.pop("reason")
    if state:
        status["containerStatuses"] = [{"state": state}]
    return {
        "metadata": {
            "name": f"run-{index}-{created}",
            "creationTimestamp": created,
            "annotations": {progress.INDEX: str(index)},
        },
        "status": status,
    }


def test_workers_come_by_index_and_the_oldest_first():
    found = progress.workers([pod(1), pod(0, created="2"), pod(0, created="1")])
    assert [worker.pod for worker in found] == ["run-0-1", "run-0-2", "run-1-1"]


def test_only_the_newest_pod_of_an_index_counts():
    found = progress.workers(
        [pod(0, "Failed", created="1"), pod(0, "Pending", created="2"), pod(1, "Running")]
    )
    assert progress.counts(found) == {"pending": 1, "running": 1}


def test_the_chief_is_the_newest_pod_of_index_0_that_runs_or_ran():
    ran, waits = pod(0, created="1", terminated={"exitCode": 1}), pod(0, "Pending", created="2")
    found = progress.workers([ran, waits, pod(1, running={})])
    chief = progress.chief(found)
    assert chief is not None
    assert chief.pod == "run-0-1"
    assert progress.chief(progress.workers([waits])) is None


@pytest.mark.parametrize(
    ("seen", "trouble"),
    [
        (pod(0, "Pending"), ""),
        (pod(0, "Pending", waiting={"reason": "ContainerCreating"}), ""),
        (pod(0, running={}), ""),
        (
            pod(0, "Pending", waiting={"reason": "ImagePullBackOff", "message": "no such image"}),
            "ImagePullBackOff: no such image",
        ),
        (
            pod(0, "Pending", waiting={"reason": "CreateContainerConfigError"}),
            "CreateContainerConfigError",
        ),
        (
            pod(
                0,
                "Pending",
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "R", "message": "M"}
                ],
            ),
            "R: M",
        ),
    ],
)
def test_trouble_is_what_keeps_a_worker_from_starting(seen: dict[str, Any], trouble: str):
    (worker,) = progress.workers([seen])
    assert worker.trouble == trouble


@pytest.mark.parametrize(
    ("seen", "code", "reason"),
    [
        (pod(0, "Failed", terminated={"exitCode": 137, "reason": "OOMKilled"}), 137, "OOMKilled"),
        (pod(0, "Failed", reason="Evicted"), None, "Evicted"),
        (pod(0, "Succeeded", terminated={"exitCode": 0, "reason": "Completed"}), 0, "Completed"),
        (pod(0, running={}), None, ""),
    ],
)
def test_an_end_has_a_code_and_a_reason_where_there_is_one(
    seen: dict[str, Any], code: int | None, reason: str
):
    (worker,) = progress.workers([seen])
    assert (worker.exit_code, worker.reason) == (code, reason)


def test_the_last_lines_of_a_failed_worker_are_kept_few():
    message = "\n".join(f"line {number}" for number in range(100))
    (worker,) = progress.workers([pod(0, "Failed", terminated={"exitCode": 1, "message": message})])
    assert worker.last_lines[-1] == "line 99"
    assert len(worker.last_lines) == 20


@pytest.mark.parametrize(
    ("index", "code", "message", "reasons"),
    [
        (0, 1, "version 1 goes on\nrefused: AUC fell\nrefused: too few", ("AUC fell", "too few")),
        (0, 1, "peer_lost: worker 1 is gone", ()),
        (0, 1, "note: it was refused: once", ()),  # the words are no reason unless they begin it
        (0, 137, "refused: AUC fell", ()),
        (1, 1, "refused: AUC fell", ()),
    ],
)
def test_a_refusal_is_the_chiefs_and_has_its_reasons(
    index: int, code: int, message: str, reasons: tuple[str, ...]
):
    ended = {"exitCode": code, "message": message}
    found = progress.workers([pod(index, "Failed", terminated=ended)])
    assert progress.refusal(found) == reasons


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, None),
        ([], None),
        ([{"type": "Suspended", "status": "True"}], None),
        ([{"type": "FailureTarget", "status": "True"}], None),  # the pods still end
        ([{"type": "Complete", "status": "False"}], None),
        (
            [
                {"type": "SuccessCriteriaMet", "status": "True"},
                {"type": "Complete", "status": "True"},
            ],
            progress.Outcome(succeeded=True),
        ),
        (
            [{"type": "Failed", "status": "True", "reason": "R", "message": "M"}],
            progress.Outcome(succeeded=False, reason="R", message="M"),
        ),
    ],
)
def test_a_job_has_ended_when_a_final_condition_is_true(
    conditions: Any, expected: progress.Outcome | None
):
    assert progress.outcome({"status": {"conditions": conditions}}) == expected
    assert progress.outcome({}) is None

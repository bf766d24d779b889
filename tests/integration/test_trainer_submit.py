"""`trainer submit` in conversation with an API server: kmock plays it, the real client asks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from tests.acceptance.node import until
from tests.conftest import ROOT
from tests.integration.kube_api import NAMESPACE, KubeApi, kube_api, what
from trainer.errors import NothingToDo, TrainerError
from trainer.submit import (
    CandidateRefused,
    ClusterError,
    Options,
    SubmitSettings,
    submit,
    toml,
    watching,
)
from trainer.submit.settings import parse


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with kube_api() as server:
        yield server


class Submission:
    """A call of `submit` in a thread: what it told, and how it ended."""

    def __init__(self, api: KubeApi, folder: Path, *, name: str = "run", **changed: Any) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.error: BaseException | None = None
        options = Options(
            keep=changed.pop("keep", False), timeout_seconds=changed.pop("timeout_seconds", 60.0)
        )
        settings = example(kubeconfig=str(api.kubeconfig(folder)), **changed)
        self._thread = threading.Thread(
            target=self._run, args=(settings, name, options), daemon=True
        )
        self._thread.start()

    def _run(self, settings: SubmitSettings, name: str, options: Options) -> None:
        try:
            submit(settings, name, options, lambda event, facts: self.told.append((event, facts)))
        except TrainerError as error:
            self.error = error

    def result(self) -> BaseException | None:
        """What it raised, once it has ended."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error

    def facts(self, event: str) -> list[dict[str, Any]]:
        return [facts for told, facts in list(self.told) if told == event]

    def lines(self) -> list[str]:
        return [facts["line"] for facts in self.facts("log")]

    def await_told(self, event: str, count: int = 1) -> None:
        until(lambda: len(self.facts(event)) >= count, seconds=20, what=f"{event} in {self.told}")


def example(**cluster: Any) -> SubmitSettings:
    return parse(
        {
            "cluster": {
                "image": "registry:5000/trainer:1",
                "namespace": NAMESPACE,
                "workers": 2,
                "claims": [{"claim": "all", "mount": "/all"}],
                **cluster,
            },
            "fit": {"data": "/all/data", "out": "/all/models", "work": "/all/work"},
        },
        "test.toml",
    )


def gone(message: str = "too old resource version") -> tuple[dict[str, Any], ...]:
    """A watch that has expired, as the server says it: an event, in an answer with status 200."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": message}
    return ({"type": "ERROR", "object": status},)


def refusal(status: int, message: str) -> kmock.KubernetesError:
    return kmock.KubernetesError(status=status, reason="", message=message)


def nothing_left(api: KubeApi) -> bool:
    api.collect_garbage()
    return not any(api.objects(kind) for kind in ("jobs", "services", "configmaps", "pods"))


def run_workers(api: KubeApi) -> list[str]:
    return [api.start_pod(index) for index in (0, 1)]


def complete(api: KubeApi, pods: list[str]) -> None:
    for pod in pods:
        api.end_pod(pod)
    api.end_job("Complete")


def test_a_job_that_succeeds_is_created_followed_and_removed(api: KubeApi, tmp_path: Path):
    """
    The chief's lines come once and in order, the other worker's do not; nothing is left.
    """
    run = Submission(api, tmp_path)
    job = api.job()
    assert job["spec"]["completions"] == 2
    api.await_request("create", "services")
    owners = [
        each["metadata"]["ownerReferences"]
        for kind in ("services", "configmaps")
        for each in api.objects(kind)
    ]
    expected = {"apiVersion": "batch/v1", "kind": "Job", "name": "run"}
    assert owners == [[{**expected, "uid": job["metadata"]["uid"]}]] * 2
    waiting = api.start_pod(0, phase="Pending")
    run.await_told("pods")
    assert not api.requests("get", "pods/log"), "a pod that has not started has no log"
    api.end_pod(waiting)
    pods = run_workers(api)
    api.say(pods[0], "epoch 1", "epoch 2")
    api.say(pods[1], "I am not the chief")
    run.await_told("log", 2)
    api.say(pods[0], "published version 1")
    complete(api, pods)
    assert run.result() is None
    assert run.lines() == ["epoch 1", "epoch 2", "published version 1"]
    assert run.facts("pods")[-1] == {"succeeded": 2}
    assert [event for event, _ in run.told if event != "log"][-2:] == ["finished", "removed"]
    assert nothing_left(api)


def test_a_job_that_fails_says_which_worker_ended_first_and_is_removed(
    api: KubeApi, tmp_path: Path
):
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    api.end_pod(pods[1], code=137, reason="OOMKilled", message="epoch 3\nallocating")
    run.await_told("failed")
    api.end_pod(pods[0], code=1)
    api.end_job("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    error = run.result()
    assert isinstance(error, ClusterError)
    assert "BackoffLimitExceeded" in str(error)
    assert run.facts("failed")[0] == {
        "worker": 1,
        "exit_code": 137,
        "reason": "OOMKilled",
        "last_lines": ["epoch 3", "allocating"],
    }
    assert nothing_left(api)


def test_a_program_that_finds_nothing_to_do_makes_the_same_of_the_submission(
    api: KubeApi, tmp_path: Path
):
    """
    Also when the Job's end is seen first: the watch of the pods lags behind here.
    """
    api.answer("watch", "pods", *[gone()] * 50)
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    run.await_told("pods")
    api.end_pod(pods[0], code=3)
    api.end_pod(pods[1], code=143)  # SIGTERM: the cluster ends the rest of a failed Job
    api.end_job("Failed", "PodFailurePolicy", "exit code 3")
    assert isinstance(run.result(), NothingToDo)


REASON = "the AUC of the candidate is 0.71, that of version 3 is 0.84"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_candidate_that_the_gate_refused_is_a_result_and_no_failure(
    api: KubeApi, tmp_path: Path, workers: int
):
    run = Submission(api, tmp_path, workers=workers)
    pods = [api.start_pod(index) for index in range(workers)]
    run.await_told("pods")
    for pod in pods[1:]:
        api.end_pod(pod)
    api.end_pod(pods[0], code=1, message=f"version 3 goes on\nrefused: {REASON}\n")
    api.end_job("Failed", "PodFailurePolicy", "the program said so")
    error = run.result()
    assert isinstance(error, CandidateRefused)
    assert (error.code, str(error)) == ("refused", REASON)
    assert run.facts("finished") == [{"job": "run", "result": "failed", "outcome": "refused"}]
    assert nothing_left(api)


def test_wrong_settings_are_a_failure_and_no_lack_of_work(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    api.end_pod(pods[0], code=2)
    api.end_pod(pods[1], code=3)
    api.end_job("Failed", "PodFailurePolicy", "exit code 2")
    error = run.result()
    assert isinstance(error, ClusterError)
    assert "worker 0 ended with exit code 2 (Error)" in str(error)


def test_a_worker_that_starts_again_is_followed_again(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path)
    first = run_workers(api)
    api.say(first[0], "epoch 1")
    run.await_told("log")
    for pod in first:
        api.end_pod(pod, code=75)
    again = run_workers(api)
    api.say(again[0], "resumed at epoch 2")
    run.await_told("log", 2)
    complete(api, again)
    assert run.result() is None
    assert run.lines() == ["epoch 1", "resumed at epoch 2"]
    assert len(run.facts("failed")) == 2


def test_a_name_that_is_taken_is_an_error_that_touches_nothing(api: KubeApi, tmp_path: Path):
    first = Submission(api, tmp_path, keep=True)
    pods = run_workers(api)
    second = Submission(api, tmp_path).result()
    assert isinstance(second, ClusterError)
    assert "a Job run is in namespace dicomnode already; choose another --name" in str(second)
    assert len(api.objects("jobs")) == 1
    assert len(api.objects("services")) == 1
    complete(api, pods)
    assert first.result() is None
    assert len(api.objects("jobs")) == 1, "--keep leaves it"


def test_a_service_of_that_name_which_is_another_s_ends_the_run_and_stays(
    api: KubeApi, tmp_path: Path
):
    api.answer("create", "services", refusal(409, "services run already exists"))
    error = Submission(api, tmp_path).result()
    assert isinstance(error, ClusterError)
    assert "a Service run that is not of this Job" in str(error)
    assert nothing_left(api)


@pytest.mark.parametrize(
    ("verb", "resource", "said"),
    [
        ("create", "jobs", "may not create jobs.batch in namespace dicomnode"),
        ("create", "services", "may not create services in namespace dicomnode"),
        ("create", "configmaps", "may not create configmaps in namespace dicomnode"),
        ("list", "pods", "may not list pods in namespace dicomnode"),
        ("watch", "jobs", "may not watch jobs.batch in namespace dicomnode"),
    ],
)
def test_a_missing_right_is_named_with_the_file_that_has_it(
    api: KubeApi, tmp_path: Path, verb: str, resource: str, said: str
):
    api.answer(verb, resource, refusal(403, "forbidden"))
    error = Submission(api, tmp_path).result()
    assert isinstance(error, ClusterError)
    assert said in str(error)
    assert "deploy/base/trainer-rbac.yaml" in str(error)
    assert nothing_left(api)


def test_without_the_right_to_read_logs_the_job_is_followed_all_the_same(
    api: KubeApi, tmp_path: Path
):
    api.answer("get", "pods/log", refusal(403, "forbidden"))
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    run.await_told("log_lost")
    complete(api, pods)
    assert run.result() is None
    assert "may not get pods/log" in run.facts("log_lost")[0]["why"]


def test_an_expired_watch_is_begun_again_from_a_list(api: KubeApi, tmp_path: Path):
    api.answer("watch", "pods", gone(), gone())
    api.answer("watch", "jobs", gone(), refusal(410, "Gone"))
    run = Submission(api, tmp_path)
    api.await_request("watch", "jobs", 3)
    api.await_request("watch", "pods", 3)
    assert len(api.requests("list", "pods")) >= 3
    pods = run_workers(api)
    api.say(pods[0], "epoch 1")
    run.await_told("log")
    complete(api, pods)
    assert run.result() is None


def test_a_connection_that_breaks_costs_no_event_and_repeats_no_line(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    api.say(pods[0], "epoch 1", "epoch 2")
    run.await_told("log", 2)
    api.cut()
    api.say(pods[0], "epoch 3")
    run.await_told("log", 3)
    api.cut()
    complete(api, pods)
    assert run.result() is None
    assert run.lines() == ["epoch 1", "epoch 2", "epoch 3"]
    assert nothing_left(api)


def test_a_server_that_stays_away_ends_the_waiting(
    api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", 0.0)
    run = Submission(api, tmp_path, keep=True)
    api.await_request("watch", "pods")
    api.answer("list", "pods", *[refusal(503, "etcd leader changed")] * 50)
    api.answer("watch", "pods", *[refusal(503, "etcd leader changed")] * 50)
    api.cut()
    error = run.result()
    assert isinstance(error, ClusterError)
    assert api.url in str(error)


def test_what_is_not_a_watch_ends_the_waiting(api: KubeApi, tmp_path: Path):
    api.answer("watch", "jobs", ({"kind": "JobList", "items": []},))
    error = Submission(api, tmp_path).result()
    assert isinstance(error, ClusterError)
    assert "does not answer a watch of jobs.batch with events" in str(error)
    assert nothing_left(api)


def test_an_answer_that_is_lost_does_not_make_our_own_job_a_clash(api: KubeApi, tmp_path: Path):
    api.lose_answer()
    run = Submission(api, tmp_path)
    api.await_request("create", "services")
    assert len(api.requests("create", "jobs")) == 2
    assert len(api.objects("jobs")) == 1
    complete(api, run_workers(api))
    assert run.result() is None
    assert nothing_left(api)


def test_a_busy_server_is_asked_again(api: KubeApi, tmp_path: Path):
    api.answer("create", "configmaps", refusal(429, "too many requests"))
    api.answer("delete", "jobs", refusal(503, "unavailable"))
    run = Submission(api, tmp_path)
    complete(api, run_workers(api))
    assert run.result() is None
    assert nothing_left(api)


def test_a_server_that_forbids_the_clean_up_does_not_hide_the_result(api: KubeApi, tmp_path: Path):
    api.answer("delete", "jobs", refusal(403, "forbidden"))
    run = Submission(api, tmp_path)
    complete(api, run_workers(api))
    assert run.result() is None
    (left,) = run.facts("left")
    assert "may not delete jobs.batch" in left["why"]
    assert left["remove"] == "kubectl --namespace dicomnode delete job run"


def test_a_namespace_that_is_not_there_is_named(api: KubeApi, tmp_path: Path):
    api.answer("create", "jobs", refusal(404, 'namespaces "dicomnode" not found'))
    assert "kubectl create namespace dicomnode" in str(Submission(api, tmp_path).result())


def test_a_quota_says_so_in_the_server_s_words(api: KubeApi, tmp_path: Path):
    api.answer("create", "jobs", refusal(403, "exceeded quota: training, used: count/jobs=3"))
    assert "exceeded quota: training" in str(Submission(api, tmp_path).result())


def test_workers_that_do_not_start_end_the_waiting_with_the_cluster_s_reason(
    api: KubeApi, tmp_path: Path
):
    run = Submission(api, tmp_path, start_seconds=2)
    api.start_pod(0)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available: insufficient memory",
    }
    api.start_pod(1, phase="Pending", conditions=[condition], containerStatuses=[])
    run.await_told("waiting")
    error = run.result()
    assert "worker 1 of Job run has not started within 2 s" in str(error)
    assert "insufficient memory" in str(error)
    assert nothing_left(api)


def test_a_job_that_takes_too_long_is_removed(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path, timeout_seconds=1.0)
    run_workers(api)
    assert "has not ended within 1 s" in str(run.result())
    assert nothing_left(api)


def test_a_job_that_somebody_removes_ends_the_waiting(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path)
    run_workers(api)
    run.await_told("pods")
    api.remove_job()
    assert "somebody removed Job run" in str(run.result())


class Command:
    """The real command as a subprocess."""

    def __init__(
        self, api: KubeApi, folder: Path, *options: str, through: tuple[str, ...] = ()
    ) -> None:
        config = folder / "submit.toml"
        run = example(kubeconfig=str(api.kubeconfig(folder)), workers=1)
        tables = {"cluster": run.cluster.model_dump(exclude_defaults=True), **run.run.tables}
        tables["cluster"]["claims"] = [dict(claim) for claim in tables["cluster"]["claims"]]
        config.write_text(toml.dumps(tables))
        self.process = subprocess.Popen(
            [
                *through,
                *(sys.executable, "-m", "trainer", "submit", "--config", str(config), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=40)
        return self.process.returncode, out, err


def test_the_command_ends_with_0_and_tells_json_lines(api: KubeApi, tmp_path: Path):
    command = Command(api, tmp_path, "--name", "run", "--json")
    pod = api.start_pod(0)
    api.say(pod, "epoch 1")
    api.await_request("get", "pods/log")
    complete(api, [pod])
    code, out, err = command.ended()
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert {"event": "log", "line": "epoch 1"} in told
    assert told[0] == {"event": "created", "job": "run", "namespace": NAMESPACE}
    assert told[-1] == {"event": "removed", "job": "run"}


@pytest.mark.parametrize(
    ("said", "outcome"), [(f"refused: {REASON}", "refused"), ("data: no film is left", "failed")]
)
def test_a_refusal_reaches_prometheus_as_one_and_a_failure_as_a_failure(
    api: KubeApi, tmp_path: Path, said: str, outcome: str
):
    """
    As the CronJob runs it: the command within the program that writes for node_exporter.
    """
    script, told = ROOT / "deploy" / "monitoring" / "retrain_textfile.py", tmp_path / "retrain.prom"
    through = (sys.executable, str(script), str(told), "--")
    command = Command(api, tmp_path, "--json", through=through)
    pod = api.start_pod(0)
    api.say(pod, said)
    api.end_pod(pod, code=1, message=said)
    api.end_job("Failed", "PodFailurePolicy", "Container trainer failed with exit code 1")
    code, _, err = command.ended()
    assert code == 1
    assert (err == f"{said}\n") is (outcome == "refused")
    (line,) = [each for each in told.read_text().splitlines() if each.endswith("} 1")]
    assert line == f'dicomnode_retrain_last_outcome{{outcome="{outcome}"}} 1'
    assert ("last_success" in told.read_text()) is (outcome == "refused")


def test_the_command_ends_with_1_when_the_job_failed(api: KubeApi, tmp_path: Path):
    command = Command(api, tmp_path)
    pod = api.start_pod(0)
    api.say(pod, "epoch 1")
    api.end_pod(pod, code=1)
    api.end_job("Failed", "PodFailurePolicy", "Container trainer failed with exit code 1")
    code, out, err = command.ended()
    assert code == 1
    assert "epoch 1" in out.splitlines()
    assert err.startswith("cluster: Job trainer-fit-")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_cleans_up(api: KubeApi, tmp_path: Path, number: int):
    command = Command(api, tmp_path, "--name", "run")
    api.await_request("watch", "jobs")
    command.process.send_signal(number)
    code, _, err = command.ended()
    assert code == 1
    assert err == "cluster: interrupted while waiting for Job run\n"
    assert nothing_left(api)


def test_an_interrupted_command_leaves_what_it_should_keep(api: KubeApi, tmp_path: Path):
    command = Command(api, tmp_path, "--name", "run", "--keep")
    api.await_request("watch", "jobs")
    command.process.send_signal(signal.SIGINT)
    code, out, _ = command.ended()
    assert code == 1
    assert "kubectl --namespace dicomnode delete job run" in out
    assert [job["metadata"]["name"] for job in api.objects("jobs")] == ["run"]


def test_the_rbac_file_gives_what_a_submission_uses_and_no_more(api: KubeApi, tmp_path: Path):
    run = Submission(api, tmp_path)
    pods = run_workers(api)
    api.say(pods[0], "epoch 1")
    run.await_told("log")
    complete(api, pods)
    assert run.result() is None
    used = {
        (request.resource.group, *reversed(what(request)))
        for request in list(api.kmock)
        if request.headers.get("User-Agent", "").startswith("OpenAPI-Generator")
    }
    documents = list(yaml.safe_load_all((ROOT / "deploy/base/trainer-rbac.yaml").read_text()))
    (role,) = (each for each in documents if each["kind"] == "Role")
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used == given

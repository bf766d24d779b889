"""Who trains together, as the environment says it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainer.cluster import Cluster, ClusterSpec
from trainer.errors import PeerLost, UsageError

JOB = {
    "JOB_COMPLETION_INDEX": "10",
    "DICOMNODE_JOB_NAME": "covid19-fit",
    "DICOMNODE_SERVICE": "covid19-fit",
    "DICOMNODE_WORKERS": "12",
}


def tf_config(index: int = 0, kind: str = "worker", **jobs: list[str]) -> dict[str, str]:
    jobs = jobs or {"worker": ["a:1", "b:2"]}
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_local_is_one_worker_and_the_chief():
    spec = ClusterSpec.from_environment("local", {"TF_CONFIG": "not read"})
    assert (spec.workers, spec.index, spec.is_chief) == (1, 0, True)


def test_direct_takes_hosts_and_place_from_tf_config():
    spec = ClusterSpec.from_environment("direct", tf_config(1))
    assert spec == ClusterSpec(hosts=("a:1", "b:2"), index=1)
    assert not spec.is_chief


@pytest.mark.parametrize(("kind", "index", "place"), [("chief", 0, 0), ("worker", 1, 2)])
def test_a_chief_of_its_own_comes_before_the_workers(kind, index, place):
    environ = tf_config(index, kind, chief=["c:1"], worker=["a:1", "b:2"])
    spec = ClusterSpec.from_environment("direct", environ)
    assert spec == ClusterSpec(hosts=("c:1", "a:1", "b:2"), index=place)


def test_the_pods_of_an_indexed_job_are_in_the_order_of_their_index_and_not_of_their_names():
    spec = ClusterSpec.from_environment("kubernetes", JOB)
    assert spec.index == 10
    assert spec.hosts[2] == "covid19-fit-2.covid19-fit:8470"
    assert spec.hosts[10] == "covid19-fit-10.covid19-fit:8470"


def test_with_a_namespace_the_host_names_are_full_ones():
    spec = ClusterSpec.from_environment("kubernetes", JOB | {"DICOMNODE_NAMESPACE": "imaging"})
    assert spec.hosts[0] == "covid19-fit-0.covid19-fit.imaging.svc.cluster.local:8470"


@pytest.mark.parametrize(
    ("strategy", "environ", "message"),
    [
        ("direct", {}, "needs the variable TF_CONFIG"),
        ("direct", {"TF_CONFIG": "{"}, "TF_CONFIG cannot be read"),
        ("direct", {"TF_CONFIG": "[]"}, "TF_CONFIG cannot be read"),
        ("direct", tf_config(2), "names 2 workers; there is no worker 2"),
        ("direct", tf_config(worker=["a", "b:2"]), "names the worker 'a'; expected host:port"),
        ("direct", tf_config(worker=["a:1", "a:1"]), "names a worker twice"),
        ("direct", tf_config(ps=["p:1"], worker=["a:1"]), "names the job ps"),
        ("direct", tf_config(kind="evaluator"), "names the job evaluator"),
        ("kubernetes", {}, "JOB_COMPLETION_INDEX, DICOMNODE_JOB_NAME"),
        ("kubernetes", JOB | {"JOB_COMPLETION_INDEX": "12"}, "there is no worker 12"),
        ("kubernetes", JOB | {"DICOMNODE_WORKERS": "two"}, "must be whole numbers"),
        ("horovod", {}, "--strategy must be one of local, direct, kubernetes, got 'horovod'"),
    ],
)
def test_an_environment_that_names_no_cluster_is_refused(strategy, environ, message):
    with pytest.raises(UsageError, match=message):
        ClusterSpec.from_environment(strategy, environ)


def test_a_peer_that_does_not_listen_is_lost():
    hosts = ("127.0.0.1:9", "127.0.0.1:1")
    cluster = Cluster(spec=ClusterSpec(hosts=hosts, index=0), strategy=None, patience=1.0)
    with pytest.raises(PeerLost, match=r"worker 1 \(127\.0\.0\.1:1\) no longer answers"):
        cluster.check()


def test_one_worker_asks_nobody():
    cluster = Cluster(spec=ClusterSpec(), strategy=None, patience=1.0)
    rows = np.arange(6.0).reshape(3, 2)
    cluster.check()
    cluster.same(b"x" * 32, "weights")
    assert np.array_equal(cluster.gather(rows, 0, 3), rows)

"""What `trainer submit` renders: objects that Kubernetes takes, and what they promise."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

import kubernetes_validate.utils
import pytest
import yaml

from tests.conftest import ROOT
from trainer.errors import PeerLost, UsageError
from trainer.submit import Manifests, generated_name, render
from trainer.submit.settings import Run, SubmitSettings, parse

VERSIONS = list(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-5:]  # each comes twice
EXAMPLE = ROOT / "config" / "submit.example.toml"


def settings(**cluster: Any) -> SubmitSettings:
    tables = {
        "cluster": {
            "image": "registry:5000/trainer:1",
            "workers": 2,
            "claims": [
                {"claim": "films", "mount": "/data", "read_only": True},
                {"claim": "shared", "mount": "/models", "sub_path": "models"},
                {"claim": "shared", "mount": "/work", "sub_path": "work"},
            ],
            **cluster,
        },
        "fit": {"data": "/data", "out": "/models/covid19", "work": "/work"},
    }
    return parse(tables, "test.toml")


def objects(rendered: Manifests) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered.to_yaml()))


def pod_of(rendered: Manifests) -> dict[str, Any]:
    spec: dict[str, Any] = rendered.job["spec"]["template"]["spec"]
    return spec


def container_of(rendered: Manifests) -> dict[str, Any]:
    (container,) = pod_of(rendered)["containers"]
    return dict(container)


VARIANTS = {
    "example": lambda: parse(tomllib.loads(EXAMPLE.read_text()), EXAMPLE.name),
    "one worker": lambda: settings(workers=1),
    "everything": lambda: settings(
        workers=3,
        gpus=1,
        runtime_class="nvidia",
        architecture="arm64",
        node_selector={"board": "nano"},
        spread="required",
        secret="database",
        service_account="trainer",
    ),
    "retraining": lambda: parse(
        {
            "cluster": {"image": "i", "claims": [{"claim": "all", "mount": "/all"}]},
            "data": {"node": "/all/node.toml"},
            "fit": {"out": "/all/models/covid19"},
            "retrain": {"runs": "/all/runs"},
        },
        "test.toml",
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid_for_the_last_five_versions_of_kubernetes(variant: str, version: str):
    for made in objects(render(VARIANTS[variant](), "run", submission="a1")):
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rbac_file_is_valid_for_the_last_five_versions_of_kubernetes(version: str):
    text = (ROOT / "deploy" / "base" / "trainer-rbac.yaml").read_text()
    for made in yaml.safe_load_all(text):
        kubernetes_validate.validate(made, version, strict=True)


def test_five_versions_are_asked():
    assert len({version.rpartition(".")[0] for version in VERSIONS}) == 5


def test_the_validator_sees_a_mistake():
    job = copy.deepcopy(render(settings(), "run").job)
    job["spec"]["completionMod"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_the_yaml_says_what_the_objects_say_and_each_in_full():
    rendered = render(settings(), "run")
    assert objects(rendered) == [rendered.service, rendered.config_map, rendered.job]
    assert "&id" not in rendered.to_yaml()


def test_the_same_settings_and_name_render_the_same_text():
    assert render(settings(), "run").to_yaml() == render(settings(), "run").to_yaml()


def test_workers_with_a_gpu_are_in_the_group_to_which_a_jetson_gives_it():
    assert pod_of(render(settings(), "run"))["securityContext"].get("supplementalGroups") is None
    pod = pod_of(render(settings(runtime_class="nvidia"), "run"))
    assert pod["securityContext"]["supplementalGroups"] == [44]
    assert pod["securityContext"]["runAsUser"] == 10001


def test_a_pod_per_worker_gets_the_names_under_which_the_others_look_for_it():
    rendered = render(settings(workers=3), "run")
    spec = rendered.job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert pod_of(rendered)["subdomain"] == rendered.service["metadata"]["name"] == "run"
    assert rendered.service["spec"]["clusterIP"] == "None"
    assert rendered.service["spec"]["publishNotReadyAddresses"] is True
    selector = rendered.service["spec"]["selector"]
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert container_of(rendered)["ports"] == [{"name": "collective", "containerPort": 8470}]
    environment = {each["name"]: each.get("value") for each in container_of(rendered)["env"]}
    assert environment["DICOMNODE_JOB_NAME"] == "run"
    assert environment["DICOMNODE_SERVICE"] == "run"
    assert environment["DICOMNODE_WORKERS"] == "3"
    assert environment["DICOMNODE_NAMESPACE"] is None, "Kubernetes fills it in"
    assert "JOB_COMPLETION_INDEX" not in environment, "Kubernetes sets it"


def test_the_names_are_those_that_the_trainer_makes_of_the_environment():
    from trainer.cluster import ClusterSpec

    (container,) = pod_of(render(settings(workers=3), "run"))["containers"]
    environment = {each["name"]: each.get("value", "dicomnode") for each in container["env"]}
    spec = ClusterSpec.from_environment("kubernetes", {**environment, "JOB_COMPLETION_INDEX": "1"})
    host = "run-{}.run.dicomnode.svc.cluster.local:8470"
    assert spec.hosts == tuple(host.format(index) for index in range(3))
    assert spec.index == 1


@pytest.mark.parametrize(
    ("workers", "restarts", "expected"),
    [
        (1, 3, 3),  # a crash is one failure
        (2, 3, 6),  # a crash of one ends both: two failures a time
        (4, 0, 0),  # the first failure is the last
    ],
)
def test_a_crash_of_one_worker_counts_for_all_of_them(workers: int, restarts: int, expected: int):
    spec = render(settings(workers=workers, restarts=restarts), "run").job["spec"]
    assert spec["backoffLimit"] == expected
    assert "backoffLimitPerIndex" not in spec


@pytest.mark.parametrize("workers", [1, 2])
def test_only_what_may_end_otherwise_is_tried_again(workers: int):
    """A worker that lost its peer ends with another code."""
    spec = render(settings(workers=workers), "run").job["spec"]
    assert pod_of(render(settings(), "run"))["restartPolicy"] == "Never"
    first, second = spec["podFailurePolicy"]["rules"]
    assert first["action"] == "FailJob"
    assert first["onExitCodes"]["values"] == [1, 2, 3]
    assert PeerLost.exit_code not in first["onExitCodes"]["values"]
    assert second["action"] == "Ignore"
    assert second["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["podReplacementPolicy"] == "Failed"


def test_the_pods_satisfy_the_restricted_profile():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    rendered = render(settings(), "run")
    pod, container = pod_of(rendered), container_of(rendered)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim"}
    assert {key for volume in pod["volumes"] for key in volume} - {"name"} <= allowed
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False


def test_nothing_is_left_in_the_cluster_by_a_submitter_that_died():
    spec = render(settings(deadline_seconds=600, keep_seconds=60), "run").job["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (600, 60)


@pytest.mark.parametrize(
    ("spread", "workers", "kind"),
    [
        ("required", 2, {"requiredDuringSchedulingIgnoredDuringExecution"}),
        ("preferred", 2, {"preferredDuringSchedulingIgnoredDuringExecution"}),
        ("none", 2, set()),
        ("required", 1, set()),
    ],
)
def test_workers_are_spread_over_machines_as_asked(spread: str, workers: int, kind: set[str]):
    pod = pod_of(render(settings(spread=spread, workers=workers), "run"))
    assert set(pod.get("affinity", {}).get("podAntiAffinity", {})) == kind


def test_a_claim_that_is_mounted_twice_is_one_volume():
    pod = pod_of(render(settings(), "run"))
    claims = [volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    mounts = {
        mount["mountPath"]: (mount["name"], mount.get("subPath"), mount.get("readOnly", False))
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] in claims
    }
    assert claims == ["claim-0", "claim-1"]
    assert mounts == {
        "/data": ("claim-0", None, True),
        "/models": ("claim-1", "models", False),
        "/work": ("claim-1", "work", False),
    }


def test_the_workers_read_the_tables_that_were_given(tmp_path):
    rendered = render(settings(), "run")
    ((name, text),) = rendered.config_map["data"].items()
    assert tomllib.loads(text)["fit"] == {
        "data": "/data",
        "out": "/models/covid19",
        "work": "/work",
        "strategy": "kubernetes",
    }
    assert container_of(rendered)["command"] == [
        "trainer",
        "fit",
        "--config",
        f"/etc/trainer/{name}",
    ]


def test_one_worker_trains_alone():
    (text,) = render(settings(workers=1), "run").config_map["data"].values()
    assert tomllib.loads(text)["fit"]["strategy"] == "local"


def test_a_retraining_gets_all_its_tables():
    rendered = render(VARIANTS["retraining"](), "run")
    ((name, text),) = rendered.config_map["data"].items()
    assert container_of(rendered)["command"][:2] == ["trainer", "retrain"]
    assert name == "retrain.toml"
    assert tomllib.loads(text).keys() == {"data", "fit", "retrain"}


def test_a_secret_becomes_variables_of_the_workers():
    assert container_of(render(settings(secret="database"), "run"))["envFrom"] == [
        {"secretRef": {"name": "database"}}
    ]
    assert "envFrom" not in container_of(render(settings(), "run"))


@pytest.mark.parametrize(
    "name", ["", "Run", "1run", "run_1", "run.1", "-run", "run-", "r" * 62, "../run", "run\n"]
)
def test_a_name_that_kubernetes_would_refuse_is_refused_here(name: str):
    with pytest.raises(UsageError, match="--name must start with a letter"):
        render(settings(), name)


def test_the_longest_name_leaves_room_for_the_workers_host_names():
    render(settings(workers=2), "r" * 61)
    with pytest.raises(UsageError):
        render(settings(workers=11), "r" * 61)
    render(settings(workers=11), "r" * 60)


@pytest.mark.parametrize("command", ["fit", "retrain"])
def test_generated_names_are_valid_and_do_not_repeat(command: Any):
    names = {generated_name(Run(command=command, tables={})) for _ in range(50)}
    assert len(names) == 50
    for name in names:
        assert render(settings(), name).name.startswith(f"trainer-{command}-")


def _every_string(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _every_string(each)
    elif isinstance(value, list):
        for each in value:
            yield from _every_string(each)
    elif isinstance(value, str):
        yield value


def test_kubernetes_finds_nothing_to_expand_in_what_we_render():
    """`$(NAME)` in commands and variables would be replaced."""
    assert not [
        text for text in _every_string(container_of(render(settings(), "run"))) if "$(" in text
    ]

"""The objects of a run, as the API server takes them. Pure.

One headless Service, one ConfigMap, one Indexed Job, all of one name. Why they look as they do:

* **Host names.** An Indexed Job gives pod *i* the host name `{job}-{i}`; `subdomain` and a
  headless Service of that name make it resolvable. `publishNotReadyAddresses`: workers look
  for each other before any of them could be ready.
* **All or none.** Synchronous training cannot go on without one worker, and Kubernetes has no
  "restart all pods of a Job" (kubernetes#125677). So the program does it: a worker that lost
  a peer ends with 1, the Job puts a new pod in the place of each, and they find each other
  again under the same names and go on from the checkpoint. A crash of one therefore counts
  as `workers` failures: `backoffLimit` is restarts times workers. `backoffLimitPerIndex`
  would let the others wait for an index that was given up, so it is not used.
* **What does not help to repeat** (exit codes 2, wrong settings, and 3, nothing to do; of one
  worker alone also 1, failed) fails the Job at once; what is not the program's fault (a drained
  or full machine) is not counted.
* **No two pods with one name.** `podReplacementPolicy: Failed` starts the replacement only
  when the old pod has ended.
* **An ended submitter leaves no litter:** deadline, then time to live; Service and ConfigMap
  belong to the Job.

References: https://kubernetes.io/docs/concepts/workloads/controllers/job/ and
https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any, Final

from trainer.errors import UsageError
from trainer.submit import toml
from trainer.submit.pods import CONTAINER, PORT, Object, file_name, labels, pod_spec, selector
from trainer.submit.settings import ClusterSettings, Run, SubmitSettings

SUBMISSION: Final = "trainer.dicomnode/submission"
"""The annotation that tells our own Job from another of the same name."""
FINAL_EXIT_CODES: Final = (1, 2, 3)
"""Failed, wrong usage, nothing to do: trying again would end the same way. What may go better the
next time has another: `PeerLost`, or the signal that ended the process."""

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: makes no words
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Manifests:
    """The objects of a run, in the order in which `kubectl apply` should see them."""

    service: Object
    config_map: Object
    job: Object

    @property
    def name(self) -> str:
        """Of all three."""
        return str(self.job["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Of all three."""
        return str(self.job["metadata"]["namespace"])

    @property
    def remove_command(self) -> str:
        """How a person removes the Job, and with it the others."""
        return f"kubectl --namespace {self.namespace} delete job {self.name}"

    def to_yaml(self) -> str:
        """Three YAML documents; raises `UsageError` without PyYAML."""
        try:
            import yaml  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                "PyYAML is not installed; pip install 'dicomnode[cluster]' brings it"
            ) from error
        objects = (self.service, self.config_map, self.job)
        return str(yaml.dump_all(objects, Dumper=_dumper(yaml), sort_keys=False, width=100))


def _dumper(yaml: Any) -> Any:
    class Dumper(yaml.SafeDumper):
        """Nothing by reference, and text of several lines as a block, as people write it."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def generated_name(run: Run) -> str:
    """A name that no other run has."""
    return f"trainer-{run.command}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"


def render(settings: SubmitSettings, name: str, *, submission: str = "") -> Manifests:
    """The objects of a run; raises `UsageError` for a name that Kubernetes would refuse.

    `submission` marks them as those of one call of `trainer submit`.
    """
    cluster, run = settings.cluster, settings.run
    _check_name(name, cluster.workers)
    metadata: Object = {"name": name, "namespace": cluster.namespace, "labels": labels(name)}
    if submission:
        metadata["annotations"] = {SUBMISSION: submission}
    return Manifests(
        service={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": selector(name),
                "ports": [{"name": "collective", "port": PORT, "targetPort": PORT}],
            },
        },
        config_map={
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": True,
            "data": {file_name(run): toml.dumps(run.tables)},
        },
        job={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": _job_spec(cluster, run, name),
        },
    )


def _check_name(name: str, workers: int) -> None:
    longest = 63 - len(f"-{workers - 1}")  # the pods' host names have to be labels too
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise UsageError(
            f"--name must start with a letter, be of a-z, 0-9 and -, and have at most {longest} "
            f"characters, got {name!r}"
        )


def _job_spec(cluster: ClusterSettings, run: Run, name: str) -> Object:
    return {
        "completionMode": "Indexed",
        "completions": cluster.workers,
        "parallelism": cluster.workers,
        "backoffLimit": cluster.restarts * cluster.workers,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": list(FINAL_EXIT_CODES),
                    },
                },
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        "activeDeadlineSeconds": cluster.deadline_seconds,
        "ttlSecondsAfterFinished": cluster.keep_seconds,
        "template": {
            "metadata": {"labels": labels(name)},
            "spec": pod_spec(cluster, run, name),
        },
    }

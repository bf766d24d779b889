"""The conversation with the cluster: create, follow, clean up, and the Job's result."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from trainer.submit.api import Api, connect
from trainer.submit.errors import ClusterError, Gone, NameTaken, Refused, Unreachable
from trainer.submit.following import Following, Options, Tell
from trainer.submit.manifests import SUBMISSION, Manifests, render
from trainer.submit.pods import Object
from trainer.submit.settings import SubmitSettings

_TRIES: Final = 4


def submit(settings: SubmitSettings, name: str, options: Options, tell: Tell) -> None:
    """Run the Job and return when it has succeeded.

    Tells `created`, `pods` (when their phases change), `waiting` (why one does not start),
    `failed` (a worker that ended badly), `log` (the chief's lines) and `finished`. Whatever
    happens, an interrupt included, the objects are removed unless `options.keep`. Raises
    `ClusterError` when the Job failed or the cluster refused or was lost, `CandidateRefused` and
    `NothingToDo` when the program said so.
    """
    manifests = render(settings, name, submission=secrets.token_hex(8))
    with contextlib.closing(connect(settings.cluster)) as api:
        may_exist = True
        try:
            try:
                job = _create_job(api, manifests)
            except (Refused, NameTaken, Gone):
                may_exist = False
                raise
            _create_dependents(api, manifests, job)
            tell("created", {"job": manifests.name, "namespace": manifests.namespace})
            Following(api, manifests.name, settings.cluster, options, tell).run()
        except KeyboardInterrupt as interrupt:
            raise ClusterError(f"interrupted while waiting for Job {manifests.name}") from interrupt
        finally:
            if may_exist and options.keep:
                tell("kept", {"job": manifests.name, "remove": manifests.remove_command})
            elif may_exist:
                _clean_up(api, manifests, tell)


def _create_job(api: Api, manifests: Manifests) -> Object:
    """The Job as the server keeps it. It comes first: the others belong to it."""
    try:
        return _persistent(lambda: api.create_job(manifests.job))
    except NameTaken as error:
        ours = _ours(api, manifests)  # a try whose answer was lost may have succeeded
        if ours is not None:
            return ours
        raise NameTaken(
            f"a Job {manifests.name} is in namespace {manifests.namespace} already; choose "
            f"another --name, or remove it: {manifests.remove_command}"
        ) from error
    except Gone as error:
        raise Refused(
            f"namespace {manifests.namespace} is not there; create it: "
            f"kubectl create namespace {manifests.namespace}"
        ) from error


def _create_dependents(api: Api, manifests: Manifests, job: Object) -> None:
    """Service and ConfigMap, which go when the Job goes. The pods wait for the ConfigMap."""
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": manifests.name,
        "uid": job["metadata"]["uid"],
    }
    for create, made in (
        (api.create_config_map, manifests.config_map),
        (api.create_service, manifests.service),
    ):
        owned = {**made, "metadata": {**made["metadata"], "ownerReferences": [owner]}}
        try:
            _create_once(create, owned)
        except NameTaken as error:
            raise NameTaken(
                f"a {made['kind']} {manifests.name} that is not of this Job is in namespace "
                f"{manifests.namespace} already; choose another --name"
            ) from error


def _create_once(create: Callable[[Object], Object], made: Object) -> None:
    try:
        create(made)
    except Unreachable:
        # the answer may have been lost rather than the request: then it is there now
        with contextlib.suppress(NameTaken):
            _persistent(lambda: create(made))


def _ours(api: Api, manifests: Manifests) -> Object | None:
    """The Job in the cluster, if this very submission made it."""
    try:
        job = _persistent(lambda: api.read_job(manifests.name))
    except Gone:
        return None
    marks = job["metadata"].get("annotations") or {}
    mine = manifests.job["metadata"]["annotations"][SUBMISSION]
    return job if marks.get(SUBMISSION) == mine else None


def _clean_up(api: Api, manifests: Manifests, tell: Tell) -> None:
    """Remove the Job; who cannot, says what is left rather than hiding why it ended."""
    try:
        if _ours(api, manifests) is None:
            return
        _persistent(lambda: api.delete_job(manifests.name))
    except Gone:
        return
    except ClusterError as error:
        tell("left", {"why": str(error), "remove": manifests.remove_command})
    else:
        tell("removed", {"job": manifests.name})


def _persistent(attempt: Callable[[], Object]) -> Object:
    """The answer, at the last of a few tries at the latest."""
    for tried in range(_TRIES):
        try:
            return attempt()
        except Unreachable:
            if tried == _TRIES - 1:
                raise
            time.sleep(0.5 * 2**tried)
    raise AssertionError("unreachable")

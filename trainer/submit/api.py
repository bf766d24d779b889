"""The API server, as far as a submission needs it. JSON objects in and out.

Errors of the client and of its transport end here: each method raises `Refused` (naming the
verb and the resource, and what to do), `NameTaken`, `Gone` or `Unreachable`, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from trainer.errors import UsageError
from trainer.submit.errors import ClusterError, Gone, NameTaken, Refused, Unreachable
from trainer.submit.pods import CONTAINER
from trainer.submit.settings import ClusterSettings

RBAC_FILE: Final = "deploy/base/trainer-rbac.yaml"
WATCH_SECONDS: Final = 60
"""A watch is renewed this often, so that a connection that died in silence is noticed."""
_TIMEOUT: Final = (10.0, 30.0)  # connect, read
_LATER: Final = frozenset({0, 408, 429, 500, 502, 503, 504})

Object = dict[str, Any]


def connect(cluster: ClusterSettings) -> Api:
    """A connection as the settings say; raises `UsageError` when there is no way in."""
    try:
        from kubernetes import client, config  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "the Kubernetes client is not installed; pip install 'dicomnode[cluster]' brings it"
        ) from error
    configuration = client.Configuration()
    try:
        if cluster.in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        elif cluster.kubeconfig or cluster.context or not _inside(config, configuration):
            config.load_kube_config(
                config_file=cluster.kubeconfig or None,
                context=cluster.context or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except (config.ConfigException, OSError) as error:
        raise UsageError(
            f"no way into the cluster: {error}; set KUBECONFIG or cluster.kubeconfig, "
            "or look at the objects with --render"
        ) from error
    configuration.retries = False  # who calls decides about trying again
    return Api(client.ApiClient(configuration), cluster.namespace)


def _inside(config: Any, configuration: Any) -> bool:
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        return False  # not in a pod
    return True


class Api:
    """Objects of one namespace."""

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes.client import BatchV1Api, CoreV1Api  # noqa: PLC0415

        self._client = client
        self._core, self._batch = CoreV1Api(client), BatchV1Api(client)
        self.namespace = namespace
        self._streams: set[Any] = set()
        self._streams_ended = False

    @property
    def host(self) -> str:
        """The API server's address."""
        return str(self._client.configuration.host)

    def end_streams(self) -> None:
        """End every stream, in whichever thread it is read; new ones end at once."""
        self._streams_ended = True
        for stream in tuple(self._streams):
            with suppress(OSError, RuntimeError, ValueError):  # it ended by itself just now
                stream.shutdown()

    def close(self) -> None:
        """End every stream and give the connections back."""
        self.end_streams()
        self._client.close()

    def create_job(self, job: Object) -> Object:
        """The Job as the server keeps it."""
        return self._json("create", "jobs.batch", self._batch.create_namespaced_job, body=job)

    def create_service(self, service: Object) -> Object:
        """The Service as the server keeps it."""
        return self._json("create", "services", self._core.create_namespaced_service, body=service)

    def create_config_map(self, config_map: Object) -> Object:
        """The ConfigMap as the server keeps it."""
        create = self._core.create_namespaced_config_map
        return self._json("create", "configmaps", create, body=config_map)

    def read_job(self, name: str) -> Object:
        """The Job; `Gone` when it is not there."""
        return self._json("get", "jobs.batch", self._batch.read_namespaced_job, name=name)

    def delete_job(self, name: str) -> Object:
        """Remove the Job, and with it what belongs to it; `Gone` when it is not there."""
        return self._json(
            "delete",
            "jobs.batch",
            self._batch.delete_namespaced_job,
            name=name,
            propagation_policy="Background",
        )

    def list_jobs(self, name: str) -> Object:
        """A list with the one Job of that name, or with none."""
        return self._json(
            "list", "jobs.batch", self._batch.list_namespaced_job, field_selector=_named(name)
        )

    def list_pods(self, selector: str) -> Object:
        """The pods with these labels."""
        return self._json("list", "pods", self._core.list_namespaced_pod, label_selector=selector)

    def watch_jobs(self, name: str, resource_version: str) -> Iterator[Object]:
        """Events of the Job, for at most `WATCH_SECONDS`; `Gone` when the version is too old."""
        call = self._batch.list_namespaced_job
        return self._events("jobs.batch", call, resource_version, field_selector=_named(name))

    def watch_pods(self, selector: str, resource_version: str) -> Iterator[Object]:
        """Events of the pods, for at most `WATCH_SECONDS`; `Gone` when the version is too old."""
        call = self._core.list_namespaced_pod
        return self._events("pods", call, resource_version, label_selector=selector)

    def follow_log(self, pod: str, *, since_seconds: int | None, seconds: float) -> Iterator[str]:
        """Lines `TIME TEXT` until the container ends; `Unreachable` after silence of `seconds`."""
        with self._translated("get", "pods/log"):
            answer = self._core.read_namespaced_pod_log(
                name=pod,
                namespace=self.namespace,
                container=CONTAINER,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(_TIMEOUT[0], seconds),
                **({} if since_seconds is None else {"since_seconds": since_seconds}),
            )
            yield from self._lines(answer)

    def _events(
        self, resource: str, call: Callable[..., Any], resource_version: str, **which: str
    ) -> Iterator[Object]:
        with self._translated("watch", resource):
            answer = call(
                namespace=self.namespace,
                watch=True,
                resource_version=resource_version,
                timeout_seconds=WATCH_SECONDS,
                _preload_content=False,
                _request_timeout=(_TIMEOUT[0], WATCH_SECONDS + 15.0),
                **which,
            )
            for line in self._lines(answer):
                event = _decoded(line)
                status = event.get("object")
                if not isinstance(status, dict) or "type" not in event:
                    raise Refused(
                        f"{self.host} does not answer a watch of {resource} with events; "
                        "expected an API server of Kubernetes, is a proxy in between?"
                    )
                if event["type"] == "ERROR":
                    code, message = int(status.get("code", 0)), str(status.get("message", ""))
                    raise self._error("watch", resource, code, message)
                yield event

    def _json(self, verb: str, resource: str, call: Callable[..., Any], **which: Any) -> Object:
        with self._translated(verb, resource):
            answer = call(
                namespace=self.namespace, _preload_content=False, _request_timeout=_TIMEOUT, **which
            )
            return _decoded(answer.data)

    def _lines(self, answer: Any) -> Iterator[str]:
        """The lines of a streamed answer; its connection is closed, as it may never end."""
        rest = b""
        self._streams.add(answer)
        try:
            for part in (
                () if self._streams_ended else answer.stream(amt=None, decode_content=False)
            ):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield line.decode("utf-8", errors="replace")
            if rest.strip():
                yield rest.decode("utf-8", errors="replace")
        finally:
            self._streams.discard(answer)
            answer.close()

    @contextmanager
    def _translated(self, verb: str, resource: str) -> Iterator[None]:
        from kubernetes.client import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            yield
        except ApiException as error:
            message = _message(error.body) or str(error.reason)
            raise self._error(verb, resource, int(error.status or 0), message) from error
        except (HTTPError, OSError) as error:
            raise Unreachable(
                f"no answer from {self.host} to {verb} {resource} ({type(error).__name__})"
            ) from error

    def _error(self, verb: str, resource: str, status: int, message: str) -> ClusterError:
        what = f"{verb} {resource} in namespace {self.namespace}"
        known: dict[int, ClusterError] = {
            401: Refused(f"{self.host} does not accept these credentials (to {what}); log in"),
            403: Refused(
                f"this account may not {what}; {RBAC_FILE} has the rule that allows it "
                f"(the server says: {message})"
            ),
            404: Gone(f"nothing is there to {what}: {message}"),
            409: NameTaken(message),
            410: Gone(f"{what}: that place in the watch has expired"),
        }
        if status in known:
            return known[status]
        kind = Unreachable if status in _LATER else Refused
        return kind(f"{self.host} answered {status} to {what}: {message}")


def _named(name: str) -> str:
    return f"metadata.name={name}"


def _decoded(text: bytes | str) -> Object:
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise Unreachable("the API server's answer is not JSON; is it a proxy's?") from error
    return decoded if isinstance(decoded, dict) else {}


def _message(body: Any) -> str:
    """Of the Status object in an error's body; empty when there is none."""
    try:
        status = json.loads(body or "")
    except ValueError:
        return ""
    return str(status.get("message", "")) if isinstance(status, dict) else ""

"""An API server with what stands behind it: kmock's emulator, served from a thread.

kmock keeps objects, lists them and lets them be watched. What a cluster adds is added here:
uids on creation, a Job controller (the tests tell it what happens to the pods; it speaks HTTP
as the real one does), the garbage collector, logs that grow, and a network that can break:
clients go through a relay whose connections can be cut.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kmock
import yaml

from tests.acceptance.node import until

NAMESPACE = "dicomnode"
JOBS, PODS = "batch/v1/jobs", "v1/pods"
OWNED = {"services": "v1/services", "configmaps": "v1/configmaps"}
Object = dict[str, Any]


class Emulator(kmock.KubernetesEmulator):
    """Gives uids, and answers as it is told before it answers by itself."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.prepared: dict[tuple[str, str], list[Any]] = {}

    async def _handle(self, request: Any) -> Any:
        prepared = self.prepared.get(what(request))
        if prepared:
            payload = prepared.pop(0)
            if isinstance(payload, BaseException):
                raise payload
            return await kmock.Response(payload=payload)(request)
        if request.action is kmock.action.CREATE:
            request.data["metadata"].setdefault("uid", str(uuid.uuid4()))
        return await super()._handle(request)


def what(request: Any) -> tuple[str, str]:
    """The verb and the resource, in the words of RBAC."""
    if request.resource is None or request.action is None:
        return ("", "")
    verb = request.action.value.lower()
    verb = "get" if verb == "fetch" else verb
    parts = (request.resource.plural, request.subresource)
    return verb, "/".join(part for part in parts if part)


class KubeApi:
    """The server. Everything but `url` and `kubeconfig` is the cluster's side."""

    def __init__(self) -> None:
        self.kmock = Emulator()
        for resource in (JOBS, PODS, *OWNED.values()):
            self.kmock.resources[resource] = {}
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._logs: dict[str, Log] = {}
        self._numbers = itertools.count(1)
        self._connections: set[asyncio.Transport | asyncio.StreamWriter] = set()
        self._drop_answers = 0
        self._thread = threading.Thread(target=self._run, name="kube-api", daemon=True)

    def __enter__(self) -> KubeApi:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    # The network ----------------------------------------------------------------------------

    def cut(self) -> None:
        """Every open connection breaks."""
        self._call(self._abort)

    def lose_answer(self) -> None:
        """The next answer is lost on its way, and its connection with it."""
        self._drop_answers += 1

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        return path

    # What was asked, and what is there -------------------------------------------------------

    def requests(self, verb: str, resource: str) -> list[Any]:
        return [request for request in list(self.kmock) if what(request) == (verb, resource)]

    def await_request(self, verb: str, resource: str, count: int = 1) -> None:
        until(
            lambda: len(self.requests(verb, resource)) >= count,
            seconds=20,
            what=f"{count} x {verb} {resource}",
        )

    def objects(self, plural: str) -> list[Object]:
        group = "apis/batch/v1" if plural == "jobs" else "api/v1"
        found: list[Object] = self._ask("GET", f"/{group}/namespaces/{NAMESPACE}/{plural}")["items"]
        return found

    def collect_garbage(self) -> None:
        """Remove what belongs to something that is gone."""
        living = {each["metadata"].get("uid") for each in self.objects("jobs")}
        for plural in ("services", "configmaps", "pods"):
            for each in self.objects(plural):
                owners = {owner["uid"] for owner in each["metadata"].get("ownerReferences", [])}
                if owners and not owners & living:
                    name = each["metadata"]["name"]
                    self._ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/{plural}/{name}")

    # What the API server may answer ----------------------------------------------------------

    def answer(self, verb: str, resource: str, *payloads: Any) -> None:
        """The next answers to such requests: errors, objects, or tuples of watch events."""
        self._call(lambda: self.kmock.prepared.setdefault((verb, resource), []).extend(payloads))

    # The Job controller ---------------------------------------------------------------------

    def job(self) -> Object:
        """The Job, as soon as it is there."""
        (job,) = until(lambda: self.objects("jobs"), seconds=20, what="a Job")
        return dict(job)

    def start_pod(self, index: int, *, phase: str = "Running", **status: Any) -> str:
        """A new pod of an index; its name."""
        job = self.job()
        number = next(self._numbers)
        name = f"{job['metadata']['name']}-{index}-{number:05}"
        template = job["spec"]["template"]
        state = {"running": {"startedAt": _time(number)}} if phase == "Running" else {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": _time(number),
                "labels": {
                    **template["metadata"]["labels"],
                    "batch.kubernetes.io/job-name": job["metadata"]["name"],
                },
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [{"uid": job["metadata"]["uid"]}],
            },
            "spec": template["spec"],
            "status": {"phase": phase, "containerStatuses": [{"state": state}], **status},
        }
        self._logs[name] = Log()
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/log"
        self._call(lambda: self.kmock[path] << self._logs[name].stream)
        self._ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
        return name

    def end_pod(self, name: str, code: int = 0, reason: str = "", message: str = "") -> None:
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
        }
        phase = "Succeeded" if code == 0 else "Failed"
        status = {"phase": phase, "containerStatuses": [{"state": {"terminated": state}}]}
        self._ask("PATCH", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", {"status": status})
        self._logs[name].end()

    def end_job(self, kind: str, reason: str = "", message: str = "") -> None:
        name = self.job()["metadata"]["name"]
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}"
        self._ask("PATCH", path, {"status": {"conditions": [condition]}})

    def remove_job(self) -> None:
        name = self.job()["metadata"]["name"]
        self._ask("DELETE", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}")

    def say(self, pod: str, *lines: str) -> None:
        """Lines of the pod's program."""
        self._logs[pod].say(lines)

    # Inside ---------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._direct_port, timeout=10)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/merge-patch+json" if body else "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, (method, path, text)
            return json.loads(text)
        finally:
            connection.close()

    def _call(self, work: Callable[[], Any]) -> None:
        async def call() -> None:
            work()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with self.kmock, kmock.Server(self.kmock) as server:
            self._direct_port = server.port
            relay = await asyncio.start_server(self._relay, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{relay.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()
            relay.close()
            for log in self._logs.values():
                log.end()
            self._abort()
            await asyncio.sleep(0)  # the aborted connections notice

    def _abort(self) -> None:
        for writer in tuple(self._connections):
            writer.transport.abort()  # type: ignore[union-attr]

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._direct_port)
        self._connections |= {writer, back}
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer, answers=True))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= {writer, back}
            for each in (writer, back):
                each.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        while data := await source.read(65536):
            if answers and self._drop_answers:
                self._drop_answers -= 1
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError  # one side ended: so does the other


class Log:
    """A log that grows until it ends, and can be read again from the start."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._numbers = itertools.count(1)

    def say(self, lines: tuple[str, ...]) -> None:
        self._lines += [f"{_time(next(self._numbers))} {line}\n" for line in lines]

    def end(self) -> None:
        self._ended = True

    async def stream(self, request: Any) -> AsyncIterator[bytes]:
        del request
        yield b""
        given = 0
        while True:
            ended = self._ended
            for line in self._lines[given:]:
                given += 1
                yield line.encode()
            if ended:
                return
            await asyncio.sleep(0.01)


def _time(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000000000Z"


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    with KubeApi() as server:
        yield server

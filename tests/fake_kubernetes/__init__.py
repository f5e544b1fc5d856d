"""A fake Kubernetes on loopback: an API server whose pods are real processes, with faults on demand.

It answers just the calls that Airflow's KubernetesPodOperator and its trigger make without the XCom sidecar, so the
real operator runs against it through an ordinary kubeconfig. What a real cluster does and this one does not is
refused with status 501 rather than ignored, where a test could otherwise be fooled.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from .api import Api
from .faults import DroppedStreams, Faults, RefusedRequests
from .forks import forks
from .kubelet import Kubelet
from .objects import Json
from .podman import Podman
from .pods import Pod, Verdict
from .processes import Image, Processes
from .runtimes import Runtime
from .store import Store

__all__ = ["FakeKubernetes", "Image", "Podman", "Processes", "Runtime", "fake_kubernetes", "forks"]

T = TypeVar("T")
_SECONDS_TO_ANSWER = 60


class FakeKubernetes:
    """The fake cluster as a test sees it. All of it may be used from any thread."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, store: Store, kubelet: Kubelet, faults: Faults
    ) -> None:
        self.kubeconfig = folder / "kubeconfig"
        """Where a client finds the server and its token."""

        self.namespace = "default"
        self.namespaces = store.namespaces
        """The namespaces that exist; a test may add some."""

        self.secrets = store.secrets
        """Secrets by name, for ``secretRef`` and ``secretKeyRef``; a test may set and remove them."""

        self.config_maps = store.config_maps
        """Config maps by name, for ``configMapRef`` and ``configMapKeyRef``."""

        self.capacity = store.capacity
        """How many the node has of each resource that is counted. A pod that asks for more stays Pending."""

        self.created = store.created
        """The manifests of the pods as they were sent, in order."""

        self.requests = store.requests
        """The method and the path with its query of every request, in order."""

        self._loop = loop
        self._store = store
        self._kubelet = kubelet
        self._faults = faults

    def pods(self) -> list[str]:
        """Return the names of the pods that the API knows now."""
        return self._ask(lambda: [pod.name for pod in self._store.pods.values()])

    def pod(self, name: str) -> Json:
        """Return a pod as the API shows it now.

        :raises KeyError: there is none of that name.
        """
        return self._ask(lambda: self._find(name).as_json())

    def log(self, name: str) -> str:
        """Return all that the containers of the newest pod of that name wrote, also once it is gone."""
        return self._ask(lambda: _whole_log(next(pod for pod in reversed(self._store.all_pods) if pod.name == name)))

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return the reason and message of every event about a pod, in order."""
        return self._ask(
            lambda: [
                (event["reason"], event["message"])
                for event in self._store.events
                if event["involvedObject"]["name"] == name
            ]
        )

    def wait_until(self, condition: Callable[[FakeKubernetes], bool], timeout: float = 30) -> None:
        """Wait until a condition holds; it is asked again whenever something changed.

        :raises TimeoutError: it does not hold in time; the message tells how the cluster looked.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._store.change_count
            if condition(self):
                return
            if not self._store.wait_for_change(seen, deadline - time.monotonic()):
                raise TimeoutError(f"the condition did not hold within {timeout} s\n{self.description()}")

    def wait_for_log(self, words: str, timeout: float = 30) -> str:
        """Wait until the log of a pod, be it there or gone, holds the words; return the newest such pod's name.

        :raises TimeoutError: no log does in time.
        """
        self.wait_until(lambda _: self._logging(words) is not None, timeout)
        name = self._logging(words)
        assert name is not None
        return name

    def fail(
        self, method: str, path_pattern: str, status: int, times: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next requests of a kind with an error.

        :param path_pattern: a regular expression that is searched for in the path with its query
        """
        refusal = RefusedRequests(method, re.compile(path_pattern), status, dict(headers or {}), times)
        self._ask(lambda: self._faults.refusals.append(refusal))

    def drop_log_stream(self, after_lines: int, times: int = 1) -> None:
        """Cut the connection of the next log that is followed after so many of its lines."""
        drop = DroppedStreams(after_lines, times)
        self._ask(lambda: self._faults.drops.append(drop))

    def end_watches_early(self) -> None:
        """End the watches that are open now; where there are none, end the next once it told what there was."""
        self._ask(self._end_watches)

    def oom_kill(self, name: str) -> None:
        """Kill a pod's containers as the kernel does when they use too much memory.

        :raises ValueError: none of them runs.
        """
        self._ask(lambda: self._kubelet.kill_for_memory(self._find(name)))

    def evict(self, name: str, message: str) -> None:
        """End a pod as a kubelet does whose node runs short: it stays, failed, with the reason Evicted.

        :raises ValueError: it has ended before.
        """
        self._ask(lambda: self._kubelet.evict(self._find(name), Verdict("Evicted", message)))

    def vanish(self, name: str) -> None:
        """Let a pod be gone from the API at once, and kill it."""
        self._ask(lambda: self._kubelet.delete(self._find(name), 0))

    def forget(self, name: str) -> None:
        """Let a pod be gone from the API at once, though its containers run on."""
        self._ask(lambda: self._store.remove(self._find(name)))

    def description(self) -> str:
        """Describe the cluster, for the message of a failed test."""
        return self._ask(self._described)

    def _ask(self, question: Callable[[], T]) -> T:
        """Run a function in the server's event loop, to which everything belongs, and return its result."""
        return _in_loop(self._loop, _answer(question))

    def _find(self, name: str) -> Pod:
        for pod in self._store.pods.values():
            if pod.name == name:
                return pod
        raise KeyError(f"no pod {name}: there are {[pod.name for pod in self._store.pods.values()]}")

    def _logging(self, words: str) -> str | None:
        newest_first = reversed(self._store.all_pods)
        return self._ask(lambda: next((pod.name for pod in newest_first if words in _whole_log(pod)), None))

    def _end_watches(self) -> None:
        self._faults.end_watches()
        self._store.changed()

    def _described(self) -> str:
        parts = [f"requests, the last of {len(self.requests)}:"]
        parts += [f"  {method} {path}" for method, path in self.requests[-10:]]
        for pod in self._store.all_pods:
            there = "" if pod in self._store.pods.values() else ", gone from the API"
            parts.append(f"pod {pod.name}: {pod.phase}{there}")
            parts += [f"  {container.name}: {json.dumps(container.state)}" for container in pod.all_containers]
            about = [event for event in self._store.events if event["involvedObject"]["uid"] == pod.uid]
            parts += [f"  event {event['reason']}: {event['message']}" for event in about]
            parts += [f"  log: {line}" for line in _whole_log(pod).splitlines()[-20:]]
        return "\n".join(parts)


@contextmanager
def fake_kubernetes(folder: Path, runtime: Runtime) -> Iterator[FakeKubernetes]:
    """Run a fake Kubernetes for as long as the context lasts; every container has ended when it is left.

    :param folder: for the kubeconfig, and for the folders of the pods
    :param runtime: what runs the containers
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-kubernetes", daemon=True)
    thread.start()
    try:
        server = _in_loop(loop, _Server.start(folder, runtime))
        try:
            yield server.cluster
        finally:
            _in_loop(loop, server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Server:
    """The parts that run in the event loop."""

    def __init__(self, cluster: FakeKubernetes, kubelet: Kubelet, runner: web.AppRunner) -> None:
        self.cluster = cluster
        self._kubelet = kubelet
        self._runner = runner

    @classmethod
    async def start(cls, folder: Path, runtime: Runtime) -> _Server:
        """Start the server on a free port, and write its kubeconfig."""
        store = Store()
        kubelet = Kubelet(folder / "pods", store, runtime)
        faults = Faults()
        cluster = FakeKubernetes(folder, asyncio.get_running_loop(), store, kubelet, faults)
        token = secrets.token_urlsafe()
        api = Api(store, kubelet, faults, token)
        runner = web.AppRunner(api.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        cluster.kubeconfig.write_text(json.dumps(_kubeconfig(runner.addresses[0][1], token)))
        return cls(cluster, kubelet, runner)

    async def stop(self) -> None:
        """End every container, and then the server."""
        try:
            await self._kubelet.shut_down()
        finally:
            await self._runner.cleanup()


def _kubeconfig(port: int, token: str) -> Json:
    context = {"cluster": "fake", "user": "airflow", "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "airflow", "user": {"token": token}}],
        "contexts": [{"name": "fake", "context": context}],
        "current-context": "fake",
    }


def _whole_log(pod: Pod) -> str:
    return "".join(container.log.text for container in pod.all_containers)


async def _answer(question: Callable[[], T]) -> T:
    return question()


def _in_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_SECONDS_TO_ANSWER)

"""Starts the fake cluster, and ends it."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from .api import Api
from .cluster import FakeKubernetes, in_loop
from .faults import Faults
from .kubelet import Kubelet
from .objects import Json
from .runtimes import Runtime
from .store import Store


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
        server = in_loop(loop, _Server.start(folder, runtime))
        try:
            yield server.cluster
        finally:
            in_loop(loop, server.stop())
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

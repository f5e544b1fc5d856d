"""A way to a cluster's API server that a test can close: a proxy on loopback, which brings the credentials itself."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from kubernetes.client import Configuration
from yarl import URL

# Headers that belong to one connection, or to the one who asks, and are not passed on.
_NOT_PASSED_ON = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "authorization", "content-length"})
_PODS = re.compile(r"/namespaces/[^/]+/pods$")


@dataclass(frozen=True)
class Trouble:
    """What becomes of requests, as long as it lasts.

    :param path: a regular expression for the path of those that it befalls.
    :param status: they are refused with this; None: their connection is cut.
    :param silent: they are not answered at all, as where packets are lost.
    :param delay: they are passed on, but only after this many seconds.
    """

    path: str = ""
    status: int | None = None
    silent: bool = False
    delay: float = 0


@dataclass(frozen=True)
class Request:
    """What the operator asked; ``status`` is None where it got no answer."""

    method: str
    path: str
    status: int | None


class ApiServer:
    """Made by :func:`way_to`.

    :param kubeconfig: leads here, without credentials.
    """

    def __init__(self, upstream: Configuration, authorization: str | None) -> None:
        self.kubeconfig = Path()
        self.requests: list[Request] = []
        self.created: list[str] = []
        """The names of the pods that were created through it."""
        self._upstream = upstream
        self._authorization = authorization or _authorization_of(upstream)
        self._trouble: Trouble | None = None
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Transport] = set()

    @contextmanager
    def trouble(self, trouble: Trouble) -> Iterator[None]:
        """Have requests meet trouble while the context lasts; what is cut is cut in the middle of an answer, too."""
        self._trouble = trouble
        if trouble == Trouble():
            for each in list(self._open):
                self._loop.call_soon_threadsafe(each.abort)
        try:
            yield
        finally:
            self._trouble = None

    def serve(self, started: threading.Event) -> None:
        """Serve until :meth:`close`."""
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._start(started))
        self._loop.run_forever()

    def close(self) -> None:
        """Break every connection, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _start(self, started: threading.Event) -> None:
        context = ssl.create_default_context(cafile=self._upstream.ssl_ca_cert)
        context.check_hostname = context.check_hostname and self._upstream.assert_hostname is not False
        if not self._upstream.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self._upstream.cert_file:
            context.load_cert_chain(self._upstream.cert_file, self._upstream.key_file)
        connector = aiohttp.TCPConnector(ssl=context)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        application = web.Application(client_max_size=8 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        started.set()

    async def _stop(self) -> None:
        for each in list(self._open):
            each.abort()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self._open.add(transport)
        status = None
        try:
            trouble = self._trouble
            if trouble is not None and re.search(trouble.path, request.path):
                await asyncio.sleep(trouble.delay)
                while trouble.silent and self._trouble is trouble:
                    await asyncio.sleep(0.1)
                if trouble.status is not None:
                    status = trouble.status
                    return _refusal(status)
                if not trouble.delay:
                    transport.abort()
                    return web.Response()  # which nobody gets
            response = await self._pass_on(request)
            status = response.status
            return response
        finally:
            self._open.discard(transport)
            self.requests.append(Request(request.method, request.path_qs, status))

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        if self._authorization:
            headers["Authorization"] = self._authorization
        url = URL(str(self._upstream.host).rstrip("/") + request.raw_path, encoded=True)
        body = await request.read()
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            if request.method == "POST" and _PODS.search(request.path) and answer.status == 201:
                self.created.append(json.loads(body)["metadata"]["name"])
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    response.headers[name] = value
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


@contextmanager
def way_to(upstream: Configuration, folder: Path, authorization: str | None = None) -> Iterator[ApiServer]:
    """Lead to an API server while the context lasts.

    :param upstream: how it is reached, with credentials.
    :param folder: where the kubeconfig is written that leads here.
    :param authorization: the header that everything is asked with, in place of the credentials of ``upstream``.
    """
    server = ApiServer(upstream, authorization)
    started = threading.Event()
    threading.Thread(target=server.serve, args=(started,), daemon=True).start()
    assert started.wait(20)
    server.kubeconfig = folder / "kubeconfig"
    server.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server.url)))
    try:
        yield server
    finally:
        server.close()


def _authorization_of(upstream: Configuration) -> str | None:
    """Return the header that a kubeconfig's user sends; those with a certificate send none."""
    settings = upstream.auth_settings().get("BearerToken")
    return settings and str(settings["value"])


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "way",
        "contexts": [{"name": "way", "context": {"cluster": "way", "user": "nobody"}}],
        "clusters": [{"name": "way", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
    }


def _refusal(status: int) -> web.Response:
    reasons = {403: "Forbidden", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
    text = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
    return web.json_response({**text, "reason": reasons[status], "message": "a trouble was asked for"}, status=status)

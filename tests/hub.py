"""A stand-in for the model hub, which tests cannot reach.

A small server on loopback that answers what huggingface_hub asks: which files a revision has, and their content.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one model, ``acme/clip``."""

    files: dict[str, bytes]
    url: str = ""
    gated: bool = False
    fetched: set[str] = field(default_factory=set)
    """Files whose content was asked for."""


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        revisions = (f"/revision/{name}" for name in ("main", "v2", COMMIT))
        if path in (f"/api/models/acme/clip{revision}" for revision in ("", *revisions)):
            siblings = [{"rfilename": name} for name in self.hub.files]
            return self._send_json({"id": "acme/clip", "sha": COMMIT, "siblings": siblings}, with_body)
        if path in (f"/api/models/acme/clip/tree/{revision}" for revision in ("main", COMMIT)):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _sha1(b)} for n, b in self.hub.files.items()]
            return self._send_json(tree, with_body)
        if path.startswith("/api/models/acme/clip/revision/"):
            return self._send(404, b"", with_body, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"/acme/clip/resolve/{COMMIT}/"):
            name = path.removeprefix(f"/acme/clip/resolve/{COMMIT}/")
            if self.hub.gated:
                return self._send(403, b"", with_body, {"X-Error-Code": "GatedRepo"})
            if with_body:
                self.hub.fetched.add(name)
            body = self.hub.files[name]
            return self._send(200, body, with_body, {"ETag": f'"{_sha1(body)}"'})
        return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})

    def _send_json(self, value: Any, with_body: bool) -> None:
        self._send(200, json.dumps(value).encode(), with_body, {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def stand_in_hub(checkpoint: Path) -> Iterator[Hub]:
    """Run a hub whose model ``acme/clip`` has the files of a folder."""
    hub = Hub({path.name: path.read_bytes() for path in checkpoint.iterdir()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

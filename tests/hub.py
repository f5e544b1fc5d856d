"""A stand-in for the model hub, which tests cannot reach.

A small server on loopback that answers what huggingface_hub asks: which files a revision has, and their content.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one model, ``acme/clip``, or one data set, ``acme/pairs``."""

    files: dict[str, bytes]
    is_dataset: bool = False
    url: str = ""
    gated: bool = False
    fetched: set[str] = field(default_factory=set)
    """Files whose content was asked for."""
    unknown: set[str] = field(default_factory=set)
    """Paths of what it has not."""


_DATASET = ("/api/datasets/acme/pairs", "/datasets/acme/pairs")


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path, _, query = self.path.partition("?")
        api, content = ("/api/models/acme/clip", "/acme/clip") if not self.hub.is_dataset else _DATASET
        place, _, name = path.removeprefix(f"{content}/resolve/").partition("/")
        if path in (api, *(f"{api}/revision/{name}" for name in ("main", "v2", COMMIT))):
            siblings = [{"rfilename": name} for name in self.hub.files]
            return self._send_json({"id": content[-10:].strip("/"), "sha": COMMIT, "siblings": siblings}, with_body)
        if match := re.fullmatch(rf"{api}/tree/(main|{COMMIT})(/.*)?", path):
            return self._send_tree(f"{match[2] or ''}/"[1:], "recursive=true" in query.lower(), with_body)
        if path in (f"{api}/paths-info/{COMMIT}", f"{api}/paths-info/main"):  # which the library's versions 0 ask for
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
            return self._send_json([self._described(name) for name in asked if name in self.hub.files], with_body)
        if path.startswith(f"{api}/revision/"):
            return self._send(404, b"", with_body, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"{content}/resolve/") and place in (COMMIT, "main"):
            if self.hub.gated:
                return self._send(403, b"", with_body, {"X-Error-Code": "GatedRepo"})
            if name not in self.hub.files:
                return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
            if with_body:
                self.hub.fetched.add(name)
            body = self.hub.files[name]
            return self._send(200, body, with_body, {"ETag": f'"{_sha1(body)}"'})
        self.hub.unknown.add(path)
        return self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})

    def _send_tree(self, folder: str, recursive: bool, with_body: bool) -> None:
        found = [name for name in self.hub.files if name.startswith(folder)]
        inner = {folder + name[len(folder) :].rpartition("/")[0] for name in found if "/" in name[len(folder) :]}
        if not found:
            return self._send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
        tree = [self._described(name) for name in found if recursive or "/" not in name[len(folder) :]]
        return self._send_json(tree + [{"type": "directory", "path": name, "oid": "0"} for name in inner], with_body)

    def _described(self, name: str) -> dict[str, Any]:
        body = self.hub.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": _sha1(body)}

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
def stand_in_hub(folder: Path, is_dataset: bool = False) -> Iterator[Hub]:
    """Run a hub whose model ``acme/clip``, or data set ``acme/pairs``, has the files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file()) if is_dataset else folder.iterdir()
    hub = Hub({path.relative_to(folder).as_posix(): path.read_bytes() for path in files}, is_dataset)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

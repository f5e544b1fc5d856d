"""Ceph's own S3 server (RGW) on loopback, of three processes: a monitor, a disk that is memory, and the gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo.object_store import ObjectStore, answers, free_ports

PACKAGES = "ceph-mon ceph-osd radosgw"
"""What has it in Debian. A manager, which a cluster for use would need, is not among them."""

_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_SECONDS = 120

# Nothing is asked of the daemons but that one another of them answers: no authentication, copies, or warnings.
_CONFIGURATION = """\
[global]
fsid = {cluster}
mon host = v1:127.0.0.1:{monitor_port}
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr2 = false
run dir = {folder}
admin socket =
log file = {folder}/$name.log
crash dir = {folder}
keyring = {folder}/keyring
mon data = {folder}/mon
mon data avail crit = 1
mon allow pool size one = true
paxos propose interval = 0.02
osd data = {folder}/osd
osd objectstore = memstore
osd class update on start = false
osd crush update on start = false
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
"""


def is_installed() -> bool:
    """Whether this machine has all the programs."""
    return all(shutil.which(program) for program in _PROGRAMS)


@contextmanager
def object_gateway(folder: Path) -> Iterator[ObjectStore]:
    """Run a cluster of one machine, whose settings and logs are in ``folder``, for as long as the context lasts."""
    with ExitStack() as running:
        cluster = _Cluster(folder, running)
        cluster.start_monitor()
        cluster.start_disk()
        yield cluster.start_gateway()


class _Cluster:
    def __init__(self, folder: Path, running: ExitStack) -> None:
        self._folder = folder
        self._running = running
        self._id = str(uuid.uuid4())
        self._monitor_port, self._gateway_port = free_ports(2)
        configuration = folder / "ceph.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                cluster=self._id, folder=folder, monitor_port=self._monitor_port, gateway_port=self._gateway_port
            )
        )
        self._environment = {**os.environ, "CEPH_CONF": str(configuration)}
        (folder / "keyring").touch()
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()

    def start_monitor(self) -> None:
        monitors = str(self._folder / "monmap")
        address = f"[v1:127.0.0.1:{self._monitor_port}]"
        self._do("monmaptool", "--create", "--fsid", self._id, "--addv", "a", address, monitors)
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors)
        self._start("ceph-mon", "-i", "a")

    def start_disk(self) -> None:
        disk = str(uuid.uuid4())
        number = self._do("ceph", "osd", "new", disk).strip()
        self._do("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", disk)
        # A disk that says by itself where it is may do so before it knows the cluster, and then ends.
        self._do("ceph", "osd", "crush", "add", number, "1", "root=default")
        self._start("ceph-osd", "-i", number)

    def start_gateway(self) -> ObjectStore:
        store = ObjectStore(f"http://127.0.0.1:{self._gateway_port}")
        keys = ("--access-key", store.access_key, "--secret-key", store.secret_key)
        self._do("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests", *keys)
        gateway = self._start("radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + _SECONDS
        while not answers(store.endpoint_url):
            if time.monotonic() > deadline or gateway.poll() is not None:
                raise RuntimeError(f"Ceph did not start; its logs are in {self._folder}")
            time.sleep(0.1)
        return store

    def _do(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=_SECONDS)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{command[0]}.out").open("wb") as out:
            process = subprocess.Popen([*command, "-f"], env=self._environment, stdout=out, stderr=subprocess.STDOUT)
        self._running.callback(process.wait)
        self._running.callback(process.kill)  # it holds nothing that is to be kept
        return process

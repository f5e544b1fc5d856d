"""Containers that podman runs: what the specification asks for is imposed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

from tests.conftest import missing_part
from tests.docker.images import CONTAINERS_ENVIRONMENT
from tests.fake_kubernetes import FakeKubernetes, Podman, fake_kubernetes
from tests.fake_kubernetes.manifests import base_state, has_phase, is_gone, pod, waits_with

pytestmark = pytest.mark.image

PROGRAMS = ["sh", "cat", "sleep", "id", "ls", "tail"]


def podman(*words: str) -> str:
    environment = {**os.environ, **CONTAINERS_ENVIRONMENT}
    return subprocess.run(["podman", *words], capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small image, made of a few of this machine's programs and their libraries."""
    if shutil.which("podman") is None:
        missing_part("podman")
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    paths = {path for name in PROGRAMS if (path := shutil.which(name)) is not None}
    for path in list(paths):
        libraries = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        paths.update(re.findall(r"(/\S+) \(0x", libraries))
    with tarfile.open(archive, "w", dereference=True) as tar:
        for path in paths:
            tar.add(path, f"bin/{Path(path).name}" if Path(path).name in PROGRAMS else path)
        (temporary := tarfile.TarInfo("tmp")).type = tarfile.DIRTYPE
        temporary.mode = 0o1777
        tar.addfile(temporary)
    name = f"localhost/fake-kubernetes-shell:{os.getpid()}"
    podman("import", "--change", "ENV PATH=/bin", str(archive), name)
    yield name
    podman("rmi", name)


@pytest.fixture
def cluster(image: str, tmp_path: Path) -> Iterator[FakeKubernetes]:
    with fake_kubernetes(tmp_path / "cluster", Podman(CONTAINERS_ENVIRONMENT)) as running:
        yield running
    assert podman("ps", "--all", "--quiet", "--filter", f"ancestor={image}") == ""


@pytest.fixture
def api(cluster: FakeKubernetes) -> Iterator[CoreV1Api]:
    with new_client_from_config(str(cluster.kubeconfig)) as client:
        yield CoreV1Api(client)


def ended(cluster: FakeKubernetes, name: str) -> dict[str, Any]:
    """Wait for a pod's end and return how its container ended."""
    cluster.wait_until(lambda cluster: cluster.pod(name)["status"]["phase"] in ("Succeeded", "Failed"))
    terminated: dict[str, Any] = base_state(cluster, name)["terminated"]
    return terminated


def test_a_container_has_the_user_and_the_rights_that_it_was_given(
    cluster: FakeKubernetes, api: CoreV1Api, image: str
) -> None:
    security = {
        "runAsUser": 1234,
        "runAsGroup": 5678,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    script = """
        id -u; id -g
        while read -r name value; do
            case $name in CapBnd:|NoNewPrivs:) echo $name $value;; esac
        done < /proc/self/status
        (echo x > /file) 2>/dev/null || echo the root is read-only
        (echo x > /tmp/file) 2>/dev/null || echo and so is /tmp
        printf 'last words' > /dev/termination-log; exit 5
    """
    api.create_namespaced_pod("default", pod("one", script, image=image, securityContext=security))
    terminated = ended(cluster, "one")
    assert cluster.log("one").splitlines() == [
        "1234",
        "5678",
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "the root is read-only",
        "and so is /tmp",
    ]
    assert (terminated["exitCode"], terminated["reason"], terminated["message"]) == (5, "Error", "last words")


def test_volumes_are_mounted_and_variables_set(
    cluster: FakeKubernetes, api: CoreV1Api, image: str, tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir(mode=0o755)
    (tmp_path / "host" / "input").write_text("from the host\n")
    script = """
        cat /host/input; echo $WORD > /scratch/word; cat /scratch/word; echo m > /memory/m && ls /memory
        (echo x > /host/x) 2>/dev/null || echo the host folder is read-only
        while read -r source place kind rest; do [ $place = /memory ] && echo $kind; done < /proc/mounts; exit 0
    """
    manifest = pod(
        "one",
        script,
        image=image,
        env=[{"name": "WORD", "value": "a word"}],
        volumeMounts=[
            {"name": "host", "mountPath": "/host", "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "memory", "mountPath": "/memory"},
        ],
    )
    manifest["spec"]["volumes"] = [
        {"name": "host", "hostPath": {"path": str(tmp_path / "host")}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    api.create_namespaced_pod("default", manifest)
    assert ended(cluster, "one")["exitCode"] == 0
    lines = cluster.log("one").splitlines()
    assert lines == ["from the host", "a word", "m", "the host folder is read-only", "tmpfs"]


def test_an_image_that_runs_as_root_is_refused_where_root_is(
    cluster: FakeKubernetes, api: CoreV1Api, image: str
) -> None:
    api.create_namespaced_pod("default", pod("one", "", image=image, securityContext={"runAsNonRoot": True}))
    cluster.wait_until(waits_with("one", "CreateContainerConfigError"))
    words = "container has runAsNonRoot and image will run as root"
    assert base_state(cluster, "one")["waiting"]["message"] == words


def test_a_container_that_uses_too_much_memory_is_killed(cluster: FakeKubernetes, api: CoreV1Api, image: str) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    api.create_namespaced_pod("default", pod("one", "exec tail /dev/zero", image=image, resources=limits))
    terminated = ended(cluster, "one")
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")


def test_a_program_that_is_not_in_the_image_is_a_start_error(
    cluster: FakeKubernetes, api: CoreV1Api, image: str
) -> None:
    api.create_namespaced_pod("default", pod("one", "", image=image, command=["no-such-program"]))
    terminated = ended(cluster, "one")
    assert (terminated["exitCode"], terminated["reason"]) == (128, "StartError")
    assert "no-such-program" in terminated["message"]
    assert cluster.log("one") == ""


def test_an_image_that_is_not_there_is_not_pulled(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "", image="registry.test/none:1"))
    cluster.wait_until(waits_with("one", "ErrImagePull"))


def test_a_deleted_container_may_stop_in_its_own_way(cluster: FakeKubernetes, api: CoreV1Api, image: str) -> None:
    script = "trap 'echo asked to stop; exit 0' TERM; echo ready; sleep 1000 & wait"
    api.create_namespaced_pod("default", pod("one", script, image=image))
    cluster.wait_for_log("ready")
    api.delete_namespaced_pod("one", "default", grace_period_seconds=20)
    cluster.wait_until(is_gone("one"))
    assert cluster.log("one").splitlines() == ["ready", "asked to stop"]


def test_a_first_process_without_a_handler_is_deaf_to_a_request_to_stop(
    cluster: FakeKubernetes, api: CoreV1Api, image: str
) -> None:
    api.create_namespaced_pod("default", pod("one", "echo ready; sleep 1000; echo not reached", image=image))
    cluster.wait_for_log("ready")
    cluster.evict("one", "The node was low on resource: memory.")
    assert ended(cluster, "one")["exitCode"] == 137
    assert cluster.pod("one")["status"]["reason"] == "Evicted"
    assert has_phase("one", "Failed")(cluster)

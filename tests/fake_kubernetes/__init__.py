"""A fake Kubernetes on loopback: an API server whose pods are real processes, with faults on demand.

It answers just the calls that Airflow's KubernetesPodOperator and its trigger make without the XCom sidecar, so the
real operator runs against it through an ordinary kubeconfig. What a real cluster does and this one does not is
refused with status 501 rather than ignored, where a test could otherwise be fooled. It restarts no container, not even
a native sidecar (an init container with ``restartPolicy: Always``); when a pod is asked to go, its sidecars are asked
with its other containers, and not after them.
"""

from __future__ import annotations

from .cluster import FakeKubernetes
from .forks import forks
from .podman import Podman
from .processes import Image, Processes
from .runtimes import Runtime
from .server import fake_kubernetes

__all__ = ["FakeKubernetes", "Image", "Podman", "Processes", "Runtime", "fake_kubernetes", "forks"]

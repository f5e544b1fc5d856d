"""Manifests of pods with one container, and what a test asks about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fake_kubernetes import FakeKubernetes

IMAGE = "registry.test/team/tool:1.0"


def pod(name: str, script: str, *, labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    """Return the manifest of a pod whose one container runs a shell script."""
    base = {"name": "base", "image": IMAGE, "command": ["sh", "-c"], "args": [script], **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"restartPolicy": "Never", "containers": [base]},
    }


def has_phase(name: str, phase: str) -> Callable[[FakeKubernetes], bool]:
    """Return the condition that a pod is in a phase."""
    return lambda cluster: cluster.pod(name)["status"]["phase"] == phase


def is_gone(name: str) -> Callable[[FakeKubernetes], bool]:
    """Return the condition that the API does not know a pod."""
    return lambda cluster: name not in cluster.pods()


def waits_with(name: str, reason: str, words: str = "") -> Callable[[FakeKubernetes], bool]:
    """Return the condition that a pod's container waits for a reason, with the words in its message."""

    def condition(cluster: FakeKubernetes) -> bool:
        waiting = base_state(cluster, name).get("waiting", {})
        return waiting.get("reason") == reason and words in waiting.get("message", "")

    return condition


def base_state(cluster: FakeKubernetes, name: str) -> dict[str, Any]:
    """Return the state of a pod's container."""
    statuses = cluster.pod(name)["status"].get("containerStatuses") or [{"state": {}}]
    state: dict[str, Any] = statuses[0]["state"]
    return state

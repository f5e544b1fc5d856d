"""Who disrupts a pod, and in which words the API says so."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .kubelet import Kubelet
from .objects import time_text
from .pods import NODE, Pod, Verdict
from .store import Store


@dataclass(frozen=True)
class _Disruption:
    message: str
    """The usual message of the condition."""

    event: Callable[[Pod], tuple[str, str]] | None = None
    """The reason and message of the event that whoever disrupts writes, where they write one."""


_DISRUPTIONS: Mapping[str, _Disruption] = {
    "PreemptionByScheduler": _Disruption(
        "default-scheduler: preempting to accommodate a higher priority pod",
        lambda _: ("Preempted", f"Preempted by pod {uuid.uuid4()} on node {NODE}"),
    ),
    "DeletionByTaintManager": _Disruption(
        "Taint manager: deleting due to NoExecute taint",
        lambda pod: ("TaintManagerEviction", f"Marking for deletion Pod {pod.namespace}/{pod.name}"),
    ),
    "EvictionByEvictionAPI": _Disruption("Eviction API: evicting"),
    "TerminationByKubelet": _Disruption("The node was low on resource: memory. "),
}


def disrupt(pod: Pod, reason: str, message: str | None, *, condition: bool, store: Store, kubelet: Kubelet) -> None:
    """Disrupt a pod.

    :param message: of the condition, where it is not the usual one
    :param condition: whether the cluster knows the condition; older ones do not
    :raises ValueError: the pod has ended.
    """
    kind = _DISRUPTIONS[reason]
    words = kind.message if message is None else message
    if pod.ended:
        raise ValueError(f"pod {pod.name} has ended")
    if condition:
        pod.disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": words,
            "lastTransitionTime": time_text(time.time_ns()),
        }
    if kind.event is not None:
        store.add_event(pod, *kind.event(pod))
    if reason == "TerminationByKubelet":
        kubelet.evict(pod, Verdict("Evicted", words))
    else:
        kubelet.delete(pod, pod.spec["terminationGracePeriodSeconds"])

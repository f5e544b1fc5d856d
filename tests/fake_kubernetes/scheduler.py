"""What a scheduler does with a pod: find it room on the node, once nothing keeps it."""

from __future__ import annotations

from .objects import time_text
from .pods import NODE, Pod
from .store import Store


async def schedule(pod: Pod, store: Store) -> None:
    """Wait until a pod may come to the node and has come there, or is asked to go."""
    while not pod.stopping:
        problem = None if pod.gated else _problem(pod, store)
        if not pod.gated and problem is None:
            pod.start_time = time_text(store.clock.now())
            store.add_event(pod, "Scheduled", f"Successfully assigned {pod.namespace}/{pod.name} to {NODE}")
            store.touch(pod)
            return
        if problem is not None and problem != pod.unschedulable:
            pod.unschedulable = problem
            store.add_event(pod, "FailedScheduling", problem)
            store.touch(pod)
        await store.change_or_moment()


def _problem(pod: Pod, store: Store) -> str | None:
    """Say why the node cannot take a pod, if it cannot."""
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod.volumes("persistentVolumeClaim")]
    missing = [claim for claim in claims if claim not in store.claims]
    if missing:
        hopeless = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        return f'0/1 nodes are available: persistentvolumeclaim "{missing[0]}" not found. {hopeless}'
    short = [name for name, wanted in pod.resources().items() if wanted > store.free(name)]
    return f"0/1 nodes are available: {', '.join(f'1 Insufficient {name}' for name in short)}." if short else None

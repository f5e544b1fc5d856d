"""The fake cluster as a test sees it, and the moments that a test orders."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .disruptions import disrupt
from .faults import DroppedStreams, Faults, LostAnswers, RefusedRequests
from .kubelet import Kubelet
from .objects import Json
from .pods import Pod, Verdict
from .store import Store

T = TypeVar("T")
_SECONDS_TO_ANSWER = 60


class FakeKubernetes:
    """The fake cluster as a test sees it. All of it may be used from any thread."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, store: Store, kubelet: Kubelet, faults: Faults
    ) -> None:
        self.kubeconfig = folder / "kubeconfig"
        """Where a client finds the server and its token."""

        self.namespace = "default"
        self.namespaces = store.namespaces
        """The namespaces that exist; a test may add some."""

        self.secrets = store.secrets
        """Secrets by name, for variables and volumes; a test may set and remove them, and waiting pods find them."""

        self.config_maps = store.config_maps
        """Config maps by name, likewise."""

        self.claims = store.claims
        """The names of the persistent volume claims that exist; a test may add some."""

        self.pull_problems = store.pull_problems
        """Images whose pull fails, with the words that tell why; a test may set and remove them."""

        self.capacity = store.capacity
        """How many the node has of each resource that is counted. A pod that asks for more stays Pending."""

        self.created = store.created
        """The manifests of the pods as they were sent, in order."""

        self.requests = store.requests
        """The method and the path with its query of every request, in order."""

        self._loop = loop
        self._store = store
        self._kubelet = kubelet
        self._faults = faults

    def pods(self) -> list[str]:
        """Return the names of the pods that the API knows now."""
        return self._ask(lambda: [pod.name for pod in self._store.pods.values()])

    def pod(self, name: str) -> Json:
        """Return a pod as the API shows it now.

        :raises KeyError: there is none of that name.
        """
        return self._ask(lambda: self._find(name).as_json())

    def log(self, name: str) -> str:
        """Return all that the containers of the newest pod of that name wrote, also once it is gone."""
        return self._ask(lambda: _whole_log(next(pod for pod in reversed(self._store.all_pods) if pod.name == name)))

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return the reason and message of every event about a pod, in order."""
        return self._ask(
            lambda: [
                (event["reason"], event["message"])
                for event in self._store.events
                if event["involvedObject"]["name"] == name
            ]
        )

    def event_counts(self, name: str) -> dict[tuple[str, str], int]:
        """Return how often each of these events came: the API shows one that comes again once, with its count."""
        return self._ask(
            lambda: {
                (event["reason"], event["message"]): event["count"]
                for event in self._store.events
                if event["involvedObject"]["name"] == name
            }
        )

    def wait_until(self, condition: Callable[[FakeKubernetes], bool], timeout: float = 30) -> None:
        """Wait until a condition holds; it is asked again whenever something changed.

        :raises TimeoutError: it does not hold in time; the message tells how the cluster looked.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._store.change_count
            if condition(self):
                return
            if not self._store.wait_for_change(seen, deadline - time.monotonic()):
                raise TimeoutError(f"the condition did not hold within {timeout} s\n{self.description()}")

    def wait_for_log(self, words: str, timeout: float = 30) -> str:
        """Wait until the log of a pod, be it there or gone, holds the words; return the newest such pod's name.

        :raises TimeoutError: no log does in time.
        """
        self.wait_until(lambda _: self._logging(words) is not None, timeout)
        name = self._logging(words)
        assert name is not None
        return name

    def fail(
        self, method: str, path_pattern: str, status: int, times: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the next requests of a kind with an error.

        :param path_pattern: a regular expression that is searched for in the path with its query
        """
        refusal = RefusedRequests(method, re.compile(path_pattern), status, dict(headers or {}), times)
        self._ask(lambda: self._faults.refusals.append(refusal))

    @contextmanager
    def refusing(
        self,
        method: str | None,
        path_pattern: str,
        status: int,
        headers: Mapping[str, str] | None = None,
        message: str = "a fault that the test ordered",
    ) -> Iterator[None]:
        """Answer the requests of a kind with an error for as long as the context lasts; ``requests`` has them, too.

        :param method: None for those of every method
        :param path_pattern: a regular expression that is searched for in the path with its query
        """
        refusal = RefusedRequests(method, re.compile(path_pattern), status, dict(headers or {}), None, message)
        self._ask(lambda: self._faults.refusals.append(refusal))
        try:
            yield
        finally:
            self._ask(lambda: self._faults.refusals.remove(refusal))

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Cut every connection without an answer for as long as the context lasts, logs that are followed, too.

        The pods go on, and ``requests`` has what nobody answered, each try of the client's own as one more.
        """
        self._ask(self._faults.cut_everybody_off)
        try:
            yield
        finally:
            self._ask(self._faults.let_everybody_in)

    def lose_answer(self, method: str, path_pattern: str, times: int = 1) -> None:
        """Carry out the next requests of a kind, and cut their connections in place of an answer."""
        loss = LostAnswers(method, re.compile(path_pattern), times)
        self._ask(lambda: self._faults.losses.append(loss))

    def drop_log_stream(self, after_lines: int, times: int = 1) -> None:
        """Cut the connection of the next log that is followed after so many of its lines."""
        drop = DroppedStreams(after_lines, times)
        self._ask(lambda: self._faults.drops.append(drop))

    def end_watches_early(self) -> None:
        """End the watches that are open now; where there are none, end the next once it told what there was."""
        self._ask(self._end_watches)

    def oom_kill(self, name: str) -> None:
        """Kill a pod's containers as the kernel does when they use too much memory.

        :raises ValueError: none of them runs.
        """
        self._ask(lambda: self._kubelet.kill_for_memory(self._find(name)))

    def evict(self, name: str, message: str) -> None:
        """End a pod as a kubelet does whose node runs short: it stays, failed, with the reason Evicted.

        :raises ValueError: it has ended before.
        """
        self._ask(lambda: self._kubelet.evict(self._find(name), Verdict("Evicted", message)))

    def disrupt(self, name: str, reason: str, message: str | None = None, *, condition: bool = True) -> None:
        """End a pod as others than its owner do, with the condition DisruptionTarget and the usual events.

        :param reason: ``PreemptionByScheduler``, ``DeletionByTaintManager`` or ``EvictionByEvictionAPI``, by which the
            pod is deleted with its own grace period, or ``TerminationByKubelet``, by which it stays, failed
        :param message: of the condition, where it is not the usual one
        :param condition: False for the way of an older cluster, which does not know the condition
        :raises ValueError: it has ended before.
        """
        self._ask(
            lambda: disrupt(
                self._find(name), reason, message, condition=condition, store=self._store, kubelet=self._kubelet
            )
        )

    def lift_gates(self, name: str) -> None:
        """Lift a pod's scheduling gates."""
        self._ask(lambda: self._lift_gates(self._find(name)))

    def show_deadlines_early(self) -> None:
        """Let the kubelet be an old one: past its active deadline a pod is Failed while its containers still run.

        They have the pod's own grace period to end, and the API shows them as running until they have.
        """
        self._store.deadlines_show_early = True

    def end_overdue(self, name: str) -> None:
        """Let a pod's active deadline be over now."""
        self._ask(lambda: self._kubelet.end_overdue(self._find(name)))

    @property
    def clock_skew_seconds(self) -> float:
        """How far the node's clock is ahead: that of log lines, ``startTime``, the containers' times and events."""
        return self._store.clock.skew_seconds

    @clock_skew_seconds.setter
    def clock_skew_seconds(self, seconds: float) -> None:
        self._store.clock.skew_seconds = seconds

    def vanish(self, name: str) -> None:
        """Let a pod be gone from the API at once, and kill it."""
        self._ask(lambda: self._kubelet.delete(self._find(name), 0))

    def forget(self, name: str) -> None:
        """Let a pod be gone from the API at once, though its containers run on."""
        self._ask(lambda: self._store.remove(self._find(name)))

    def description(self) -> str:
        """Describe the cluster, for the message of a failed test."""
        return self._ask(self._described)

    def _ask(self, question: Callable[[], T]) -> T:
        """Run a function in the server's event loop, to which everything belongs, and return its result."""
        return in_loop(self._loop, _answer(question))

    def _find(self, name: str) -> Pod:
        for pod in self._store.pods.values():
            if pod.name == name:
                return pod
        raise KeyError(f"no pod {name}: there are {[pod.name for pod in self._store.pods.values()]}")

    def _logging(self, words: str) -> str | None:
        newest_first = reversed(self._store.all_pods)
        return self._ask(lambda: next((pod.name for pod in newest_first if words in _whole_log(pod)), None))

    def _lift_gates(self, pod: Pod) -> None:
        pod.spec.pop("schedulingGates", None)
        self._store.touch(pod)

    def _end_watches(self) -> None:
        self._faults.end_watches()
        self._store.changed()

    def _described(self) -> str:
        parts = [f"requests, the last of {len(self.requests)}:"]
        parts += [f"  {method} {path}" for method, path in self.requests[-10:]]
        for pod in self._store.all_pods:
            there = "" if pod in self._store.pods.values() else ", gone from the API"
            parts.append(f"pod {pod.name}: {pod.phase}{there}")
            parts += [f"  {container.name}: {json.dumps(container.state)}" for container in pod.all_containers]
            about = [event for event in self._store.events if event["involvedObject"]["uid"] == pod.uid]
            parts += [f"  event {event['reason']}: {event['message']}" for event in about]
            parts += [f"  log: {line}" for line in _whole_log(pod).splitlines()[-20:]]
        return "\n".join(parts)


def _whole_log(pod: Pod) -> str:
    return "".join(container.log.text for container in pod.all_containers)


async def _answer(question: Callable[[], T]) -> T:
    return question()


def in_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop of another thread, and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_SECONDS_TO_ANSWER)

"""The operator's tasks without the rest of Airflow: what a worker and a triggerer do with them, one step at a time.

Where a test must do something to the pod at one certain moment, such as between the triggerer and the worker.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.request import Requester
from tests.conftest import SHAPES
from tests.fake_kubernetes import FakeKubernetes


class StateStore(dict[str, Any]):
    """What Airflow keeps of a task instance from one try to the next."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self[key] = value


@dataclass
class TaskInstance:
    """One task instance; each of its tries has an operator of its own.

    :param parameters: the operator's.
    """

    parameters: Mapping[str, Any]
    dag_id: str = "curate"
    run_id: str = "manual__2026-01-01"
    task_id: str = "score"
    map_index: int = -1
    try_number: int = 0
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    xcoms: dict[str, Any] = field(default_factory=dict)
    state: StateStore = field(default_factory=StateStore)

    @property
    def requester(self) -> Requester:
        """How its requests name it."""
        return Requester(dag_id=self.dag_id, run_id=self.run_id, task_id=self.task_id, map_index=self.map_index)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom, which must be JSON."""
        self.xcoms[key] = json.loads(json.dumps(value))

    def next_try(self) -> Try:
        """Begin another try."""
        self.try_number += 1
        return Try(self)


class Try:
    """One try of a task instance, on a worker."""

    def __init__(self, ti: TaskInstance) -> None:
        self.ti = ti
        self.operator = ImageCLIPEvaluatorOperator(task_id=ti.task_id, **ti.parameters)
        self.context: Any = {
            "ti": ti,
            "run_id": ti.run_id,
            "task": self.operator,
            "dag": SimpleNamespace(),
            "task_state_store": ti.state,
        }

    def run(self) -> list[str]:
        """Run to the end, in the triggerer too if the operator says so."""
        try:
            return self.operator.execute(self.context)
        except TaskDeferred as deferral:
            return self.resume(wait_in_triggerer(deferral), deferral)

    def start(self) -> Future[list[str]]:
        """Run in a thread."""
        threads = ThreadPoolExecutor(1)
        future = threads.submit(self.run)
        threads.shutdown(wait=False)
        return future

    def defer(self) -> TaskDeferred:
        """Run until the worker is left for the triggerer."""
        try:
            returned = self.operator.execute(self.context)
        except TaskDeferred as deferral:
            return deferral
        raise AssertionError(f"the task was not deferred but returned {returned}")

    def resume(self, event: Mapping[str, Any], deferral: TaskDeferred) -> list[str]:
        """Go on, on another worker, with what the triggerer saw."""
        again = Try(self.ti)
        method = getattr(again.operator, deferral.method_name)
        try:
            return list(method(again.context, event=json.loads(json.dumps(event, default=str))))
        except TaskDeferred as deferred_again:
            return self.resume(wait_in_triggerer(deferred_again), deferred_again)


def task_in_pod(
    cluster: FakeKubernetes, folder: str, cache_path: str, pod: Mapping[str, Any], **parameters: Any
) -> TaskInstance:
    """Return a task instance that scores the demo data set in a pod, which reads the Secret ``store``.

    :param folder: where the data set is.
    :param pod: what differs from the ordinary pod.
    :param parameters: what differs from the operator's ordinary parameters.
    """
    settings = {
        "config_file": str(cluster.kubeconfig),
        "env_from": [{"secretRef": {"name": "store"}}],
        "startup_check_interval_seconds": 0.2,
        "base_container_status_polling_interval": 0.2,
        "poll_interval": 0.2,
        **pod,
    }
    defaults = {
        "first_entry_file_name": f"{folder}/captions.jsonl",
        "cache_path": cache_path,
        "file_name_prefix": "captions",
        "model_name": SHAPES,
        "aws_conn_id": "store",
        "execution_mode": "kubernetes",
        "pod": settings,
    }
    return TaskInstance({**defaults, **parameters})


def wait_in_triggerer(deferral: TaskDeferred) -> dict[str, Any]:
    """Run the trigger, made anew as a triggerer makes it; return what it saw."""
    path, arguments = deferral.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)

    async def first_event() -> dict[str, Any]:
        events = trigger.run()
        try:
            return dict((await anext(events)).payload)
        finally:
            await events.aclose()

    return asyncio.run(first_event())


def die_while_running(ti: TaskInstance) -> None:
    """Run a try in this process, which the test kills."""
    with suppress(Exception):
        ti.next_try().run()

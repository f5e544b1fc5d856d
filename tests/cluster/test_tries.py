"""Tries that follow each other on a real cluster: each pod has one that watches it, and only that one ends it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from tests.cluster.cluster import wait_until
from tests.cluster.modes import SECONDS, in_both_modes
from tests.cluster.scene import Scene
from tests.operators.tasks import die_while_running, wait_in_triggerer

SLOW_TO_GO = {"termination_grace_period": 120}


def killed_later(work: Callable[..., Any], *arguments: Any) -> Any:
    """Start work in a process of its own, as a worker's or a triggerer's, which the test kills."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    return process


def watch_as_triggerer(path: str, arguments: Mapping[str, Any]) -> None:
    """Run a trigger of which another process has told how it is made."""
    told: Any = SimpleNamespace(trigger=SimpleNamespace(serialize=lambda: (path, arguments)))
    wait_in_triggerer(told)


def kill_deferred(deferral: TaskDeferred) -> None:
    """Do what a triggerer of Airflow 3.3 does with a deferred task that is marked as failed, or is cleared."""
    asyncio.run(deferral.trigger.on_kill())


def test_a_task_that_is_killed_deletes_its_pod_and_fails(scene: Scene) -> None:
    current = scene.held_task().next_try()
    running = current.start()
    scene.wait_for_held()
    current.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        running.result(SECONDS)
    scene.wait_until_gone()
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1


def test_a_deferred_task_that_is_killed_has_its_pod_deleted_by_the_triggerer(scene: Scene) -> None:
    deferral = scene.held_task(deferrable=True).next_try().defer()
    scene.wait_for_held()
    kill_deferred(deferral)
    scene.wait_until_gone()
    assert scene.nothing_was_written()
    assert len(scene.api.created) == 1


def test_a_deferred_try_that_is_killed_does_not_delete_a_pod_that_a_later_one_has_taken_over(scene: Scene) -> None:
    ti = scene.held_task(deferrable=True)
    deferral = ti.next_try().defer()
    name = scene.wait_for_held()
    second = ti.next_try()
    later = second.defer()
    kill_deferred(deferral)
    assert scene.look(name).metadata.deletion_timestamp is None
    scene.let_go(name)
    assert second.resume(wait_in_triggerer(later), later) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [name]


@in_both_modes
@pytest.mark.parametrize("again", ["the next try", "the same number again"])
def test_a_task_that_is_killed_and_run_again_at_once_has_a_new_pod_while_the_old_one_goes(
    scene: Scene, deferrable: bool, again: str
) -> None:
    killed = scene.held_task(SLOW_TO_GO, stubborn=True)
    current = killed.next_try()
    running = current.start()
    old = scene.wait_for_held()
    current.operator.on_kill()
    wait_until(lambda: scene.look(old).metadata.deletion_timestamp)
    ti = scene.held_task(SLOW_TO_GO, deferrable=deferrable)
    ti.state.update(killed.state)
    ti.try_number = killed.try_number if again == "the next try" else 0
    cleared = ti.next_try().start()
    new = scene.wait_for_held(old)
    assert scene.look(old) is not None
    scene.let_go(new)
    assert cleared.result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [old, new]
    assert isinstance(running.exception(SECONDS), AirflowException)


@in_both_modes
def test_a_try_whose_pod_a_later_one_has_taken_over_does_not_delete_it(scene: Scene, deferrable: bool) -> None:
    early = scene.held_task()
    first = early.next_try()
    zombie = first.start()
    name = scene.wait_for_held()
    late = scene.held_task(deferrable=deferrable)
    late.state.update(early.state)
    late.try_number = early.try_number
    before = len(scene.api.requests)
    second = late.next_try().start()
    wait_until(lambda: name in "".join(asked.path for asked in scene.api.requests[before:] if asked.method == "PATCH"))
    first.operator.on_kill()
    zombie.exception(SECONDS)
    pod = scene.look(name)
    assert pod is not None
    assert pod.metadata.deletion_timestamp is None
    scene.let_go(name)
    assert second.result(SECONDS) == ["clip_score"]
    assert scene.has_done(late)
    assert scene.api.created == [name]
    scene.wait_until_gone()


@in_both_modes
@pytest.mark.parametrize("pod_ends", ["before the next try", "after the next try has begun"])
def test_a_worker_that_is_killed_leaves_a_pod_whose_work_the_next_try_goes_on_with(
    scene: Scene, deferrable: bool, pod_ends: str
) -> None:
    worker = killed_later(die_while_running, scene.held_task())
    name = scene.wait_for_held()
    worker.kill()
    worker.join()
    ti = scene.held_task(deferrable=deferrable)
    ti.try_number = 1
    if pod_ends == "before the next try":
        scene.let_go()
        scene.wait_for_end(name)
    before = len(scene.api.requests)
    running = ti.next_try().start()
    if pod_ends == "after the next try has begun":
        wait_until(lambda: len(scene.api.requests) > before + 1)
        scene.let_go(name)
    assert running.result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    # Whether the work of a pod that has ended still holds is for another one to see.
    assert len(scene.api.created) == (2 if pod_ends == "before the next try" else 1)
    scene.wait_until_gone()


@pytest.mark.parametrize("pod_ends", ["while no triggerer runs", "later"])
def test_a_triggerer_that_is_killed_leaves_a_pod_that_the_next_one_watches(scene: Scene, pod_ends: str) -> None:
    ti = scene.held_task(deferrable=True)
    first = ti.next_try()
    deferral = first.defer()
    before = len(scene.api.requests)
    triggerer = killed_later(watch_as_triggerer, *deferral.trigger.serialize())
    name = scene.wait_for_held()
    wait_until(lambda: len(scene.api.requests) > before + 1)
    triggerer.kill()
    triggerer.join()
    scene.let_go(name)
    if pod_ends == "while no triggerer runs":
        scene.wait_for_end(name)
    assert first.resume(wait_in_triggerer(deferral), deferral) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [name]
    scene.wait_until_gone()

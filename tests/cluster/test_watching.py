"""A pod that does its work on a real cluster, whatever becomes of the API server meanwhile."""

from __future__ import annotations

import time

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from clip_operator.operators.shards import MergeShardsOperator, PlanShardsOperator
from tests.cluster.api_server import Trouble
from tests.cluster.modes import SECONDS, in_both_modes
from tests.cluster.scene import Scene
from tests.operators.tasks import TaskInstance, Try

AWAY = Trouble()
SILENT = Trouble(silent=True)
FORBIDDEN = Trouble(status=403)


@in_both_modes
def test_a_pod_writes_the_bytes_of_local_mode_and_its_log_is_the_tasks(
    scene: Scene, deferrable: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    ti = scene.task(deferrable=deferrable)
    assert ti.next_try().start().result(SECONDS) == ["clip_score"]
    log = capfd.readouterr().out + caplog.text
    assert "Row 14 has no score: image_unreadable" in log
    assert log.count("Scored 60 of 64 rows") == 1
    assert scene.has_done(ti)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [(AWAY, 15), (SILENT, 15), (FORBIDDEN, 10), (Trouble(status=500), 15), (Trouble(status=429), 15)],
    ids=["away", "silent", "403", "500", "429"],
)
def test_an_api_server_in_trouble_while_the_pod_works_changes_nothing(
    scene: Scene, deferrable: bool, trouble: Trouble, seconds: int
) -> None:
    ti = scene.held_task(deferrable=deferrable)
    running = ti.next_try().start()
    name = scene.wait_for_held()
    with scene.api.trouble(trouble):
        time.sleep(seconds)
    scene.let_go(name)
    assert running.result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [name]
    scene.wait_until_gone()


@in_both_modes
@pytest.mark.parametrize("trouble", [AWAY, SILENT], ids=["away", "silent"])
def test_a_pod_that_ends_while_the_api_server_is_away_for_long_is_a_success(
    scene: Scene, deferrable: bool, trouble: Trouble
) -> None:
    ti = scene.held_task(deferrable=deferrable)
    running = ti.next_try().start()
    name = scene.wait_for_held()
    with scene.api.trouble(trouble):
        away_until = time.monotonic() + 75
        scene.let_go(name)
        scene.wait_for_end(name)
        time.sleep(max(0, away_until - time.monotonic()))
    assert running.result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [name]
    # When the work is proved nobody waits for the API server: a pod that has ended may stay.
    assert all(pod.status.phase == "Succeeded" for pod in scene.cluster.pods(scene.name))


@in_both_modes
def test_an_api_server_that_stays_away_too_long_fails_the_task_and_the_next_try_goes_on_with_its_pod(
    scene: Scene, deferrable: bool
) -> None:
    ti = scene.held_task(deferrable=deferrable, max_api_outage_seconds=20)
    first = ti.next_try().start()
    name = scene.wait_for_held()
    with scene.api.trouble(AWAY), pytest.raises(AirflowException) as failure:
        first.result(SECONDS)
    assert not isinstance(failure.value, AirflowFailException)
    second = ti.next_try().start()
    scene.let_go(name)
    assert second.result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert scene.api.created == [name]
    scene.wait_until_gone()


@in_both_modes
def test_a_log_that_cannot_be_read_changes_nothing(scene: Scene, deferrable: bool) -> None:
    ti = scene.task(deferrable=deferrable)
    with scene.api.trouble(Trouble("/log$", 500)):
        assert ti.next_try().start().result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_slow_api_server_changes_nothing(scene: Scene, deferrable: bool) -> None:
    ti = scene.task(deferrable=deferrable)
    with scene.api.trouble(Trouble(delay=3)):
        assert ti.next_try().start().result(SECONDS) == ["clip_score"]
    assert scene.has_done(ti)
    assert len(scene.api.created) == 1
    scene.wait_until_gone()


@in_both_modes
def test_a_task_whose_names_are_longer_than_labels_finds_its_pod_again(scene: Scene, deferrable: bool) -> None:
    dag_id = f"cluster-{scene.cluster.session}-{scene.name}-".ljust(211, "x")
    ti = scene.held_task(dag_id=dag_id, deferrable=deferrable)
    first = ti.next_try().start()
    name = scene.wait_for_held()
    second = ti.next_try().start()
    scene.let_go(name)
    assert second.result(SECONDS) == ["clip_score"]
    first.exception(SECONDS)  # it may have been told, or not, that it is not the one who watches any more
    assert scene.has_done(ti)
    assert scene.api.created == [name]
    scene.wait_until_gone()


@in_both_modes
def test_the_shards_of_a_step_have_a_pod_each_and_make_the_bytes_of_one(scene: Scene, deferrable: bool) -> None:
    whole = scene.task(deferrable=deferrable, resume_point_rows=8)
    before = {name: value for name, value in whole.parameters.items() if name not in ("pod", "execution_mode")}
    plan_ti = TaskInstance(before, dag_id=whole.dag_id, task_id="plan")
    names = PlanShardsOperator(task_id="plan", shards=2, **before).execute(Try(plan_ti).context)
    assert len(names) == 2
    instances = [
        TaskInstance(
            {**whole.parameters, "shard": name, "plan": plan_ti.xcoms["plan"]}, dag_id=whole.dag_id, map_index=index
        )
        for index, name in enumerate(names)
    ]
    for running in [ti.next_try().start() for ti in instances]:
        running.result(SECONDS)
    merge_ti = TaskInstance(before, dag_id=whole.dag_id, task_id="merge")
    MergeShardsOperator(task_id="merge", plan=plan_ti.xcoms["plan"], **before).execute(Try(merge_ti).context)
    assert scene.s3.get(scene.output(whole)) == scene.local_bytes(resume_point_rows=8)
    assert len(scene.api.created) == 2
    scene.wait_until_gone()

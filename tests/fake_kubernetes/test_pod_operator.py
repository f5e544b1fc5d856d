"""Airflow's own KubernetesPodOperator and its trigger at work on the fake cluster."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import CoreV1Api

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import IMAGE, pod

LINES = ["first line", "second line", "third line"]
SPEAKS = "; ".join(f"echo '{line}'" for line in LINES)


def task(cluster: FakeKubernetes, script: str, **options: Any) -> KubernetesPodOperator:
    """Return a task whose pod runs a shell script."""
    quickly: dict[str, Any] = {"startup_check_interval_seconds": 0.1}
    return KubernetesPodOperator(
        task_id="score",
        name="score",
        namespace=cluster.namespace,
        cmds=["sh", "-c"],
        arguments=[script],
        config_file=str(cluster.kubeconfig),
        kubernetes_conn_id=None,
        in_cluster=False,
        **{"image": IMAGE, **quickly, **options},
    )


def context() -> Any:
    """Return as much of a task's context as the operator looks at."""
    pushed: dict[str, Any] = {}
    task_instance = SimpleNamespace(
        dag_id="curate",
        task_id="score",
        run_id="manual",
        map_index=-1,
        try_number=1,
        start_date=datetime.now(UTC),
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    return {"ti": task_instance, "run_id": "manual", "dag": SimpleNamespace(parent_dag=None), "pushed": pushed}


def shown(capture: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    """Return what was logged, whichever way Airflow's logging is set up in this process."""
    output = capture.readouterr()
    return output.out + output.err + caplog.text


def test_a_task_runs_its_pod_and_relays_its_log(
    cluster: FakeKubernetes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    its_context = context()
    task(cluster, SPEAKS).execute_sync(its_context)
    log = shown(capsys, caplog)
    positions = [log.index(f"[base] {line}") for line in LINES]
    assert positions == sorted(positions)
    assert its_context["pushed"]["pod_name"] == cluster.created[0]["metadata"]["name"]
    assert cluster.created[0]["metadata"]["labels"]["dag_id"] == "curate"
    assert cluster.pods() == []


def test_a_task_whose_pod_fails_tells_its_last_words(cluster: FakeKubernetes) -> None:
    script = "echo 'there is no such bucket' > /dev/termination-log; exit 2"
    with pytest.raises(AirflowException, match="there is no such bucket"):
        task(cluster, script, on_finish_action="keep_pod").execute_sync(context())
    (name,) = cluster.pods()
    assert cluster.pod(name)["metadata"]["labels"]["already_checked"] == "True"


def test_a_task_reads_on_where_its_log_stream_broke(
    cluster: FakeKubernetes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    cluster.drop_log_stream(after_lines=1)
    task(cluster, f"{SPEAKS}; sleep 1").execute_sync(context())
    log = shown(capsys, caplog)
    assert all(line in log for line in LINES)
    assert len([path for _, path in cluster.requests if "/log?" in path]) == 2


def test_a_task_gives_up_on_an_image_that_does_not_exist(cluster: FakeKubernetes) -> None:
    with pytest.raises(AirflowException, match="returned a failure") as caught:
        task(cluster, SPEAKS, image="registry.test/none:1").execute_sync(context())
    # The operator's own clean-up raises over the error that has the reason.
    assert "Image cannot be pulled, unable to start: ErrImagePull" in str(caught.value.__context__)
    cluster.wait_until(lambda cluster: cluster.pods() == [])


def test_the_trigger_waits_for_a_pod_and_tells_how_it_ended(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    async def events(name: str) -> list[dict[str, Any]]:
        trigger = KubernetesPodTrigger(
            pod_name=name,
            pod_namespace=cluster.namespace,
            trigger_start_time=datetime.now(UTC),
            base_container_name="base",
            kubernetes_conn_id=None,
            config_dict=json.loads(cluster.kubeconfig.read_text()),
            in_cluster=False,
            poll_interval=0.1,
            startup_check_interval=0.1,
        )
        return [event.payload async for event in trigger.run()]

    api.create_namespaced_pod("default", pod("good", "exit 0"))
    api.create_namespaced_pod("default", pod("bad", "exit 1"))
    assert [event["status"] for event in asyncio.run(events("good"))] == ["success"]
    assert [event["status"] for event in asyncio.run(events("bad"))] == ["failed"]

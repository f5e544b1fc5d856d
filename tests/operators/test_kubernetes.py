"""Kubernetes mode, with the real KubernetesPodOperator and its trigger: every way a pod can end has its one answer."""

from __future__ import annotations

import json
import logging
import multiprocessing
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from clip_operator.job.evaluation import evaluate
from clip_operator.model import find_checkpoint
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.publication import publish_manifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.storage import Storage, parent
from tests.conftest import S3, SHAPES
from tests.fake_kubernetes import FakeKubernetes
from tests.faulty_store import Fault, Kind, faulty_store
from tests.hub import stand_in_hub
from tests.operators.conftest import Held
from tests.operators.forwarder import forwarder
from tests.operators.tasks import TaskInstance, Try, die_while_running, wait_in_triggerer


def output_of(ti: TaskInstance) -> str:
    return f"{ti.parameters['cache_path']}/captions_step1.jsonl"


_written: dict[tuple[str, int | None], bytes] = {}


def expected_bytes(ti: TaskInstance, s3: S3) -> bytes:
    """Return what local mode writes for the same parameters."""
    source, rows = ti.parameters["first_entry_file_name"], ti.parameters.get("resume_point_rows")
    if (source, rows) not in _written:
        output = f"s3://{s3.bucket}/local.jsonl"
        fields = {"input": source, "output": output, "model": SHAPES}
        # it decides which rows are encoded together
        evaluate(parse_request(fields if rows is None else {**fields, "resume_point_rows": rows}), s3.storage)
        _written[source, rows] = s3.get(output)
    return _written[source, rows]


def work_of(ti: TaskInstance, requester: Requester, s3: S3) -> EvaluationManifest:
    """Do what the task instance's pod would do, for whoever asks."""
    source = ti.parameters["first_entry_file_name"]
    fields = {"input": source, "output": output_of(ti), "model": SHAPES, "image_root": parent(source)}
    return evaluate(EvaluationRequest.model_validate({**fields, "requested_by": requester}), s3.storage)


def own_manifest(ti: TaskInstance, s3: S3) -> EvaluationManifest:
    manifest = proof(s3.storage, output_of(ti))
    assert manifest is not None
    assert ti.requester in (manifest.request.requested_by, manifest.confirmed_by)
    return manifest


def may_be_tried_again(failure: Exception) -> bool:
    return not isinstance(failure, AirflowFailException)


def nothing_was_written(ti: TaskInstance, s3: S3) -> bool:
    prefix = ti.parameters["cache_path"].partition(f"{s3.bucket}/")[2]
    return not any(key.startswith(f"{prefix}/") for key in s3.object_keys())


# ---------------------------------------------------------------------------------------------- it does its work


@pytest.mark.every_airflow
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_pod_writes_the_same_bytes_and_hands_on_the_same_xcoms_as_local_mode(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, deferrable: bool
) -> None:
    ti = task({"image": "scorer:1" if deferrable else "scorer-from-scratch:1"}, deferrable=deferrable)
    assert ti.next_try().run() == ["clip_score"]
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    assert ti.xcoms["output_path"] == output_of(ti)
    assert ti.xcoms["output_step"] == 1
    assert ti.xcoms["summary"]["rows"]["scored"] == 60
    assert ti.xcoms["manifest"] == {"uri": f"{output_of(ti)}.manifest.json", "aws_conn_id": "store"}
    assert own_manifest(ti, s3).request.requested_by == ti.requester
    assert cluster.pods() == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_pods_step_that_does_not_pass_a_gate_fails_the_task_for_good(
    task: Callable[..., TaskInstance], s3: S3, deferrable: bool
) -> None:
    ti = task(deferrable=deferrable, min_mean_score=0.9)
    with pytest.raises(AirflowFailException, match=r"the mean score is 0\.[0-9]{4}, below min_mean_score=0\.9"):
        ti.next_try().run()
    assert ti.xcoms["summary"]["gates"]["passed"] is False
    assert own_manifest(ti, s3).rows.scored == 60


@pytest.mark.every_airflow
def test_a_task_that_does_not_say_where_to_wait_waits_where_airflows_setting_says(
    task: Callable[..., TaskInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert task({"image": "registry.example/scorer:7"}).next_try().defer().method_name == "trigger_reentry"


def test_no_secret_is_in_the_pod_the_calls_the_log_or_the_xcoms(
    task: Callable[..., TaskInstance],
    cluster: FakeKubernetes,
    s3: S3,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    ti = task(model_name="/no/model")
    with pytest.raises(AirflowException):  # a failure says more than a success
        ti.next_try().run()
    kept = json.dumps([cluster.created, cluster.requests, ti.xcoms, ti.state, vars(ti.next_try().operator)["pod"]])
    logged = caplog.text + "".join(capfd.readouterr())
    assert "model '/no/model' not found" in logged
    assert s3.store.secret_key not in kept + logged


@pytest.mark.every_airflow
@pytest.mark.parametrize("deferrable", [False, True])
def test_the_pods_log_is_the_tasks_with_its_levels_and_progress(
    task: Callable[..., TaskInstance],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    deferrable: bool,
) -> None:
    caplog.set_level(logging.INFO)
    task(deferrable=deferrable).next_try().run()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    lines = [text for _, text in told]
    assert any(level == "WARNING" and "Row 14 has no score: image_unreadable" in text for level, text in told)
    assert any(level == "INFO" and text.startswith("Scored 60 of 64 rows") for level, text in told)
    assert re.search(r"60 of 64 rows have a score, as \S+manifest.json proves", caplog.text)
    assert "manifest_version" not in caplog.text
    rows = [text for text in lines if re.match("Row [0-9]+ has no score|Scored [0-9]+ of 64 rows", text)]
    assert len(rows) == len(set(rows))  # the end of the log, too, is told once


@pytest.mark.parametrize("modes", [("local", "kubernetes"), ("kubernetes", "local")], ids="then ".join)
def test_a_try_goes_on_where_one_in_the_other_mode_has_stopped(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, modes: tuple[str, str]
) -> None:
    given = {**task().parameters, "resume_point_rows": 10}
    first, second = ({"execution_mode": mode, "pod": given["pod"] if mode == "kubernetes" else None} for mode in modes)
    ti = TaskInstance({**given, **first, "max_error_rate": 0.01})
    with pytest.raises(AirflowException, match=r"too many rows have no score: 4 of the 64 rows \(6\.2 %\), more than"):
        ti.next_try().run()
    again = TaskInstance({**given, **second, "max_error_rate": 0.1})
    again.next_try().run()
    assert again.xcoms["summary"]["rows"]["resumed"] == 62  # all but the missing and the broken image
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    assert len(cluster.created) == 1


def test_a_model_is_found_under_a_prefix_in_s3(task: Callable[..., TaskInstance], s3: S3) -> None:
    folder = find_checkpoint(SHAPES, None, Storage()).path
    ti = task(model_name=s3.put_folder(folder, "models/shapes"))
    ti.next_try().run()
    assert own_manifest(ti, s3).model.source == "s3"
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)


def test_a_model_is_found_on_a_mounted_volume(task: Callable[..., TaskInstance], s3: S3) -> None:
    folder = find_checkpoint(SHAPES, None, Storage()).path
    volume = {"name": "models", "hostPath": {"path": str(folder.parent)}}
    mount = {"name": "models", "mountPath": str(folder.parent), "readOnly": True}
    ti = task({"volumes": [volume], "volume_mounts": [mount]}, model_name=str(folder))
    ti.next_try().run()
    assert own_manifest(ti, s3).model.source == "folder"


def test_a_model_is_fetched_from_the_hub(task: Callable[..., TaskInstance], s3: S3) -> None:
    with stand_in_hub(find_checkpoint(SHAPES, None, Storage()).path) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": "/cache/huggingface"}
        ti = task({"image": "scorer:1", "env_vars": environment}, model_name="acme/clip")
        ti.next_try().run()
    assert own_manifest(ti, s3).model.source == "hub"


def test_api_troubles_that_pass_change_nothing(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.fail("POST", "/pods$", 429, headers={"Retry-After": "1"})
    cluster.fail("GET", "/events", 500)
    cluster.fail("GET", "/log", 500)
    cluster.fail("GET", r"/pods/[^/]+$", 503)
    cluster.drop_log_stream(after_lines=1)
    ti = task()
    assert ti.next_try().run() == ["clip_score"]
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)


def test_api_troubles_of_the_triggerer_change_nothing(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3
) -> None:
    ti = task(deferrable=True)
    first = ti.next_try()
    deferral = first.defer()
    cluster.fail("GET", r"/pods/[^/]+$", 500, times=2)
    cluster.end_watches_early()
    assert first.resume(wait_in_triggerer(deferral), deferral) == ["clip_score"]


# ------------------------------------------------------------------------------------------- it fails, and says why


@pytest.mark.every_airflow
def test_the_pods_own_error_is_the_tasks(task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3) -> None:
    for deferrable in (False, True):
        ti = task(model_name="/no/model", deferrable=deferrable)
        with pytest.raises(AirflowException, match=r"^model '/no/model' not found; tried the local folder"):
            ti.next_try().run()
        assert nothing_was_written(ti, s3)
    assert cluster.pods() == []


def test_a_request_that_cannot_be_carried_out_is_not_tried_again_and_has_no_pod(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    attempt = task(cache_type="{{ 'parquet' }}").next_try()
    attempt.operator.cache_type = "parquet"  # as the worker has it, which has rendered it
    with pytest.raises(AirflowFailException, match=r"jsonl.*parquet"):
        attempt.run()
    assert cluster.requests == []


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first_entry_file_name": "s3://no-such-bucket/captions.jsonl"}, "the bucket 'no-such-bucket' does not exist"),
        ({"input_text_key": "caption"}, r"^s3://\S+captions.jsonl has no column 'caption'; its columns are"),
        ({"image_root": "s3://no-such-bucket"}, "the bucket 'no-such-bucket' does not exist"),
    ],
)
def test_what_the_worker_can_tell_itself_needs_no_pod(
    task: Callable[..., TaskInstance],
    cluster: FakeKubernetes,
    s3: S3,
    wrong: dict[str, str],
    words: str,
    deferrable: bool,
) -> None:
    ti = task(**wrong, deferrable=deferrable)
    with pytest.raises(AirflowException, match=words) as failure:
        ti.next_try().run()
    assert may_be_tried_again(failure.value)
    assert cluster.requests == []
    assert nothing_was_written(ti, s3)


def test_images_that_are_nowhere_and_an_output_of_anothers_need_no_pod(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, data: str
) -> None:
    with pytest.raises(AirflowException, match=r"none of the 62 images .* paths start at s3://\S+/typo\. Nothing was"):
        task(image_root=f"{data}/typo").next_try().run()
    ti = task()
    s3.put(output_of(ti).partition(f"{s3.bucket}/")[2], b"precious\n")
    with pytest.raises(AirflowException, match="exists already and is not this job's"):
        ti.next_try().run()
    assert cluster.requests == []


def test_what_the_worker_may_not_read_the_pod_checks(
    task: Callable[..., TaskInstance],
    cluster: FakeKubernetes,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    denied = [Fault(Kind.ACCESS_DENIED, when=lambda asked: asked.key.startswith(("data/captions", "data/images")))]
    with faulty_store(s3.store.endpoint_url, denied) as proxy:
        through = s3.store.airflow_connection.replace(s3.store.endpoint_url, proxy.url)
        ti = task()
        monkeypatch.setenv("AIRFLOW_CONN_STORE", through)
        assert ti.next_try().run() == ["clip_score"]
    assert "The input is left to be checked where it is scored" in caplog.text
    assert len(cluster.created) == 1


def test_a_pod_that_was_to_have_a_gpu_and_finds_none_does_not_score_on_the_cpu(
    task: Callable[..., TaskInstance], s3: S3
) -> None:
    ti = task(gpus=1)
    with pytest.raises(AirflowException, match="cuda"):
        ti.next_try().run()
    assert nothing_was_written(ti, s3)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_pod_out_of_memory_says_so_and_suggests_a_smaller_batch(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    limits = {"limits": {"memory": "4Gi"}}
    ti = task({"image": "endless:1", "container_resources": limits}, batch_size=512, deferrable=deferrable)
    running = ti.next_try().start()
    cluster.oom_kill(cluster.wait_for_log("Scoring on cpu"))
    words = r"limit is 4Gi, ran out of memory and was killed \(OOMKilled\)\..* try a batch_size smaller than 512"
    with pytest.raises(AirflowException, match=words) as failure:
        running.result(60)
    assert may_be_tried_again(failure.value)
    assert cluster.pods() == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_evicted_pod_says_why_it_was_evicted(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    running = task({"image": "endless:1"}, deferrable=deferrable).next_try().start()
    cluster.evict(cluster.wait_for_log("Scoring on cpu"), "The node was low on resource: ephemeral-storage.")
    with pytest.raises(AirflowException, match=r"was evicted\. The node was low on resource: ephemeral-storage\."):
        running.result(60)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_image_that_cannot_be_pulled_is_named(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    ti = task({"image": "registry.example/scorer:7"}, deferrable=deferrable)
    with pytest.raises(AirflowException, match=r"the image 'registry.example/scorer:7' cannot be pulled \(\w+\): "):
        ti.next_try().run()
    cluster.wait_until(lambda seen: seen.pods() == [])


def test_a_pod_that_no_node_takes_says_what_is_lacking(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    ti = task({"schedule_timeout_seconds": 1, "container_resources": {"limits": {"nvidia.com/gpu": 8}}})
    with pytest.raises(AirflowException, match=r"no node took the pod \S+ in 1 s: .*Insufficient nvidia.com/gpu"):
        ti.next_try().run()
    assert cluster.pods() == []


def test_a_kubernetes_secret_that_is_not_there_is_named(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    ti = task({"env_from": [{"secretRef": {"name": "no-such"}}], "startup_timeout_seconds": 2})
    with pytest.raises(AirflowException, match=r"could not start \(CreateContainerConfigError\): .*no-such"):
        ti.next_try().run()


def test_a_pod_that_kubernetes_refuses_is_not_tried_again(task: Callable[..., TaskInstance]) -> None:
    volume_mounts = [{"name": "nowhere", "mountPath": "/x"}]
    with pytest.raises(AirflowFailException, match=r"Kubernetes' API refused: .*nowhere"):
        task({"volume_mounts": volume_mounts}).next_try().run()


def test_missing_permissions_are_told_in_kubernetes_own_words(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    cluster.fail("POST", "/pods$", 403, times=1000)
    with pytest.raises(AirflowException, match="Kubernetes' API refused: ") as failure:
        task().next_try().run()
    assert may_be_tried_again(failure.value)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_pod_that_cannot_even_be_described_is_not_tried_again(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    this: Any = task({"image": "{{ it }}"}, deferrable=deferrable).next_try()
    this.operator.pod = {**this.operator.pod, "image": ""}  # as it is rendered
    with pytest.raises(AirflowFailException, match=r"^pod needs an image"):
        this.run()
    assert cluster.requests == []


def test_a_cluster_that_cannot_be_reached_is_told_so(task: Callable[..., TaskInstance], tmp_path: Path) -> None:
    with pytest.raises(AirflowException, match="the pod could not be run: Invalid kube-config file"):
        task({"config_file": str(tmp_path / "no-such-config")}).next_try().run()


def has_been_taken_over(cluster: FakeKubernetes) -> bool:
    return any(cluster.pod(name)["metadata"]["annotations"]["clip-operator/try"] == "2" for name in cluster.pods())


def test_a_store_that_the_pod_loses_at_the_end_fails_the_task_with_the_pods_words(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, held: Held
) -> None:
    with forwarder(held.url) as way:
        cluster.secrets["store"] = {**s3.store.environment, "AWS_ENDPOINT_URL_S3": way.url}
        running = task(**held.parameters).next_try().start()
        cluster.wait_for_log("Row 14 has no score", timeout=60)
        way.close()
        with pytest.raises(AirflowException, match=re.escape(way.url)) as failure:
            running.result(120)
    assert "returned a failure" not in str(failure.value)


def test_a_store_that_the_worker_cannot_reach_at_the_end_fails_the_task_and_the_next_try_recognises_the_work(
    task: Callable[..., TaskInstance], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    ti = task(deferrable=True)
    with forwarder(s3.store.endpoint_url) as way:
        through = s3.store.airflow_connection.replace(s3.store.endpoint_url, way.url)
        monkeypatch.setenv("AIRFLOW_CONN_STORE", through)
        first = ti.next_try()
        deferral = first.defer()
        event = wait_in_triggerer(deferral)
        way.close()
        with pytest.raises(
            AirflowException, match=r"whether the pod did its work cannot be told.*The pod itself ended well$"
        ):
            first.resume(event, deferral)
    monkeypatch.setenv("AIRFLOW_CONN_STORE", s3.store.airflow_connection)
    written = s3.storage.stat(output_of(ti))
    assert ti.next_try().run() == ["clip_score"]
    assert s3.storage.stat(output_of(ti)) == written
    assert own_manifest(ti, s3).confirmed_by == ti.requester


def test_a_pod_that_writes_where_the_worker_does_not_look_is_no_success(task: Callable[..., TaskInstance]) -> None:
    ti = task(cache_path="/tmp/which-is-the-pods-own")
    with pytest.raises(AirflowException, match=r"ended well, but its manifest is not at /tmp/which.*the same store"):
        ti.next_try().run()


# ------------------------------------------------------------------------------------- tries, and pods that are gone


def test_a_pod_that_is_gone_at_re_entry_after_its_work_is_a_success(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3
) -> None:
    ti = task(deferrable=True)
    first = ti.next_try()
    deferral = first.defer()
    event = wait_in_triggerer(deferral)
    cluster.vanish(event["name"])
    assert first.resume(event, deferral) == ["clip_score"]
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)


@pytest.mark.parametrize("status", ["last", "running", "success", "failed", "error"])  # also KubernetesPodTrigger's
def test_a_pod_that_is_gone_at_re_entry_before_its_work_is_a_failure_whatever_the_triggerer_saw(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, status: str
) -> None:
    first = task({"image": "endless:1"}, deferrable=True).next_try()
    deferral = first.defer()
    (name,) = cluster.pods()
    cluster.vanish(name)
    kept = deferral.trigger.serialize()[1]["trigger_kwargs"]
    event = {"status": status, "name": name, "namespace": "default", "message": "?", **kept}
    with pytest.raises(AirflowException, match=r"the pod \S+ is gone and has left no manifest"):
        first.resume(event, deferral)


@pytest.mark.parametrize(
    ("deferrable", "end", "words"),
    [
        (False, FakeKubernetes.vanish, r"^the pod \S+ is gone and has left no manifest"),
        (True, FakeKubernetes.vanish, r"^the pod \S+ is gone and has left no manifest"),
        (False, FakeKubernetes.oom_kill, r"^the pod \S+ ran out of memory"),
        (True, FakeKubernetes.oom_kill, r"^the pod \S+ ran out of memory"),
    ],
)
def test_an_old_manifest_of_the_same_task_instance_does_not_cover_for_a_pod_that_did_nothing(
    task: Callable[..., TaskInstance],
    cluster: FakeKubernetes,
    s3: S3,
    deferrable: bool,
    end: Callable[[FakeKubernetes, str], None],
    words: str,
) -> None:
    ti = task({"image": "endless:1"}, deferrable=deferrable)
    done = work_of(ti, ti.requester, s3)
    publish_manifest(s3.storage, done.model_copy(update={"finished_at": done.finished_at - timedelta(hours=1)}))
    running = ti.next_try().start()  # it was cleared, and is run again
    end(cluster, cluster.wait_for_log("Scoring on cpu"))
    with pytest.raises(AirflowException, match=words):
        running.result(60)


def test_another_runs_work_is_recognised_and_its_confirmation_is_this_runs_success(
    task: Callable[..., TaskInstance], s3: S3
) -> None:
    monday = task()
    monday.next_try().run()
    written = s3.storage.stat(output_of(monday))
    tuesday = TaskInstance(monday.parameters, run_id="tuesday")
    assert tuesday.next_try().run() == ["clip_score"]
    assert s3.storage.stat(output_of(monday)) == written
    manifest = own_manifest(tuesday, s3)
    assert (manifest.request.requested_by, manifest.confirmed_by) == (monday.requester, tuesday.requester)


@pytest.mark.every_airflow
def test_a_worker_that_is_killed_leaves_a_pod_that_the_next_try_goes_on_with(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, held: Held
) -> None:
    ti = task(**held.parameters)
    worker = multiprocessing.get_context("spawn").Process(target=die_while_running, args=(ti,))
    worker.start()
    cluster.wait_for_log("Row 14 has no score", timeout=60)
    worker.kill()
    worker.join()
    ti.try_number = 1  # the killed process counted in its own memory
    running = ti.next_try().start()
    cluster.wait_until(has_been_taken_over)
    held.let_go()
    assert running.result(60) == ["clip_score"]
    assert len(cluster.created) == 1
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    assert cluster.pods() == []


def test_a_manifest_that_answers_another_request_is_no_success(task: Callable[..., TaskInstance]) -> None:
    first = task(deferrable=True).next_try()
    deferral = first.defer()
    event = wait_in_triggerer(deferral)
    event["clip_operator"]["request"]["output_key"] = "another_column"  # as if the DAG had changed in the meantime
    with pytest.raises(AirflowException, match=r"answers another request than this task's\. The pod itself ended well"):
        first.resume(event, deferral)


@pytest.mark.parametrize("other", [{"run_id": "tuesday"}, {"task_id": "again"}, {"map_index": 3}, {"dag_id": "other"}])
def test_another_task_instances_manifest_is_no_success(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, other: dict[str, Any]
) -> None:
    ti = task({"image": "endless:1"}, deferrable=True)
    first = ti.next_try()
    deferral = first.defer()
    (name,) = cluster.pods()
    kept = deferral.trigger.serialize()[1]["trigger_kwargs"]
    foreign = work_of(ti, ti.requester.model_copy(update=other), s3).request
    assert foreign.fingerprint() == parse_request(kept["clip_operator"]["request"]).fingerprint()
    cluster.vanish(name)
    event = {"status": "success", "name": name, "namespace": "default", **kept}
    with pytest.raises(AirflowException, match="answers another request than this task's"):
        first.resume(event, deferral)


@pytest.mark.parametrize("on_finish_action", ["delete_pod", "keep_pod"])
def test_a_pod_that_ended_while_no_worker_watched_is_believed_or_run_again(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, on_finish_action: str
) -> None:
    ti = task({"on_finish_action": on_finish_action}, deferrable=True)
    first = ti.next_try()
    wait_in_triggerer(first.defer())  # and then both the triggerer and the worker are lost
    assert ti.next_try().run() == ["clip_score"]
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    assert len(cluster.created) == 2  # it sees that the work is done, and that it still holds


def test_two_tries_that_overlap_watch_one_pod_and_both_see_its_work(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, held: Held
) -> None:
    ti = task(**held.parameters)
    zombie = ti.next_try().start()
    cluster.wait_for_log("Row 14 has no score", timeout=60)
    second = ti.next_try().start()
    cluster.wait_until(has_been_taken_over)
    held.let_go()
    assert second.result(60) == zombie.result(60) == ["clip_score"]
    assert len(cluster.created) == 1
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    assert cluster.pods() == []


@pytest.mark.every_airflow
def test_of_two_tries_that_overlap_with_a_pod_each_the_later_one_does_the_work(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, s3: S3, held: Held
) -> None:
    # No try looks for the pod of an earlier one: so Airflow 3.3 is told, and then those before it.
    ti = task({"durable": False, "reattach_on_restart": False}, **held.parameters)
    zombie = ti.next_try().start()
    cluster.wait_for_log("Row 14 has no score", timeout=60)
    second = ti.next_try().start()
    # while the later pod is held: of its manifest the earlier try would say, rightly, that its work is done
    with pytest.raises(
        AirflowException, match=r"is gone and has left no manifest|stopped before the output|was deleted before"
    ):
        zombie.result(60)
    held.let_go()
    assert second.result(60) == ["clip_score"]
    assert s3.get(output_of(ti)) == expected_bytes(ti, s3)
    cluster.wait_until(lambda seen: seen.pods() == [])


@pytest.mark.every_airflow
def test_a_task_that_is_killed_deletes_its_pod_and_fails(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    current = task({"image": "endless:1"}).next_try()
    running = current.start()
    cluster.wait_for_log("Scoring on cpu")
    current.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        running.result(60)
    cluster.wait_until(lambda seen: seen.pods() == [])


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_that_is_killed_while_its_pod_is_being_created_deletes_it_and_fails(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    cluster.fail("POST", "/pods$", 429, headers={"Retry-After": "1"})
    current = task({"image": "endless:1"}, deferrable=deferrable).next_try()
    running = current.start()
    cluster.wait_until(lambda seen: any(method == "POST" for method, _ in seen.requests))
    assert cluster.created == []  # Kubernetes was too busy; it is asked again
    current.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        running.result(60)
    cluster.wait_until(lambda seen: seen.pods() == [])


class KilledAtReEntry(KubernetesPodOperatorCallback):
    """Kills the task on the worker that reads the end of its pod's log."""

    @staticmethod
    def on_pod_completion(*, context: Mapping[str, Any], **_: object) -> None:
        """Do what Airflow does when it gets SIGTERM."""
        context["task"].on_kill()


@pytest.mark.every_airflow
def test_a_task_that_is_killed_when_it_comes_back_from_the_triggerer_deletes_its_pod_and_fails(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    ti = task({"callbacks": KilledAtReEntry}, deferrable=True)
    with pytest.raises(AirflowException, match="stopped before"):
        ti.next_try().run()
    cluster.wait_until(lambda seen: seen.pods() == [])
    assert "output_path" not in ti.xcoms


def test_a_task_that_is_killed_before_it_looks_for_its_pod_again_deletes_it_and_fails(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    ti = task({"image": "endless:1"}, deferrable=True)
    deferral = ti.next_try().defer()
    (name,) = cluster.pods()
    kept = deferral.trigger.serialize()[1]["trigger_kwargs"]
    event = {"status": "error", "name": name, "namespace": "default", "message": "?", **kept}
    again = Try(ti)  # on another worker, which has seen nothing of the pod
    again.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        again.operator.trigger_reentry(again.context, event)
    cluster.wait_until(lambda seen: seen.pods() == [])


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_task_that_is_killed_before_it_has_a_pod_starts_none(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes, deferrable: bool
) -> None:
    current = task({"image": "endless:1"}, deferrable=deferrable).next_try()
    current.operator.on_kill()
    with pytest.raises(AirflowException, match="stopped before"):
        current.run()
    assert cluster.created == []


@pytest.mark.every_airflow
def test_a_deferred_task_that_takes_too_long_deletes_its_pod_and_says_so(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    ti = task({"image": "endless:1"}, deferrable=True, execution_timeout=timedelta(seconds=3))
    with pytest.raises(AirflowException, match="was ended, because the task's execution_timeout is over"):
        ti.next_try().run()
    cluster.wait_until(lambda seen: seen.pods() == [])


# --------------------------------------------------------------------------------------------------- permissions


@pytest.mark.every_airflow
def test_the_documented_permissions_are_those_that_are_used(
    task: Callable[..., TaskInstance], cluster: FakeKubernetes
) -> None:
    task().next_try().run()
    task(deferrable=True).next_try().run()
    task({"on_finish_action": "keep_pod"}).next_try().run()
    with pytest.raises(AirflowException):
        task(model_name="/no/model").next_try().run()
    waits = {"schedule_timeout_seconds": 2, "container_resources": {"limits": {"nvidia.com/gpu": 8}}}
    with pytest.raises(AirflowException, match="no node took the pod"):
        task(waits, deferrable=True).next_try().run()
    used = {permission(method, path) for method, path in cluster.requests}
    assert used == documented_permissions()


def permission(method: str, path: str) -> tuple[str, str]:
    """Return the resource and the verb, as Kubernetes' access rules name them."""
    path, _, query = path.partition("?")
    match = re.fullmatch(r"/api/v1/namespaces/[^/]+/(pods|events)(/[^/]+)?(/log)?", path)
    assert match is not None, path
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(method, "get" if match[2] else "list")
    if verb == "list" and "watch=" in query:
        verb = "watch"
    return match[1] + (match[3] or ""), verb


def documented_permissions() -> set[tuple[str, str]]:
    import yaml

    text = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: Role" in block]
    rules = [rule for block in blocks for part in yaml.safe_load_all(block) for rule in part.get("rules", [])]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}

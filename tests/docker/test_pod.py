"""Pods of the real image, as the operator asks for them: with a pod's mounts, users and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from clip_operator.job.evaluation import evaluate
from clip_operator.model import find_checkpoint
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES
from tests.docker.images import CONTAINERS_ENVIRONMENT
from tests.fake_kubernetes import FakeKubernetes, Podman, fake_kubernetes
from tests.operators.tasks import task_in_pod

pytestmark = pytest.mark.image


@pytest.fixture
def cluster(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    monkeypatch.setenv("AIRFLOW_CONN_STORE", s3.store.airflow_connection)
    with fake_kubernetes(tmp_path / "kubernetes", Podman(CONTAINERS_ENVIRONMENT)) as running:
        running.secrets["store"] = s3.store.environment
        yield running


def test_a_pod_of_the_image_scores_as_the_worker_does_with_a_model_on_a_volume(
    image: str, cluster: FakeKubernetes, s3: S3, shapes_dataset: Path
) -> None:
    folder = s3.put_folder(shapes_dataset, "data")
    checkpoint = find_checkpoint(SHAPES, None, Storage()).path
    volumes = {
        "volumes": [{"name": "models", "hostPath": {"path": str(checkpoint.parent)}}],
        "volume_mounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    }
    ti = task_in_pod(
        cluster, folder, f"{folder}/steps", {"image": image, **volumes}, model_name=f"/models/{checkpoint.name}"
    )
    assert ti.next_try().run() == ["clip_score"]
    local = EvaluationRequest(input=f"{folder}/captions.jsonl", output=f"{folder}/local.jsonl", model=SHAPES)
    evaluate(local, s3.storage)
    assert s3.get(f"{folder}/steps/captions_step1.jsonl") == s3.get(local.output)
    manifest = proof(s3.storage, f"{folder}/steps/captions_step1.jsonl")
    assert manifest is not None
    assert manifest.model.name == f"/models/{checkpoint.name}"
    assert cluster.pods() == []


def test_the_error_of_a_pod_without_rights_reaches_the_task(
    image: str, cluster: FakeKubernetes, s3: S3, shapes_dataset: Path
) -> None:
    folder = s3.put_folder(shapes_dataset, "data")
    ti = task_in_pod(cluster, folder, f"{folder}/steps", {"image": image}, model_name="/no/model")
    with pytest.raises(AirflowException, match=r"^model '/no/model' not found"):
        ti.next_try().run()


def test_a_pod_that_the_kernel_kills_is_said_to_be_out_of_memory(
    image: str, cluster: FakeKubernetes, s3: S3, shapes_dataset: Path
) -> None:
    folder = s3.put_folder(shapes_dataset, "data")
    pod = {"image": image, "container_resources": {"limits": {"memory": "96Mi"}}}
    ti = task_in_pod(cluster, folder, f"{folder}/steps", pod)
    with pytest.raises(AirflowException, match=r"memory limit is 96Mi, ran out of memory and was killed \(OOMKilled\)"):
        ti.next_try().run()

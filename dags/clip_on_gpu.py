"""
### Score a data set on a GPU

The task runs in a Kubernetes pod with one NVIDIA GPU and waits for it in the triggerer, so that no worker is held while
the pod scores. Models from the hub are kept on a volume, so that the next pod need not fetch them again.

Before the first run: build the image (`docker/Dockerfile`, `DEVICE=cuda`) and name it in the Variable `clip_gpu_image`;
give the service account `clip-scorer` access to the bucket; make the volume claim `clip-models`, whose volume must take
several pods at a time; and bind the role in `docs/kubernetes.md` to Airflow's workers and triggerers. The pod is
described in the DAG's code, and not in its form: it decides what a run may do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import Param, dag

from clip_operator.operators import ImageCLIPEvaluatorOperator


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "first_entry_file_name": Param(
            "s3://clip-demo/shapes/captions.jsonl", type="string", minLength=1, title="Data set"
        ),
        "cache_path": Param("s3://clip-demo/shapes/on-gpu", type="string", minLength=1, title="Folder of the steps"),
        "model_name": Param(
            "openai/clip-vit-large-patch14",
            type="string",
            minLength=1,
            title="Model",
            description="A hub id, a folder in the image or on a volume, or an s3:// prefix.",
        ),
        "gpus": Param(1, type="integer", enum=[0, 1], title="GPUs", description="0 to try it without."),
    },
    default_args={"owner": "data-platform", "retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["clip", "image-text", "kubernetes", "gpu", "example"],
    doc_md=__doc__,
)
def clip_on_gpu() -> None:
    ImageCLIPEvaluatorOperator(
        task_id="score",
        doc_md="Starts the pod, waits for it in the triggerer, and hands on what its manifest says.",
        first_entry_file_name="{{ params.first_entry_file_name }}",
        cache_path="{{ params.cache_path }}",
        file_name_prefix="captions",
        model_name="{{ params.model_name }}",
        error_key="clip_error",
        precision="auto",
        execution_mode="kubernetes",
        gpus="{{ params.gpus }}",
        deferrable=True,
        execution_timeout=timedelta(hours=12),
        pod={
            "image": "{{ var.value.get('clip_gpu_image', 'clip-operator:cuda') }}",
            "namespace": "default",
            "service_account_name": "clip-scorer",
            "container_resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
            "security_context": {"fsGroup": 10001},
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "clip-models"}}],
            "volume_mounts": [{"name": "models", "mountPath": "/cache"}],
        },
    )


clip_on_gpu()

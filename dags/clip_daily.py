"""
### Keep a scored copy of a data set up to date

Looks every day whether the data set has changed, and if so scores it anew. If not, the task sees that from the manifest
beside its output and does nothing. A step whose scores say next to nothing, with an AUC below 0.7, fails the task.

**Before you switch it on**, say in the Variable `clip_daily` what is scored, and where the steps are written:
`{"first_entry_file_name": "s3://my-bucket/captions.jsonl", "cache_path": "s3://my-bucket/steps"}`. Without it, that is
the demo's data set. Until then it is paused.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, dag

from clip_operator.operators import ImageCLIPEvaluatorOperator

DEMO = {"first_entry_file_name": "s3://clip-demo/shapes/captions.jsonl", "cache_path": "s3://clip-demo/shapes/daily"}
PLACES = f"var.json.get('clip_daily', {DEMO})"


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args={"owner": "data-platform", "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["clip", "image-text", "data-quality", "example"],
    doc_md=__doc__,
)
def clip_daily() -> None:
    ImageCLIPEvaluatorOperator(
        task_id="score",
        doc_md="Scores the data set if it has changed, and judges the gate.",
        first_entry_file_name=f"{{{{ {PLACES}.first_entry_file_name }}}}",
        cache_path=f"{{{{ {PLACES}.cache_path }}}}",
        file_name_prefix="captions",
        model_name="builtin://shapes-clip",  # knows the demo's shapes only: name a real one for your own data
        error_key="clip_error",
        min_auc=0.7,
        outlets=[AssetAlias("clip_scores")],
    )


clip_daily()

"""
### Score a data set with CLIP, many workers at once

For data sets that are too much for one machine. The result is that of one task: the same bytes, manifest and XComs.

| Task | |
|---|---|
| `plan` | checks the data set and the output, and divides the rows into shards: none if the step is complete |
| `score` | one mapped instance for each shard, named by its rows, on a worker or in a pod of its own |
| `merge` | sees that every shard has done its part, makes one step and one manifest of them, and clears up |

**When a shard fails**, Airflow tries it again, and it goes on where it stopped. If it fails for good, `merge` does not
run, and the shards that are done stay done. Repair what its log names, then clear that one mapped instance (and
`merge`). After changing a parameter, trigger the DAG anew: shards that fit the new parameters are not scored again.

**How many shards?** The model is loaded for each, so let a shard have minutes of work, and let there be a few times as
many shards as workers, so that none waits long for the last. How many run at a time is `max_active_tis_per_dagrun` in
this file, here 2, or a pool. Text is cut every *rows between resume points*, Parquet between row groups, many files
between files.

| XCom of `merge` | |
|---|---|
| `return_value` | the score columns: `["clip_score"]` |
| `output_path`, `output_step` | where the scored step is, and its number |
| `summary` | row counts, statistics of the scores, calibration, gates, model, device |
| `manifest` | where the manifest of the step is |

**Quality gates** are judged by `merge`, for the whole step.

**Pods** are made of what the Variable `clip_pod` says, and not of what a form could: their image, account and Secrets
decide what a run may do. For instance `{"image": "registry.example/clip-operator:cpu", "namespace": "ml"}`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, Param, dag

from clip_operator.operators import clip_evaluation_group

PARAMS = {
    "first_entry_file_name": Param(
        "s3://clip-demo/shapes/captions.jsonl",
        type="string",
        minLength=1,
        title="Data set",
        description="URI of step 0: a file, folder or pattern of jsonl, json, csv, tsv (all four also compressed), "
        "parquet or tar, or a data set of the hub, as in hf:user/name.",
        section="Data",
    ),
    "cache_path": Param(
        "s3://clip-demo/shapes/in-shards",
        type="string",
        minLength=1,
        title="Folder of the steps",
        description="URI of the folder where the scored step is written.",
        section="Data",
    ),
    "file_name_prefix": Param(
        "captions",
        type="string",
        minLength=1,
        title="Name of the steps",
        description="Steps are called {name}_step{number}.{format}.",
        section="Data",
    ),
    "cache_type": Param(
        "jsonl",
        type="string",
        enum=["jsonl", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz"],
        title="Format of the steps",
        description="The data set's own format, or one that can hold it without loss (json and csv fit into jsonl).",
        section="Data",
    ),
    "shards": Param(
        7,
        type="integer",
        minimum=1,
        title="Shards",
        description="Parts that are scored by task instances of their own.",
        section="Shards",
    ),
    "resume_point_rows": Param(
        8,  # the demo's data set has so few rows that it could not be cut otherwise
        type="integer",
        minimum=1,
        title="Rows between resume points",
        description="Results are saved, and text files are cut, every so many rows. 4096 suits real data; the demo's "
        "data set has 64 rows.",
        section="Shards",
    ),
    "output_layout": Param(
        "file",
        type="string",
        enum=["file", "parts"],
        values_display={"file": "One file", "parts": "One part file for each shard"},
        title="Layout of the step",
        description="Part files are merged without copying.",
        section="Shards",
    ),
    "model_name": Param(
        "builtin://shapes-clip",
        type="string",
        minLength=1,
        title="Model",
        description="A hub id such as openai/clip-vit-base-patch32, a folder, an s3:// prefix, or "
        "builtin://shapes-clip, which knows drawn shapes only.",
        section="Model",
    ),
    "reuse": Param(
        None,
        type=["null", "string"],
        title="Score store",
        description="URI of a folder where scores are kept from run to run, for rows that have not changed.",
        section="Model",
    ),
    "error_key": Param(
        "clip_error",
        type=["null", "string"],
        title="Reason column to add",
        description="Says why a row has no score. Leave empty for no such column.",
        section="Rows without a score",
    ),
    "on_error": Param(
        "null",
        type="string",
        enum=["null", "zero", "fail"],
        values_display={"null": "Get null", "zero": "Get 0.0", "fail": "Fail their shard at the first one"},
        title="Rows that cannot be scored",
        description="Such as those whose image is missing. Each has a reason, which is counted.",
        section="Rows without a score",
    ),
    "max_error_rate": Param(
        0.1,
        type="number",
        minimum=0,
        maximum=1,
        title="Largest share without a score",
        description="More than this fails the run; 1 accepts any.",
        section="Rows without a score",
    ),
    "min_mean_score": Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=1,
        title="Lowest mean score",
        description="Leave empty for no limit.",
        section="Quality gates",
    ),
    "min_auc": Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=1,
        title="Lowest AUC",
        description="How well the scores tell rows from mismatched pairs: 0.5 is guessing, 1 is perfect. Leave empty "
        "for no limit.",
        section="Quality gates",
    ),
    "execution_mode": Param(
        "local",
        type="string",
        enum=["local", "kubernetes"],
        values_display={"local": "Shards on the workers", "kubernetes": "Shards in a Kubernetes pod each"},
        title="Execution mode",
        description="What a pod is made of is in Airflow's Variable clip_pod, which the DAG's description explains.",
        section="Where it runs",
    ),
    "gpus": Param(
        0,
        type="integer",
        enum=[0, 1],
        title="GPUs",
        description="With 1 each pod gets an NVIDIA GPU, and fails if it finds none.",
        section="Where it runs",
    ),
}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={"owner": "data-platform", "retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["clip", "image-text", "example"],
    doc_md=__doc__,
)
def clip_in_shards() -> None:
    clip_evaluation_group(
        shards="{{ params.shards }}",
        output_layout="{{ params.output_layout }}",
        score={"max_active_tis_per_dagrun": 2},
        first_entry_file_name="{{ params.first_entry_file_name }}",
        cache_path="{{ params.cache_path }}",
        file_name_prefix="{{ params.file_name_prefix }}",
        cache_type="{{ params.cache_type }}",
        resume_point_rows="{{ params.resume_point_rows }}",
        model_name="{{ params.model_name }}",
        reuse="{{ params.reuse or '' }}",
        error_key="{{ params.error_key or '' }}",
        on_error="{{ params.on_error }}",
        max_error_rate="{{ params.max_error_rate }}",
        min_mean_score="{{ params.min_mean_score }}",
        min_auc="{{ params.min_auc }}",
        outlets=[AssetAlias("clip_scores")],
        execution_mode="{{ params.execution_mode }}",
        gpus="{{ params.gpus }}",
        # Whose image, account and Secrets are no matter of a form.
        pod="{{ (var.json.get('clip_pod', {}) if params.execution_mode == 'kubernetes' else {}) | tojson }}",
    )


clip_in_shards()

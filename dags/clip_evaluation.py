"""
### Score a data set with CLIP

Reads one step of a data set from object storage, scores how well each row's image and text agree, writes the next step
beside it with a `clip_score` column, and fails if the result does not pass its gates.

- **Run it by hand** (*Trigger*) to score your own file: the form explains every parameter. It has no schedule;
  `clip_daily` has one.
- **Choose where it runs**: on the worker, or in a Kubernetes pod with a GPU.
- **Run it again** as often as you like: if neither the file, the parameters nor the model have changed since the last
  run, the task sees that from the manifest beside its output and does nothing.

| XCom of `score` | |
|---|---|
| `return_value` | the score columns: `["clip_score"]` |
| `output_path` | where the scored step is |
| `output_step` | its number |
| `summary` | row counts, statistics of the scores, calibration, filtered step, gates, model, device |
| `manifest` | where the manifest of the step is |

A score is (cos + 1) / 2. Real CLIP models put matching pairs at about 0.60 to 0.70 and unrelated ones at about 0.55 to
0.60, so what is a good score differs from model to model. That is why the task also scores **mismatched pairs**, each
row's image with other rows' texts: the *AUC* says how well the scores tell rows from these (0.5 is guessing, 1 is
perfect), and the *suggested threshold* is the score that does so best.

**A pod** is made of what the Variable `clip_pod` says, and not of what a form could: its image, its account and its
Secrets decide what a run may do. For instance `{"image": "registry.example/clip-operator:cpu", "namespace": "ml",
"service_account_name": "clip-scorer"}`: whatever Kubernetes mode takes as `pod`.

When the step is there, an asset event of the alias `clip_scores` says so to other DAGs, such as `clip_scores_ready`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import AssetAlias, Param, dag

from clip_operator.operators import ImageCLIPEvaluatorOperator

# Airflow connections that the form offers. Add yours: whoever may trigger this DAG may then read and write with it.
CONNECTIONS = ["aws_default"]

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
        "s3://clip-demo/shapes/steps",
        type="string",
        minLength=1,
        title="Folder of the steps",
        description="URI of the folder where scored steps are written.",
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
    "step": Param(
        "0",
        type="string",
        title="Step to read",
        description="0 is the data set itself; a number, or latest for the highest complete step.",
        section="Data",
    ),
    "aws_conn_id": Param(
        CONNECTIONS[0],
        type="string",
        enum=CONNECTIONS,
        title="Connection",
        description="With which places in S3 are read and written. This DAG's file lists those to choose from, as "
        "CONNECTIONS.",
        section="Data",
    ),
    "overwrite": Param(
        False,
        type="boolean",
        title="Overwrite",
        description="Score again, and replace an output or a column that something else wrote.",
        section="Data",
    ),
    "input_image_key": Param(
        "image_path",
        type="string",
        minLength=1,
        title="Image column",
        description="Holds a path relative to the data set, a URI, a data: URI, or image bytes (parquet).",
        section="Columns",
    ),
    "input_text_key": Param(
        "text",
        type="string",
        minLength=1,
        title="Text column",
        description="Holds the caption.",
        section="Columns",
    ),
    "output_key": Param(
        "clip_score",
        type="string",
        minLength=1,
        title="Score column to add",
        description="Holds (cos + 1) / 2, from 0 to 1.",
        section="Columns",
    ),
    "error_key": Param(
        "clip_error",
        type=["null", "string"],
        title="Reason column to add",
        description="Says why a row has no score. Leave empty for no such column.",
        section="Columns",
    ),
    "image_root": Param(
        None,
        type=["null", "string"],
        title="Folder of the images",
        description="Where relative image paths start. By default the data set's own folder.",
        section="Columns",
    ),
    "image_buckets": Param(
        None,
        type=["null", "string"],
        title="Other buckets with images",
        description="Beside the data set's own and the one of the folder above; names with commas between them.",
        section="Columns",
    ),
    "cosine_key": Param(
        None,
        type=["null", "string"],
        title="Cosine column to add",
        description="For instance clip_cosine: the cosine itself, from -1 to 1. Leave empty for no such column.",
        section="More output",
    ),
    "clipscore_key": Param(
        None,
        type=["null", "string"],
        title="CLIPScore column to add",
        description="For instance clipscore: 2.5 times the cosine, or 0 if that is negative (Hessel et al. 2021). "
        "Leave empty for no such column.",
        section="More output",
    ),
    "percentile_key": Param(
        None,
        type=["null", "string"],
        title="Percentile column to add",
        description="For instance clip_percentile: how many of 100 mismatched pairs score lower, which is easier to "
        "compare between models than scores are. Leave empty for no such column.",
        section="More output",
    ),
    "sentence_key": Param(
        None,
        type=["null", "string"],
        title="Worst sentence column to add",
        description="For instance clip_worst: of texts that are longer than the model reads, the sentence that agrees "
        "least with the image. A second column, clip_worst_score, has its score. Leave empty for no such columns.",
        section="More output",
    ),
    "min_score": Param(
        None,
        type=["null", "string"],
        title="Lowest score to keep",
        description="Rows with this score or more are also written to a step of their own, "
        "{name}_filtered_step{number}. From 0 to 1, or threshold for the suggested one. Leave empty for no such step.",
        section="More output",
    ),
    "keep_top": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        maximum=1,
        title="Share of rows to keep",
        description="The best rows are also written to that step: this share of those with a score, as in 0.3. Rows "
        "must keep both limits, if both are given. Leave empty for no such limit.",
        section="More output",
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
    "model_revision": Param(
        None, type=["null", "string"], title="Revision", description="Hub branch, tag or commit.", section="Model"
    ),
    "device": Param(
        None,
        type=["null", "string"],
        title="Device",
        description="cuda, cpu, … By default a GPU if there is one.",
        examples=["cuda", "cpu"],
        section="Model",
    ),
    "precision": Param(
        "fp32",
        type="string",
        enum=["fp32", "auto", "bf16", "fp16"],
        title="Precision",
        description="bf16 and fp16 are faster on GPUs, and scores differ a little. auto: fp16 on GPUs, else fp32.",
        section="Model",
    ),
    "batch_size": Param(
        "auto",
        type="string",
        title="Batch size",
        description="Images that go through the model together, or auto.",
        section="Model",
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
    "max_below_threshold": Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=1,
        title="Largest share below the threshold",
        description="Of the scored rows, from 0 to 1: below the suggested threshold. Leave empty for no limit.",
        section="Quality gates",
    ),
    "on_gate": Param(
        "fail",
        type="string",
        enum=["fail", "mark"],
        values_display={"fail": "Fail the task", "mark": "Say so in the log and in the summary"},
        title="If a gate is not passed",
        description="The scored step stays in either case.",
        section="Quality gates",
    ),
    "on_error": Param(
        "null",
        type="string",
        enum=["null", "zero", "fail"],
        values_display={"null": "Get null", "zero": "Get 0.0", "fail": "Fail the task at the first one"},
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
    "rescore": Param(
        "none",
        type="string",
        enum=["none", "failed"],
        values_display={"none": "None, if the step is complete", "failed": "Those that have no score"},
        title="Rows to score again",
        description="Where the scored step is there already: keep its scores, and try again the rows that have none.",
        section="Rows without a score",
    ),
    "execution_mode": Param(
        "local",
        type="string",
        enum=["local", "kubernetes"],
        values_display={"local": "On the worker", "kubernetes": "In a Kubernetes pod of its own"},
        title="Execution mode",
        description="What a pod is made of is in Airflow's Variable clip_pod, which the DAG's description explains.",
        section="Where it runs",
    ),
    "gpus": Param(
        0,
        type="integer",
        enum=[0, 1],
        title="GPUs",
        description="With 1 the pod gets an NVIDIA GPU, and fails if it finds none.",
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
    tags=["clip", "image-text", "data-quality"],
    doc_md=__doc__,
)
def clip_evaluation() -> None:
    ImageCLIPEvaluatorOperator(
        task_id="score",
        doc_md="Reads the step, scores every row, writes the next step and its manifest, and judges the gates.",
        outlets=[AssetAlias("clip_scores")],
        first_entry_file_name="{{ params.first_entry_file_name }}",
        cache_path="{{ params.cache_path }}",
        file_name_prefix="{{ params.file_name_prefix }}",
        cache_type="{{ params.cache_type }}",
        step="{{ params.step }}",
        aws_conn_id="{{ params.aws_conn_id }}",
        input_image_key="{{ params.input_image_key }}",
        input_text_key="{{ params.input_text_key }}",
        output_key="{{ params.output_key }}",
        error_key="{{ params.error_key or '' }}",
        cosine_key="{{ params.cosine_key or '' }}",
        clipscore_key="{{ params.clipscore_key or '' }}",
        percentile_key="{{ params.percentile_key or '' }}",
        sentence_key="{{ params.sentence_key or '' }}",
        image_root="{{ params.image_root or '' }}",
        image_buckets="{{ params.image_buckets or '' }}",
        model_name="{{ params.model_name }}",
        model_revision="{{ params.model_revision or '' }}",
        device="{{ params.device or '' }}",
        precision="{{ params.precision }}",
        batch_size="{{ params.batch_size }}",
        min_score="{{ params.min_score or '' }}",
        keep_top="{{ params.keep_top }}",
        min_mean_score="{{ params.min_mean_score }}",
        min_auc="{{ params.min_auc }}",
        max_below_threshold="{{ params.max_below_threshold }}",
        on_gate="{{ params.on_gate }}",
        on_error="{{ params.on_error }}",
        max_error_rate="{{ params.max_error_rate }}",
        rescore="{{ '' if params.rescore == 'none' else params.rescore }}",
        overwrite="{{ params.overwrite }}",
        execution_mode="{{ params.execution_mode }}",
        gpus="{{ params.gpus }}",
        # Whose image, account and Secrets are no matter of a form.
        pod="{{ (var.json.get('clip_pod', {}) if params.execution_mode == 'kubernetes' else {}) | tojson }}",
    )


clip_evaluation()

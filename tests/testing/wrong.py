"""DAGs that are wrong, each in a way of its own, and what is to be said of it.

Each is the body of a file: ``PLACES`` names a data set and a folder that no other has.
"""

from __future__ import annotations

HEAD = """\
from datetime import datetime
from airflow.sdk import DAG, Asset, Param, dag, task, task_group
from clip_operator.operators import ImageCLIPEvaluatorOperator, clip_evaluation_group

BEGIN = datetime(2026, 1, 1)
PLACES = {{"first_entry_file_name": "s3://data/{name}.jsonl", "cache_path": "s3://steps/{name}"}}
POD = {{"image": "registry.example/clip:1", "namespace": "ml"}}
IN_POD = {{**PLACES, "execution_mode": "kubernetes"}}

def one(dag_id="{name}", params=None, schedule=None, **given):
    with DAG(dag_id, schedule=schedule, start_date=BEGIN, params=params):
        ImageCLIPEvaluatorOperator(task_id="score", **{{**PLACES, **given}})

"""

WRONG: dict[str, tuple[str, str]] = {
    "misspelled_parameter": ("one(batchsize=16)", r"ImageCLIPEvaluatorOperator \(task_id: score\).*batchsize"),
    "misspelled_in_partial": (
        """
with DAG("misspelled_in_partial", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", batchsize=1, **PLACES).expand(file_name_prefix=["a", "b"])
""",
        "batchsize",
    ),
    "column_is_read_and_written": ('one(output_key="text")', "the column 'text' is read and written"),
    "column_twice": ('one(cosine_key="clip_score")', "two of the columns to add are both called 'clip_score'"),
    "column_twice_by_params": (
        'one(params={"out": "score"}, output_key="{{ params.out }}", error_key="score")',
        "two of the columns to add are both called 'score'",
    ),
    "gate_out_of_range": ("one(min_auc=1.5)", "min_auc"),
    "gate_is_no_number": ('one(min_mean_score="high")', "min_mean_score"),
    "wrong_on_gate": ('one(on_gate="ignore")', "on_gate must be"),
    "unknown_precision": ('one(precision="fp8")', "precision: Input should be"),
    "wrong_batch_size": ("one(batch_size=0)", "batch_size: .*number of images from 1"),
    "pod_with_unknown_argument": ('one(**IN_POD, pod={**POD, "imagee": "x"})', "'imagee'; did you mean 'image'"),
    "pod_with_misspelled_field": (
        """
one(**IN_POD, pod={**POD, "volumes": [{"name": "v", "persistentVolumeClaimm": {"claimName": "c"}}]})
""",
        "has a field 'persistentVolumeClaimm' that Kubernetes does not know",
    ),
    "pod_with_wrong_type": (
        """
from kubernetes.client import models as k8s

one(**IN_POD, pod={**POD, "env_vars": [k8s.V1EnvVar(name="THREADS", value=4)]})
""",
        r"spec.containers\[0\].env\[0\].value must be of the type str, not 4",
    ),
    "pod_with_wrong_amount": (
        'one(**IN_POD, pod={**POD, "container_resources": {"limits": {"memory": "16 GB"}}})',
        r"spec.containers\[0\].resources.limits.memory must be an amount such as 4, 500m or 8Gi",
    ),
    "pod_mounts_nothing": (
        'one(**IN_POD, pod={**POD, "volume_mounts": [{"name": "models", "mountPath": "/cache"}]})',
        "name 'models', and there is no such volume",
    ),
    "pod_with_secret": (
        'one(**IN_POD, pod={**POD, "env_vars": {"AWS_SECRET_ACCESS_KEY": "hush"}})',
        "AWS_SECRET_ACCESS_KEY would stand in the pod's specification",
    ),
    "pod_without_image": ('one(**IN_POD, pod={"namespace": "ml"})', "pod needs an image"),
    "pod_without_image_by_template": (
        """
one(params={"mode": "kubernetes"}, execution_mode="{{ params.mode }}", pod={"namespace": "ml"})
""",
        "pod needs an image",
    ),
    "gpus_on_the_worker": ("one(gpus=1)", "gpus: for a pod, which the task has not"),
    "gpus_on_the_worker_by_params": (
        'one(params={"gpus": 1}, gpus="{{ params.gpus }}")',
        "gpus: for a pod, which the task has not",
    ),
    "pod_on_the_worker": ("one(pod=POD)", "pod: for a pod, which the task has not"),
    "template_syntax": ('one(cache_path="s3://steps/{{ ds }")', "cannot be read: "),
    "unknown_variable": ('one(cache_path="s3://steps/{{ datestamp }}")', "uses 'datestamp', which neither Airflow nor"),
    "unknown_filter": ('one(file_name_prefix="{{ ds | nodash }}")', "cannot be read: No filter named 'nodash'"),
    "unknown_param": (
        'one(params={"model": "x"}, model_name="{{ params.modell }}")',
        "uses the Param 'modell', which the DAG has not",
    ),
    "unknown_variable_in_pod": (
        'one(**IN_POD, pod={**POD, "image": "clip:{{ version }}"})',
        "pod: the template .* uses 'version'",
    ),
    "param_default_judged": (
        'one(params={"images": Param("lots", type="string")}, batch_size="{{ params.images }}")',
        "batch_size: .*must be a number of images",
    ),
    "param_default_of_another_type": (
        'one(params={"rate": Param("high", type="number")}, max_error_rate="{{ params.rate }}")',
        "the default of the Param 'rate' is not one",
    ),
    "empty_param_of_a_schedule": (
        'one(schedule="@daily", params={"model": ""}, model_name="{{ params.model }}")',
        "model_name must not be empty",
    ),
    "two_tasks_one_output": (
        """
with DAG("two_tasks_one_output", schedule=None):
    for column in ("text", "alt_text"):
        ImageCLIPEvaluatorOperator(task_id=column, input_text_key=column, **PLACES)
""",
        "alt_text: it writes s3://steps/two_tasks_one_output/dataflow_cache_step_step1.jsonl, which 'text' writes, too",
    ),
    "two_tasks_one_output_by_template": (
        """
with DAG("two_tasks_one_output_by_template", schedule=None):
    for column in ("text", "alt_text"):
        ImageCLIPEvaluatorOperator(
            task_id=column, input_text_key=column, **{**PLACES, "cache_path": "s3://steps/{{ ds }}"}
        )
""",
        "which 'text' writes, too",
    ),
    "task_and_group_one_output": (
        """
with DAG("task_and_group_one_output", schedule=None):
    ImageCLIPEvaluatorOperator(task_id="score", **PLACES)
    clip_evaluation_group(**PLACES, input_text_key="alt_text")
""",
        "which 'score' writes, too",
    ),
    "mapped_instances_one_output": (
        """
with DAG("mapped_instances_one_output", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", **PLACES).expand(input_text_key=["text", "alt_text"])
""",
        "each would write over what another wrote",
    ),
    "mapped_instances_one_output_by_kwargs": (
        """
with DAG("mapped_instances_one_output_by_kwargs", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", **PLACES).expand_kwargs(
        [{"input_text_key": "text"}, {"input_text_key": "alt_text"}]
    )
""",
        "instances 0 and 1 to parameters that name the same output",
    ),
    "mapped_group_one_output": (
        """
with DAG("mapped_group_one_output", schedule=None):
    @task_group
    def scored(column):
        ImageCLIPEvaluatorOperator(task_id="score", input_text_key=column, **PLACES)
    scored.expand(column=["text", "alt_text"])
""",
        "each instance of its mapped group writes s3://steps/mapped_group_one_output/dataflow_cache_step_step1.jsonl",
    ),
    "mapped_instance_wrong": (
        """
with DAG("mapped_instance_wrong", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", **PLACES).expand_kwargs(
        [{"file_name_prefix": "a"}, {"file_name_prefix": "b", "precision": "half"}]
    )
""",
        "precision: Input should be",
    ),
    "two_dags_one_output": (
        'one("a_first", input_text_key="text")\none("a_second", input_text_key="alt_text")',
        "and so does 'score' of the DAG 'a_first' with other parameters",
    ),
    "input_is_output": (
        'one(first_entry_file_name="s3://steps/input_is_output/dataflow_cache_step_step1.jsonl")',
        "input and output are the same object",
    ),
    "output_among_embeddings": (
        'one(embeddings_path="s3://steps/")',
        "is in s3://steps: let embeddings_path name a folder for nothing but embeddings",
    ),
    "does_not_wait": (
        """
with DAG("does_not_wait", schedule=None):
    ImageCLIPEvaluatorOperator(task_id="first", **PLACES)
    ImageCLIPEvaluatorOperator(task_id="second", step=1, output_key="other", **PLACES)
""",
        "it reads step 1, which 'first' writes, and does not wait for it: write first >> second",
    ),
    "does_not_wait_for_kept_rows": (
        """
with DAG("does_not_wait_for_kept_rows", schedule=None):
    ImageCLIPEvaluatorOperator(task_id="first", keep_top=0.5, keep_rejected=True, **PLACES)
    ImageCLIPEvaluatorOperator(
        task_id="second", step=1, file_name_prefix="dataflow_cache_step_rejected", output_key="other", **PLACES
    )
""",
        "it reads step 1, which 'first' writes, and does not wait for it",
    ),
    "kept_rows_over_another_output": (
        """
with DAG("kept_rows_over_another_output", schedule=None):
    kept = {"file_name_prefix": "dataflow_cache_step_filtered"}
    first = ImageCLIPEvaluatorOperator(task_id="first", min_score=0.5, **PLACES)
    first >> ImageCLIPEvaluatorOperator(task_id="of_all", step=1, output_key="b", min_score=0.5, **PLACES)
    first >> ImageCLIPEvaluatorOperator(task_id="of_kept", step=1, output_key="b", **kept, **PLACES)
""",
        "it writes s3://steps/kept_rows_over_another_output/dataflow_cache_step_filtered_step2.jsonl, which",
    ),
    "two_tasks_one_folder_for_embeddings": (
        """
with DAG("two_tasks_one_folder_for_embeddings", schedule=None):
    first, second = (
        ImageCLIPEvaluatorOperator(task_id=name, file_name_prefix=name, embeddings_path=folder, **PLACES)
        for name, folder in (("a", "s3://embeddings/x"), ("b", "s3://embeddings/x/"))
    )
    first >> second
""",
        "it writes its embeddings to s3://embeddings/x, which 'a' writes, too: give one of them another embedd",
    ),
    "pickle": ('one(cache_type="pickle")', "is a pickle"),
    "unknown_format": ('one(cache_type="xlsx")', "does not end in a known table format"),
    "csv_from_parquet": (
        'one(first_entry_file_name="s3://data/x.parquet", cache_type="csv.gz")',
        "A parquet table cannot be written as csv without loss",
    ),
    "filter_of_parts": (
        """
with DAG("filter_of_parts", schedule=None):
    clip_evaluation_group(**PLACES, output_layout="parts", min_score=0.5)
""",
        "min_score takes all rows' scores",
    ),
    "shards_in_two_units": (
        """
with DAG("shards_in_two_units", schedule=None):
    clip_evaluation_group(**PLACES, shards=4, shard_rows=1000)
""",
        "say the same thing in different units",
    ),
    "shard_without_plan": ('one(shard="00001-of-00002")', "shard without plan"),
    "secret_in_a_uri": ('one(cache_path="s3://me:hush@steps/x")', "must not hold a password"),
    "mistyped_uri": ('one(cache_path="s3:/steps/x")', "two slashes follow the scheme"),
    "heavy_import": ("import pandas\none()", "heavy_import.py:14 imports pandas each time that Airflow reads the file"),
    "wrong_image_hosts": ('one(image_hosts={"a.org": True})', "image_hosts must be a list of names"),
    "wrong_reasons": ('one(max_error_rates={"image_gone": 0.1})', "max_error_rates"),
    "two_connections": (
        'one(cache_path="s3://one@steps/x", aws_conn_id="other")',
        "cache_path names the connection 'one', but aws_conn_id 'other'",
    ),
    "wrong_step": ('one(step="newest")', "step must be a whole number from 0 on, or 'latest'"),
    "no_first_entry": ('one(first_entry_file_name="")', "step 0 is the file that first_entry_file_name names"),
    "rescore_of_sentences": ('one(rescore="failed", sentence_key="worst")', "does not go with sentence_key"),
    "lists_with_a_filter": ('one(aggregate="all", min_score=0.5)', "does not go with min_score"),
    "wrong_delimiter": ('one(delimiter="||")', "delimiter: .*must be a single character"),
    "wrong_mode": ('one(execution_mode="pod")', "execution_mode must be 'local' or 'kubernetes'"),
    "syntax_error": ("one(", "cannot be imported: SyntaxError"),
}
"""The body of the file, and a pattern that one finding matches."""

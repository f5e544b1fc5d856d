"""DAGs that are right, written as people write them; of none is anything to be said."""

from __future__ import annotations

RIGHT: dict[str, str] = {
    "plain": "one()",
    "all_that_goes_together": """
one(
    input_image_key="conversation[0].value", output_key="agreement", error_key="why", cosine_key="cosine",
    clipscore_key="clipscore", percentile_key="percentile", min_score="threshold", on_error="zero", aggregate="max",
    image_path_rewrite={"/mnt/old/": "s3://images/"}, image_hosts=["example.org"], image_buckets="images, more",
    max_error_rates={"image_unavailable": 0.01}, min_auc=0.7, on_gate="mark", precision="bf16", reuse="s3://scores/x",
)
""",
    "taskflow": """
@dag(dag_id="taskflow", schedule=None, start_date=BEGIN)
def made():
    @task
    def prepare() -> str:
        return "s3://data/today.jsonl"

    @task
    def tell(summary):
        print(summary)

    scored = ImageCLIPEvaluatorOperator(task_id="score", first_entry_file_name=prepare(), cache_path="s3://steps/tf")
    tell(scored.output["summary"])

made()
""",
    "classic": """
made = DAG(dag_id="classic", schedule="@daily", start_date=BEGIN, catchup=False)
score = ImageCLIPEvaluatorOperator(task_id="score", dag=made, **PLACES)
again = ImageCLIPEvaluatorOperator(task_id="again", dag=made, step=1, output_key="alt_score", **PLACES)
again.set_upstream(score)
""",
    "chained_by_xcom": """
with DAG("chained_by_xcom", schedule=None):
    first = ImageCLIPEvaluatorOperator(task_id="first", **PLACES)
    ImageCLIPEvaluatorOperator(task_id="second", step=first.output["output_step"], output_key="b", **PLACES)
    ImageCLIPEvaluatorOperator(
        task_id="third", step="{{ ti.xcom_pull(task_ids='second', key='output_step') }}", output_key="c", **PLACES
    )
""",
    "latest": """
with DAG("latest", schedule=None):
    first = ImageCLIPEvaluatorOperator(task_id="first", step="latest", **PLACES)
    first >> ImageCLIPEvaluatorOperator(task_id="second", step="latest", output_key="b", **PLACES)
""",
    "mapped": """
with DAG("mapped", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", cache_path="s3://steps/m").expand(
        first_entry_file_name=["s3://data/a.jsonl"], file_name_prefix=["a", "b"]
    )
    ImageCLIPEvaluatorOperator.partial(
        task_id="by_index", cache_path="s3://steps/{{ ti.map_index }}", map_index_template="{{ task.input_text_key }}"
    ).expand(first_entry_file_name=["s3://data/a.jsonl", "s3://data/b.jsonl"])
""",
    "mapped_by_kwargs": """
with DAG("mapped_by_kwargs", schedule=None):
    ImageCLIPEvaluatorOperator.partial(task_id="score", cache_path="s3://steps/k").expand_kwargs(
        [{"first_entry_file_name": f"s3://data/{name}.jsonl", "file_name_prefix": name} for name in "abc"]
    )
""",
    "mapped_by_another_task": """
with DAG("mapped_by_another_task", schedule=None):
    @task
    def inputs():
        return [{"first_entry_file_name": "s3://data/a.csv", "file_name_prefix": "a", "cache_type": "csv"}]

    ImageCLIPEvaluatorOperator.partial(task_id="score", cache_path="s3://steps/x").expand_kwargs(inputs())

    @task
    def names():
        return ["a", "b"]

    ImageCLIPEvaluatorOperator.partial(task_id="each", **PLACES).expand(file_name_prefix=names())
""",
    "mapped_group": """
with DAG("mapped_group", schedule=None):
    @task_group
    def scored(column):
        ImageCLIPEvaluatorOperator(
            task_id="score", input_text_key=column, file_name_prefix=column, **PLACES
        )

    scored.expand(column=["text", "alt_text"])

    @task_group
    def by_index(column):
        ImageCLIPEvaluatorOperator(
            task_id="score", input_text_key=column, file_name_prefix="part_{{ ti.map_index }}", **PLACES
        )

    by_index.expand(column=["text", "alt_text"])
""",
    "in_shards": """
with DAG("in_shards", schedule=None):
    scored = clip_evaluation_group(
        shards=4, score={"max_active_tis_per_dagrun": 2}, execution_mode="kubernetes", gpus=1, pod=POD, **PLACES
    )
    in_parts = clip_evaluation_group("parts", output_layout="parts", **{**PLACES, "cache_path": "s3://steps/parts"})

    @task
    def tell(columns):
        print(columns)

    tell(scored.output)
""",
    "params": """
PARAMS = {
    "first": Param(type="string", minLength=1),
    "input": Param("", type="string", title="to be filled in"),
    "folder": Param("s3://steps/params", type="string"),
    "prefix": Param(None, type="string"),
    "images": Param("auto", type="string"),
    "gate": Param(None, type=["null", "number"]),
    "hosts": Param(["a.org", "b.org"], type="array"),
    "error_key": Param(None, type=["null", "string"]),
    "gpus": Param(0, type="integer"),
}
one(
    params=PARAMS, first_entry_file_name="{{ params.first }}", cache_path="{{ params['folder'] }}",
    file_name_prefix="{{ params.prefix }}", batch_size="{{ params.images }}", min_auc="{{ params.gate }}",
    image_hosts="{{ params.hosts }}", error_key="{{ params.error_key or '' }}", gpus="{{ params.gpus }}",
    model_name="{{ params.get('model', 'builtin://shapes-clip') }}",
    image_root="{% if params.folder is defined %}s3://images{% endif %}",
)
one("params_input", params=PARAMS, first_entry_file_name="{{ params.input }}", cache_path="s3://steps/other")
""",
    "variables_and_connections": """
one(
    cache_path="s3://{{ var.value.bucket }}/{{ ds_nodash }}/{{ data_interval_start | ds }}", aws_conn_id="store",
    file_name_prefix="{{ var.value.get('prefix', 'captions') }}", image_root="s3://{{ conn.store.extra_dejson.b }}",
    pod="{{ (var.json.get('pod', {}) if params.mode == 'kubernetes' else {}) | tojson }}", params={"mode": "local"},
    execution_mode="{{ params.mode }}",
)
""",
    "object_storage_path": """
from airflow.sdk import ObjectStoragePath

BASE = ObjectStoragePath("s3://store@data/osp")
one(first_entry_file_name=BASE / "captions.jsonl", cache_path=BASE / "steps" / "{{ ds }}", image_buckets=[BASE])
""",
    "native_rendering": """
with DAG("native_rendering", schedule="@daily", start_date=BEGIN, render_template_as_native_obj=True, params={
    "images": 16, "rates": {"image_unavailable": 0.1}, "hosts": ["a.org"], "on": True, "rate": 0.5
}):
    ImageCLIPEvaluatorOperator(
        task_id="score", batch_size="{{ params.images }}", max_error_rates="{{ params.rates }}",
        image_hosts="{{ params.hosts }}", overwrite="{{ params.on }}", max_error_rate="{{ params.rate }}", **PLACES
    )
""",
    "macros_of_jinja": '''
one(
    schedule="@daily",
    file_name_prefix="""{% macro named(day) %}c_{{ day }}{% endmacro %}{{ named(ds) }}""",
    input_text_key="{% set column = 'caption' %}{{ column }}",
    image_hosts="{% for n in range(3) %}host{{ n }}.org{{ ',' if not loop.last }}{% endfor %}",
    error_key="{{ macros.ds_add(ds, 1) }}",
    model_revision="{{ unknown | default('main') }}",
)
''',
    "user_defined": """
with DAG(
    "user_defined", schedule=None, user_defined_macros={"bucket": lambda: "steps", "suffix": "x"},
    user_defined_filters={"clean": lambda text: text.strip()},
):
    ImageCLIPEvaluatorOperator(
        task_id="score", first_entry_file_name="s3://data/{{ suffix | clean }}.csv", cache_path="s3://{{ bucket() }}/u"
    )
""",
    "subclass": """
class Curated(ImageCLIPEvaluatorOperator):
    template_fields = (*ImageCLIPEvaluatorOperator.template_fields, "dataset")

    def __init__(self, *, dataset, **kwargs):
        super().__init__(cache_path="", first_entry_file_name="", min_auc=0.6, **kwargs)
        self.dataset = dataset
        self.cache_path = f"s3://steps/{dataset}"
        self.first_entry_file_name = f"s3://data/{dataset}.jsonl"

class Marked(ImageCLIPEvaluatorOperator):
    pass

with DAG("subclass", schedule=None):
    Curated(task_id="score", dataset="shapes-of-a-subclass")
    Curated.partial(task_id="each").expand(dataset=["a", "b"])
    Marked(task_id="marked", **PLACES)
""",
    "factory": """
def made(name, **given):
    with DAG(f"factory_{name}", schedule="@weekly", start_date=BEGIN) as dag:
        ImageCLIPEvaluatorOperator(
            task_id="score", first_entry_file_name=f"s3://data/{name}.jsonl", cache_path="s3://steps/factory",
            file_name_prefix=name, **given
        )
    return dag

for NAME, MODEL in {"a": "openai/clip-vit-base-patch32", "b": "builtin://shapes-clip"}.items():
    globals()[NAME] = made(NAME, model_name=MODEL)
""",
    "default_args": """
with DAG("default_args", schedule=None, default_args={
    "aws_conn_id": "store", "cache_path": "s3://steps/defaults", "model_name": "builtin://shapes-clip", "retries": 2
}):
    ImageCLIPEvaluatorOperator(task_id="a", first_entry_file_name="s3://data/a.jsonl", file_name_prefix="a")
    ImageCLIPEvaluatorOperator(task_id="b", first_entry_file_name="s3://data/b.jsonl", file_name_prefix="b")
""",
    "template_searchpath": """
from pathlib import Path

with DAG("template_searchpath", schedule=None, template_searchpath=[str(Path(__file__).parent / "templates")]):
    ImageCLIPEvaluatorOperator(task_id="score", input_text_key="{% include 'column.txt' %}", **PLACES)
""",
    "assets": """
from airflow.sdk import AssetAlias

with DAG("assets", schedule=[Asset("s3://data/assets.jsonl")]):
    ImageCLIPEvaluatorOperator(task_id="score", outlets=[AssetAlias("scores")], **PLACES)
""",
    "one_of_two_ways": """
with DAG("one_of_two_ways", schedule=None):
    @task.branch
    def choose():
        return "on_gpu"

    choose() >> [
        ImageCLIPEvaluatorOperator(task_id="on_gpu", precision="fp16", gpus=1, pod=POD, **IN_POD),
        ImageCLIPEvaluatorOperator(task_id="on_worker", **PLACES),
    ]
""",
    "fallback": """
with DAG("fallback", schedule=None):
    first = ImageCLIPEvaluatorOperator(task_id="first", gpus=1, pod=POD, precision="fp16", **IN_POD)
    first >> ImageCLIPEvaluatorOperator(task_id="second", trigger_rule="all_failed", **PLACES)
""",
    "scored_again": """
with DAG("scored_again", schedule=None):
    first = ImageCLIPEvaluatorOperator(task_id="first", **PLACES)
    again = ImageCLIPEvaluatorOperator(task_id="again", rescore="failed", **PLACES)
    first >> again >> ImageCLIPEvaluatorOperator(task_id="anew", overwrite=True, input_text_key="alt", **PLACES)
""",
    "by_hand_and_by_schedule": 'one("by_hand")\none("by_schedule", schedule="@daily", batch_size=64)',
    "pods_of_all_kinds": """
from kubernetes.client import models as k8s

one("pod_json", **IN_POD, gpus="1", pod='{"image": "clip:1", "container_resources": {"limits": {"memory": "8Gi"}}}')
one("pod_text", cache_path="s3://steps/pod_text", **{k: v for k, v in IN_POD.items() if k != "cache_path"},
    pod="{'image': 'clip:1'}")
one("pod_objects", cache_path="s3://steps/pod_objects", execution_mode="kubernetes", pod={
    "image": "clip:{{ var.value.version }}", "namespace": "{{ var.value.namespace }}",
    "labels": {"team": "{{ params.team }}"},
    "volumes": [k8s.V1Volume(name="models", persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource("c"))],
    "volume_mounts": [k8s.V1VolumeMount(name="models", mount_path="/cache")],
    "env_from": [{"secretRef": {"name": "store"}}], "startup_timeout_seconds": "{{ params.seconds }}",
    "container_resources": {"requests": {"cpu": 4, "memory": "{{ params.memory }}"}},
    "tolerations": "{{ var.json.tolerations | tojson }}",
}, params={"team": "a", "seconds": 5, "memory": "8Gi"})
one("pod_file", cache_path="s3://steps/pod_file", execution_mode="kubernetes", pod={"pod_template_file": "/opt/x.yaml"})
one("pod_spec", cache_path="s3://steps/pod_spec", execution_mode="kubernetes", pod={"full_pod_spec": {
    "metadata": {"name": "scorer"}, "spec": {"containers": [{"name": "base", "image": "clip:1"}]}
}})
""",
    "other_marks": """
with DAG("other_marks", schedule=None, jinja_environment_kwargs={
    "variable_start_string": "[[", "variable_end_string": "]]"
}, params={"images": 8}):
    ImageCLIPEvaluatorOperator(task_id="score", batch_size="[[ params.images ]]", error_key="{{why}}", **PLACES)
""",
    "lenient_templates": """
import jinja2

with DAG("lenient_templates", schedule=None, template_undefined=jinja2.Undefined):
    ImageCLIPEvaluatorOperator(task_id="score", error_key="{{ params.why }}{{ nothing }}", **PLACES)
""",
    "data_sets_of_all_kinds": """
for NAME, FIRST, KIND in [
    ("hub", "hf:owner/name:default:train", "parquet"), ("folder", "s3://data/parts/", "parquet"),
    ("pattern", "s3://data/part-*.parquet", "parquet"), ("tars", "s3://data/shard-*.tar", "jsonl"),
    ("packed", "s3://data/x.csv.zst", "jsonl.gz"), ("local", "/data/x.tsv", "tsv"), ("google", "gs://d/x.json", "json"),
    ("other", "s3://data/export", "csv"),
]:
    one(f"kind_{NAME}", first_entry_file_name=FIRST, cache_path=f"s3://steps/kinds/{NAME}", cache_type=KIND)
""",
    "imports_when_it_runs": """
with DAG("imports_when_it_runs", schedule=None):
    @task
    def look():
        import pandas
        return len(pandas.DataFrame())

    look() >> ImageCLIPEvaluatorOperator(task_id="score", **PLACES)
""",
    "rows_and_embeddings_beside_the_output": """
with DAG("rows_and_embeddings_beside_the_output", schedule=None):
    beside = {"keep_top": 0.3, "keep_rejected": True}
    scored = clip_evaluation_group(**PLACES, **beside, embeddings_path="s3://embeddings/y")
    kept = ImageCLIPEvaluatorOperator(
        task_id="kept", file_name_prefix="dataflow_cache_step_filtered", step=1, output_key="again",
        embeddings_path="s3://embeddings/{{ task.task_id }}", **PLACES
    )
    others = ImageCLIPEvaluatorOperator(
        task_id="others", file_name_prefix="dataflow_cache_step_rejected", step=1, output_key="again",
        embeddings_path="s3://embeddings/{{ task.task_id }}", **PLACES
    )
    scored >> [kept, others]
""",
    "others_operators": """
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("others_operators", schedule=None, params={"text": Param("abc", type="integer")}):
    EmptyOperator(task_id="nothing")
""",
}
"""The body of each file."""

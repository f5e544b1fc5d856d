"""Parameters mean what they say: however they are rendered, as paths of any kind, and where they render to nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import DAG, ObjectStoragePath

from clip_operator.errors import RequestError
from clip_operator.operators import (
    ImageCLIPEvaluatorOperator,
    MergeShardsOperator,
    PlanShardsOperator,
    clip_evaluation_group,
)
from clip_operator.operators.parameters import connection_in
from clip_operator.operators.task_instance import parameters_of
from clip_operator.operators.work import work_of
from clip_operator.request import EvaluationRequest
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES
from tests.operators.tasks import TaskInstance

Operator = type[ImageCLIPEvaluatorOperator]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

# What only a pod takes, which no task here has.
FOR_PODS = {"pod", "gpus", "deferrable", "max_api_outage_seconds"}
LISTS = ("image_hosts", "image_buckets", "image_path_repairs", "column_names")
TEXTS = [
    name
    for name in PlanShardsOperator.template_fields
    if name not in FOR_PODS
    and name not in ("step", "min_score", "report", "overwrite", "batch_size", "shards", "on_gate", "output_layout")
    and name not in (*LISTS, "image_path_rewrite")
    and not name.startswith(("max_", "min_", "keep_", "resume_", "embedding_", "shard_"))
]


def rendered(operator: Operator, given: dict[str, Any], *, native: bool = False, **params: Any) -> Any:
    """Return a task as a worker has it, with all templates rendered."""
    with DAG("d", schedule=None, start_date=BEGIN, render_template_as_native_obj=native):
        task = operator(task_id="t", **given)
    task.render_template_fields({"params": params})
    return task


def run(operator: Operator, given: dict[str, Any], *, native: bool = False, **params: Any) -> tuple[Any, TaskInstance]:
    """Run one try of a task on a worker; return its result and the task instance."""
    task = rendered(operator, given, native=native, **params)
    ti = TaskInstance({}, task_id="t")
    context: Any = {"ti": ti, "run_id": ti.run_id, "task": task, "dag": SimpleNamespace(), "task_state_store": ti.state}
    return task.execute(context), ti


def request_of(given: dict[str, Any], *, native: bool = False, **params: Any) -> EvaluationRequest:
    """Return the request that a task makes of its parameters."""
    places = {"first_entry_file_name": "/no/raw/in.jsonl", "cache_path": "/no/steps"}
    task = rendered(ImageCLIPEvaluatorOperator, {**places, **given}, native=native, **params)
    return work_of(parameters_of(task, task.template_fields), TaskInstance({}).requester, Storage()).request


@dataclass(frozen=True)
class Done:
    """Steps that are complete, and what the tasks were given and returned that have made them."""

    folder: Path
    given: dict[Operator, dict[str, Any]]
    returned: dict[Operator, Any]

    def files(self) -> list[str]:
        """All that stands there, but for plans, which are made and removed again and again."""
        paths = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        return sorted(path for path in paths if ".shards" not in path)


@pytest.fixture(scope="module")
def done(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    here = tmp_path_factory.mktemp("done")
    shutil.copytree(shapes_dataset, here / "data")
    one: dict[str, Any] = {
        "first_entry_file_name": f"{here}/data/captions.jsonl",
        "cache_path": f"{here}/steps",
        "model_name": SHAPES,
    }
    divided = {**one, "file_name_prefix": "divided", "resume_point_rows": 16}
    names, _ = run(PlanShardsOperator, {**divided, "shards": 2})
    plan = str(next((here / "steps").glob("divided*/*/plan.json")))
    for name in names:
        run(ImageCLIPEvaluatorOperator, {**divided, "plan": plan, "shard": name})
    given: dict[Operator, dict[str, Any]] = {
        ImageCLIPEvaluatorOperator: one,
        MergeShardsOperator: {**divided, "plan": plan},
        PlanShardsOperator: divided,
    }
    returned = {operator: run(operator, parameters)[0] for operator, parameters in given.items()}
    before = Path.cwd()
    os.chdir(here)
    yield Done(here, given, returned)
    os.chdir(before)


def outcome(operator: Operator, given: dict[str, Any], native: bool) -> Any:
    """Return what a task returns, or the text of its error."""
    try:
        return run(operator, given, native=native, nothing=None, blank="")[0]
    except (AirflowException, AirflowFailException, RequestError) as error:  # the last as the DAG is parsed
        return str(error)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (operator, name)
        for operator in (ImageCLIPEvaluatorOperator, PlanShardsOperator, MergeShardsOperator)
        for name in operator.template_fields
        if name not in FOR_PODS
    ],
    ids=str,
)
def test_what_renders_to_nothing_is_not_set_or_is_named(done: Done, operator: Operator, name: str) -> None:
    """A new parameter is held to it, too: none may take ``None`` for a column, a place, or a number."""
    before = done.files()
    forms = ["{{ params.nothing }}", "{{ params.blank }}", " None ", "", None]
    for form in [[form] for form in forms] + forms if name in LISTS else forms:
        for native in (False, True):
            found = outcome(operator, {**done.given[operator], name: form}, native)
            if isinstance(found, str):
                assert name in found
                assert "None" not in found.replace("not None", "")
            else:
                assert found == done.returned[operator]
            assert done.files() == before


def test_a_text_that_only_holds_the_word_is_a_text() -> None:
    assert request_of({"error_key": "{{ params.nothing }}_why"}, nothing=None).error_key == "None_why"


MEANT: list[tuple[str, object, object]] = [
    ("error_key", 5, "5"),
    ("error_key", "2026_10", "2026_10"),
    ("error_key", "1.50", "1.50"),
    ("error_key", "True", "True"),
    ("error_key", "007", "007"),
    ("error_key", 0.5, "0.5"),
    ("model_revision", "1e10", "1e10"),
    ("device", "0", "0"),
    ("batch_size", "16", 16),
    ("batch_size", 16, 16),
    ("max_image_bytes", "5.0", 5),
    ("max_error_rate", "0.5", 0.5),
    ("max_error_rate", 1, 1.0),
    ("min_score", "0.5", 0.5),
    ("min_score", "threshold", "threshold"),
    ("max_score", "0.9", 0.9),
    ("min_percentile", "95", 95.0),
    ("keep_top", "0.3", 0.3),
    ("overwrite", "true", True),
    ("overwrite", "False", False),
    ("overwrite", 1, True),
    ("image_path_rewrite", {"/old/": "s3://b/new/", "/x/": None}, {"/old/": "s3://b/new/"}),
    ("image_path_rewrite", '{"/old/": "./"}', {"/old/": "./"}),
    ("image_path_rewrite", "/old/=./", {"/old/": "./"}),
    ("image_path_repairs", ["percent", "blanks"], ("blanks", "percent")),
    ("image_path_repairs", "percent, blanks", ("blanks", "percent")),
    ("image_hosts", ["a.org", "b.org"], ("a.org", "b.org")),
    ("image_hosts", ("a.org",), ("a.org",)),
    ("image_hosts", {"b.org", "a.org"}, ("a.org", "b.org")),
    ("image_hosts", "['a.org', 'b.org']", ("a.org", "b.org")),
    ("image_hosts", '["a.org", "b.org"]', ("a.org", "b.org")),
    ("image_hosts", "a.org, b.org", ("a.org", "b.org")),
    ("image_hosts", "[::1] a.org", ("[::1]", "a.org")),
    ("image_hosts", [None, "a.org"], ("a.org",)),
    ("image_buckets", [2026], ("2026",)),
    ("max_error_rates", {"image_unavailable": 0.01}, {"image_unavailable": 0.01}),
    ("max_error_rates", {"image_unavailable": "0.01", "text_empty": None}, {"image_unavailable": 0.01}),
    ("max_error_rates", "{'image_unavailable': 0.01}", {"image_unavailable": 0.01}),
    ("max_error_rates", '{"image_unavailable": 0.01}', {"image_unavailable": 0.01}),
    ("max_error_rates", "image_unavailable=0.01", {"image_unavailable": 0.01}),
]


def in_order(value: object) -> str:
    """Return what stands for a value in a test's name, the same in every process."""
    return str(sorted(value) if isinstance(value, set) else value)


@pytest.mark.parametrize(("name", "value", "meaning"), MEANT, ids=in_order)
def test_a_value_is_taken_for_what_it_means_however_it_is_rendered(name: str, value: Any, meaning: Any) -> None:
    field = {"model_revision": "revision"}.get(name, name)
    for form in ("{{ params.value }}", value):
        for native in (False, True):
            if isinstance(value, set) and form != value:
                continue  # a form has none, and its text is another each time
            request = request_of({name: form}, native=native, value=value)
            assert getattr(request, field) == meaning


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [["a"], {"a": 1}, BEGIN], ids=str)
def test_a_value_that_is_no_text_is_named_where_a_text_is_meant(name: str, value: object) -> None:
    task: Any = PlanShardsOperator(task_id="t", step=1, cache_path="/no/steps")
    setattr(task, name, value)
    with pytest.raises(RequestError, match=rf"{name} must be text, not a value of type {type(value).__name__}"):
        parameters_of(task, task.template_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_hosts", {"a.org": 1}),
        ("image_buckets", [["a"]]),
        ("batch_size", [16]),
        ("batch_size", "1.5"),
        ("max_error_rate", {"a": 1}),
        ("max_error_rates", ["a"]),
        ("max_error_rates", 0.5),
        ("overwrite", [True]),
        ("overwrite", "perhaps"),
        ("step", 1.5),
        ("step", [1]),
        ("min_score", [0.5]),
        ("keep_top", "30 %"),
        ("keep_top", 0),
        ("keep_rejected", "perhaps"),
        ("keep_rejected", [True]),
    ],
    ids=str,
)
def test_a_value_that_means_nothing_is_refused_by_the_parameters_name(name: str, value: Any) -> None:
    for native in (False, True):
        with pytest.raises(RequestError, match=name):
            request_of({name: "{{ params.value }}"}, native=native, value=value)


PATHS = [Path("/p/q"), ObjectStoragePath("s3://store@b/k"), ObjectStoragePath("/p/q")]
PLACES = ("first_entry_file_name", "cache_path", "model_name", "image_root", "reuse", "plan", "python")


def test_a_path_is_a_place_wherever_one_is_taken(shapes_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes_dataset, tmp_path / "data")
    texts = {
        "first_entry_file_name": f"{tmp_path}/data/{{{{ params.name }}}}.jsonl",
        "cache_path": f"{tmp_path}/steps",
        "image_root": f"{tmp_path}/data",
        "reuse": f"{tmp_path}/scores",
    }
    manifests = []
    for kind in (str, Path, ObjectStoragePath):
        given = {**{name: kind(text) for name, text in texts.items()}, "model_name": SHAPES}
        _, ti = run(ImageCLIPEvaluatorOperator, given, name="captions")
        assert ti.xcoms["output_path"] == f"{tmp_path}/steps/dataflow_cache_step_step1.jsonl"
        told = json.loads((tmp_path / "steps/dataflow_cache_step_step1.jsonl.manifest.json").read_bytes())
        manifests.append({name: value for name, value in told.items() if not name.startswith("confirmed_")})
    assert manifests[0] == manifests[1] == manifests[2], "the same request, which was done"


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "place", [Path("/p/q"), ObjectStoragePath("s3://store@b/k"), ObjectStoragePath("/p/q")], ids=str
)
def test_every_place_may_be_a_path_of_any_kind(name: str, place: Any) -> None:
    shard = {"shard": "00001-of-00002"} if name == "plan" else {}
    task: Any = ImageCLIPEvaluatorOperator(task_id="t", **{"cache_path": "/no/steps", "step": 1, **shard, name: place})
    told = parameters_of(task, task.template_fields)
    assert told[name] == str(place).replace("store@", "")
    setattr(task, name, place)  # as a task before may hand it on
    assert parameters_of(task, task.template_fields) == told


@pytest.fixture
def stored(s3: S3, shapes_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A bucket with the demo data set, and the connection that reaches it."""
    s3.put_folder(shapes_dataset, "data")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", s3.store.airflow_connection)
    return s3


def places_in(bucket: str, conn: str = "") -> dict[str, str]:
    at = f"{conn}@" if conn else ""
    return {
        "first_entry_file_name": f"s3://{at}{bucket}/data/captions.jsonl",
        "cache_path": f"s3://{at}{bucket}/steps",
        "reuse": f"s3://{at}{bucket}/scores",
    }


def versions(stored: S3) -> dict[str, str]:
    """Return the version of each object, but of the manifest, which is confirmed each time."""
    keys = [key for key in stored.object_keys() if not key.endswith(".manifest.json")]
    return {key: stored.client.head_object(Bucket=stored.bucket, Key=key)["ETag"] for key in keys}


def test_a_connection_in_a_place_is_the_tasks_and_stands_nowhere_else(stored: S3) -> None:
    own: dict[str, Any] = {"model_name": SHAPES, "image_buckets": [f"s3://{stored.bucket}"]}
    _, ti = run(ImageCLIPEvaluatorOperator, {**places_in(stored.bucket), **own, "aws_conn_id": "store"})
    first = versions(stored)
    named = places_in(stored.bucket, "store")
    ways: list[dict[str, Any]] = [
        named,
        {name: ObjectStoragePath(place) for name, place in named.items()},
        {name: ObjectStoragePath(place, conn_id="store") for name, place in places_in(stored.bucket).items()},
        {name: "{{ params.at }}" + place.removeprefix("s3://store@") for name, place in named.items()},
        {**named, "image_buckets": [f"s3://store@{stored.bucket}"]},
        {**places_in(stored.bucket), "image_buckets": [ObjectStoragePath(f"s3://store@{stored.bucket}")]},
    ]
    for way in ways:
        _, other = run(ImageCLIPEvaluatorOperator, {**own, **way}, at="s3://store@")
        assert other.xcoms == ti.xcoms
        assert other.xcoms["manifest"]["aws_conn_id"] == "store"
    assert versions(stored) == first, "the same request, which was done"
    for key in stored.object_keys():
        assert b"store@" not in stored.client.get_object(Bucket=stored.bucket, Key=key)["Body"].read()


def test_a_place_that_paths_are_rewritten_to_may_name_the_connection_too() -> None:
    for target in ("s3://store@b/new/", ObjectStoragePath("s3://store@b/new/")):
        task: Any = ImageCLIPEvaluatorOperator(
            task_id="t",
            step=1,
            cache_path="/no/steps",
            image_path_rewrite={"/mnt/old/": target, "/mnt/": Path("/x/"), "/a": Path("/b")},
        )
        assert task.aws_conn_id == "store"
        told = parameters_of(task, task.template_fields)
        assert told["image_path_rewrite"] == {"/mnt/old/": "s3://b/new/", "/mnt/": "/x/", "/a": "/b"}
    with pytest.raises(RequestError, match="image_path_rewrite names the connection 'store', but aws_conn_id 'c'"):
        ImageCLIPEvaluatorOperator(task_id="t", cache_path="/p", image_path_rewrite={"/o/": target}, aws_conn_id="c")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"cache_path": "s3://a@b/steps", "aws_conn_id": "c"},
            "cache_path names the connection 'a', but aws_conn_id 'c'",
        ),
        (
            {"cache_path": "s3://a@b/steps", "aws_conn_id": None},
            "cache_path names the connection 'a', but aws_conn_id None",
        ),
        (
            {"cache_path": "s3://a@b/steps", "reuse": "s3://c@b/x"},
            "cache_path names the connection 'a', but reuse 'c'",
        ),
    ],
)
def test_connections_that_differ_are_told_when_a_dag_is_parsed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        ImageCLIPEvaluatorOperator(task_id="t", **given)
    with pytest.raises(RequestError, match=words):
        ImageCLIPEvaluatorOperator.partial(task_id="t", **given)


def test_connections_that_differ_only_when_they_are_rendered_are_told_then() -> None:
    with pytest.raises(RequestError, match="cache_path names the connection 'a', but aws_conn_id 'c'"):
        request_of({"cache_path": "s3://{{ params.it }}@b/steps", "aws_conn_id": "c"}, it="a")
    with pytest.raises(RequestError, match="cache_path names the connection 'a', but aws_conn_id 'c'"):
        request_of({"cache_path": "s3://a@b/steps", "aws_conn_id": "{{ params.it }}"}, it="c")


@pytest.mark.parametrize("place", ["gs://conn@b/k", "abfs://container@account.dfs.core.windows.net/k", "file://c@/k"])
def test_a_path_with_a_connection_to_another_kind_of_store_is_refused(place: str) -> None:
    with pytest.raises(RequestError, match="names an Airflow connection, which is for S3 alone"):
        ImageCLIPEvaluatorOperator(task_id="t", cache_path=ObjectStoragePath(place))


@pytest.mark.parametrize(
    "user",
    [
        "me:secret",
        ":secret",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMIK7MDENGbPxRfiCYzEXAMPLEKEY0",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "a%3Ab",
        "",
        "me@secret",
    ],
)
def test_a_password_or_a_key_before_a_bucket_is_no_connection(user: str) -> None:
    place = f"s3://{user}@b/k"
    assert connection_in(place) == (None, place)
    for given in (place, ObjectStoragePath(place)) if user and "/" not in user else (place,):
        with pytest.raises(RequestError) as refusal:
            request_of({"cache_path": given})
        assert "secret" not in str(refusal.value).replace("secrets", "")
        assert not user or user not in str(refusal.value)


def test_the_group_and_mapped_tasks_take_paths_and_hand_on_their_connection() -> None:
    places: dict[str, Any] = {name: ObjectStoragePath(uri) for name, uri in places_in("b", "store").items()}
    with DAG("d", schedule=None, start_date=BEGIN) as dag:
        clip_evaluation_group(**places)
        ImageCLIPEvaluatorOperator.partial(task_id="t", **places).expand(file_name_prefix=["a", "b"])
    plan, merge = (dag.get_task(f"clip_evaluation.{name}") for name in ("plan", "merge"))
    score, mapped = dag.get_task("clip_evaluation.score"), dag.get_task("t")
    assert {plan.aws_conn_id, merge.aws_conn_id} == {"store"}  # type: ignore[union-attr]
    for task in (score, mapped):
        assert task.partial_kwargs["aws_conn_id"] == "store"  # type: ignore[union-attr]
        assert task.partial_kwargs["cache_path"] == "s3://store@b/steps"  # type: ignore[union-attr]
    assert json.dumps(score.partial_kwargs["reuse"])  # type: ignore[union-attr]


def test_lineage_and_the_manifest_tell_places_without_connections(done: Done) -> None:
    task: Any = ImageCLIPEvaluatorOperator(task_id="t", cache_path="s3://c@b/steps", first_entry_file_name="s3://c@b/k")
    told = task.get_openlineage_facets_on_start()
    assert [(one.namespace, one.name) for one in told.inputs] == [("s3://b", "k")]
    task.cache_path = ["no text"]
    assert task.get_openlineage_facets_on_start().inputs == []

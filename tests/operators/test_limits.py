"""What an administrator does not allow, no parameter gets: through every door, whatever it is spelled like."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from clip_operator.errors import RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.operators import ImageCLIPEvaluatorOperator, MergeShardsOperator, PlanShardsOperator
from clip_operator.operators.execution.pods.pod import scoring_pod
from clip_operator.operators.execution.pods.settings import pod_settings
from clip_operator.operators.limits import SECTION, Limits
from clip_operator.operators.parameters import own_parameters
from clip_operator.operators.task_instance import parameters_of
from clip_operator.provider import provider_info
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.sharding import plan_shards
from clip_operator.steps import plan_uri
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES
from tests.operators.tasks import TaskInstance

Allow = Callable[..., None]
OPERATORS = (ImageCLIPEvaluatorOperator, PlanShardsOperator, MergeShardsOperator)


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Allow:
    """Sets options of the section, as an administrator does."""

    def set_options(**options: str) -> None:
        for name, text in options.items():
            monkeypatch.setenv(f"AIRFLOW__{SECTION.upper()}__{name.upper()}", text)

    return set_options


@pytest.fixture
def folders(shapes_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``open`` with a data set, and what is not to be reached: ``secret``, ``open-secret``, links there."""
    for name in ("open", "secret", "open-secret"):
        shutil.copytree(shapes_dataset, tmp_path / name)
    (tmp_path / "open" / "away").symlink_to(tmp_path / "secret")
    (tmp_path / "open" / "away.jsonl").symlink_to(tmp_path / "secret" / "captions.jsonl")
    (tmp_path / "way-in").symlink_to(tmp_path / "open")
    (tmp_path / "steps").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters(here: Path | str, **other: Any) -> dict[str, Any]:
    return {
        "first_entry_file_name": f"{here}/open/captions.jsonl",
        "cache_path": f"{here}/steps",
        "model_name": SHAPES,
        "aws_conn_id": None,
        **other,
    }


def as_rendered(operator: type[ImageCLIPEvaluatorOperator], **given: Any) -> ImageCLIPEvaluatorOperator:
    """Return a task as a worker has it whose DAG gives templates, of which these have come."""
    templates: Any = dict.fromkeys(given, "{{ it }}")
    task = operator(task_id="t", **{"plan": "{{ it }}", **templates} if operator is MergeShardsOperator else templates)
    for name, value in {"plan": None, **given}.items():
        setattr(task, name, value)
    return task


def run(operator: type[ImageCLIPEvaluatorOperator], **given: Any) -> list[str]:
    """Run one try of a task on a worker."""
    task = as_rendered(operator, **given)
    ti = TaskInstance(given, task_id="t")
    context: Any = {"ti": ti, "run_id": ti.run_id, "task": task, "dag": SimpleNamespace(), "task_state_store": ti.state}
    return task.execute(context)


def refused_everywhere(option: str, name: str, given: Mapping[str, Any]) -> None:
    """See every task refuse the parameters, for good, with the name of what is wrong and of what to have changed."""
    for operator in OPERATORS:
        if operator is MergeShardsOperator:
            given = {"plan": f"{given['cache_path']}/x_step1.jsonl.shards/0a/plan.json", **given}
        with pytest.raises(AirflowFailException) as refusal:
            run(operator, **given)
        assert f"{name}=" in str(refusal.value)
        assert f"[{SECTION}] {option} " in str(refusal.value)


LOCAL_TRICKS = [
    "{here}/secret/captions.jsonl",
    "{here}/open-secret/captions.jsonl",
    "{here}/open/../secret/captions.jsonl",
    "{here}/open/./../secret/captions.jsonl",
    "{here}/open/away/captions.jsonl",
    "{here}/open/away.jsonl",
    "{here}/way-in/away/captions.jsonl",
    "{here}/OPEN/captions.jsonl",
    "secret/captions.jsonl",
    "./secret/captions.jsonl",
    "open/../secret/captions.jsonl",
    "file://{here}/secret/captions.jsonl",
    "FILE://{here}/secret/captions.jsonl",
    "file://localhost{here}/secret/captions.jsonl",
    "file://{here}/open/%2e%2e/secret/captions.jsonl",
    "file://{here}/open/..%2fsecret/captions.jsonl",
    "file://elsewhere{here}/open/captions.jsonl",
    "file:/{here}/open/captions.jsonl",
    "local://{here}/open/captions.jsonl",
    "/proc/self/cwd/secret/captions.jsonl",
    "/proc/self/root{here}/secret/captions.jsonl",
    "simplecache::file://{here}/open/captions.jsonl",
    "{here}/open/x.zip::captions.jsonl",
    "hf:{here}/secret",
    "hf:{here}/secret:train",
    "hf:secret",
    "hf:owner/pairs",
    "s3://open/captions.jsonl",
    "http://127.0.0.1:9/captions.jsonl",
    " {here}/secret/captions.jsonl",
]
LOCAL_WAYS = [
    "{here}/open/captions.jsonl",
    "{here}/open/",
    "{here}/open/part-*.jsonl",
    "{here}//open//captions.jsonl",
    "{here}/secret/../open/captions.jsonl",
    "{here}/way-in/captions.jsonl",
    "open/captions.jsonl",
    "./open/captions.jsonl",
    "file://{here}/open/captions.jsonl",
    "FILE://localhost{here}/open/captions.jsonl",
    "file://{here}/op%65n/captions.jsonl",
    "hf:{here}/open",
    "hf:{here}/open:train",
    "hf:open",
]
S3_TRICKS = [
    "s3://bucket-evil/data/x.jsonl",
    "s3://bucket/data-evil/x.jsonl",
    "s3://bucket/dat",
    "s3://bucket/x.jsonl",
    "s3://bucket//data/x.jsonl",
    "s3:///bucket/data/x.jsonl",
    "s3:/bucket/data/x.jsonl",
    "s3://BUCKET/data/x.jsonl",
    "s3://bucket/DATA/x.jsonl",
    "s3://bucket.evil.org/data/x.jsonl",
    "s3://user:word@bucket/data/x.jsonl",
    "s3://bucket/data@evil/x.jsonl",
    "s3://bucket/data/../secret/x.jsonl",
    "s3://bucket/data/./x.jsonl",
    "s3://bucket/data/%2e%2e/secret/x.jsonl",
    "s3://bucket/data/%2E./secret/x.jsonl",
    "s3://bucket/data/%252e%252e/secret/x.jsonl",
    "s3://bucket/data/..%2fsecret/x.jsonl",
    "s3://bucket/data/..%5csecret/x.jsonl",
    "s3://bucket/data/..\\secret\\x.jsonl",
    "s3://bucket/data/..;/secret/x.jsonl",
    "s3://bucket/d%61ta/x.jsonl",
    "s3://bucket%2fdata/x.jsonl",
    "s3://bucket/data\n/x.jsonl",
    "s3://bucket/data/x\0.jsonl",
    "s3://*/data/x.jsonl",
    "s3://evil/s3://bucket/data/x.jsonl",
    "simplecache::s3://bucket/data/x.jsonl",
    "zip://x.jsonl::s3://bucket/data/x.zip",
    "s3://bucket/data/x.zip::s3://evil/x.jsonl",
    "gs://bucket/data/x.jsonl",
    "az://bucket/data/x.jsonl",
    "hf://bucket/data/x.jsonl",
    "s3n://bucket/data/x.jsonl",
    "https://bucket.s3.amazonaws.com/data/x.jsonl",
    "hf:bucket/data",
    "/bucket/data/x.jsonl",
    "bucket/data/x.jsonl",
    "file:///bucket/data/x.jsonl",
    "memory://bucket/data/x.jsonl",
]
S3_WAYS = [
    "s3://bucket/data/x.jsonl",
    "s3://bucket/data/",
    "s3://bucket/data/deep/er/x.parquet",
    "s3://bucket/data/part-*.parquet",
    "S3://bucket/data/x.jsonl",
    "s3a://bucket/data/x.jsonl",
    "S3A://bucket/data/x.jsonl",
    "s3://bucket/data//x.jsonl",
    "s3://bucket/data/a..b/...x.jsonl",
    "s3://bucket/data/100%25 true & x.jsonl",
    "s3://bucket/data/ümlaut.jsonl",
]


@pytest.mark.parametrize("trick", LOCAL_TRICKS)
def test_a_local_input_outside_is_refused(trick: str, folders: Path, allow: Allow) -> None:
    allow(allowed_inputs=f"s3://elsewhere/, {folders}/open")
    given = parameters(folders, first_entry_file_name=trick.format(here=folders))
    refused_everywhere("allowed_inputs", "first_entry_file_name", given)


@pytest.mark.parametrize("trick", S3_TRICKS)
def test_an_input_in_a_store_outside_is_refused(trick: str, folders: Path, allow: Allow) -> None:
    allow(allowed_inputs="s3://bucket/data")
    refused_everywhere("allowed_inputs", "first_entry_file_name", parameters(folders, first_entry_file_name=trick))


@pytest.mark.parametrize(
    "first", ["open/part/", "open/a*.jsonl", "file://{here}/open/a*.jsonl", "hf:open", "hf:open:train"]
)
def test_a_link_among_the_files_of_a_folder_leads_nowhere_else(first: str, folders: Path, allow: Allow) -> None:
    (folders / "open" / "captions.jsonl").rename(folders / "open" / "b.jsonl")
    (folders / "open" / "part").mkdir()
    (folders / "open" / "part" / "away.jsonl").symlink_to(folders / "secret" / "captions.jsonl")
    allow(allowed_inputs=f"{folders}/open")
    given = parameters(folders, first_entry_file_name=first.format(here=folders), image_root=f"{folders}/open")
    for operator in OPERATORS[:2]:
        with pytest.raises(AirflowFailException, match=r"input=.*away\.jsonl.* allowed_inputs "):
            run(operator, **given)
    given["first_entry_file_name"] = "open/b*.jsonl"
    assert run(ImageCLIPEvaluatorOperator, **given) == ["clip_score"]


def within(**given: Any) -> EvaluationRequest:
    """See the configured limits let parameters and a request pass that say the same."""
    limits = Limits.configured()
    task = as_rendered(ImageCLIPEvaluatorOperator, **parameters("/no", **given))
    told = parameters_of(task, task.template_fields)
    limits.check_parameters(told)
    return limits.bounded(
        EvaluationRequest(
            input=told["first_entry_file_name"], output=f"{told['cache_path']}/x_step1.jsonl", model=SHAPES
        )
    )


@pytest.mark.parametrize("way", LOCAL_WAYS)
def test_a_local_input_inside_is_taken_however_it_is_spelled(way: str, folders: Path, allow: Allow) -> None:
    for link in ("away", "away.jsonl"):  # where a data set of the hub's kind is a folder, all its files are looked at
        (folders / "open" / link).unlink()
    for entry in (f"{folders}/open", f"{folders}/open/", f"file://{folders}/open", f"{folders}/way-in", "/"):
        allow(allowed_inputs=f"s3://elsewhere\n{entry}")
        within(first_entry_file_name=way.format(here=folders))


@pytest.mark.parametrize("way", S3_WAYS)
def test_an_input_in_a_store_inside_is_taken_however_it_is_spelled(way: str, folders: Path, allow: Allow) -> None:
    for entry in ("s3://bucket/data", "s3a://bucket/data/", "S3://bucket", "s3://"):
        allow(allowed_inputs=entry)
        bounded = within(first_entry_file_name=way)
    assert bounded.image_prefixes == ("s3://",)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("hf:owner", ["hf:owner/pairs", "hf:owner/pairs:train", "hf:owner/pairs:en:train"], ["hf:owner-x/pairs"]),
        ("hf:owner/pairs", ["hf:owner/pairs", "hf:owner/pairs:train"], ["hf:owner/pairs2", "hf:owner", "hf:open"]),
        ("hf:", ["hf:owner/pairs", "hf:pairs:train"], ["hf:/etc", "hf:open", "hf:../etc", "hf://datasets/a/x.jsonl"]),
        ("gs://b", ["gs://b/x.jsonl", "gcs://b/x.jsonl"], ["s3://b/x.jsonl", "gs://b2/x.jsonl"]),
        ("hf://datasets/o/n", ["hf://datasets/o/n/x.jsonl"], ["hf://datasets/o/n@main/x.jsonl", "hf:o/n"]),
        ("https://a.org/d", ["https://a.org/d/x.jsonl"], ["https://a.org/d@b.org/x.jsonl", "http://a.org/d/x.jsonl"]),
        ("https://a.org", ["https://a.org/x.jsonl"], ["https://a.org:8/x.jsonl", "https://a.org@b.org/x.jsonl"]),
        ("abfss://c@a.dfs.core.windows.net", ["abfss://c@a.dfs.core.windows.net/x.jsonl"], ["abfss://c@b/x.jsonl"]),
    ],
)
def test_names_at_the_hub_and_other_stores_are_told_apart(
    entry: str, inside: list[str], outside: list[str], folders: Path, allow: Allow
) -> None:
    allow(allowed_inputs=entry)
    for uri in inside:
        within(first_entry_file_name=uri)
    for uri in outside:
        with pytest.raises(RequestError, match="allowed_inputs"):
            within(first_entry_file_name=uri)


OUTPUT_TRICKS: list[dict[str, Any]] = [
    {"cache_path": "{here}/secret"},
    {"cache_path": "{here}/steps-evil"},
    {"cache_path": "{here}/steps/../secret"},
    {"cache_path": "{here}/steps/link"},
    {"cache_path": "file://{here}/steps/%2e%2e/secret"},
    {"cache_path": "steps/../secret"},
    {"cache_path": "s3://evil/steps"},
    {"file_name_prefix": "../secret/x"},
    {"cache_type": "x/../../../secret/x.jsonl"},
    {"reuse": "{here}/secret"},
    {"reuse": "s3://evil/scores"},
    {"embeddings_path": "{here}/secret/embeddings"},
    {"plan": "{here}/secret/x_step1.jsonl.shards/0a/plan.json", "shard": "00001-of-00001"},
    {"plan": "{here}/steps/../secret/x_step1.jsonl.shards/0a/plan.json", "shard": "00001-of-00001"},
]


@pytest.mark.parametrize("trick", OUTPUT_TRICKS, ids=str)
def test_what_would_be_written_outside_is_refused(trick: dict[str, Any], folders: Path, allow: Allow) -> None:
    (folders / "steps" / "link").symlink_to(folders / "secret")
    before = sorted(folders.rglob("*"))
    allow(allowed_outputs=f"{folders}/steps")
    given = parameters(folders, **{name: text.format(here=folders) for name, text in trick.items()})
    for operator in OPERATORS if trick.keys().isdisjoint({"reuse", "embeddings_path"}) else OPERATORS[:2]:
        with pytest.raises(AirflowFailException, match=r"\[clip_operator\] allowed_outputs "):
            run(operator, **given)
    assert sorted(folders.rglob("*")) == before


def test_a_step_that_a_link_stands_for_is_not_written_through_it(folders: Path, allow: Allow) -> None:
    allow(allowed_outputs=f"{folders}/steps")
    (folders / "steps" / "dataflow_cache_step_step1.jsonl").symlink_to(folders / "secret" / "captions.jsonl")
    refused_everywhere("allowed_outputs", "cache_type", parameters(folders))


@pytest.mark.parametrize("step", ["1", "latest"])
def test_steps_are_read_only_where_inputs_or_outputs_may_be(step: str, folders: Path, allow: Allow) -> None:
    shutil.copy(folders / "secret" / "captions.jsonl", folders / "secret" / "x_step1.jsonl")
    given = parameters(folders, cache_path=f"{folders}/secret", file_name_prefix="x", step=step)
    for first in ("", f"{folders}/open/captions.jsonl"):
        allow(allowed_inputs=f"{folders}/open")
        for operator in OPERATORS[:2]:
            with pytest.raises(AirflowFailException, match=r"input=.* allowed_inputs "):
                run(operator, **{**given, "first_entry_file_name": first})
    assert not list((folders / "secret").glob("*step2*"))


MODELS: dict[str, tuple[list[str], list[str]]] = {
    "openai": (["openai/clip-vit-base-patch32", "openai"], ["openai-evil/clip", "OpenAI/clip", "laion/clip", "open"]),
    "openai/clip-vit-base-patch32": (
        ["openai/clip-vit-base-patch32"],
        ["openai/clip-vit-base-patch32-evil", "openai/clip", "openai/../secret", "./openai/clip-vit-base-patch32"],
    ),
    "builtin://": ([SHAPES], ["builtin:/shapes-clip", "openai/clip", "/builtin", "builtin://../secret"]),
    SHAPES: ([SHAPES, "BUILTIN://shapes-clip"], ["builtin://shapes-clip-2", "builtin://shapes-clip/../x"]),
    "s3://models/clip": (
        ["s3://models/clip", "s3a://models/clip/b32"],
        ["s3://models/clip-evil", "s3://models/clip/../x", "s3://models", "models/clip"],
    ),
    "/": (["{here}/open", "open", "./secret", "file://{here}/open"], ["owner/clip", "s3://models/clip"]),
    "{here}/open": (["{here}/open", "open", "way-in"], ["{here}/open/away", "{here}/secret", "secret", "opens"]),
}


@pytest.mark.parametrize("entry", MODELS)
def test_a_model_is_taken_from_where_models_may_be(entry: str, folders: Path, allow: Allow) -> None:
    inside, outside = MODELS[entry]
    allow(allowed_models=f"nobody/nothing, {entry.format(here=folders)}")
    limits, request = Limits.configured(), EvaluationRequest(input="/no/in.jsonl", output="/no/out.jsonl")
    for name in inside:
        limits.bounded(request.model_copy(update={"model": name.format(here=folders)}))
    for name in outside:
        with pytest.raises(AirflowFailException, match=r"model_name=.* allowed_models "):
            run(ImageCLIPEvaluatorOperator, **parameters(folders, model_name=name.format(here=folders)))
        with pytest.raises(AirflowFailException, match=r"model_name=.* allowed_models "):
            run(PlanShardsOperator, **parameters(folders, model_name=name.format(here=folders)))


HOSTS: dict[str, tuple[list[str], list[str]]] = {
    "a.org": (["a.org", "A.ORG", "a.org."], ["b.org", "x.a.org", "*.a.org", "a.org:8080", "aa.org", "*.org"]),
    "*.a.org": (["x.a.org", "y.x.a.org", "*.a.org", "*.x.a.org"], ["a.org", "xa.org", "*.org", "x.a.org:8080"]),
    "a.org:8080": (["a.org:8080"], ["a.org", "a.org:443"]),
    "10.0.0.0/8": (["10.0.0.0/8", "10.1.2.3", "10.2.0.0/16"], ["11.0.0.1", "0.0.0.0/0", "10.0.0.1:80", "8.0.0.0/6"]),
    "fd00::/8": (["fd00::/8", "[fd00::1]"], ["[fe80::1]", "::/0", "10.0.0.1"]),
}


@pytest.mark.parametrize("entry", HOSTS)
def test_no_more_hosts_are_asked_than_may_be(entry: str, folders: Path, allow: Allow) -> None:
    inside, outside = HOSTS[entry]
    allow(allowed_image_hosts=f"nobody.example, {entry}")
    limits, request = Limits.configured(), EvaluationRequest(input="/no/in.jsonl", output="/no/out.jsonl")
    for host in inside:
        limits.bounded(request.model_copy(update={"image_hosts": ("nobody.example", host)}))
    for host in outside:
        for operator in OPERATORS[:2]:
            with pytest.raises(AirflowFailException, match=r"image_hosts=.* allowed_image_hosts "):
                run(operator, **parameters(folders, image_hosts=f"nobody.example, {host}"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_root": "{here}/secret"},
        {"image_root": "{here}/open/away"},
        {"image_root": "file://{here}/open/%2e%2e/secret"},
        {"image_root": "s3://evil"},
        {"image_root": "secret"},
        {"image_root": "s3://bucket"},
        {"image_buckets": "evil"},
        {"image_buckets": ["bucket", "s3://evil"]},
        {"image_buckets": "gs://bucket"},
        {"image_buckets": "s3a://evil"},
    ],
    ids=str,
)
def test_images_come_only_from_where_inputs_may_be(wrong: dict[str, Any], folders: Path, allow: Allow) -> None:
    allow(allowed_inputs=f"{folders}/open, s3://bucket/images")
    given = {name: v.format(here=folders) if isinstance(v, str) else v for name, v in wrong.items()}
    for operator in OPERATORS[:2]:
        with pytest.raises(AirflowFailException, match=rf"{next(iter(wrong))}=.* allowed_inputs "):
            run(operator, **parameters(folders, **given))


def test_images_in_an_open_bucket_are_read_only_below_what_is_allowed(
    s3: S3, shapes_dataset: Path, tmp_path: Path, allow: Allow
) -> None:
    """Buckets are open as a whole otherwise, and a data set is written by anybody."""
    picture = next((shapes_dataset / "images").iterdir()).read_bytes()
    for key in ("team/images/own.png", "team-evil/secret.png", "secret.png"):
        s3.put(key, picture)
    references = ["images/own.png"]
    references += [f"s3://{s3.bucket}/{key}" for key in ("team/images/own.png", "team-evil/secret.png", "secret.png")]
    table = "".join(json.dumps({"image_path": path, "text": "a red circle"}) + "\n" for path in references)
    first = s3.put("team/captions.jsonl", table.encode())
    allow(allowed_inputs=f"s3://{s3.bucket}/team", allowed_outputs=str(tmp_path))
    limits = Limits.configured()
    request = EvaluationRequest(
        input=first,
        output=str(tmp_path / "x_step1.jsonl"),
        model=SHAPES,
        error_key="why",
        max_error_rate=1,
        image_buckets=(s3.bucket,),
    )
    evaluate(limits.bounded(request), s3.storage)
    rows = [json.loads(line) for line in (tmp_path / "x_step1.jsonl").read_text().splitlines()]
    assert [row["why"] for row in rows] == [None, None, "image_forbidden", "image_forbidden"]
    allow(allowed_inputs="s3://")
    evaluate(limits.configured().bounded(request.model_copy(update={"overwrite": True})), s3.storage)
    rows = [json.loads(line) for line in (tmp_path / "x_step1.jsonl").read_text().splitlines()]
    assert [row["why"] for row in rows] == [None] * 4


@pytest.mark.every_airflow
def test_a_task_that_comes_back_from_the_triggerer_is_held_to_the_limits_again(folders: Path, allow: Allow) -> None:
    begun = EvaluationRequest(input="s3://evil/in.jsonl", output=f"{folders}/steps/x_step1.jsonl", model=SHAPES)
    kept = {"request": begun.model_dump(mode="json"), "output_step": 1, "manifest_before": None}
    task = ImageCLIPEvaluatorOperator(task_id="t", **parameters(folders, execution_mode="kubernetes", pod=POD))
    allow(allowed_inputs=f"{folders}/open")
    with pytest.raises(AirflowFailException, match=r"input='s3://evil/in\.jsonl' .* allowed_inputs "):
        task.trigger_reentry({"task": task}, {"clip_operator": kept})
    allow(allowed_connections="none")
    with pytest.raises(AirflowFailException, match=r"aws_conn_id=.* allowed_connections "):
        task.trigger_reentry({"task": task}, {"clip_operator": kept})


def test_a_connection_in_a_place_is_held_to_the_limits_and_widens_none(tmp_path: Path, allow: Allow) -> None:
    allow(allowed_inputs="s3://bucket/data", allowed_connections="store")
    given = {**parameters(tmp_path), "cache_path": "s3://bucket/data", "image_root": "s3://bucket/data"}
    del given["aws_conn_id"]
    for place, words in {
        "s3://admin@bucket/data/x.jsonl": r"aws_conn_id='admin' .* allowed_connections ",
        "s3://bucket@evil/data/x.jsonl": r"first_entry_file_name='s3://evil/data/x\.jsonl' .* allowed_inputs ",
        "s3://store@bucket-evil/data/x.jsonl": r"first_entry_file_name='s3://bucket-evil/.* allowed_inputs ",
        "s3://store@bucket/data/x.jsonl": "no Airflow connection aws_conn_id='store'",
    }.items():
        with pytest.raises(AirflowException, match=words):
            run(ImageCLIPEvaluatorOperator, **{**given, "first_entry_file_name": place})


def test_only_what_may_run_is_started(folders: Path, allow: Allow) -> None:
    (folders / "venv" / "bin").mkdir(parents=True)
    for name in ("python", "python-evil"):
        (folders / "venv" / "bin" / name).symlink_to(sys.executable)
    allow(allowed_pythons=f"{folders}/venv/bin/python")
    evil = [
        sys.executable,
        os.path.realpath(sys.executable),
        f"{folders}/venv/bin/python-evil",
        f"{folders}/venv/bin/python/../python-evil",
        f"{folders}/venv/bin/../bin/python-evil",
        "/bin/sh",
        "python",
        "./venv/bin/python",
        "venv/bin/python",
    ]
    for python in evil:
        refused_everywhere("allowed_pythons", "python", parameters(folders, python=python))
    limits = Limits.configured()
    for python in (f"{folders}/venv/bin/python", f"{folders}/venv/./bin//python", f"{folders}/venv/x/../bin/python"):
        given = ImageCLIPEvaluatorOperator(task_id="t", **parameters(folders, python=python))
        limits.check_parameters({name: getattr(given, name) for name in given.template_fields})
    allow(allowed_pythons=f"{sys.prefix}/bin/")
    assert run(ImageCLIPEvaluatorOperator, **parameters(folders, python=sys.executable)) == ["clip_score"]


@pytest.mark.parametrize("connection", ["admin", "team2", "Team", "", None])
def test_only_connections_that_may_be_are_used(connection: str | None, folders: Path, allow: Allow) -> None:
    allow(allowed_connections="team")
    refused_everywhere("allowed_connections", "aws_conn_id", parameters(folders, aws_conn_id=connection))
    if not connection:
        allow(allowed_connections="team, environment")
        assert run(ImageCLIPEvaluatorOperator, **parameters(folders, aws_conn_id=connection)) == ["clip_score"]


@pytest.mark.every_airflow
def test_within_all_limits_a_step_is_scored_whole_and_in_shards(folders: Path, allow: Allow) -> None:
    allow(
        allowed_inputs=f"{folders}/open",
        allowed_outputs=f"{folders}/steps",
        allowed_models=SHAPES,
        allowed_image_hosts="none",
        allowed_connections="environment",
        allowed_pythons="none",
    )
    given = parameters(folders, reuse=f"{folders}/steps/scores", min_score="0.5", resume_point_rows=16)
    assert run(ImageCLIPEvaluatorOperator, **given) == ["clip_score"]
    assert run(ImageCLIPEvaluatorOperator, **{**given, "step": "1", "output_key": "again"}) == ["again"]
    divided = {**given, "file_name_prefix": "divided"}
    names = run(PlanShardsOperator, **divided, shards=2)
    plan = next((folders / "steps").glob("divided*/*/plan.json"))
    for name in names:
        run(ImageCLIPEvaluatorOperator, **divided, plan=str(plan), shard=name)
    assert run(MergeShardsOperator, **divided, plan=str(plan)) == ["clip_score"]
    whole, merged = (folders / "steps" / f"{name}_step1.jsonl" for name in ("dataflow_cache_step", "divided"))
    assert merged.read_bytes() == whole.read_bytes()


def forged_plan(here: Path, **other: Any) -> str:
    """Put a plan where plans may stand that has another output or input than its place tells; return where."""
    asked = EvaluationRequest(
        **{
            "input": f"{here}/secret/captions.jsonl",
            "output": f"{here}/secret/x_step1.jsonl",
            "model": SHAPES,
            "requested_by": Requester(dag_id="curate", run_id="manual__2026-01-01", task_id="t"),
            **other,
        }
    )
    plan = plan_shards(asked, Storage(), shards=1)
    place = Path(plan_uri(f"{here}/steps/x_step1.jsonl", plan.id))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(Path(plan.uri).read_bytes())
    return str(place)


def test_a_plan_that_somebody_has_forged_leads_nowhere_else(folders: Path, allow: Allow) -> None:
    allow(allowed_inputs=f"{folders}/open", allowed_outputs=f"{folders}/steps")
    given = parameters(folders, file_name_prefix="x")
    elsewhere = forged_plan(folders)
    inside = forged_plan(folders, output=f"{folders}/steps/x_step1.jsonl")
    for plan, words in (
        (elsewhere, "is not what the plan task has written there"),
        (inside, "input, image_root: differ from those"),
    ):
        with pytest.raises(AirflowException, match=words):
            run(MergeShardsOperator, **given, plan=plan)
    with pytest.raises(AirflowException, match="is not what the plan task has written there"):
        run(ImageCLIPEvaluatorOperator, **given, plan=elsewhere, shard="00001-of-00001")
    climbing = json.loads(Path(inside).read_text()) | {"id": "../../secret"}
    Path(inside).write_text(json.dumps(climbing))
    with pytest.raises(AirflowException, match="is not what the plan task has written there"):
        run(MergeShardsOperator, **given, plan=inside)


IMAGE = "registry.example/team/scorer"
POD = {"image": f"{IMAGE}:1", "namespace": "ml", "service_account_name": "scorer"}
ALLOWED_PODS = {
    "allowed_pod_images": IMAGE,
    "allowed_namespaces": "ml",
    "allowed_service_accounts": "scorer",
    "allowed_secrets": "store",
}
REQUEST = EvaluationRequest(
    input="s3://b/in.jsonl",
    output="s3://b/out_step1.jsonl",
    requested_by=Requester(dag_id="d", run_id="r", task_id="t"),
)


def build(pod: Mapping[str, Any] | str) -> None:
    operator = scoring_pod(pod_settings(pod, 1, False, Limits.configured()), REQUEST, "t", None)
    ti = SimpleNamespace(dag_id="d", task_id="t", map_index=-1, try_number=1)
    context: Any = {"ti": ti, "run_id": "r", "dag": SimpleNamespace()}
    operator.build_pod_request_obj(context, dry_run=True)


POD_TRICKS: list[tuple[dict[str, Any], str]] = [
    ({"image": "registry.example/team/scorer-evil:1"}, "allowed_pod_images"),
    ({"image": "registry.example/team/scorer/evil"}, "allowed_pod_images"),
    ({"image": "evil.example/registry.example/team/scorer:1"}, "allowed_pod_images"),
    ({"image": "registry.example:5000/team/scorer:1"}, "allowed_pod_images"),
    ({"image": "Registry.example/team/scorer:1"}, "allowed_pod_images"),
    ({"image": "scorer:1"}, "allowed_pod_images"),
    ({"namespace": "kube-system"}, "allowed_namespaces"),
    ({"namespace": "ml2"}, "allowed_namespaces"),
    ({"namespace": ""}, "allowed_namespaces"),
    ({"service_account_name": "admin"}, "allowed_service_accounts"),
    ({"service_account_name": ""}, "allowed_service_accounts"),
    ({"env_from": [{"secretRef": {"name": "admin"}}]}, "allowed_secrets"),
    ({"env_from": [{"configMapRef": {"name": "admin"}}]}, "allowed_secrets"),
    ({"env_from": [{"secretRef": {"name": "store"}}, {"secretRef": {"name": "admin"}}]}, "allowed_secrets"),
    ({"secrets": [{"deploy_type": "env", "deploy_target": None, "secret": "admin"}]}, "allowed_secrets"),
    ({"secrets": [{"deploy_type": "env", "deploy_target": "X", "secret": "admin", "key": "k"}]}, "allowed_secrets"),
    ({"secrets": [{"deploy_type": "volume", "deploy_target": "/x", "secret": "admin"}]}, "allowed_secrets"),
    ({"image_pull_secrets": "admin"}, "allowed_secrets"),
    ({"image_pull_secrets": [{"name": "admin"}]}, "allowed_secrets"),
    *(
        ({name: value}, "allowed_pod_arguments")
        for name, value in {
            "pod_template_file": "/etc/passwd",
            "pod_template_dict": {"spec": {"containers": []}},
            "full_pod_spec": {"spec": {"containers": []}},
            "init_containers": [{"name": "x", "image": IMAGE, "command": ["sh"]}],
            "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
            "volume_mounts": [{"name": "x", "mountPath": "/x"}],
            "security_context": {"runAsUser": 0},
            "container_security_context": {"privileged": True},
            "hostnetwork": True,
            "env_vars": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "configmaps": ["x"],
            "annotations": {"x": "y"},
            "labels": {"x": "y"},
            "config_file": "/etc/passwd",
            "kubernetes_conn_id": "admin",
            "cluster_context": "admin",
            "in_cluster": True,
            "automount_service_account_token": True,
            "base_container_name": "x",
            "trigger_kwargs": {},
            "node_selector": {"x": "y"},
        }.items()
    ),
]


@pytest.mark.parametrize(("trick", "option"), POD_TRICKS, ids=str)
def test_a_pod_outside_is_not_built(trick: dict[str, Any], option: str, allow: Allow) -> None:
    allow(**ALLOWED_PODS)
    for pod in ({**POD, **trick}, json.dumps({**POD, **trick})):
        with pytest.raises(RequestError, match=rf"\[clip_operator\] {option} "):
            build(pod)


def spec(**other: Any) -> dict[str, Any]:
    """Return a whole pod that would pass, but for what differs in its specification."""
    container = {"name": "base", "image": f"{IMAGE}:1", **other.pop("container", {})}
    return {
        "metadata": {"namespace": "ml"},
        "spec": {"serviceAccountName": "scorer", "containers": [container, *other.pop("beside", ())], **other},
    }


def volume(**kind: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "x", **kind}]}


WHOLE_PODS: list[tuple[dict[str, Any], str]] = [
    (spec(serviceAccountName="admin"), "allowed_service_accounts"),
    (spec(serviceAccount="admin"), "allowed_service_accounts"),
    (spec(container={"image": "evil:1"}), "allowed_pod_images"),
    (spec(beside=[{"name": "x", "image": "evil:1"}]), "allowed_pod_images"),
    (spec(initContainers=[{"name": "x", "image": "evil:1"}]), "allowed_pod_images"),
    (spec(**volume(image={"reference": "evil:1"})), "allowed_pod_images"),
    (spec(**volume(secret={"secretName": "admin"})), "allowed_secrets"),
    (spec(**volume(configMap={"name": "admin"})), "allowed_secrets"),
    (spec(**volume(projected={"sources": [{"secret": {"name": "admin"}}]})), "allowed_secrets"),
    (spec(**volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "admin"}})), "allowed_secrets"),
    (
        spec(**volume(csi={"driver": "secrets-store", "volumeAttributes": {"secretProviderClass": "admin"}})),
        "allowed_secrets",
    ),
    (spec(**volume(azureFile={"secretName": "admin", "shareName": "s"})), "allowed_secrets"),
    (spec(imagePullSecrets=[{"name": "admin"}]), "allowed_secrets"),
    (
        spec(container={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "admin", "key": "k"}}}]}),
        "allowed_secrets",
    ),
    (
        spec(beside=[{"name": "x", "image": IMAGE, "envFrom": [{"secretRef": {"name": "admin"}}]}]),
        "allowed_secrets",
    ),
    (spec(**volume(hostPath={"path": "/"})), "'hostPath'"),
    (spec(hostNetwork=True), "'hostNetwork'"),
    (spec(hostPID=True), "'hostPID'"),
    (spec(hostIPC=True), "'hostIPC'"),
    (spec(container={"securityContext": {"privileged": True}}), "'privileged'"),
    (spec(container={"securityContext": {"allowPrivilegeEscalation": True}}), "'allowPrivilegeEscalation'"),
    (spec(container={"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}), "'capabilities'"),
    (spec(container={"securityContext": {"procMount": "Unmasked"}}), "'procMount'"),
    (spec(container={"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), "'type'"),
    (spec(container={"ports": [{"containerPort": 1, "hostPort": 1}]}), "'hostPort'"),
    (spec(initContainers=[{"name": "x", "image": IMAGE, "securityContext": {"privileged": True}}]), "'privileged'"),
    (spec(securityContext={"windowsOptions": {"hostProcess": True}}), "'hostProcess'"),
]


@pytest.mark.parametrize(("whole", "words"), WHOLE_PODS, ids=str)
def test_the_finished_pod_is_judged_whatever_made_it_so(
    whole: dict[str, Any], words: str, allow: Allow, tmp_path: Path
) -> None:
    """Where an administrator lets whole pods be given."""
    allow(**ALLOWED_PODS, allowed_pod_arguments="pod_template_file, pod_template_dict, full_pod_spec")
    template = tmp_path / "pod.yaml"
    template.write_text(json.dumps(whole))
    given = {"pod_template_file": str(template)}, {"pod_template_dict": whole}, {"full_pod_spec": whole}
    for pod in given:
        with pytest.raises(RequestError, match=words):
            build(pod)


@pytest.mark.parametrize(
    "pod",
    [
        POD,
        json.dumps(POD),
        {**POD, "image": IMAGE},
        {**POD, "image": f"{IMAGE}@sha256:{'0' * 64}"},
        {**POD, "image": f"{IMAGE}:1@sha256:{'0' * 64}"},
        {**POD, "secrets": [{"deploy_type": "env", "deploy_target": None, "secret": "store"}]},
        {**POD, "env_from": [{"secretRef": {"name": "store"}}], "image_pull_secrets": "store"},
        {**POD, "container_resources": {"limits": {"memory": "16Gi"}}, "startup_timeout_seconds": 1200, "labels": ""},
        {**POD, "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]},
        {"full_pod_spec": spec(volumes=[{"name": "x", "emptyDir": {}}])},
        {"pod_template_dict": spec(initContainers=[{"name": "x", "image": f"{IMAGE}:1"}])},
    ],
    ids=str,
)
def test_a_pod_inside_is_built(pod: dict[str, Any] | str, allow: Allow) -> None:
    allow(**ALLOWED_PODS, allowed_pod_arguments="volumes, full_pod_spec, pod_template_dict")
    build(pod)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("r.io:5000/a/b", ["r.io:5000/a/b", "r.io:5000/a/b:1"], ["r.io:5000/a/bb", "r.io/a/b", "r.io:5000/a"]),
        ("r.io/a/b:1", ["r.io/a/b:1"], ["r.io/a/b", "r.io/a/b:2", f"r.io/a/b:1@sha256:{'0' * 64}", "r.io/a/b:11"]),
        (f"r.io/b@sha256:{'0' * 64}", [f"r.io/b@sha256:{'0' * 64}"], ["r.io/b", f"r.io/b@sha256:{'1' * 64}"]),
        ("r.io/a/", ["r.io/a/b", "r.io/a/b/c:1"], ["r.io/a", "r.io/ab/c", "r.io/a/../b", "x.r.io/a/b"]),
        ("none", [], ["none", "r.io/a/b"]),
    ],
)
def test_images_are_allowed_by_name_by_tag_by_digest_and_by_folder(
    entry: str, inside: list[str], outside: list[str], allow: Allow
) -> None:
    allow(allowed_pod_images=entry)
    for image in inside:
        build({**POD, "image": image})
    for image in outside:
        with pytest.raises(RequestError, match="allowed_pod_images"):
            build({**POD, "image": image})


@pytest.mark.every_airflow
@pytest.mark.parametrize("option", [field.name for field in fields(Limits)])
def test_each_option_is_in_the_providers_information_and_none_allows_nothing(option: str, allow: Allow) -> None:
    options = provider_info()["config"][SECTION]["options"]
    assert [name for name in options if name.startswith("allowed_")] == [field.name for field in fields(Limits)]
    assert options[option]["default"] is None
    allow(**{option: "none"})
    assert getattr(Limits.configured(), option) == ()


@pytest.mark.every_airflow
@pytest.mark.parametrize("option", [field.name for field in fields(Limits)])
def test_an_option_that_is_set_and_empty_is_no_limit_by_accident(option: str, folders: Path, allow: Allow) -> None:
    for text in ("", "  ", ","):
        allow(**{option: text})
        with pytest.raises(AirflowFailException, match=rf"\[clip_operator\] {option} is set and empty"):
            run(ImageCLIPEvaluatorOperator, **parameters(folders))


@pytest.mark.parametrize("entry", ["data", "./data", "s3://b/../c", "s3:/b", "s3://b/*", "a::s3://b", "*"])
def test_an_entry_that_would_not_mean_what_it_says_is_an_error(entry: str, folders: Path, allow: Allow) -> None:
    allow(allowed_inputs=f"/, {entry}")
    with pytest.raises(AirflowFailException, match=r"\[clip_operator\] allowed_inputs: .* is not a place"):
        run(ImageCLIPEvaluatorOperator, **parameters(folders))


# What names no place, no host, no program and no right.
# So do the paths of images: what comes of them leads no further than what a row says itself.
HARMLESS = {
    "aggregate",
    "batch_size",
    "clipscore_key",
    "column_names",
    "cosine_key",
    "delimiter",
    "device",
    "embedding_cache_bytes",
    "embeddings_dtype",
    "encoding",
    "error_key",
    "escapechar",
    "image_decoding",
    "image_orientation",
    "image_path_repairs",
    "image_path_rewrite",
    "input_image_key",
    "input_text_key",
    "keep_top",
    "max_below_threshold",
    "max_error_rate",
    "max_error_rates",
    "max_image_bytes",
    "max_image_pixels",
    "max_image_seconds",
    "max_score",
    "min_auc",
    "min_mean_score",
    "min_percentile",
    "min_score",
    "on_error",
    "on_weak_threshold",
    "output_key",
    "overwrite",
    "percentile_key",
    "precision",
    "quotechar",
    "report",
    "rescore",
    "resume_point_rows",
    "sentence_key",
}
LIMITED = {"embeddings_path", "image_buckets", "image_hosts", "image_root", "reuse"}


def test_every_parameter_and_every_field_is_limited_or_harmless() -> None:
    of_requests = {"input", "output", "filtered_output", "rejected_output", "model", "revision"}
    of_requests |= {"requested_by", "shard", "image_prefixes"}
    assert set(EvaluationRequest.model_fields) == HARMLESS | LIMITED | of_requests, "a new field needs a decision here"
    limited = {"first_entry_file_name", "cache_path", "file_name_prefix", "cache_type", "plan", "aws_conn_id", "python"}
    named = {"pod", "model_name"}
    rest = {"step", "shard", "model_revision", "execution_mode", "gpus", "deferrable", "max_api_outage_seconds"}
    rest |= {"on_gate", "keep_rejected"}
    own = set(own_parameters(ImageCLIPEvaluatorOperator.__init__))
    assert own == HARMLESS | LIMITED | limited | named | rest, "a new parameter needs a decision here"

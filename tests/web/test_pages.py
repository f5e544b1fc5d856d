"""The pages in Airflow's UI show a task instance's report to who may see it, and say in words why there is none."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx
import pytest

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest, Shards
from clip_operator.report.samples import Sample, Samples
from clip_operator.report.worst_rows import as_csv
from clip_operator.request import EvaluationRequest, Requester
from clip_operator.steps import manifest_uri, report_uri, samples_uri, shards_prefix, worst_rows_uri
from clip_operator.web.runs import MOST_INSTANCES, MOST_SHARDS
from demo.airflow_home import REPOSITORY
from demo.object_store import ObjectStore
from tests.conftest import S3, SHAPES, own_bucket
from tests.web.api_server import ApiServer, Instance, api_server
from tests.web.secrecy import SECRET_DAG

pytestmark = pytest.mark.every_airflow

RUN = "manual__2026-11-24T03:20:48.361581+00:00"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
MANY = 103

NOT_FETCHED = (
    "over_http",
    "other_connection",
    "templated",
    "templated_default",
    "not_offered",
    "own_credentials",
    "of_another_operator",
)
ANSWERED_ALIKE = (
    "overwritten", "on_a_disk", "garbage", "no_connection", "unreachable", "wide", "many", *NOT_FETCHED,
    "of_another_plan", "of_another_run", "of_another_dag",
)  # fmt: skip

WHY = {"kind": "job", "reason": "the bucket 'b' does not exist. Make it, or mend cache_path.", "shard": None}

NO_NUMBERS = ("NaN", "Infinity", "-1e400", "1" + 400 * "0", "1e300", "-3", "true", '"7"', "[]", "{}")
WILD = [
    *(json.dumps({"rows": {"total": 7, "failed": 7}, "scores": {"mean": 7}, "gates": 1}).replace("7", text)
      for text in NO_NUMBERS),
    '{"rows": {}, "scores": {"mean": 0.5}, "gates": {"passed": [1]}}',
]  # fmt: skip


@pytest.fixture(scope="module")
def s3(store: ObjectStore) -> Iterator[S3]:
    with own_bucket(store) as made:
        yield made


@pytest.fixture(scope="module")
def scored(s3: S3, shapes_dataset: Path) -> EvaluationManifest:
    """What the task instance ``score`` of ``RUN`` has done."""
    request = EvaluationRequest(
        input=s3.put_folder(shapes_dataset, "shapes") + "/captions.jsonl",
        output=f"s3://{s3.bucket}/steps/captions_step1.jsonl",
        model=SHAPES,
        requested_by=Requester(dag_id="clip", run_id=RUN, task_id="score"),
    )
    return evaluate(request, s3.storage)


def summary(manifest: EvaluationManifest, **changed: Any) -> dict[str, Any]:
    assert manifest.scores is not None
    assert manifest.calibration is not None
    return {
        "rows": manifest.rows.model_dump(),
        "scores": manifest.scores.model_dump(),
        "calibration": {"auc": manifest.calibration.auc},
        "gates": {"passed": True, "breaches": []},
        "rows_per_second": 12.5,
        **changed,
    }


COMPARED = {"run_id": RUN, "task_id": "score", "with_run_id": "later"}


def failure_of(shard: int) -> dict[str, Any]:
    return {**WHY, "reason": f"of {shard}"}


OVER_SHARDS: dict[str, Any] = {
    "given": {"aws_conn_id": "store", "plan": "s3://steps/plan.json"},
    "mapped": {"shard": ["00001-of-00001"]},
}
LANGUAGES = ["de", "fr", *(f"x{n:02}" for n in range(MOST_INSTANCES))]


def gated(manifest: EvaluationManifest, passed: bool) -> dict[str, Any]:
    """A summary with a gate."""
    words = f"the AUC is 0.9, {'above' if passed else 'below'} min_auc=0.95 by 0.05"
    verdict = {"name": "min_auc", "limit": 0.95, "is_most": False, "value": 0.9, "passed": passed, "words": words}
    gates = {"passed": passed, "breaches": [] if passed else [words], "verdicts": [verdict]}
    return summary(manifest, gates=gates)


def per_language(manifest: EvaluationManifest) -> Iterator[Instance]:
    """A mapped task: the indexes of two instances change from run to run, a third has failed, others come new."""
    done = {"summary": summary(manifest)}
    several: dict[str, Any] = {"mapped": [{"step": 0}, {"step": 1}]}
    yield Instance("languages", "early", "score", 0, xcoms=done, name="fr", **several)
    yield Instance("languages", "early", "score", 1, xcoms=done, name="de", **several)
    for index, language in enumerate(LANGUAGES):
        state, xcoms = ("failed", {"failure": WHY}) if language == "fr" else ("success", done)
        yield Instance("languages", "late", "score", index, state, xcoms, name=language, **several)
    yield Instance("languages", "late", "unnamed", 4, xcoms=done, **several)


def moved(
    s3: S3,
    manifest: EvaluationManifest,
    task_id: str,
    samples: Samples | None = None,
    map_index: int = -1,
    bins: dict[str, Any] | None = None,
    run_id: str = RUN,
    **changed: Any,
) -> str:
    """Put what a task instance of its own would have written; return the URI of its manifest."""
    assert manifest.calibration is not None
    histograms = manifest.calibration.histograms.model_copy(update=bins)
    requester = Requester(dag_id="clip", run_id=run_id, task_id=task_id, map_index=map_index)
    folder = f"s3://{s3.bucket}/steps" if run_id == RUN else f"s3://{s3.bucket}/{run_id}"
    output = manifest.output.model_copy(update={"uri": f"{folder}/{task_id}{map_index}.jsonl"})
    asked = manifest.request.model_copy(update={"requested_by": requester, "output": output.uri})
    changed["calibration"] = manifest.calibration.model_copy(update={"histograms": histograms})
    theirs = manifest.model_copy(update={"output": output, "request": asked, **changed})
    s3.storage.write(theirs.model_dump_json().encode(), uri := manifest_uri(output.uri))
    s3.storage.write(b"<h1>a page in the bucket</h1>", report_uri(output.uri))
    if samples is not None:
        s3.storage.write(samples.model_dump_json().encode(), samples_uri(output.uri))
    return uri


SHARDS: dict[str, dict[str, Any]] = {
    "merged": {"confirmed_by": Requester(dag_id="clip", run_id=RUN, task_id="merge")},
    "merged_before": {"confirmed_by": Requester(dag_id="clip", run_id="later", task_id="merge")},
    "of_another_plan": {"plan": "beef"},
    "of_another_run": {"run_id": "other", "confirmed_by": Requester(dag_id="clip", run_id="other", task_id="merge")},
    "of_another_dag": {"dag_id": "other", "confirmed_by": None},
}
"""Shards of RUN of which nothing is there any more, by what the step tells that stands where theirs did."""


def shard_of(
    s3: S3,
    manifest: EvaluationManifest,
    name: str,
    plan: str = "abcd",
    dag_id: str = "clip",
    run_id: str = RUN,
    **changed: Any,
) -> str:
    """Put the manifest of a step that shards were put into; return the URI that a shard's own manifest had."""
    output = manifest.output.model_copy(update={"uri": f"s3://{s3.bucket}/steps/{name}.jsonl"})
    planner = Requester(dag_id=dag_id, run_id=run_id, task_id="plan")
    asked = manifest.request.model_copy(update={"requested_by": planner, "output": output.uri})
    shards = Shards(plan=plan, count=3, scored_by=[])
    whole = manifest.model_copy(update={"output": output, "request": asked, "shards": shards, **changed})
    s3.storage.write(whole.model_dump_json().encode(), manifest_uri(output.uri))
    return manifest_uri(f"{shards_prefix(output.uri)}abcd/00001-of-00003.jsonl")


def at(uri: str, aws_conn_id: str | None = "store") -> dict[str, Any]:
    return {"manifest": {"uri": uri, "aws_conn_id": aws_conn_id}}


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="module")
def spy() -> Iterator[socket.socket]:
    """A server that nobody is to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that there is once somebody has made an object of the class that XComs name."""
    return tmp_path_factory.mktemp("objects") / "made"


@pytest.fixture(scope="module")
def airflow(
    s3: S3,
    store: ObjectStore,
    scored: EvaluationManifest,
    silent: str,
    spy: socket.socket,
    made: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApiServer]:
    uri = manifest_uri(scored.output.uri)
    sample = Sample(row=1, image=HOSTILE, text=HOSTILE, score=0.5, thumbnail=HOSTILE)
    hostile = moved(s3, scored, "hostile", Samples(best=[sample], failures={HOSTILE: [sample]}))
    forged = b'row,score,image,text\r\n1,0.5,=1+1,"' + HOSTILE.replace('"', '""').encode() + b'"\r\n'
    s3.put("steps/hostile-1.jsonl.worst-rows.csv", forged)
    s3.put("steps/garbage.jsonl.manifest.json", b'{"manifest_version": 99}')
    closed = socket.create_server(("127.0.0.1", 0))
    nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    closed.close()

    spied = f"http://127.0.0.1:{spy.getsockname()[1]}"
    endpoints = {
        "store": store.endpoint_url,
        "closed": nowhere,
        "silent": silent,
        "spy": spied,
        "team_store": store.endpoint_url,
    }
    template, offered = ({"aws_conn_id": f"{{{{ params.{name} }}}}"} for name in ("connection", "offered"))
    several: dict[str, Any] = {"given": {}, "mapped": [{"aws_conn_id": "store"}, {"aws_conn_id": "store", "step": 1}]}
    an_object = json.dumps(
        {"__classname__": "tests.web.secrecy.Made", "__version__": 0, "__data__": {"path": str(made)}}
    )
    elsewhere = Requester(dag_id="elsewhere_dag", run_id="theirs", task_id="theirs")
    gone = f"s3://{s3.bucket}/gone.jsonl.manifest.json"
    worse = {"total": 64, "failed": 40, "failures": {"text_empty": 40}}
    new = Sample(row=1, image="x.png", text="a new caption", score=0.1)
    twice = moved(s3, scored, "twice", Samples(worst=[new]), run_id="later")
    instances = [
        Instance("clip", RUN, "score", xcoms={**at(uri), "summary": summary(scored)}),
        Instance("clip", RUN, "bare", xcoms=at(moved(s3, scored, "bare"))),
        Instance("clip", RUN, "hostile", xcoms=at(hostile)),
        Instance("clip", RUN, "score", 3, xcoms={**at(gone), "summary": summary(scored)}),
        Instance("clip", RUN, "other", xcoms={"return_value": 7, "summary": "fine"}),
        Instance("clip", RUN, "foreign", xcoms={"manifest": ["of a ship"]}),
        Instance("clip", RUN, "elsewhere", xcoms=at("/etc/passwd")),
        Instance("clip", RUN, "fails", state="failed"),
        Instance("clip", RUN, "says_why", state="failed", xcoms={"failure": WHY}),
        Instance("clip", RUN, "says_why", 2, state="failed", xcoms={"failure": {**WHY, "reason": "of a shard"}}),
        Instance("clip", RUN, "tries_again", state="up_for_retry", xcoms={"failure": WHY}),
        Instance("clip", RUN, "hostile_failure", state="failed", xcoms={"failure": {**WHY, "reason": HOSTILE}}),
        Instance("clip", RUN, "other_failure", state="failed", xcoms={"failure": {"kind": [], "reason": {}}}),
        Instance("clip", RUN, "not_run", state="upstream_failed"),
        Instance("clip", RUN, "runs", state="running"),
        Instance("clip", RUN, "waits", state=None),
        Instance("clip", RUN, "overwritten", xcoms=at(uri)),
        Instance("clip", RUN, "on_a_disk", xcoms=at("/no/such/step1.jsonl.manifest.json")),
        Instance("clip", RUN, "garbage", xcoms=at(f"s3://{s3.bucket}/steps/garbage.jsonl.manifest.json")),
        Instance("clip", RUN, "unreachable", xcoms=at(uri, "closed"), given={"aws_conn_id": "closed"}),
        Instance("clip", RUN, "silent", xcoms=at(uri, "silent"), given={"aws_conn_id": "silent"}),
        Instance("clip", RUN, "no_connection", xcoms=at(uri, "never_made"), given={"aws_conn_id": "never_made"}),
        Instance("clip", RUN, "over_http", xcoms=at(f"{spied}/x.jsonl.manifest.json")),
        Instance("clip", RUN, "other_connection", xcoms=at(uri, "spy")),
        Instance("clip", RUN, "templated", xcoms=at(uri, "spy"), given=template),
        Instance("clip", RUN, "templated_default", xcoms=at(moved(s3, scored, "templated_default")), given=template),
        Instance("clip", RUN, "offered", xcoms=at(moved(s3, scored, "offered")), given=offered),
        Instance("clip", RUN, "not_offered", xcoms=at(uri, "spy"), given=offered),
        Instance("clip", RUN, "own_credentials", xcoms=at(moved(s3, scored, "own_credentials"), None)),
        Instance("clip", RUN, "of_another_operator", xcoms=at(moved(s3, scored, "of_another_operator")), given=None),
        Instance("clip", RUN, "listed", xcoms=at(moved(s3, scored, "listed"), "team_store"), given=template),
        Instance("clip", RUN, "mapped", 0, xcoms=at(moved(s3, scored, "mapped", map_index=0)), **several),
        Instance(
            "clip", RUN, "mapped", 1, xcoms=at(moved(s3, scored, "mapped", map_index=1)), name="cats & dogs", **several
        ),
        *(
            Instance("clip", RUN, name, xcoms=at(shard_of(s3, scored, name, **fields)))
            for name, fields in SHARDS.items()
        ),
        Instance("clip", RUN, "confirmed", xcoms=at(moved(s3, scored, "confirmed", confirmed_by=elsewhere))),
        Instance("clip", RUN, "unplain", xcoms={"manifest": an_object, "summary": an_object}),
        Instance("clip", RUN, "plain", xcoms={"manifest": json.dumps(at(moved(s3, scored, "plain"))["manifest"])}),
        Instance("clip", RUN, "nested", xcoms={"manifest": "[" * 20_000}),
        Instance("clip", RUN, "wide", xcoms=at(moved(s3, scored, "wide", bins={"bin_width": 1e9}))),
        Instance("clip", RUN, "many", xcoms=at(moved(s3, scored, "many", bins={"matched": [1] * 1_000_000}))),
        *(Instance("wild", f"run{n:03}", "score", xcoms={"summary": text}) for n, text in enumerate(WILD)),
        Instance("clip", "later", "score", xcoms={"summary": summary(scored, calibration=None)}),
        Instance("clip", RUN, "twice", xcoms={**at(moved(s3, scored, "twice", Samples())), "summary": summary(scored)}),
        Instance("clip", "later", "twice", xcoms=at(twice) | {"summary": summary(scored, rows=worse)}),
        *per_language(scored),
        Instance("sharded", "one", "score", 0, xcoms={"summary": summary(scored)}, **OVER_SHARDS, name="first"),
        *(
            Instance("sharded", "two", "score", n, "failed", {"failure": failure_of(n)}, **OVER_SHARDS)
            for n in range(MOST_SHARDS + 3)
        ),
        Instance("failing", "first", "score", state="failed"),
        Instance("failing", "second", "score", xcoms={"summary": gated(scored, False)}, state="failed"),
        Instance("failing", "third", "score", state="failed", xcoms={"failure": WHY}),
        Instance("failing", "third", "not_ours", state="failed", given=None),
        Instance(SECRET_DAG, RUN, "score", xcoms={**at(uri), "summary": summary(scored)}),
        *(Instance("often", f"run{n:03}", "score", xcoms={"summary": summary(scored)}) for n in range(MANY)),
    ]
    connection = json.loads(store.airflow_connection)
    connections = {name: {**connection, "extra": json.dumps({"endpoint_url": url})} for name, url in endpoints.items()}
    settings = {
        "AIRFLOW__CLIP_OPERATOR__PAGE_CONNECTIONS": "others,\n team_store",
        "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": "airflow.* tests.*",
    }
    with api_server(tmp_path_factory.mktemp("airflow"), instances, connections, settings) as running:
        yield running


@pytest.fixture(scope="module")
def viewer(airflow: ApiServer) -> Iterator[httpx.Client]:
    with airflow.client("viewer") as client:
        yield client


def report(client: httpx.Client, task_id: str, of: str = "clip", **query: Any) -> httpx.Response:
    return client.get(
        f"clip-scores/dags/{of}/report",
        params={"run_id": RUN, "task_id": task_id, "map_index": "{MAP_INDEX}", **query},
    )


def worst(client: httpx.Client, task_id: str, of: str = "clip", **query: Any) -> httpx.Response:
    query = {"run_id": RUN, "task_id": task_id, "map_index": "{MAP_INDEX}", **query}
    return client.get(f"clip-scores/dags/{of}/worst-rows", params=query)


def without_own_script(response: httpx.Response) -> str:
    """A page without the one script that may run on it: the policy names its digest, and that of no other."""
    script = response.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"; script-src 'sha256-{digest}'" in response.headers["content-security-policy"]
    assert script == (REPOSITORY / "plugins/clip_operator/web/frame.js").read_text().rstrip("\n")
    return response.text.replace(f"<script>{script}</script>", "", 1)


def said(response: httpx.Response) -> str:
    """What a page says to a person, its markup left out."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    body = re.sub(r"<style>.*?</style>", "", without_own_script(response), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_tab_shows_the_report_of_its_task_instance(viewer: httpx.Client) -> None:
    page = report(viewer, "score")
    assert "captions_step1.jsonl" in said(page)
    assert f"clip · score · {RUN}" in said(page)
    assert page.text.count("data:image/jpeg;base64,") == 16


def test_a_run_is_found_whose_id_came_into_the_address_as_it_is(viewer: httpx.Client) -> None:
    """As Airflow 3.1's UI writes it: the + stands for a space."""
    page = viewer.get(f"clip-scores/dags/clip/report?run_id={RUN}&task_id=score&map_index={{MAP_INDEX}}")
    assert b"+" in page.request.url.query
    assert "captions_step1.jsonl" in said(page)


def test_the_addresses_that_the_plugin_gives_the_ui_lead_to_the_pages(airflow: ApiServer) -> None:
    with airflow.client("admin") as admin:
        plugins = admin.get("api/v2/plugins").raise_for_status().json()["plugins"]
        views = next(plugin for plugin in plugins if plugin["name"] == "clip_scores")["external_views"]
        assert {view["destination"] for view in views} == {"task_instance", "dag"}
        values = {"{DAG_ID}": "clip", "{RUN_ID}": RUN, "{TASK_ID}": "score"}  # not mapped: {MAP_INDEX} stays
        for view in views:
            assert not view["href"].startswith("/")
            href = view["href"]
            for name, value in values.items():
                href = href.replace(name, quote(value, safe=""))
            assert "CLIP scores" in said(admin.get(href))
            assert "Mean" in said(admin.get(href))


def test_the_links_of_the_operator_lead_to_the_page(airflow: ApiServer, viewer: httpx.Client) -> None:
    links = airflow.links[0]
    assert links["Scored step"] == links["CLIP report"] + "#output"
    page = viewer.get(links["Scored step"])
    assert f"clip · score · {RUN}" in said(page)
    assert 'id="output"' in page.text


def rows_of(page: httpx.Response) -> list[tuple[str, str, str]]:
    """Return the runs on a page: the address of each one's report, its id, and what is said of it."""
    found = re.findall(
        r'<tr><th scope="row"><a href="([^"]+)" title="([^"]+)">[-0-9]+ [:0-9]+</a>(.*?)</tr>', page.text, re.DOTALL
    )
    return [(html.unescape(href), html.unescape(run_id), rest) for href, run_id, rest in found]


def words_of(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def test_the_page_of_all_runs_lists_them_by_task_and_leads_to_their_reports(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/clip/runs")
    section = page.text[page.text.index("<h2>score</h2>") :].partition("</section>")[0]
    rows = rows_of(httpx.Response(200, text=section))
    assert [name for _, name, _ in rows[:2]] == ["later", RUN], "the newest first"
    assert rows[0][2].count("\N{EN DASH}") == 1, "what is not known is left out"
    linked = viewer.get(urljoin(str(page.url), rows[1][0]))
    assert f"clip · score · {RUN}" in said(linked)
    back = re.search(r'<a href="([^"]+)">all runs</a>', linked.text)
    assert back is not None
    assert urljoin(str(linked.url), back[1]) == str(page.url)


def test_links_to_airflows_own_pages_leave_the_frame_and_stay_below_its_path(
    airflow: ApiServer, viewer: httpx.Client
) -> None:
    page = viewer.get("clip-scores/dags/languages/runs")
    links = re.findall(r'<a href="([^"]+)" target="_top">', page.text)
    whole = {urljoin(str(page.url), html.unescape(link)) for link in links}
    assert f"{airflow.url}/dags/languages/runs/late/tasks/score/mapped/1" in whole
    unmapped = viewer.get("clip-scores/dags/clip/runs")
    own = f"{airflow.url}/dags/clip/runs/{quote(RUN, safe='')}/tasks/score"
    assert own in {urljoin(str(unmapped.url), link) for link in re.findall(r'<a href="([^"]+)" target', unmapped.text)}


def test_instances_of_a_mapped_task_are_series_by_their_names(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/languages/runs")
    names = re.findall(r'<span class="name" dir="auto">([^<]+)</span>', page.text)
    assert names == [*LANGUAGES[:MOST_INSTANCES], "4"]
    assert "Shown are 20 instances" in said(page)
    assert "2 more have scored or failed" in said(page)
    of = dict(zip(names, page.text.split("<details")[1:], strict=True))
    german, french = (rows_of(httpx.Response(200, text=of[name])) for name in ("de", "fr"))
    assert [(run_id, re.search("map_index=([0-9]+)", href)[1]) for href, run_id, _ in german] == [  # type: ignore[index]
        ("late", "0"),
        ("early", "1"),
    ]
    assert "passed" in words_of(german[0][2])
    assert "failed the bucket 'b' does not exist. Make it, or mend cache_path." in words_of(french[0][2])
    assert "passed" in words_of(french[1][2])


def test_failed_runs_are_listed_with_their_reasons(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/failing/runs")
    third, second, first = (words_of(rest) for _, _, rest in rows_of(page))
    assert "failed the bucket 'b' does not exist. Make it, or mend cache_path." in third
    assert "failed It has recorded no reason. Its log says more." in first
    assert "not passed the AUC is 0.9, below min_auc=0.95 by 0.05" in second
    assert "not_ours" not in page.text
    assert "This task has failed" in said(viewer.get(urljoin(str(page.url), rows_of(page)[0][0])))


def test_two_runs_stand_side_by_side_with_what_became_better_and_worse(viewer: httpx.Client) -> None:
    runs = viewer.get("clip-scores/dags/clip/runs")
    section = runs.text[runs.text.index("<h2>twice</h2>") :].partition("</section>")[0]
    links = [html.unescape(link) for link in re.findall(r'<a href="(compare[^"]+)">compare</a>', section)]
    assert len(links) == 1, "the first has none before it"
    page = viewer.get(urljoin(str(runs.url), links[0]))
    assert "twice: two runs Before 2026-" in said(page)
    assert "Rows without a score 6.2 % 62.5 % + 56.2 % ▼ worse" in said(page)
    assert (page.text.count("<polygon"), page.text.count("<polyline")) == (2, 2)
    assert "cannot be shown" not in said(page)
    assert "Rows among the best and the worst" in said(page)
    assert "a new caption" in said(page)
    others = re.findall(r'<li><a href="([^"]+)"', page.text)
    assert len(others) == 1
    assert viewer.get(urljoin(str(page.url), html.unescape(others[0]))).text == page.text
    assert viewer.get(urljoin(str(page.url), "runs")).text == runs.text


def test_two_runs_of_which_one_is_gone_from_the_store_are_compared_by_their_summaries(viewer: httpx.Client) -> None:
    query = {"run_id": "later", "task_id": "score", "with_run_id": RUN}
    page = viewer.get("clip-scores/dags/clip/compare", params=query)
    assert "Mean score" in said(page)
    assert "<polygon" not in page.text
    assert "What the run after has written cannot be shown" in said(page)


def test_two_runs_of_which_one_has_no_scores_are_not_compared(viewer: httpx.Client) -> None:
    query = {"run_id": RUN, "task_id": "fails", "with_run_id": RUN}
    assert "There are no two runs to compare" in said(viewer.get("clip-scores/dags/clip/compare", params=query))


def test_the_limit_of_a_gate_is_drawn(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/failing/runs").text
    assert page.count('class="limit"') == 1
    assert "gate min_auc 0.950" in page


def test_of_shards_only_those_are_listed_that_have_failed(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/sharded/runs")
    assert len(rows_of(page)) == MOST_SHARDS
    assert "first" not in said(page)
    assert "49 of 49" in words_of(rows_of(page)[-1][2])
    assert "Listed are the newest 50; 3 more have failed." in said(page)


def test_the_page_of_all_runs_shows_no_more_than_the_newest_hundred(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/often/runs").text
    assert re.findall(r'title="(run\d+)"', page) == [f"run{n:03}" for n in range(MANY - 1, MANY - 101, -1)]


def test_a_dag_that_has_scored_nothing_has_a_page_that_says_so(viewer: httpx.Client) -> None:
    assert "None of the newest runs of nothing_here has scored" in said(
        viewer.get("clip-scores/dags/nothing_here/runs")
    )


@pytest.mark.parametrize(
    ("task_id", "words"),
    [
        ("other", "No CLIP scores This task instance has scored no data set"),
        ("never_heard_of", "No CLIP scores This task instance has scored no data set"),
        ("foreign", "does not tell of CLIP scores"),
        ("elsewhere", "does not tell of CLIP scores"),
        ("fails", "This task has failed It has recorded neither scores nor a reason"),
        ("other_failure", "This task has failed It has recorded neither scores nor a reason"),
        ("says_why", "This task has failed It has recorded no scores"),
        ("says_why", "Why the bucket 'b' does not exist. Make it, or mend cache_path. What to do Mend"),
        ("says_why", "Where it is documented docs/troubleshooting.md"),
        ("tries_again", "The last try has failed, and there will be another It has recorded no scores"),
        ("not_run", "A task before this one has failed"),
        ("runs", "No CLIP scores yet This task instance has not ended"),
        ("unplain", "does not tell of CLIP scores"),
        ("nested", "does not tell of CLIP scores"),
    ],
)
def test_where_there_is_no_report_the_page_says_why(viewer: httpx.Client, task_id: str, words: str) -> None:
    assert words in said(report(viewer, task_id))


def test_a_failed_shard_says_its_own_reason(viewer: httpx.Client) -> None:
    page = said(report(viewer, "says_why", map_index="2"))
    assert "Why of a shard What to do" in page


def test_whatever_keeps_from_a_report_has_one_and_the_same_answer(viewer: httpx.Client) -> None:
    pages = {task_id: report(viewer, task_id) for task_id in ANSWERED_ALIKE}
    pages["gone, as of a shard"] = report(viewer, "score", map_index="3")
    assert "The report cannot be shown" in said(pages["overwritten"])
    assert "as that of a shard is once the shards are one" in said(pages["overwritten"])
    assert {task_id: page.text == pages["overwritten"].text for task_id, page in pages.items()} == dict.fromkeys(
        pages, True
    )


@pytest.mark.parametrize("task_id", NOT_FETCHED)
def test_what_an_xcom_names_is_not_fetched_from_where_the_task_does_not_write(
    viewer: httpx.Client, spy: socket.socket, task_id: str
) -> None:
    assert "The report cannot be shown" in said(report(viewer, task_id))
    assert select.select([spy], [], [], 0)[0] == [], "somebody has connected"


@pytest.mark.parametrize(
    ("task_id", "map_index"), [("listed", "-1"), ("offered", "-1"), ("mapped", "0"), ("mapped", "1"), ("plain", "-1")]
)
def test_a_connection_that_the_dag_gives_or_an_administrator_lists_is_read_with(
    viewer: httpx.Client, task_id: str, map_index: str
) -> None:
    assert f"clip · {task_id}" in said(report(viewer, task_id, map_index=map_index))


def test_a_later_run_of_another_dag_that_found_the_same_work_done_is_not_named(viewer: httpx.Client) -> None:
    page = said(report(viewer, "confirmed"))
    assert f"clip · confirmed · {RUN}" in page
    assert "elsewhere_dag" not in page


def test_what_airflow_would_make_an_object_of_a_class_of_stays_plain(viewer: httpx.Client, made: Path) -> None:
    assert "does not tell of CLIP scores" in said(report(viewer, "unplain"))
    assert "Mean score" in said(viewer.get("clip-scores/dags/clip/runs"))
    assert not made.exists()


def test_numbers_that_are_none_are_left_out_of_the_runs(viewer: httpx.Client) -> None:
    page = viewer.get("clip-scores/dags/wild/runs")
    assert "Mean score 0.5000" in said(page)
    assert page.text.count("<circle") == 1
    assert page.text.count("<tr>") == 1 + len(WILD)
    for number in ("nan", "inf", "000,000,000,000,000,000"):
        assert number not in page.text


@pytest.mark.parametrize("task_id", ["wide", "many"])
def test_a_manifest_that_asks_for_a_page_without_end_gets_none(viewer: httpx.Client, task_id: str) -> None:
    assert "The report cannot be shown" in said(report(viewer, task_id))


def test_a_report_without_samples_shows_the_numbers(viewer: httpx.Client) -> None:
    page = report(viewer, "bare")
    assert "bare-1.jsonl" in said(page)
    assert "data:image/jpeg" not in page.text


def test_a_merged_shard_leads_to_the_report_of_its_step(viewer: httpx.Client) -> None:
    page = report(viewer, "merged")
    assert "This shard is merged: see the step's report" in said(page)
    link = re.search(r'<a href="([^"]+)">The step&#39;s report, of merge</a>', page.text)
    assert link is not None
    address = urljoin(str(page.url), html.unescape(link[1]))
    assert str(httpx.URL(address).params) == str(httpx.QueryParams(run_id=RUN, task_id="merge", map_index=-1))
    assert "This shard is merged" in said(worst(viewer, "merged"))
    before = report(viewer, "merged_before")  # which a later run has confirmed, whose merge is not that of this one
    assert "This shard is merged" in said(before)
    assert "<a " not in before.text


def test_an_instance_of_a_mapped_task_is_called_as_in_the_grid(viewer: httpx.Client) -> None:
    assert f"clip · mapped [cats & dogs] · {RUN}" in said(report(viewer, "mapped", map_index=1))
    assert f"clip · mapped [0] · {RUN}" in said(report(viewer, "mapped", map_index=0))


def test_the_list_of_the_worst_rows_is_downloaded_as_a_file(
    viewer: httpx.Client, scored: EvaluationManifest, s3: S3
) -> None:
    page = report(viewer, "score")
    link = re.search(r'<a href="([^"]+)" download>', page.text)
    assert link is not None
    got = viewer.get(urljoin(str(page.url), html.unescape(link[1])))
    assert got.headers["content-type"] == "text/csv; charset=utf-8"
    assert got.headers["content-disposition"] == 'attachment; filename="captions_step1.jsonl.worst-rows.csv"'
    assert got.content == s3.storage.read(worst_rows_uri(scored.output.uri))
    rows = list(csv.DictReader(io.StringIO(got.content.decode("utf-8-sig"), newline="")))
    assert len(rows) == scored.rows.scored
    assert [float(row["score"]) for row in rows] == sorted(float(row["score"]) for row in rows)


def test_what_stands_in_the_bucket_as_a_list_is_no_page_and_no_formula(viewer: httpx.Client) -> None:
    assert "as CSV" not in said(report(viewer, "bare"))
    assert "No list of the worst rows" in said(worst(viewer, "bare"))
    got = worst(viewer, "hostile")
    assert got.headers["content-type"].startswith("text/csv")
    assert got.headers["content-disposition"].startswith("attachment; ")
    assert got.content == as_csv([Sample(row=1, image="=1+1", text=HOSTILE, score=0.5)])


def test_a_page_that_stands_in_the_bucket_is_never_served(viewer: httpx.Client) -> None:
    for task_id in ("bare", "hostile"):
        assert "a page in the bucket" not in report(viewer, task_id).text


def test_captions_and_queries_cannot_bring_markup_along(viewer: httpx.Client) -> None:
    pages = [
        report(viewer, "hostile"),
        report(viewer, HOSTILE, run_id=HOSTILE, map_index="<script>"),
        report(viewer, "hostile_failure"),
        viewer.get("clip-scores/dags/%3Cimg%20src=x%3E/runs"),
    ]
    assert HOSTILE in said(pages[0])
    assert HOSTILE in said(pages[2])
    assert "None of the newest runs of <img src=x> has scored" in said(pages[3])
    for page in pages:
        assert "<script" not in without_own_script(page)
        assert "<img src=x" not in page.text


@pytest.mark.parametrize("map_index", ["{MAP_INDEX}", "-1", "", "½", "9" * 20, "-7"])
def test_a_map_index_that_is_none_counts_as_not_mapped(viewer: httpx.Client, map_index: str) -> None:
    assert "captions_step1.jsonl" in said(report(viewer, "score", map_index=map_index))


def test_where_the_scores_stand_is_not_the_querys_to_say(viewer: httpx.Client, scored: EvaluationManifest) -> None:
    uri = manifest_uri(scored.output.uri)
    assert "has scored no data set" in said(report(viewer, "other", uri=uri, manifest=uri, aws_conn_id="store"))


def test_nobody_sees_anything_without_a_login(airflow: ApiServer) -> None:
    with airflow.client(None) as nobody:
        assert report(nobody, "score").status_code == 401
        assert worst(nobody, "score").status_code == 401
        assert nobody.get("clip-scores/dags/clip/runs").status_code == 401
        assert nobody.get("clip-scores/dags/clip/compare", params=COMPARED).status_code == 401


def test_only_who_may_read_the_xcoms_of_the_dag_sees_its_pages(airflow: ApiServer, viewer: httpx.Client) -> None:
    runs = f"clip-scores/dags/{SECRET_DAG}/runs"
    # The query names a DAG that is allowed: it is not asked for.
    assert report(viewer, "score", SECRET_DAG, dag_id="clip").status_code == 403
    assert worst(viewer, "score", SECRET_DAG, dag_id="clip").status_code == 403
    assert viewer.get(runs, params={"dag_id": "clip"}).status_code == 403
    compared = f"clip-scores/dags/{SECRET_DAG}/compare"
    assert viewer.get(compared, params={**COMPARED, "dag_id": "clip"}).status_code == 403
    assert viewer.get("clip-scores/dags/~/runs").status_code == 403
    with airflow.client("admin") as admin:
        assert "Mean score" in said(admin.get(runs))
        assert "The report cannot be shown" in said(report(admin, "score", SECRET_DAG)), "it is of another DAG"


def test_every_answer_forbids_scripts_frames_of_others_and_keeping(airflow: ApiServer, viewer: httpx.Client) -> None:
    with airflow.client(None) as nobody:
        answers = [
            report(viewer, "score"),
            report(viewer, "other"),
            worst(viewer, "score"),
            report(viewer, "score", run_id=""),
            viewer.get("clip-scores/dags/clip/runs"),
            viewer.get("clip-scores/dags/clip/compare", params=COMPARED),
            report(viewer, "score", SECRET_DAG),
            report(nobody, "score"),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 200, 200, 403, 401]
    for answer in answers:
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "frame-ancestors 'self'", "base-uri 'none'", "form-action 'none'"} <= set(policy)
        assert "unsafe" not in " ".join(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_a_store_that_is_not_there_is_reported_within_seconds(viewer: httpx.Client) -> None:
    started = time.monotonic()
    page = said(report(viewer, "unreachable"))
    assert time.monotonic() - started < 15
    assert "The report cannot be shown" in page
    assert "only-on-loopback" not in page


def test_a_store_that_never_answers_holds_up_neither_its_page_nor_the_others(viewer: httpx.Client) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(12) as threads:
        waiting = [threads.submit(report, viewer, "silent") for _ in range(12)]
        assert "Mean score" in said(viewer.get("clip-scores/dags/clip/runs"))
        assert not all(page.done() for page in waiting)
        pages = [said(page.result()) for page in waiting]
    assert time.monotonic() - started < 150
    assert any("The report cannot be shown" in page for page in pages)
    assert any("Too many wait for the store" in page for page in pages)
    assert "captions_step1.jsonl" in said(report(viewer, "score")), "and when they have ended there is room again"

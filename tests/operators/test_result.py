"""What a task hands on when its step is there: XComs, asset events, metrics, a log to read, and its gates' verdict."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.operators.result import check_on_gate, hand_on
from clip_operator.operators.task_instance import parameters_of
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest
from tests.operators.airflow_metrics import set_up_metrics
from tests.operators.manifests import CALIBRATION, NOW, made_up_manifest

pytestmark = pytest.mark.every_airflow

OUTPUT = "s3://b/steps/captions_step1.jsonl"


GATES = ("min_mean_score", "min_auc", "max_below_threshold", "on_weak_threshold")


class Task:
    """A task at the end of its work.

    :param parameters: the operator's.
    """

    def __init__(self, **parameters: Any) -> None:
        operator = ImageCLIPEvaluatorOperator(task_id="score", cache_path="s3://b/steps", **parameters)
        self.parameters = parameters_of(operator, operator.template_fields)
        self.gates = {name: value for name, value in parameters.items() if name in GATES}
        self.xcoms: dict[str, Any] = {}
        self.outlet_events = OutletEventAccessors()
        ti = SimpleNamespace(dag_id="curate", task_id="score", xcom_push=self._push)
        self.context: Any = {"ti": ti, "task": operator, "outlet_events": self.outlet_events}

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def end(self, manifest: EvaluationManifest | None = None) -> list[str]:
        """Hand on a manifest."""
        manifest = manifest or made_up_manifest()
        shard = self.parameters["shard"] and {"index": 0, "of": 2, "input_etag": "i", "start": 0, "stop": 1}
        request = manifest.request.model_dump() | self.gates | {"shard": shard}
        return hand_on(self.context, self.parameters, manifest, 1, EvaluationRequest.model_validate(request))

    def events(self, alias: str) -> list[tuple[str, dict[str, Any]]]:
        """Return URI and extra of the events that Airflow is to send for an alias."""
        accessor = self.outlet_events[AssetAlias(alias)]
        return [(event.dest_asset_key.uri, dict(event.extra)) for event in accessor.asset_alias_events]


def test_the_next_task_gets_columns_summary_and_the_place_of_the_manifest() -> None:
    task = Task(aws_conn_id="store")
    filtered = {"output": {"uri": "s3://b/f.jsonl", "size": 1, "etag": "f"}, "min_score": 0.55, "rows": 45}
    assert task.end(made_up_manifest(filtered=filtered)) == ["clip_score"]
    assert task.xcoms["manifest"] == {"uri": f"{OUTPUT}.manifest.json", "aws_conn_id": "store"}
    summary = task.xcoms["summary"]
    assert summary["calibration"] == {
        "mismatched_mean": 0.4,
        "images": 120,
        "uncertain": False,
        "auc": 0.85,
        "auc_interval": [0.8, 0.89],
        "threshold": 0.55,
        "false_accept_rate": 0.02,
        "false_accept_interval": [0.01, 0.04],
        "false_reject_rate": 0.25,
        "false_reject_interval": [0.16, 0.37],
    }
    assert summary["filtered"] == {"output_path": "s3://b/f.jsonl", "rows": 45, "min_score": 0.55}
    assert summary["gates"] == {"passed": True, "breaches": [], "verdicts": []}


def test_a_gate_that_is_not_passed_fails_the_task_for_good_after_all_is_handed_on() -> None:
    task = Task(min_auc=0.9, outlets=[AssetAlias("clip_scores")])
    with pytest.raises(AirflowFailException) as failure:
        task.end()
    for words in ("the AUC is 0.8500, below min_auc=0.9", OUTPUT, f"{OUTPUT}.report.html"):
        assert words in str(failure.value)
    assert task.xcoms["output_path"] == OUTPUT
    words = "the AUC is 0.8500, below min_auc=0.9 by 0.0500"
    verdict = {"name": "min_auc", "limit": 0.9, "is_most": False, "value": 0.85, "passed": False, "words": words}
    assert task.xcoms["summary"]["gates"] == {"passed": False, "breaches": [words], "verdicts": [verdict]}


def test_a_gate_that_marks_warns_and_tells_those_who_wait_for_the_step(caplog: pytest.LogCaptureFixture) -> None:
    task = Task(min_auc=0.9, on_gate="mark", outlets=[AssetAlias("clip_scores")])
    assert task.end() == ["clip_score"]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"The step does not pass its gates: the AUC is 0.8500, below min_auc=0.9 by 0.0500. See the report: "
        f"{OUTPUT}.report.html"
    ]
    ((_, extra),) = task.events("clip_scores")
    assert extra["gates"]["passed"] is False


@pytest.mark.parametrize("limit", [{"min_auc": 0.8}, {"min_auc": 0.9, "on_gate": "mark"}, {"max_below_threshold": 0.5}])
def test_a_gate_that_rests_on_few_images_says_so_whether_it_is_passed_or_not(
    limit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(**limit)
    task.end(made_up_manifest(calibration={**CALIBRATION, "images": 60}))
    assert f"{next(iter(limit))} judged by 60 different images, fewer than 100" in caplog.text
    assert "the AUC may be 0.800 to 0.890" in caplog.text
    caplog.clear()
    Task(**limit).end()
    Task(min_mean_score=0.1).end(made_up_manifest(calibration={**CALIBRATION, "images": 60}))
    assert "different images, fewer than" not in caplog.text


@pytest.mark.parametrize("wrong", ["ignore", ""])
def test_what_is_said_wrongly_of_a_gate_is_named_before_anything_is_scored(wrong: str) -> None:
    with pytest.raises(RequestError, match=r"^on_gate must be"):
        check_on_gate(Task(on_gate=wrong).parameters)


def test_one_shard_hands_on_its_own_and_is_not_judged_nor_announced() -> None:
    task = Task(shard="00001-of-00002", plan="p", min_auc=0.9, outlets=[AssetAlias("clip_scores")])
    assert task.end() == ["clip_score"]
    assert task.events("clip_scores") == []
    assert task.xcoms["summary"]["gates"]["verdicts"] == []


def test_an_alias_gets_an_event_of_the_output_with_the_summary() -> None:
    task = Task(outlets=[AssetAlias("clip_scores"), AssetAlias("all_data")])
    task.end()
    for alias in ("clip_scores", "all_data"):
        ((uri, extra),) = task.events(alias)
        assert uri == OUTPUT
        assert extra == {"output_path": OUTPUT, "output_step": 1, **task.xcoms["summary"]}


def test_the_event_of_the_outputs_own_asset_has_the_summary_and_that_of_another_has_not() -> None:
    own, other = Asset(OUTPUT), Asset("s3://b/other.jsonl")
    task = Task(outlets=[own, other])
    task.end()
    assert task.outlet_events[own].extra["scores"] == task.xcoms["summary"]["scores"]
    assert task.outlet_events[other].extra == {}


@pytest.mark.parametrize(
    ("output", "uri"),
    [
        ("/data/step1.jsonl", "file:///data/step1.jsonl"),
        ("data/step1.jsonl", f"file://{Path.cwd()}/data/step1.jsonl"),
        ("gs://b/step1.jsonl", "gs://b/step1.jsonl"),
        ("abfs://c@a.dfs.core.windows.net/step1.jsonl", "abfs://c@a.dfs.core.windows.net/step1.jsonl"),
        ("s3://b/a#1?b=2&a=1/step1.jsonl", "s3://b/a%231%3Fb=2&a=1/step1.jsonl"),
        ("s3://b/größe/step1/part-*.jsonl", "s3://b/größe/step1/part-*.jsonl"),
    ],
)
def test_outputs_have_uris_that_airflow_leaves_as_they_are(output: str, uri: str) -> None:
    task = Task(outlets=[AssetAlias("clip_scores")])
    task.end(made_up_manifest(output))
    assert [event[0] for event in task.events("clip_scores")] == [uri]


def test_an_output_that_airflow_takes_no_asset_of_is_a_warning_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = Task(outlets=[AssetAlias("clip_scores")])
    task.end(made_up_manifest(f"s3://b/{'long' * 400}.jsonl"))
    assert task.events("clip_scores") == []
    assert "has no asset event" in caplog.text
    assert "cannot exceed 1500 characters" in caplog.text


BELOW = "the share of rows that score below the suggested threshold is 0.2500, above max_below_threshold=0.2 by 0.0500"


def test_the_log_ends_with_what_a_person_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clip_operator")
    Task(min_auc=0.8, max_below_threshold=0.2, on_gate="mark").end(made_up_manifest(request={"report": False}))
    assert [record.message for record in caplog.records] == [
        f"Step 1 is {OUTPUT}",
        "60 of 64 rows have a score",
        "Their mean is 0.6000, the standard deviation 0.1000, the range 0.2000 to 0.9000",
        "Beside 60 mismatched pairs, whose mean is 0.4000, the AUC is 0.8500 (0.800 to 0.890); at the threshold "
        "0.5500, 2.0 % of such pairs would be accepted and 25.0 % of such rows rejected",
        "Gate passed: the AUC is 0.8500, above min_auc=0.8 by 0.0500",
        f"Gate not passed: {BELOW}",
        f"See the manifest: {OUTPUT}.manifest.json",
        f"The step does not pass its gates: {BELOW}. See the manifest: {OUTPUT}.manifest.json",
    ]


def test_the_log_says_that_no_gate_was_set(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "clip_operator")
    Task().end()
    assert "No gate was set" in caplog.text


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A StatsD server's socket, to which Airflow sends its metrics."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(listener.getsockname()[1]))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
        set_up_metrics()
        yield listener
        monkeypatch.undo()
        set_up_metrics()


def received(listener: socket.socket) -> dict[str, str]:
    """Return the metrics that have been sent, by name, up to one that the test sends itself."""
    Stats.incr("the_end")
    found: dict[str, str] = {}
    while "the_end" not in str(found):
        name, _, value = listener.recv(4096).decode().partition(":")
        found[name] = value
    return {name: value for name, value in found.items() if "the_end" not in name}


TAGS = ",dag_id=curate,task_id=score"


def test_metrics_go_where_airflow_sends_its_own(statsd: socket.socket) -> None:
    Task().end()
    assert received(statsd) == {
        f"airflow.clip.rows_scored{TAGS}": "60|c",
        f"airflow.clip.rows_failed{TAGS}": "4|c",
        f"airflow.clip.duration{TAGS}": "2500.000000|ms",
        f"airflow.clip.rows_per_second{TAGS}": "32.0|g",
        f"airflow.clip.mean_score{TAGS}": "0.6|g",
        f"airflow.clip.auc{TAGS}": "0.85|g",
    }


def test_work_that_was_found_done_is_not_counted_again(statsd: socket.socket) -> None:
    Task().end(made_up_manifest(confirmed_at=NOW))
    assert set(received(statsd)) == {f"airflow.clip.mean_score{TAGS}", f"airflow.clip.auc{TAGS}"}


def test_a_step_without_scores_has_no_metrics_of_them(statsd: socket.socket) -> None:
    Task().end(made_up_manifest(scores=None, calibration=None, throughput=None))
    assert {name.removesuffix(TAGS).rpartition(".")[2] for name in received(statsd)} == {
        "rows_scored",
        "rows_failed",
        "duration",
    }

"""A user of ``airflow standalone`` scores a data set and looks at the result, in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, expect

from demo.dataset import ROWS
from demo.object_store import ObjectStore
from tests.browser.airflow_ui import AirflowUI
from tests.browser.chromium import PHONE, window
from tests.browser.screenshots import keep
from tests.integration.airflow_cluster import AirflowCluster

pytestmark = pytest.mark.slow

DAG = "clip_evaluation"
BUCKET = "clip-demo"  # which the form offers
CAPTIONS = "shapes/captions.jsonl"
TAB = "CLIP scores"
SECONDS = 120
"""For one run, on a machine that is busy with other tests."""


@pytest.fixture(scope="module")
def client(store: ObjectStore, shapes_dataset: Path) -> Any:
    """The S3 server with the demo's data set where the form says that it is."""
    store.put_folder(shapes_dataset, f"s3://{BUCKET}/shapes")
    return store.client()


@pytest.fixture(scope="module")
def run(ui: AirflowUI, airflow: AirflowCluster, client: Any) -> str:
    """A run that the user triggered with the form, and that has ended well."""
    ui.open_dag(DAG)
    form = ui.open_trigger_form()
    form.open("Data")
    form.fill("cache_path", f"s3://{BUCKET}/by-hand")
    form.fill("file_name_prefix", "tried")
    triggered = ui.triggered(form)
    assert airflow.wait(triggered, SECONDS) == "success"
    return triggered


@pytest.fixture(scope="module")
def drift(airflow: AirflowCluster, client: Any, run: str) -> list[str]:
    """Runs of the days after: one that scored as many rows, and one whose captions somebody had shuffled."""
    rows = [json.loads(line) for line in client.get_object(Bucket=BUCKET, Key=CAPTIONS)["Body"].read().splitlines()]
    texts = [row["text"] for row in rows]
    shuffled = [{**row, "text": text} for row, text in zip(rows, texts[20:] + texts[:20], strict=True)]
    body = "".join(json.dumps(row) + "\n" for row in shuffled).encode()
    client.put_object(Bucket=BUCKET, Key="shapes/shuffled.jsonl", Body=body)
    fields: list[dict[str, Any]] = [
        {"file_name_prefix": "alt", "input_text_key": "alt_text"},
        {"file_name_prefix": "shuffled", "first_entry_file_name": f"s3://{BUCKET}/shapes/shuffled.jsonl"},
    ]
    runs = [
        airflow.trigger(DAG, cache_path=f"s3://{BUCKET}/by-hand", min_auc=0.7, on_gate="mark", **each)
        for each in fields
    ]
    assert [airflow.wait(each, SECONDS) for each in runs] == ["success", "success"]
    return [run, *runs]


@pytest.fixture(scope="module")
def failing(airflow: AirflowCluster, drift: list[str]) -> str:
    """A run that would write its scores over the captions."""
    run = airflow.trigger(DAG, cache_path=f"s3://{BUCKET}/by-hand", output_key="text")
    assert airflow.wait(run, SECONDS) == "failed"
    return run


@pytest.fixture(scope="module")
def scoreless(airflow: AirflowCluster) -> str:
    """A run of whose task ``judge`` nothing is recorded."""
    run = airflow.trigger("clip_scores_ready")
    assert airflow.wait(run, SECONDS) == "success"
    return run


@pytest.mark.every_airflow
def test_the_trigger_form_explains_every_parameter_in_a_section(ui: AirflowUI, airflow: AirflowCluster) -> None:
    schemas = [each["schema"] for each in airflow.get(f"dags/{DAG}/details")["params"].values()]
    assert all(schema.get("title") and schema.get("section") for schema in schemas)
    ui.open_dag(DAG)
    form = ui.open_trigger_form()
    assert form.sections() == list(dict.fromkeys(schema["section"] for schema in schemas))
    for section in form.sections():
        form.expect_titles(section, [schema["title"] for schema in schemas if schema["section"] == section])
    form.open("Quality gates")
    form.dialog.get_by_role("heading", name="Trigger Dag").scroll_into_view_if_needed()
    keep(ui.page, "trigger-form")


@pytest.mark.every_airflow
def test_a_run_triggered_with_the_form_writes_the_step_that_was_named(
    run: str, airflow: AirflowCluster, client: Any
) -> None:
    assert airflow.xcom(run, "score", "output_path") == f"s3://{BUCKET}/by-hand/tried_step1.jsonl"
    written = client.get_object(Bucket=BUCKET, Key="by-hand/tried_step1.jsonl")["Body"].read().splitlines()
    assert len(written) == ROWS
    assert "clip_score" in json.loads(written[0])


@pytest.mark.every_airflow
def test_the_tab_of_the_task_shows_how_the_scores_lie_and_the_worst_pairs(
    ui: AirflowUI, airflow: AirflowCluster, run: str
) -> None:
    summary = airflow.xcom(run, "score", "summary")
    ui.open_task(run, "score")
    report = ui.open_tab(TAB)
    expect(report.get_by_role("heading", name="tried_step1.jsonl", level=1)).to_be_visible()
    expect(report.get_by_role("img", name="Histogram of 60 rows")).to_be_visible()
    headline = report.get_by_role("region", name="The most important numbers")
    expect(headline).to_contain_text(f"{summary['calibration']['auc']:.3f}")
    expect(headline).to_contain_text(f"{summary['scores']['mean']:.3f}")
    thumbnails = report.get_by_role("listitem").get_by_role("img")
    expect(thumbnails).to_have_count(16)
    assert thumbnails.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")
    keep(ui.page, "task-tab")


def test_the_report_reads_well_in_the_dark_on_a_phone(ui: AirflowUI, browser: Browser, run: str) -> None:
    ui.open_task(run, "score")
    address = ui.address_of(ui.open_tab(TAB))
    with window(browser, like=ui.page.context, viewport=PHONE, color_scheme="dark", device_scale_factor=2) as phone:
        phone.page.goto(address)
        expect(phone.page.get_by_role("img", name="Histogram")).to_be_visible()
        too_wide = phone.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert too_wide <= 0
        assert lightness(phone.page.screenshot()) < 0.25
        keep(phone.page, "report-dark-phone")
        assert phone.errors == []


def test_the_pages_are_light_or_dark_as_airflow_is_and_not_as_the_system_is(
    ui: AirflowUI, browser: Browser, run: str
) -> None:
    schemes: list[tuple[Any, str]] = [("light", "dark"), ("dark", "light")]
    for system, chosen in schemes:
        with window(browser, like=ui.page.context, color_scheme=system) as opened:
            own = AirflowUI(opened.page, ui.url)
            opened.page.goto(ui.url)
            opened.page.evaluate("theme => localStorage.setItem('theme', theme)", chosen)
            own.open_task(run, "score")
            report = own.open_tab(TAB)
            expect(report.get_by_role("heading", level=1)).to_be_visible()
            assert (lightness(report.locator("header").screenshot()) < 0.5) == (chosen == "dark")
            keep(opened.page, f"task-tab-{chosen}-on-{system}")
            # The switch is pressed while the page is open: other pages of Airflow are told by the browser.
            colours = "getComputedStyle(document.documentElement).colorScheme"
            assert report.locator("body").evaluate(colours) == chosen
            opened.page.evaluate("theme => localStorage.setItem('theme', theme)", system)
            expect(report.locator("html")).to_have_css("color-scheme", system)
            opened.page.evaluate("localStorage.setItem('theme', 'system')")
            expect(report.locator("html")).to_have_css("color-scheme", "light dark")
            assert opened.errors == []


def test_the_worst_rows_are_downloaded_from_the_tab(ui: AirflowUI, run: str) -> None:
    ui.open_task(run, "score")
    report = ui.open_tab(TAB)
    with ui.page.expect_download() as download:
        report.get_by_role("link", name="as CSV").click()
    assert download.value.suggested_filename == "tried_step1.jsonl.worst-rows.csv"
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert len(list(csv.DictReader(io.StringIO(text)))) == ROWS - 4


@pytest.mark.every_airflow
def test_the_page_over_all_runs_shows_that_one_came_to_something_else_and_leads_to_the_report_of_each(
    ui: AirflowUI, drift: list[str]
) -> None:
    ui.open_dag(DAG)
    runs = ui.open_tab(TAB)
    rows = [runs.get_by_role("row").filter(has_text=each.rpartition("/")[2]) for each in drift]
    for row, gates in zip(rows, ("none set", "passed", "not passed the AUC is"), strict=True):
        expect(row.locator("[data-label=Gates]")).to_have_text(re.compile(rf"^{gates}"))
    auc = runs.get_by_role("img", name="AUC")
    expect(auc).to_be_visible()
    heights = [float(dot.get_attribute("cy") or "nan") for dot in auc.locator("circle").all()]
    assert len(heights) == len(drift)
    assert max(heights[:-1]) < heights[-1]  # which is further down
    keep(ui.page, "runs-page")
    rows[0].get_by_role("link").first.click()
    expect(runs.get_by_role("heading", name="tried_step1.jsonl", level=1)).to_be_visible()
    runs.get_by_role("link", name="all runs").click()
    rows[-1].get_by_role("link", name="compare").click()
    expect(runs.get_by_role("heading", name="score: two runs", level=1)).to_be_visible()
    expect(runs.get_by_role("row").filter(has_text="AUC")).to_contain_text("worse")
    expect(runs.get_by_role("img", name="Rows, by their scores")).to_be_visible()
    keep(ui.page, "two-runs")
    runs.get_by_role("link", name="all runs").click()
    expect(rows[0]).to_be_visible()


@pytest.mark.every_airflow
def test_the_page_over_all_runs_leads_to_airflows_own_pages_out_of_their_frame(ui: AirflowUI, drift: list[str]) -> None:
    ui.open_dag(DAG)
    row = ui.open_tab(TAB).get_by_role("row").filter(has_text=drift[0].rpartition("/")[2])
    row.get_by_role("link", name="task").click()
    expect(ui.page.get_by_role("link", name="Logs", exact=True)).to_be_visible()
    assert ui.page.url.startswith(f"{ui.url}/dags/{DAG}/runs/")
    assert ui.page.url.endswith("/tasks/score")


def test_the_page_over_all_runs_and_that_on_two_read_well_on_a_phone(
    ui: AirflowUI, browser: Browser, failing: str
) -> None:
    ui.open_dag(DAG)
    address = ui.address_of(ui.open_tab(TAB))
    with window(browser, like=ui.page.context, viewport=PHONE, device_scale_factor=2) as phone:
        phone.page.goto(address)
        failed = phone.page.get_by_role("row").filter(has_text="the column 'text' is read and written")
        expect(failed).to_be_visible()
        keep(phone.page, "runs-page-phone")
        for heading in (DAG, "score: two runs"):
            expect(phone.page.get_by_role("heading", name=heading, level=1)).to_be_visible()
            assert phone.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            if heading == DAG:
                phone.page.get_by_role("link", name="compare").first.click()
        assert phone.errors == []


@pytest.mark.every_airflow
def test_the_tab_of_a_failed_task_says_why_and_so_does_the_end_of_its_log(
    ui: AirflowUI, airflow: AirflowCluster, failing: str
) -> None:
    ui.open_task(failing, "score")
    said = ui.open_tab(TAB)
    expect(said.get_by_role("heading", level=1)).to_have_text("This task has failed")
    why = said.get_by_role("region", name="Why")
    for words in ("the column 'text' is read and written", "Mend what the task is given", "docs/troubleshooting.md"):
        expect(why).to_contain_text(words)
    keep(ui.page, "failed-tab")
    log = airflow.log(failing, "score")
    parts = [log.index(words) for words in ("The task fails.", "Why: ", "See:   docs", "Task failed with")]
    assert parts == sorted(parts)
    ui.page.get_by_role("link", name="Logs", exact=True).click()
    expect(ui.page.get_by_text("See:   docs/troubleshooting.md")).to_be_visible()
    keep(ui.page, "failed-log")


@pytest.mark.every_airflow
def test_the_link_of_the_task_leads_to_the_report(ui: AirflowUI, run: str) -> None:
    ui.open_task(run, "score")
    ui.page.get_by_role("link", name="Details", exact=True).click()
    ui.follow(ui.page.get_by_role("link", name="CLIP report"))
    expect(ui.page.get_by_role("heading", name="tried_step1.jsonl", level=1)).to_be_visible()


def test_the_tab_of_a_task_that_scores_nothing_says_so(ui: AirflowUI, scoreless: str) -> None:
    ui.open_task(scoreless, "judge")
    said = ui.open_tab(TAB)
    expect(said.get_by_role("heading", level=1)).to_have_text("No CLIP scores")
    keep(ui.page, "empty-tab")


@pytest.mark.every_airflow
def test_the_pages_are_for_those_who_are_known(airflow: AirflowCluster, run: str) -> None:
    _, dag_id, _, run_id = run.split("/")
    query = {"run_id": run_id, "task_id": "score"}
    for page in (f"{airflow.url}/clip-scores/dags/{dag_id}/report", f"{airflow.url}/clip-scores/dags/{dag_id}/runs"):
        assert httpx.get(page, params=query, trust_env=False).status_code == 401
        forged = {"Authorization": "Bearer forged"}
        assert httpx.get(page, params=query, headers=forged, trust_env=False).status_code == 403
        known = httpx.get(page, params=query, headers=airflow.api.headers, trust_env=False)
        assert known.status_code == 200
        policy = known.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert policy.count("script-src 'sha256-") == policy.count("script") == 1
        assert known.headers["Cache-Control"] == "no-store"
        assert known.headers["X-Content-Type-Options"] == "nosniff"


def lightness(png: bytes) -> float:
    """Return the mean lightness of a picture, from 0 (black) to 1 (white)."""
    with Image.open(io.BytesIO(png)) as picture:
        return ImageStat.Stat(picture.convert("L")).mean[0] / 255

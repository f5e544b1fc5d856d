"""The report: what a manifest says, on a page that runs nothing, whatever the data set holds."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import Embeddings, EvaluationManifest, FilteredStep, ObjectVersion, RejectedStep
from clip_operator.report import render
from clip_operator.report.histogram import HEIGHT, WIDTH, histogram
from clip_operator.report.samples import Sample, Samples, read_samples
from clip_operator.report.templates import percent
from clip_operator.request import Requester, Shard, parse_request
from clip_operator.steps import report_uri
from clip_operator.storage import Storage
from tests.conftest import SHAPES

HOSTILE = [
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "\u202eright to left\u2066",
    "a" * 400,
    "<!-- --><b>&amp;",
]


class Page(HTMLParser):
    """The elements of a page, its text, and that every element that is opened is closed."""

    VOID = frozenset({"meta", "img", "link", "rect", "line"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def done(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationManifest:
    """The manifest of the demo data set, scored in peace."""
    output = tmp_path_factory.mktemp("report") / "captions_step1.jsonl"
    fields = {"input": f"{shapes_dataset}/captions.jsonl", "output": str(output), "model": SHAPES}
    return evaluate(parse_request(fields))


@pytest.fixture(scope="module")
def samples(done: EvaluationManifest) -> Samples:
    found = read_samples(Storage(), done.output.uri)
    assert found is not None
    return found


def test_the_page_beside_the_output_is_what_manifest_and_samples_come_to(
    done: EvaluationManifest, samples: Samples
) -> None:
    listed = f"{Path(done.output.uri).name}.worst-rows.csv"
    assert Path(report_uri(done.output.uri)).read_text() == render(done, samples, worst_rows=listed)
    assert Path(done.output.uri).with_name(listed).exists()


def test_captions_are_there_to_their_end_and_so_is_the_worst_sentence(done: EvaluationManifest) -> None:
    words = " ".join(f"word{number}" for number in range(300))
    sentence = "A red star stands beside it."
    sample = Sample(row=1, image="1.png", text=words, score=0.5, sentence=sentence, sentence_score=0.25)
    short = Sample(row=2, image="2.png", text="a pink hoop", score=0.6)
    page = safe(render(done, Samples(best=[sample], worst=[sample, short])))
    assert page.text.count(words) == 2
    assert page.text.count(f"Its worst sentence, 0.2500: {sentence}") == 2
    assert len([tag for tag, attributes in page.elements if attributes.get("class") == "caption"]) == 3
    assert (
        len([tag for tag, attributes in page.elements if (tag, attributes.get("class")) == ("details", "caption")]) == 2
    )


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "No gate was set So nothing says whether these scores are good enough"),
        ({"min_auc": 0.5}, "The gate is passed ✓ passed: the AUC is 0.8613, above min_auc=0.5 by 0.3613"),
        (
            {"min_mean_score": 0.1, "min_auc": 0.9},
            "1 of 2 gates not passed ✗ not passed: the AUC is 0.8613, below min_auc=0.9 by 0.0387 ✓ passed: the mean",
        ),
        ({"min_mean_score": 0.1, "min_auc": 0.5}, "All 2 gates are passed"),
    ],
)
def test_the_page_says_of_each_gate_whether_it_is_passed_and_by_how_much(
    done: EvaluationManifest, limits: dict[str, float], words: str
) -> None:
    judged = done.model_copy(update={"request": done.request.model_copy(update=limits)})
    assert words in safe(render(judged, None)).text


def test_the_page_of_a_shard_says_nothing_of_gates(done: EvaluationManifest) -> None:
    shard = Shard(index=1, of=2, input_etag="e", start=0, stop=1)
    request = done.request.model_copy(update={"shard": shard, "min_auc": 0.9})
    assert "gate" not in Page(render(done.model_copy(update={"request": request}), None)).text


def test_the_list_of_the_worst_rows_is_linked_where_there_is_one(done: EvaluationManifest, samples: Samples) -> None:
    html = render(done, samples, worst_rows="captions%20%3Cb%3E.csv")
    [link] = [attributes for tag, attributes in Page(html).elements if tag == "a"]
    assert link == {"href": "captions%20%3Cb%3E.csv", "download": None}
    assert "All scored rows, the lowest score first, as CSV" in Page(html).text
    many = done.rows.model_copy(update={"total": 9000, "scored": 9000, "failed": 0, "failures": {}})
    page = Page(render(done.model_copy(update={"rows": many}), samples, worst_rows="x.csv"))
    assert "The 1,000 lowest scores, as CSV" in page.text


def test_a_row_of_a_part_that_does_not_know_its_place_is_said_to_be_of_the_part(done: EvaluationManifest) -> None:
    samples = Samples(worst=[Sample(row=7, image="1.png", text="a pink hoop", score=0.5)])
    shard = Shard(index=1, of=2, input_etag="e", start=0, stop=1)
    for first_row, words in ((None, "row 7 of this part · 1.png"), (100, "row 7 · 1.png")):
        request = done.request.model_copy(update={"shard": shard.model_copy(update={"first_row": first_row})})
        assert words in Page(render(done.model_copy(update={"request": request}), samples)).text


def test_the_numbers_on_the_page_are_the_manifests(done: EvaluationManifest, samples: Samples) -> None:
    page = Page(render(done, samples))
    assert done.scores is not None
    assert done.calibration is not None
    for words in (
        f"{done.rows.scored}",
        f"of {done.rows.total}",
        f"{done.scores.mean:.4f}",
        f"{done.calibration.auc:.3f}",
        f"{done.calibration.threshold:.4f}",
        f"{100 * done.calibration.false_accept_rate:.1f} %",
        f"{100 * done.calibration.false_reject_rate:.1f} %",
        done.model.digest,
        done.input.etag,
        done.device.reason,
        "image_not_found",
        *(f"{value:.4f}" for value in done.scores.quantiles.values()),
        *(f"{value:.4f}" for value in done.calibration.mismatched.quantiles.values()),
    ):
        assert words in page.text, words
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == len(samples.best) + len(samples.worst) == 16
    assert all((picture["src"] or "").startswith("data:image/jpeg;base64,") and picture["alt"] for picture in pictures)


def safe(html: str) -> Page:
    """The page, having seen that it runs nothing and loads nothing."""
    page = Page(html)
    assert page.open == []
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "iframe", "object", "embed", "base", "form", "a"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            address = attributes.get(name) or "data:,"
            assert address == "data:," or address.startswith("data:image/jpeg;base64,")
    [policy] = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    return page


def hostile(done: EvaluationManifest, text: str) -> str:
    sample = Sample(row=1, image=text, text=text, score=0.5, detail=text)
    version = ObjectVersion(uri=f"s3://user:hush@bucket/{text}?sig=hush", size=1, etag=text)
    changed: dict[str, Any] = {
        "input": version,
        "device": done.device.model_copy(update={"reason": text}),
        "model": done.model.model_copy(update={"name": text, "revision": text}),
        "rows": done.rows.model_copy(update={"failures": {text: 3}}),
        "confirmed_by": Requester(dag_id=text, run_id=text, task_id=text),
        "request": done.request.model_copy(update={"output_key": text}),
    }
    return render(done.model_copy(update=changed), Samples(best=[sample], worst=[sample], failures={text: [sample]}))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_data_set_holds_is_shown_and_never_run(done: EvaluationManifest, text: str) -> None:
    html = hostile(done, text)
    page = safe(html)
    assert " ".join(text.split()) in page.text
    assert "hush" not in html


@settings(max_examples=60, derandomize=True, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("<>&\"'{}%/- ", max_size=30))
def test_no_text_leaves_its_place(done: EvaluationManifest, text: str) -> None:
    before = [tag for tag, _ in Page(hostile(done, "x")).elements]
    assert [tag for tag, _ in safe(hostile(done, text or "x")).elements] == before


def test_where_there_is_nothing_to_show_the_page_says_so(done: EvaluationManifest) -> None:
    rows = done.rows.model_copy(update={"scored": 0, "failed": 64})
    bare = done.model_copy(update={"scores": None, "calibration": None, "throughput": None, "rows": rows})
    text = safe(render(bare, None)).text
    assert "no row has a score" in text
    assert "too few different rows to tell" in text
    assert "Worst pairs" not in text


def test_numbers_that_somebody_took_out_of_the_store_are_left_out(done: EvaluationManifest) -> None:
    assert done.scores is not None
    without = done.model_copy(update={"scores": done.scores.model_copy(update={"quantiles": {"p50": 0.6043}})})
    words = Page(render(without, Samples(best=[Sample(row=1, image="1.png", text="a pink hoop")]))).words
    assert "a pink hoop" in words
    assert "0.6043" in words
    assert "0.6514" not in words, "the 95 % of the whole manifest"


def test_the_filtered_step_is_named_with_its_size(done: EvaluationManifest) -> None:
    kept = FilteredStep(output=ObjectVersion(uri="s3://b/kept.jsonl", size=3, etag="e"), min_score=0.61, rows=32)
    text = Page(render(done.model_copy(update={"filtered": kept}), None)).text
    assert "32 rows have a score of 0.6100 or more (50.0 % of all). They are the step s3://b/kept.jsonl" in text
    assert "The other" not in text
    others = RejectedStep(output=ObjectVersion(uri="s3://b/others.jsonl", size=3, etag="e"), rows=32)
    limits = {"max_score": 0.9, "min_percentile": 97.5, "keep_top": 0.07}
    divided = {"filtered": kept.model_copy(update=limits), "rejected": others}
    text = Page(render(done.model_copy(update=divided), None)).text
    assert (
        "32 rows have a score of 0.6100 or more, a score of 0.9000 or less, a percentile of 97.5 or more and a place "
        "among the best 7 % (50.0 % of all)"
    ) in text
    assert "The other 32 rows are the step s3://b/others.jsonl" in text


def test_the_folder_of_the_embeddings_is_named(done: EvaluationManifest) -> None:
    assert "Embeddings" not in Page(render(done, None)).words
    folder = ObjectVersion(uri="s3://b/embeddings", size=3, etag="e")
    written = Embeddings(folder=folder, files=1, rows=64, dimensions=128, dtype="float16")
    text = safe(render(done.model_copy(update={"embeddings": written}), None)).text
    assert (
        "Those of all rows' images and texts are in the folder s3://b/embeddings as Parquet, 128 numbers of type "
        "float16 each"
    ) in text


def test_every_bar_stands_within_the_drawing_and_high_as_its_share(done: EvaluationManifest) -> None:
    assert done.calibration is not None
    drawing, bins = histogram(done.calibration), done.calibration.histograms
    heights = []
    for bars, counts in ((drawing.matched, bins.matched), (drawing.mismatched, bins.mismatched)):
        shares = [count / sum(counts) for count in counts if count]
        assert len(bars) == len(shares)
        for bar, share in zip(bars, shares, strict=True):
            assert 0 <= bar.x <= bar.x + bar.width <= WIDTH
            assert 0 <= bar.y < bar.y + bar.height < HEIGHT
            assert bar.y + bar.height == pytest.approx(drawing.baseline)
            heights.append(bar.height / share)
    assert max(heights) == pytest.approx(min(heights), rel=0.01)
    assert 0 <= drawing.threshold_x <= WIDTH
    assert 2 <= len(drawing.ticks) <= 8


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.0002, "< 0.1 %"), (0.9999, "> 99.9 %"), (0.25, "25.0 %")]
)
def test_a_share_is_not_shown_as_nothing_or_all_unless_it_is(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_rendering_needs_no_model_and_no_airflow() -> None:
    code = "import sys, clip_operator.report; print(sorted({'torch', 'PIL', 'airflow', 'pyarrow'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_thumbnails_are_small_and_moments_are_in_utc(done: EvaluationManifest, samples: Samples) -> None:
    sizes = [len(base64.b64decode(sample.thumbnail or "")) for sample in samples.best + samples.worst]
    assert 0 < min(sizes) <= max(sizes) < 20_000
    late = done.model_copy(update={"finished_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)})
    assert re.search("2026-01-02 03:04:05 UTC", Page(render(late, None)).text)

"""A manifest or samples that somebody wrote to do harm: a page of ordinary size or none, and nothing elsewhere."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_operator import cli
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from clip_operator.report import render
from clip_operator.report.samples import MOST_PAIRS, Sample, Samples, read_samples
from clip_operator.request import parse_request
from clip_operator.steps import manifest_uri, report_uri, samples_uri
from clip_operator.storage import Storage
from tests.conftest import SHAPES

MOST_CHARACTERS = 1 << 20  # of a page

NUMBERS = ["0", "-1", "1e9", "1e-300", "1e300", "1" + 400 * "0", "1" + 5000 * "0", "NaN", "Infinity", "-Infinity"]
OTHERS = ["null", '""', "true", '"' + 200_000 * "x" + '"', '"\\ud800"', 150_000 * "[" + 150_000 * "]", "{}", "[]"]
LONG = [
    f"[{40_000 * '1,'}1]",
    "[" + 40_000 * '"a",' + '"a"]',
    "{" + ",".join(f'"{number}":1' for number in range(40_000)) + "}",
]

MARK = "a mark that no manifest has"


@pytest.fixture(scope="module")
def done(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationManifest:
    """The manifest of the demo data set, scored in peace; its rows kept, too."""
    folder = tmp_path_factory.mktemp("forged")
    fields = {
        "input": f"{shapes_dataset}/captions.jsonl",
        "output": f"{folder}/captions_step1.jsonl",
        "filtered_output": f"{folder}/captions_step2.jsonl",
        "min_score": 0.5,
        "model": SHAPES,
    }
    return evaluate(parse_request(fields))


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Give the way to everything that a value holds, and to itself."""
    yield ()
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, held in items:
        yield from ((key, *rest) for rest in places(held))


def forged(value: Any, way: tuple[Any, ...], text: str) -> bytes:
    """The JSON of a value with another text in one place."""
    value = copy.deepcopy(value)
    if not way:
        return text.encode()
    holder = value
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = MARK
    return json.dumps(value).replace(f'"{MARK}"', text).encode()


def shown(manifest: bytes, samples: Samples | None = None) -> str | None:
    """The page on what a store holds, or None if it is none."""
    found = parse_manifest(manifest)
    page = None if found is None else render(found, samples)
    assert page is None or 0 < len(page.encode()) < MOST_CHARACTERS
    return page


def test_whatever_stands_in_any_place_of_a_manifest_gives_a_page_of_ordinary_size_or_none(
    done: EvaluationManifest,
) -> None:
    good = json.loads(done.model_dump_json())
    assert shown(json.dumps(good).encode()) == render(done, None)
    for way in places(good):
        for text in [*NUMBERS, *OTHERS]:
            shown(forged(good, way, text))
        for text in LONG:
            shown(forged(good, way, text))
    assert shown(forged(good, ("request", "input_text_key"), json.dumps("x" * 3_000_000)))


@pytest.mark.parametrize(
    "bins",
    [
        {"bin_width": "1e9"},
        {"bin_width": "0"},
        {"bin_width": "1e300"},
        {"bin_width": "1e-9"},
        {"bin_width": "-0.01"},
        {"start": "-5000"},
        {"start": "1"},
        {"matched": "[1, 2]"},
        {"matched": "[]", "mismatched": "[]"},
        {"matched": f"[{'1,' * 200_000}1]", "mismatched": f"[{'1,' * 200_000}1]"},
    ],
    ids=repr,
)
def test_bins_in_which_no_score_can_be_are_no_histogram(done: EvaluationManifest, bins: dict[str, str]) -> None:
    text = json.loads(done.model_dump_json())
    for name, value in bins.items():
        text["calibration"]["histograms"][name] = json.loads(value)
    assert shown(json.dumps(text).encode()) is None


@pytest.mark.parametrize(
    "text", ['{"x":[' + "[]," * 1_390_000 + "[]]}", '{"earlier_work":[' + "{}," * 1_390_000 + "{}]}"], ids=len
)
def test_a_manifest_of_four_megabytes_takes_no_gigabyte_to_refuse(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.manifest.json").write_text(text)
    code = (
        "import resource; from clip_operator.proof.manifest import read_manifest\n"
        "from clip_operator.storage import Storage\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        f"print(read_manifest(Storage(), {str(tmp_path / 'x.manifest.json')!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "None\n"), ended.stderr[-400:]


def test_samples_that_are_none_are_left_out(done: EvaluationManifest, tmp_path: Path) -> None:
    sample = Sample(row=1, image="1.png", text="a hoop", score=0.5, thumbnail="AAAA", detail="no")
    samples = Samples(best=[sample] * MOST_PAIRS, worst=[sample], failures={"image_not_found": [sample]})
    good, output = json.loads(samples.model_dump_json()), str(tmp_path / "x.jsonl")
    texts = [*NUMBERS, *OTHERS, *LONG, json.dumps([good["best"][0]] * 10_000)]
    for way in places(good):
        for text in texts:
            Path(samples_uri(output)).write_bytes(forged(good, way, text))
            shown(done.model_dump_json().encode(), read_samples(Storage(), output))
    Path(samples_uri(output)).write_text(json.dumps(good))
    assert read_samples(Storage(), output) == samples
    Path(samples_uri(output)).write_bytes(b" " * (5 << 20))
    assert read_samples(Storage(), output) is None


def test_report_writes_beside_what_the_user_named_and_nowhere_else(
    done: EvaluationManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, elsewhere = tmp_path / "named.jsonl", tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = done.output.model_copy(update={"uri": str(elsewhere / "theirs.jsonl")})
    request = done.request.model_copy(update={"output": output.uri})
    forged = done.model_copy(update={"output": output, "request": request})
    Path(samples_uri(output.uri)).write_text(Samples(best=[Sample(row=1, image="", text="a secret")]).model_dump_json())
    Path(manifest_uri(str(named))).write_text(forged.model_dump_json())
    for name in (str(named), manifest_uri(str(named))):
        assert cli.main(["report", name]) == cli.DONE
        assert capsys.readouterr().out == f"{report_uri(str(named))}\n"
        assert "a secret" not in Path(report_uri(str(named))).read_text()
    assert [path.name for path in elsewhere.iterdir()] == ["theirs.jsonl.samples.json"]


def test_report_is_made_anew_beside_its_output_or_where_the_user_says(done: EvaluationManifest, tmp_path: Path) -> None:
    page = Path(report_uri(done.output.uri))
    before = page.read_text()
    page.unlink()
    assert cli.main(["report", done.output.uri]) == cli.DONE
    assert page.read_text() == before
    assert cli.main(["report", manifest_uri(done.output.uri), "--output", str(tmp_path / "own.html")]) == cli.DONE
    alone = re.sub(r'  <p class="download">.*</p>\n', "", before)  # the list of the worst rows is not there
    assert (tmp_path / "own.html").read_text() == alone != before

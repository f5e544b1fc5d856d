"""The report opened as a file: it can be read by who sees no colours, in light and in dark, and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from clip_operator.job.evaluation import evaluate
from clip_operator.request import parse_request
from tests.browser.chromium import PHONE, chromium, chromium_program, window
from tests.browser.screenshots import keep
from tests.conftest import SHAPES, missing_part

pytestmark = pytest.mark.slow

# What carries meaning on the page, and the property that draws it: WCAG 2.2 asks for 3:1 of graphics, 4.5:1 of text.
GRAPHICS = {
    "svg .axis": "stroke",
    "svg .hatch": "stroke",
    "svg .matched rect": "stroke",
    "svg .mismatched rect": "stroke",
    "svg .threshold": "stroke",
}
TEXTS = {"svg .tick": "fill", "svg .threshold-label": "fill", "figcaption": "color", ".gates p": "color", "a": "color"}

CONTRASTS = """([wanted, behind]) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.querySelector(behind)).backgroundColor);
  return Object.fromEntries(Object.entries(wanted).map(([selector, property]) => {
    const ink = luminance(getComputedStyle(document.querySelector(selector))[property]);
    return [selector, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
  }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium_program() is None:
        missing_part("Chromium (apt-get install chromium)")
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report(shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all that one may have: long captions with their worst sentences, gates, rows without a score."""
    folder = shutil.copytree(shapes_dataset, tmp_path_factory.mktemp("page") / "shapes")
    captions = folder / "captions.jsonl"
    long = " ".join(["The picture is simple and calm, and there is nothing else to be seen in it."] * 6)
    first, rest = captions.read_text().split("\n", 1)
    captions.write_text(f"{first.replace('a green dot on a beige background', f'A red star. {long}')}\n{rest}")
    fields: dict[str, Any] = {
        "input": str(captions),
        "output": f"{folder}/captions_step1.jsonl",
        "model": SHAPES,
        "sentence_key": "least",
        "min_auc": 0.9,
        "min_mean_score": 0.5,
    }
    return Path(f"{evaluate(parse_request(fields)).output.uri}.report.html")


def contrasts(page: Page, wanted: dict[str, str], behind: str) -> dict[str, float]:
    return dict(page.evaluate(CONTRASTS, [wanted, behind]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_drawn_can_be_told_from_the_paper_and_not_by_colour_alone(
    browser: Browser, report: Path, scheme: Any
) -> None:
    with window(browser, color_scheme=scheme) as opened:
        opened.page.goto(report.as_uri())
        assert min(contrasts(opened.page, GRAPHICS, "figure").values()) >= 3
        assert min(contrasts(opened.page, TEXTS, "figure").values()) >= 4.5
        fills = opened.page.evaluate(
            "['.matched', '.mismatched'].map(kind => getComputedStyle(document.querySelector(`svg ${kind} rect`)).fill)"
        )
        assert "url" in fills[1]
        assert "url" not in fills[0]
        keys = opened.page.evaluate(
            "[...document.querySelectorAll('.key')].map(key => getComputedStyle(key, '::before').backgroundImage)"
        )
        assert keys[0] == "none"
        assert "repeating-linear-gradient" in keys[1]
        keep(opened.page, f"report-{scheme}")
        assert opened.errors == []


def test_a_long_caption_opens_to_its_end_and_a_click_takes_a_whole_uri(browser: Browser, report: Path) -> None:
    with window(browser) as opened:
        page = opened.page
        page.goto(report.as_uri())
        caption = page.locator("details.caption").first
        closed = caption.bounding_box()
        caption.locator("summary").click()
        opened_box = caption.bounding_box()
        assert closed is not None
        assert opened_box is not None
        assert opened_box["height"] > closed["height"] + 20
        expect(page.get_by_text("Its worst sentence").first).to_be_visible()
        output = str(report).removesuffix(".report.html")
        page.locator("#output dd code").first.click()
        assert page.evaluate("getSelection().toString()").strip() == output
        assert opened.errors == []


def test_the_list_of_the_worst_rows_is_a_click_away(browser: Browser, report: Path) -> None:
    listed = report.with_name("captions_step1.jsonl.worst-rows.csv")
    with window(browser, accept_downloads=True) as opened:
        opened.page.goto(report.as_uri())
        with opened.page.expect_download() as download:
            opened.page.get_by_role("link", name="as CSV").click()
        assert Path(download.value.path()).read_bytes() == listed.read_bytes()


@pytest.mark.parametrize("width", [390, PHONE["width"]])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, report: Path, width: int) -> None:
    with window(browser, viewport={"width": width, "height": 844}, device_scale_factor=2) as phone:
        phone.page.goto(report.as_uri())
        assert phone.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        keep(phone.page, f"report-phone-{width}")

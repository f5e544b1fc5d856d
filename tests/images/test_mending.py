"""Image paths of another machine are mended as they are asked to be, and lead no further than others."""

from __future__ import annotations

import base64
import io
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy, PathMending
from clip_operator.storage import Storage

COMPOSED, DECOMPOSED = "caf\u00e9.png", "cafe\u0301.png"

MENDED = [
    (["blanks"], " \ta b.png\n", "a b.png"),
    (["percent"], "a%20b%2Fc.png", "a b/c.png"),
    (["percent"], "100%.png", "100%.png"),
    (["percent"], "%ff.png", "%ff.png"),
    (["percent"], "a%2520b.png", "a%20b.png"),
    (["percent"], "s3://b/a%20b.png", "s3://b/a b.png"),
    (["percent"], "https://host/a%20b.png", "https://host/a%20b.png"),
    (["percent"], "file:///a%2520b.png", "file:///a%2520b.png"),
    (["backslashes"], "a\\b\\c.png", "a/b/c.png"),
    (["backslashes"], "https://host/a\\b.png", "https://host/a\\b.png"),
    (["percent", "backslashes"], "a%5Cb.png", "a/b.png"),
    (["nfc"], DECOMPOSED, COMPOSED),
    (["nfd"], COMPOSED, DECOMPOSED),
    ([], " a\\b%20.png ", " a\\b%20.png "),
    (["blanks", "percent"], "data:image/png;base64,%41 ", "data:image/png;base64,%41 "),
]


@pytest.mark.parametrize(("repairs", "path", "mended"), MENDED)
def test_a_path_is_mended_as_it_is_asked_for_and_not_otherwise(repairs: list[str], path: str, mended: str) -> None:
    assert PathMending.of(repairs, {}).mended(path) == mended
    assert PathMending.of([], {}).mended(path) == path


REWRITE = {
    "/mnt/old/": "s3://bucket/new/",
    "/mnt/old/train/": "s3://train/",
    "C:\\data\\": "./",
    "/mnt/my pictures/": "/pictures/",
}


@pytest.mark.parametrize(
    ("path", "repairs", "mended"),
    [
        ("/mnt/old/a.png", [], "s3://bucket/new/a.png"),
        ("/mnt/old/train/a.png", [], "s3://train/a.png"),
        ("/mnt/older/a.png", [], "/mnt/older/a.png"),
        ("x/mnt/old/a.png", [], "x/mnt/old/a.png"),
        ("C:\\data\\x\\a.png", [], "./x\\a.png"),
        ("C:\\data\\x\\a.png", ["backslashes"], "./x/a.png"),
        ("/mnt/my%20pictures/a%20b.png", ["percent"], "/pictures/a b.png"),
        (" /mnt/old/a.png", ["blanks"], "s3://bucket/new/a.png"),
    ],
)
def test_the_longest_prefix_is_rewritten_after_the_repairs(path: str, repairs: list[str], mended: str) -> None:
    assert PathMending.of(repairs, REWRITE).mended(path) == mended
    assert PathMending.of(repairs, dict(reversed(REWRITE.items()))).mended(path) == mended


def test_a_jpeg_in_base64_begins_with_a_slash_and_is_rewritten_to_no_place() -> None:
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "JPEG")
    text = base64.b64encode(written.getvalue()).decode()
    assert text.startswith("/9j/")
    rewriting = PathMending.of(["blanks"], {"/": "s3://bucket/"})
    assert rewriting.mended(f" {text}\n") == text
    assert rewriting.mended("/9j/a.png") == "s3://bucket/9j/a.png"


FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
paths = st.text(st.sampled_from("ab/\\% 2Fe\u0301\u00e9"), max_size=12)


@given(path=paths, prefixes=st.dictionaries(paths.filter(bool), paths, max_size=4))
def test_of_all_prefixes_that_fit_the_longest_is_taken(path: str, prefixes: dict[str, str]) -> None:
    fitting = [prefix for prefix in prefixes if path.startswith(prefix)]
    longest = max(fitting, key=len, default="")
    assert PathMending.of([], prefixes).mended(path) == prefixes.get(longest, "") + path[len(longest) :]


@given(path=paths, form=st.sampled_from(FORMS))
def test_what_is_mended_is_whole(path: str, form: Literal["NFC", "NFD"]) -> None:
    mended = PathMending.of(["blanks", "backslashes", form.lower()], {}).mended(path)
    assert mended == unicodedata.normalize(form, path.strip().replace("\\", "/"))


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/mnt/old/../../etc/passwd", "./"),
        ("/mnt/old/etc/passwd", "/"),
        ("/mnt/old/x.png", "s3://closed/"),
        ("/mnt/old/x.png", "https://host/"),
        ("/mnt/old/%2e%2e/%2e%2e/etc/passwd", "./"),
    ],
)
def test_a_rewritten_path_leads_no_further_than_others(reference: str, target: str, tmp_path: Path) -> None:
    mending = PathMending.of(["percent"], {"/mnt/old/": target})
    loader = ImageLoader(Storage(), ImagePolicy(str(tmp_path), mending=mending))
    with pytest.raises(RowError) as refusal:
        loader.locate(reference)
    assert refusal.value.reason is Reason.IMAGE_FORBIDDEN

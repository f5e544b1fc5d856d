"""What a reference may name, decided from its text and the policy alone, with no server behind it."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest

from clip_operator.errors import Reason, RequestError
from clip_operator.images import ImageLoader, ImageLocation, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Refusal

FORBIDDEN, NOT_FOUND = Reason.IMAGE_FORBIDDEN, Reason.IMAGE_NOT_FOUND


def loader_at(root: str, *hosts: str) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root=root, image_hosts=hosts))


@pytest.mark.parametrize(
    "nothing",
    [None, "", "  \t\n", math.nan, numpy.float32("nan"), {"bytes": None, "path": None}, {"path": ""}, {"bytes": None}],
)
def test_a_row_that_names_no_image_is_missing_one(nothing: object, refused: Refusal) -> None:
    refused(Reason.IMAGE_MISSING, loader_at("s3://b/data").locate, nothing)


@pytest.mark.parametrize("value", [7, 1.5, True, ["a.jpg"], Decimal(1), {}, {"url": "a.jpg"}, {"path": {"path": "x"}}])
def test_a_value_that_cannot_name_an_image_is_unreadable(value: object, refused: Refusal) -> None:
    refused(Reason.IMAGE_UNREADABLE, loader_at("s3://b/data").locate, value)


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("images/0001.jpg", "s3://b/data/images/0001.jpg"),
        ("./images//0001.jpg", "s3://b/data/images/0001.jpg"),
        ("a/../c.jpg", "s3://b/data/c.jpg"),
        ("%2e%2e/x.jpg", "s3://b/data/%2e%2e/x.jpg"),
        ("back\\slash..\\x.jpg", "s3://b/data/back\\slash..\\x.jpg"),
        ("12:30.jpg", "s3://b/data/12:30.jpg"),
        ("scene:1/é ü.jpg", "s3://b/data/scene:1/é ü.jpg"),
        ("a?b#c.jpg", "s3://b/data/a?b#c.jpg"),
        ("...jpg", "s3://b/data/...jpg"),
        ("s3://b/data/x.jpg", "s3://b/data/x.jpg"),
        ("s3://b/elsewhere/x.jpg", "s3://b/elsewhere/x.jpg"),
        ("s3://b/data", "s3://b/data"),
        ("S3://b/a//b.jpg", "s3://b/a//b.jpg"),
        ("s3a://b/x.jpg", "s3://b/x.jpg"),
        ({"bytes": None, "path": "x.jpg"}, "s3://b/data/x.jpg"),
    ],
)
def test_references_from_a_data_set_in_s3(reference: object, key: str) -> None:
    for root in ("s3://b/data", "S3://b/data/"):
        assert loader_at(root).locate(reference).key == key


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("../x.jpg", FORBIDDEN),
        ("a/../../x.jpg", FORBIDDEN),
        ("..", FORBIDDEN),
        ("x\0.jpg", FORBIDDEN),
        ("/etc/passwd", FORBIDDEN),
        ("//etc/passwd", FORBIDDEN),
        ("file:///etc/passwd", FORBIDDEN),
        ("FILE:///etc/passwd", FORBIDDEN),
        ("file:/etc/passwd", FORBIDDEN),
        ("s3://b/data/../../c/x.jpg", FORBIDDEN),
        ("s3://b/./x.jpg", FORBIDDEN),
        ("..\\x.jpg", FORBIDDEN),
        ("a\\.\\x.jpg", FORBIDDEN),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/x/y.jpg", FORBIDDEN),
        ("s3://user:secret@bucket/x.jpg", FORBIDDEN),
        ("s3:///x.jpg", FORBIDDEN),
        ("s3://[b/x.jpg", FORBIDDEN),
        ("gs://bucket/x.jpg", FORBIDDEN),
        ("abfs://c@account/x.jpg", FORBIDDEN),
        ("local:///etc/passwd", FORBIDDEN),
        ("ftp://host/x.jpg", FORBIDDEN),
        ("gopher://host/x", FORBIDDEN),
        ("javascript:alert(1)", FORBIDDEN),
        ("http://host/x.jpg", FORBIDDEN),
        ("HTTPS://host/x.jpg", FORBIDDEN),
        ("http:host/x.jpg", FORBIDDEN),
        ("s3://b/", NOT_FOUND),
        ("s3://My_Bucket/x.jpg", FORBIDDEN),
        ("s3://b", NOT_FOUND),
        ("s3://other-bucket/x.jpg", FORBIDDEN),
        ("s3://b2/x.jpg", FORBIDDEN),
        ("images/", NOT_FOUND),
        (".", NOT_FOUND),
        ("a/..", NOT_FOUND),
        ("a" * 1025, NOT_FOUND),
        ("s3://b/" + "é" * 513, NOT_FOUND),
        ("\ud800.jpg", NOT_FOUND),
    ],
)
def test_refused_references_from_a_data_set_in_s3(reference: str, reason: Reason, refused: Refusal) -> None:
    error = refused(reason, loader_at("s3://b/data").locate, reference)
    assert "secret" not in error.detail


def test_an_unknown_scheme_is_named(refused: Refusal) -> None:
    assert "gopher" in refused(FORBIDDEN, loader_at("s3://b").locate, "gopher://h/x").detail
    assert "javascript" in refused(FORBIDDEN, loader_at("s3://b").locate, "javascript:alert(1)").detail


def test_a_sibling_that_shares_the_roots_prefix_is_outside_of_it(tmp_path: Path, refused: Refusal) -> None:
    refused(FORBIDDEN, loader_at(str(tmp_path / "data")).locate, str(tmp_path / "database" / "x.jpg"))
    refused(FORBIDDEN, loader_at("hdfs://n/data").locate, "hdfs://n/database/x.jpg")


def test_stores_whose_uris_name_more_than_a_bucket_are_open_below_the_root_only(refused: Refusal) -> None:
    azure = loader_at("abfs://box@account/data")
    assert azure.locate("abfs://box@account/data/x.jpg").key == "abfs://box@account/data/x.jpg"
    refused(FORBIDDEN, azure.locate, "abfs://box@account/database/x.jpg")
    refused(FORBIDDEN, azure.locate, "abfs://box@elsewhere/x.jpg")
    refused(FORBIDDEN, azure.locate, "abfs://box@account/data/../x.jpg")
    refused(FORBIDDEN, loader_at("gs://b/data").locate, "abfs://box@account/x.jpg")


def test_spellings_of_one_local_file_share_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    key = str(real / "a b.jpg")
    for root in (str(real), str(tmp_path / "link"), "link", "./x/../link/", f"file://{tmp_path}/link"):
        loader = loader_at(root)
        for reference in ("a b.jpg", "./a b.jpg", "c/../a b.jpg", key, f"file://{real}/a%20b.jpg"):
            assert loader.locate(reference).key == key
        if "link" in root:
            assert loader.locate(str(tmp_path / "link" / "a b.jpg")).key == key


@pytest.mark.parametrize(
    "reference",
    ["/etc/passwd", "file:///etc/passwd", "file://host/x.jpg", "file://", "file:///%00", "file:///%ff", "file://[x/y"],
)
def test_local_files_outside_the_root_are_refused(reference: str, tmp_path: Path, refused: Refusal) -> None:
    refused(FORBIDDEN, loader_at(str(tmp_path)).locate, reference)


def test_the_root_folder_itself_is_no_image(tmp_path: Path, refused: Refusal) -> None:
    loader = loader_at(str(tmp_path))
    refused(NOT_FOUND, loader.locate, f"{tmp_path}/")
    refused(FORBIDDEN, loader.locate, f"{tmp_path}/../x.jpg")


@pytest.mark.parametrize(
    ("rule", "url"),
    [
        ("example.org", "http://example.org/x.jpg"),
        ("EXAMPLE.org", "https://Example.ORG:443/x.jpg"),
        ("example.org.", "https://example.org./x.jpg"),
        ("*.example.org", "https://a.b.example.org/x.jpg"),
        ("example.org:8080", "http://example.org:8080/x.jpg"),
        ("127.0.0.1:9", "http://127.0.0.1:9/x.jpg"),
        ("[::1]:9", "http://[::1]:9/x.jpg"),
        ("10.0.0.0/8", "http://10.1.2.3/x.jpg"),
        ("10.0.0.0/8:8080", "http://10.1.2.3:8080/x.jpg"),
        ("fd00::/8", "https://[fd12::1]/x.jpg"),
        ("[fd00::]/8:9", "http://[FD12:0::1]:9/x.jpg"),
        ("127.0.0.1", "http://127.0.0.1./x.jpg"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/x.jpg"),
        ("[::ffff:127.0.0.1]", "http://127.0.0.1/x.jpg"),
    ],
)
def test_image_hosts(rule: str, url: str) -> None:
    loader_at("s3://b", rule).locate(url)


@pytest.mark.parametrize(
    ("rule", "url"),
    [
        ("example.org", "http://sub.example.org/x"),
        ("example.org", "http://example.org.evil.net/x"),
        ("example.org", "http://evil-example.org/x"),
        ("*.example.org", "http://example.org/x"),
        ("*.example.org", "http://evilexample.org/x"),
        ("example.org", "http://example.org:8080/x"),
        ("example.org:8080", "http://example.org/x"),
        ("example.org", "http://evil.net\\@example.org/x"),
        ("example.org", "http://evil.net#@example.org/x"),
        ("example.org", "http://evil.net?@example.org/x"),
        ("example.org", "http://user:secret@example.org/x"),
        ("example.org", "http://example.org@evil.net/x"),
        ("10.0.0.0/8", "http://11.1.2.3/x"),
        ("10.0.0.0/8", "http://10.1.2.3:8080/x"),
        ("10.0.0.0/8", "http://[::10.1.2.3]/x"),
        ("fd00::/8", "http://[fe80::1%25eth0]/x"),
        ("fe80::/10", "http://[fe80::1%25eth0]/x"),
        ("0.0.0.0/0", "http://[::1]/x"),
        ("example.org", "http:///x"),
        ("example.org", "http://"),
        ("example.org", "http://example.org:99999/x"),
        ("example.org", "http://exam ple.org/x"),
        ("example.org", "http://[x/y"),
    ],
)
def test_hosts_that_are_not_allowed(rule: str, url: str, refused: Refusal) -> None:
    assert "secret" not in refused(FORBIDDEN, loader_at("s3://b", rule).locate, url).detail


def test_a_fragment_does_not_make_another_image() -> None:
    loader = loader_at("s3://b", "example.org")
    assert loader.locate("http://EXAMPLE.org/x.jpg#top") == loader.locate("http://example.org/x.jpg")
    assert loader.locate("http://example.org/x?a=1") != loader.locate("http://example.org/x?a=2")


@pytest.mark.parametrize(
    "host",
    [
        *("", "*", "*.", "http://example.org", "a b", "example.org/x", "exämple.org", "a:b", "*x.org", "example..org"),
        *("example.org:0", "example.org:65536", "example.org/8", "2130706433", "127.1", "0x7f.0.0.1", "*.0.0.1"),
        *("*.[::1]", "[::1", "::1", "[10.0.0]", "[fe80::1%eth0]"),
    ],
)
def test_a_host_that_cannot_be_meant_is_a_wrong_request(host: str) -> None:
    with pytest.raises(RequestError, match=r"example\.org"):
        ImagePolicy(root=".", image_hosts=(host,))


@pytest.mark.parametrize("network", ["10.1.2.3/8", "10.0.0.0/33", "fd00::1/8", "[::ffff:10.0.0.0]/104"])
def test_a_network_that_cannot_be_meant_is_a_wrong_request(network: str) -> None:
    with pytest.raises(RequestError, match="not a network"):
        ImagePolicy(root=".", image_hosts=(network,))


def test_wrong_policies_are_wrong_requests() -> None:
    for root in ("", " ", "a\0b", "https://example.org/images", "s3://"):
        with pytest.raises(RequestError, match="root"):
            ImagePolicy(root=root)
    not_a_list: Any = "example.org"
    with pytest.raises(RequestError, match="list"):
        ImagePolicy(root=".", image_hosts=not_a_list)
    for limit in ("max_bytes", "max_pixels", "http_timeout_seconds"):
        nothing: dict[str, Any] = {limit: 0}
        with pytest.raises(RequestError, match=limit):
            ImagePolicy(".", **nothing)
    with pytest.raises(RequestError, match="local folder"):
        loader_at("file://host/x")


@pytest.mark.parametrize(
    "reference",
    [
        "https://user:secret@example.org/x.jpg?signature=secret#secret",
        " https://example.org/x.jpg?signature=secret",
        "s3://bucket/x.jpg?signature=secret",
        "data:image/png;base64,secret",
    ],
)
def test_a_location_shows_no_secrets(reference: str) -> None:
    location = ImageLocation(reference, b"secret")
    assert "secret" not in f"{location} {location!r} {[location]}"


def test_a_location_is_shown_in_one_short_line() -> None:
    assert len(str(ImageLocation("/x" * 1000))) == 120
    assert str(ImageLocation("/a\nb\ud800")).isprintable()

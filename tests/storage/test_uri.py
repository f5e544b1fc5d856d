"""The laws of URIs as text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clip_operator.storage import canonical, display, join, name_of, parent, scheme_of

roots = st.one_of(
    st.sampled_from(["s3://bucket", "gs://bucket/a", "/data", "data", "file:///data", "s3://bucket/a b/c%20d"]),
    st.from_regex(r"s3://[a-z0-9-]{3,9}(/[^/\n]{1,5}){0,3}", fullmatch=True),
)
names = st.text(min_size=1).filter(lambda name: "/" not in name)


@settings(derandomize=True, deadline=None)
@given(roots, names)
@example("s3://bucket", "a#1?.jsonl")
def test_an_object_in_a_folder_has_that_folder_as_its_parent_and_its_own_name(root: str, name: str) -> None:
    assert parent(join(root, name)) == root
    assert name_of(join(root, name)) == name


@settings(derandomize=True, deadline=None)
@given(roots, names, names)
def test_joining_twice_is_joining_once(root: str, folder: str, name: str) -> None:
    assert join(join(root, folder), name) == join(root, f"{folder}/{name}")


@settings(derandomize=True, deadline=None)
@given(roots, names)
def test_slashes_where_the_parts_meet_make_no_difference(root: str, name: str) -> None:
    assert join(root + "/", name) == join(root, "/" + name) == join(root, name)


@settings(derandomize=True, deadline=None)
@given(roots, names)
def test_joining_keeps_the_scheme(root: str, name: str) -> None:
    assert scheme_of(join(root, name)) == scheme_of(root)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("step.jsonl", "."), ("/step.jsonl", "/"), ("a/step.jsonl", "a"), ("s3://b/a/x.jsonl", "s3://b/a")],
)
def test_parent_by_example(uri: str, expected: str) -> None:
    assert parent(uri) == expected


@pytest.mark.parametrize(
    ("root", "relative", "expected"),
    [("/", "x", "/x"), ("", "x", "x"), (".", "x", "./x"), ("s3://b/", "/a/x", "s3://b/a/x")],
)
def test_join_by_example(root: str, relative: str, expected: str) -> None:
    assert join(root, relative) == expected


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://b/x", "s3"),
        ("S3://b/x", "s3"),
        ("S3A://b/x", "s3"),
        ("gcs://b/x", "gs"),
        ("git+ssh://h/x", "git+ssh"),
        ("/data/x", "file"),
        ("x:y", "file"),
        ("C://x", "file"),
        ("a/s3://b", "file"),
        ("", "file"),
    ],
)
def test_the_scheme_is_what_stands_before_the_first_double_slash(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a/x.jsonl", "s3://bucket/a/x.jsonl"),
        ("https://user:pass@host:8080/x.png?token=1#part", "https://host:8080/x.png"),
        ("s3://KEY:SE@CRET@bucket/x", "s3://bucket/x"),
        ("s3://KEY:SE/CRET@bucket/x", "s3://bucket/x"),
        ("s3://KEY:SE/CRET", "s3://…"),
        ("s3://bucket/user@example.com/x", "s3://bucket/user@example.com/x"),
        ("hf:https://user:pass@host/x?token=1", "hf:https://host/x?…"),
        ("simplecache::s3://KEY:SE/CRET@bucket/x", "simplecache::s3://bucket/x"),
        ("s3:/KEY:SECRET@bucket/x", "s3:/bucket/x"),
        ("https:user:pass@host/x", "…"),
        ("/data/user:name@host/x", "/data/user:name@host/x"),
        ("https://host?token=1", "https://host"),
        ("https://host/a@b/x", "https://host/a@b/x"),
        ("https://[::1/x?token=1", "https://[::1/x"),
        ("/data/what?.jsonl", "/data/what?.jsonl"),
    ],
)
def test_what_is_displayed_holds_neither_credentials_nor_query(uri: str, shown: str) -> None:
    assert display(uri) == shown


@settings(derandomize=True, deadline=None)
@given(st.sampled_from(["s3", "https", "gs"]), st.text(), st.text(st.characters(exclude_characters="/?#")), st.text())
def test_any_uri_can_be_displayed_and_shows_no_secret(scheme: str, path: str, host: str, query: str) -> None:
    secret = "hunter2-hunter2"  # too long for hypothesis to make by chance
    shown = display(f"{scheme}://user:{secret}@{host}/{path}?{query}&signature={secret}")
    assert secret not in shown
    assert shown.startswith(f"{scheme}://")


@pytest.mark.parametrize(
    ("uri", "spelled"),
    [
        ("S3A://Bucket/a//./x", "s3://Bucket/a//./x"),
        ("gcs://b/x", "gs://b/x"),
        ("././a//b/./x", "a/b/x"),
        ("//a///x/", "/a/x/"),
        ("a/../x", "a/../x"),
        ("a./.b/x", "a./.b/x"),
        ("FILE://localhost/a%20b//x", "/a b/x"),
        ("file://host/x", "file:/host/x"),
        ("hf:org//name", "hf:org//name"),
        ("hf://datasets/a", "hf://datasets/a"),
    ],
)
def test_what_names_the_same_object_by_its_text_alone_has_one_spelling(uri: str, spelled: str) -> None:
    assert canonical(uri) == spelled
    assert canonical(spelled) == spelled

"""What a log or a message may hold: of what exceptions say everything but the secrets, and no more than one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError, Reason, RowError

secrets = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1).map("hush{}hush".format)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /x?v=hush (Caused by it)",
            "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /x?… (Caused by it)",
        ),
        ("404, message='Not Found', url='https://h/x?sig=hush'", "404, message='Not Found', url='https://h/x?…'"),
        ('no answer from the endpoint URL "https://u:hush@h/b?acl"', 'no answer from the endpoint URL "https://h/b?…"'),
        (
            "it holds -----BEGIN RSA PRIVATE KEY-----\nhush\n-----END RSA PRIVATE KEY-----, it seems",
            "it holds …, it seems",
        ),
        ("the key hf_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh is no good", "the key … is no good"),
    ],
)
def test_what_a_library_says_is_passed_on_without_secrets(text: str, said: str) -> None:
    assert str(JobError(text)) == said
    assert str(JobError(str(JobError(text)))) == said
    assert RowError(Reason.IMAGE_NOT_FOUND, text).detail == said


@pytest.mark.parametrize(
    "repeated",
    [
        "eyJaaaaaaaa-",
        "eyJaaaaaaaa.",
        "https://",
        "https://u:",
        "s3://a:b",
        "a+",
        "1+1-",
        "://",
        "x@",
        "?sig=",
        "&key",
        "::",
    ],
)
def test_a_text_of_a_megabyte_is_masked_in_the_time_of_its_length(repeated: str) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (120, 120))\n"
        "from clip_operator.redaction import holds_secret, plain\n"
        f"text = {repeated!r} * (1_000_000 // {len(repeated)})\n"
        "plain(text), holds_secret(text)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "text", ["-https://u:hush@h/x", "+s3://u:hush@b/k", "(https://u:hush@h/x)", "1https://u:hush@h"]
)
def test_a_uri_is_found_behind_whatever_is_no_letter(text: str) -> None:
    assert "hush" not in str(JobError(text))


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to http://127.0.0.1:9000; check it, and (s3://bucket: too).",
        "no s3:GetObject on arn:aws:s3:::bucket/key, nor on k8s://https://h:6443",
        "s3://bucket/what?.jsonl does not exist; docker://nginx:1.25 does, as user@example.org says",
    ],
)
def test_what_holds_no_secret_is_passed_on_as_it_is(text: str) -> None:
    assert str(JobError(text)) == text


@settings(derandomize=True, deadline=None)
@given(secrets, st.sampled_from(["s3", "gs", "https", "ftp", "abfs"]))
def test_no_password_is_said_whatever_is_in_it(secret: str, scheme: str) -> None:
    assert "hush" not in str(JobError(f"no answer from {scheme}://user:{secret}@host/x, says it"))


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_an_error_is_one_line_that_can_be_written(text: str) -> None:
    said = str(JobError(text))
    assert len(said.splitlines()) <= 1
    assert said.encode().decode() == said
    assert "::group::" not in said


@pytest.mark.parametrize(
    "text", ["?" * 100_000, "s3:/" * 50_000, "http:/" * 50_000, "s3://a:" * 50_000, "?a&" * 50_000]
)
def test_a_long_text_is_made_plain_too(text: str) -> None:
    assert str(JobError(text))


def test_a_program_that_has_set_up_no_log_hears_warnings_all_the_same() -> None:
    script = "import logging, clip_operator; logging.getLogger('clip_operator.job').warning('%s', 'a\\nb')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr == "a\\nb\n"

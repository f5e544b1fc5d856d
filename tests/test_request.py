"""A request is checked whole, and its fingerprint covers just what decides the output."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from clip_operator.errors import RequestError
from clip_operator.request import LIMITS, EvaluationRequest, parse_request

GOOD = {"input": "s3://b/in.jsonl", "output": "s3://b/out.jsonl"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"on_error": "ignore"}, "on_error: .*'null', 'zero' or 'fail'"),
        ({"batch_size": 0}, "batch_size: .*must be a number of images from 1 to 65536, or auto, not '0'"),
        ({"batch_size": "many"}, "batch_size: .*, not 'many'"),
        ({"batch_size": 1.5}, "batch_size: .*, not '1.5'"),
        ({"batch_size": True}, "batch_size: .*, not 'True'"),
        ({"image_decoding": "half"}, "image_decoding: .*'full' or 'reduced'"),
        ({"image_orientation": "upright"}, "image_orientation: .*'stored' or 'exif'"),
        ({"delimiter": ";;"}, "delimiter: .*must be a single character, and no letter, .* not ';;'"),
        ({"delimiter": "x"}, "delimiter: .*no letter, .* not 'x'"),
        ({"delimiter": " "}, "delimiter: .*no letter, digit, space, .* not ' '"),
        ({"delimiter": '"'}, "delimiter, quotechar and escapechar must be different characters"),
        ({"escapechar": '"'}, "must be different characters; doubled quotes need no escapechar"),
        ({"quotechar": "'", "delimiter": "'"}, "must be different characters"),
        ({"encoding": "utf-7"}, "encoding: .*'utf-7' is not read: name utf-8, utf-16 or an encoding that has ASCII"),
        ({"encoding": "base64"}, "encoding: .*'base64' is not read"),
        ({"encoding": "klingon"}, "encoding: .*'klingon' is not read"),
        ({"column_names": "a b a"}, "column_names has 'a' twice"),
        ({"embedding_cache_bytes": -1}, "embedding_cache_bytes: .*greater than or equal to 0"),
        ({"precision": "fp8"}, "precision"),
        ({"input": " "}, "input"),
        ({"out_put": "x"}, "out_put: Extra inputs are not permitted"),
        ({"output": "s3://b/in.jsonl"}, "input and output are the same object"),
        ({"error_key": "clip_score"}, "two of the columns to add are both called 'clip_score'"),
        (
            {"sentence_key": "least", "cosine_key": "least_score"},
            "two of the columns to add are both called 'least_score'",
        ),
        (
            {"min_score": 0.5},
            "min_score, max_score, min_percentile or keep_top and filtered_output go together: which rows, and where",
        ),
        ({"filtered_output": "s3://b/f.jsonl"}, "keep_top and filtered_output go together"),
        ({"rejected_output": "s3://b/r.jsonl"}, "without a filter no rows are rejected: give min_score, max_score, "),
        ({"keep_top": 0.5, "rejected_output": "s3://b/r.jsonl"}, "keep_top and filtered_output go together"),
        (
            {"keep_top": 0, "filtered_output": "s3://b/f.jsonl"},
            "must be a number above 0 and up to 1, not 0$",
        ),
        (
            {"keep_top": 30, "filtered_output": "s3://b/f.jsonl"},
            "must be a number above 0 and up to 1, not 30$",
        ),
        (
            {"min_percentile": 101, "filtered_output": "s3://b/f.jsonl"},
            "must be a number from 0 to 100, not 101$",
        ),
        (
            {"min_score": 0.7, "max_score": 0.6, "filtered_output": "s3://b/f.jsonl"},
            "min_score 0.7 is above max_score 0.6; no row can be kept",
        ),
        (
            {"keep_top": 0.5, "filtered_output": "s3://b/f.jsonl", "rejected_output": "s3a://b/f.jsonl"},
            "rejected_output must be another object than filtered_output",
        ),
        (
            {"keep_top": 0.5, "filtered_output": "s3://b/f.jsonl", "rejected_output": "s3://b/in.jsonl"},
            "rejected_output must be another object than input",
        ),
        ({"aggregate": "all", "keep_top": 0.5, "filtered_output": "s3://b/f.jsonl"}, "does not go with keep_top;"),
        (
            {"min_score": "best", "filtered_output": "s3://b/f.jsonl"},
            "not valid: min_score: give a number from 0 to 1, or 'threshold' for the suggested one, not 'best'$",
        ),
        ({"min_score": 1.5, "filtered_output": "s3://b/f.jsonl"}, "min_score: .*a number from 0 to 1.* not 1.5$"),
        ({"min_score": 0.5, "filtered_output": "s3://b/in.jsonl"}, "filtered_output must be another object"),
        ({"embeddings_path": "hf:org/name"}, "embeddings_path: .*hf:org/name: name a folder to write to"),
        ({"embeddings_path": "s3://b/e/*"}, "embeddings_path: .*name a folder to write to"),
        ({"embeddings_dtype": "int8"}, "embeddings_dtype: .*'float16' or 'float32'"),
        (
            {"embeddings_path": "S3://b/e/", "output": "s3://b/e/o.jsonl"},
            r"s3://b/e/o\.jsonl is in S3://b/e: let embedd",
        ),
        (
            {"embeddings_path": "/e", "input": "file:///e/in/"},
            "file:///e/in/ is in /e: let embeddings_path name a folder",
        ),
        ({"embeddings_path": "s3://b/e", "reuse": "s3://b/r"}, "reuse: keeps scores of rows that are then not encoded"),
        ({"embeddings_path": "s3://b/e", "rescore": "failed"}, "rescore: keeps scores of rows that are then not"),
        ({"embeddings_path": "s3://b/e", "aggregate": "mean"}, "aggregate gives rows with several images or texts"),
        ({"aggregate": "median"}, "aggregate: .*'mean', 'max', 'min' or 'all'"),
        (
            {"aggregate": "all", "cosine_key": "cosine", "on_error": "zero"},
            "aggregate 'all' writes a list of scores a row, so it does not go with cosine_key and on_error 'zero'; ask",
        ),
        ({"aggregate": "all", "min_score": 0.5, "filtered_output": "s3://b/f.jsonl"}, "does not go with min_score;"),
        ({"aggregate": "all", "percentile_key": "p"}, "does not go with percentile_key;"),
        ({"aggregate": "all", "clipscore_key": "c"}, "does not go with clipscore_key;"),
        ({"aggregate": "all", "rescore": "failed"}, "does not go with rescore;"),
        ({"output_key": "text"}, "the column 'text' is read and written"),
        ({"model": ""}, "model"),
        ({"input": "s3://"}, "input: .*s3://: a URI of this kind needs a bucket, as in s3://bucket/name"),
        ({"output": "s3a:///x.jsonl"}, "output: .*needs a bucket"),
        ({"reuse": "gs://"}, "reuse: .*needs a bucket, as in gs://bucket/name"),
        ({"image_root": "abfs:///x"}, "image_root: .*needs a container"),
        ({"input": "s3://user@b/x.jsonl"}, "input: .*s3://b/x.jsonl: a URI must not hold a password"),
        ({"model": "s3://user@b/model"}, "model: .*s3://b/model: a URI must not hold a password"),
        ({"output": "file://host/x.jsonl"}, "output: .*names no host; write file:///host/x.jsonl for a path"),
        ({"output": "s3:/b/x.jsonl"}, "output: .*two slashes follow the scheme, as in s3://b/x.jsonl"),
        ({"image_path_rewrite": {"/old/": "s3://b"}}, "'/old/' and 's3://b': either both end with a slash or none"),
        ({"image_path_rewrite": {"": "s3://b/"}}, "image_path_rewrite"),
        ({"image_path_rewrite": {"/old/": " "}}, "image_path_rewrite./old/"),
        ({"image_path_rewrite": {"/old/": "s3://me:hush@b/"}}, "must not hold a password"),
        ({"image_path_rewrite": {"https://h/?key=": "s3://b/"}}, "https://h/: paths with a password or a query"),
        ({"image_path_rewrite": "/old/"}, "image_path_rewrite: .*give one pair as OLD=NEW"),
        ({"image_path_rewrite": "/a=b/=s3://b/"}, "image_path_rewrite: .*give one pair as OLD=NEW"),
        (
            {"image_path_repairs": "slashes"},
            "image_path_repairs.0: .*'blanks', 'percent', 'backslashes', 'nfc' or 'nfd'",
        ),
        ({"image_path_repairs": "nfc nfd"}, "image_path_repairs: .*give one of them"),
        ({"image_buckets": "images s3://"}, "image_buckets.1: .*needs a bucket"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        parse_request({**GOOD, **wrong})


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(RequestError, match=r"(?s)output.*batch_size"):
        parse_request({"input": "s3://b/in.jsonl", "batch_size": "many"})


@pytest.mark.parametrize(("given", "taken"), [(7, 7), ("7", 7), (" 8 ", 8), ("auto", "auto"), (65536, 65536)])
def test_a_batch_size_is_a_number_or_auto_also_as_a_template_renders_it(given: object, taken: object) -> None:
    request = parse_request({**GOOD, "batch_size": given})
    assert request.batch_size == taken
    assert parse_request(request.model_dump_json()) == request


def test_repairs_and_rewrites_are_one_request_in_whatever_order_and_form() -> None:
    pairs = {"/mnt/old/": "s3://b/new/", "C:\\data\\": "./"}
    ways: list[dict[str, Any]] = [
        {"image_path_rewrite": pairs, "image_path_repairs": "nfc blanks"},
        {"image_path_rewrite": dict(reversed(pairs.items())), "image_path_repairs": ["blanks", "nfc", "blanks"]},
        {"image_path_rewrite": json.dumps(pairs), "image_path_repairs": "blanks,nfc"},
        {"image_path_rewrite": str(pairs), "image_path_repairs": "['nfc', 'blanks']"},
    ]
    assert len({parse_request({**GOOD, **way}).fingerprint() for way in ways}) == 1
    assert parse_request({**GOOD, "image_path_rewrite": "/old/=./"}).image_path_rewrite == {"/old/": "./"}


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(RequestError, match="Invalid JSON"):
        parse_request(b"{not json")


def test_a_request_survives_its_own_json() -> None:
    request = parse_request({**GOOD, "error_key": "why", "image_hosts": ["images.example.org"]})
    assert parse_request(request.model_dump_json()) == request


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 7},
        {"embedding_cache_bytes": 0},
        {"device": "cpu"},
        {"overwrite": True},
        {"requested_by": None},
        {"min_auc": 0.5},
    ],
)
def test_what_cannot_change_the_output_leaves_the_fingerprint(change: dict[str, Any]) -> None:
    requester = {"dag_id": "d", "run_id": "r", "task_id": "t"}
    before = parse_request({**GOOD, "requested_by": requester})
    assert parse_request({**GOOD, "requested_by": requester, **change}).fingerprint() == before.fingerprint()


def test_what_can_change_the_output_changes_the_fingerprint() -> None:
    other = {
        "input": "s3://b/other.jsonl",
        "output": "s3://b/elsewhere.jsonl",
        "input_image_key": "picture",
        "input_text_key": "caption",
        "delimiter": ";",
        "quotechar": "none",
        "escapechar": "\\",
        "encoding": "utf-16",
        "column_names": ["image_path", "text"],
        "output_key": "score",
        "model": "m/n",
        "revision": "v2",
        "image_root": "s3://images",
        "image_path_rewrite": {"/mnt/old/": "s3://images/"},
        "image_path_repairs": ["blanks"],
        "image_hosts": ["images.example.org"],
        "image_buckets": ["images"],
        "on_error": "zero",
        "error_key": "why",
        "cosine_key": "cosine",
        "clipscore_key": "clipscore",
        "sentence_key": "sentence",
        "percentile_key": "percentile",
        "min_score": 0.6,
        "max_score": 0.9,
        "min_percentile": 95,
        "keep_top": 0.3,
        "filtered_output": "s3://b/filtered.jsonl",
        "rejected_output": "s3://b/rejected.jsonl",
        "embeddings_path": "s3://b/embeddings",
        "embeddings_dtype": "float32",
        "precision": "bf16",
        "image_decoding": "reduced",
        "aggregate": "mean",
        "image_orientation": "exif",
        "max_image_bytes": 5,
        "max_image_pixels": 6,
        "max_image_seconds": 7,
        "shard": {"index": 0, "of": 2, "input_etag": "e", "start": 0, "stop": 10},
    }
    conduct = {"image_prefixes", "max_error_rate", "max_error_rates", "overwrite", "report", "requested_by", "rescore"}
    speed_only = {"batch_size", "device", "embedding_cache_bytes", "resume_point_rows", "reuse"}
    judgement = {"min_mean_score", "min_auc", "max_below_threshold", "on_weak_threshold"}
    assert set(other) | conduct | speed_only | judgement == set(EvaluationRequest.model_fields), (
        "a new field needs a decision here"
    )
    whole = {name: {name: value} for name, value in other.items()}
    for name in LIMITS:
        whole[name] = {name: other[name], "filtered_output": "s3://b/f.jsonl"}
    whole["rejected_output"] |= {"min_score": 0.6, "filtered_output": "s3://b/f.jsonl"}
    whole["filtered_output"] = {"min_score": 0.7, "filtered_output": "s3://b/filtered.jsonl"}
    fingerprints = {parse_request({**GOOD, **fields}).fingerprint() for fields in whole.values()}
    assert len(fingerprints | {parse_request(GOOD).fingerprint()}) == len(other) + 1


PLACES = ("input", "output", "model", "image_root", "filtered_output", "rejected_output", "reuse", "embeddings_path")

HOLD_SECRETS = (
    "ftp://user:hush@host/x.jsonl",
    "ftp://user:hu/sh@host/x.jsonl",
    "ftp://user:/hush@host/x.jsonl",
    "s3://AKIA:hu/sh@bucket/x.jsonl",
    "s3://AKIA:12/hush@bucket/x.jsonl",
    "S3A://AKIA:hush@bucket/x.jsonl",
    "s3://AKIA%3Ahush%40bucket/x.jsonl",
    "s3:/AKIA:hush@bucket/x.jsonl",
    "s3:AKIA:hush@bucket/x.jsonl",
    "s3://bucket/https://user:hush@host/x.jsonl",
    "gs://id:hu/sh@bucket/x.jsonl",
    "abfs://user:hush@account.dfs.core.windows.net/x.jsonl",
    "file://user:hush@host/x.jsonl",
    "hf:https://user:hush@host/x",
    "hf:org/name?token=hush",
    "hf://user:hush@datasets/x.parquet",
    "simplecache::s3://AKIA:hush@bucket/x.jsonl",
    "simplecache::s3://AKIA:hu/sh@bucket/x.jsonl",
    "filecache::https://host/x.jsonl?sig=hush",
    "https://hf_hush@host/x.jsonl",
    "https:/user:hush@host/x.jsonl",
    "https:user:hush@host/x.jsonl",
    "https:///user:hush@host/x.jsonl",
    "https://host/x.jsonl?X-Amz-Credential=a&X-Amz-Signature=hush",
    "https://host/x.jsonl?%58-Amz-Signature=hush",
    "https://host/x.jsonl?v=hush",
    "https://host/x.jsonl#access_token=hush",
    "s3://bucket/x.jsonl?AWSAccessKeyId=hush",
    "s3://bucket/x.jsonl?v=1&X-Amz-Security-Token=hush",
    "az://container/x.jsonl?sv=2024&sp=r&sig=hush",
    "s3://bucket/x.jsonl?auth=eyJhbGciOiJIUzI1NiJ9.eyJodXNoIjoiaHVzaCJ9.hush",
)


@pytest.mark.parametrize("uri", HOLD_SECRETS)
@pytest.mark.parametrize("name", PLACES)
def test_a_uri_that_holds_a_secret_is_refused_without_repeating_it(name: str, uri: str) -> None:
    fields = {"input": "in.jsonl", "output": "out.jsonl", "min_score": 0.5, "filtered_output": "f.jsonl", name: uri}
    with pytest.raises(RequestError, match=f"{name}: .*must not hold a password") as refusal:
        parse_request(fields)
    with pytest.raises(ValidationError) as refused:
        EvaluationRequest.model_validate(fields)
    assert not re.search("hu/?sh", f"{refusal.value} {refused.value}")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/user@example.com/x.jsonl",
        "s3://bucket/user:name@example.com/12:30/x.jsonl",
        "s3://bucket/what?/#1.jsonl",
        "s3://bucket/x?v=1.jsonl",
        "s3://bucket/token=abc/key=1/x.jsonl",
        "s3://bucket/a;key=1&token=2/x.jsonl",
        "s3://bucket/https://example.com/x.jsonl",
        "s3://bucket/100%25/%40.jsonl",
        "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint:name/x.jsonl",
        "gs://bucket/a@b:c.jsonl",
        "az://container/a@b:c.jsonl",
        "abfs://container@account.dfs.core.windows.net/a:b@c.jsonl",
        "abfss://container@account.dfs.core.windows.net/what?.jsonl",
        "http://host:9000/b@c.jsonl",
        "http://[::1]:9000/b@c.jsonl",
        "https://host/x.jsonl#part",
        "sftp://user@host:22/x.jsonl",
        "hdfs://first:8020,second:8020/x.jsonl",
        "oci://bucket@namespace/x.jsonl",
        "hf://datasets/org/name@revision/x.parquet",
        "hf:org/name:config:split",
        "s3://bucket/q?hockey=1.jsonl",
        "file:///data/user:name@example.com/x?token=1.jsonl",
        "/data/user:name@example.com/index.html?token=1.jsonl",
        "user@host:x.jsonl",
        "C:/x@y.jsonl",
        "openai/clip-vit-base-patch32",
        "builtin://shapes-clip",
    ],
)
@pytest.mark.parametrize("name", ["input", "image_root", "model", "reuse"])
def test_what_only_looks_like_a_secret_in_a_name_is_none(name: str, uri: str) -> None:
    request = parse_request({"input": "in.jsonl", "output": "out.jsonl", name: uri})
    assert getattr(request, name) == uri


@pytest.mark.parametrize(
    "fields",
    [
        {"image_hosts": ["https://u:hush@images.org"]},
        {"image_hosts": ["images.org", "u:hush@images.org"]},
        {"image_hosts": "hush@images.org"},
        {"image_hosts": "images.org?sig=hush"},
        {"image_hosts": "images.org#hush"},
        {"image_buckets": "AKIA:hush@images"},
        {"image_buckets": "images AKIA:hu/sh@images"},
        {"image_buckets": ["gs://id:hu/sh@images"]},
    ],
)
def test_a_secret_beside_a_host_or_a_bucket_is_refused_too(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"must not hold a password|a host is named alone") as refusal:
        parse_request({**GOOD, **fields})
    assert "hush" not in str(refusal.value)


def test_hosts_and_buckets_in_all_their_spellings_are_taken() -> None:
    hosts = ("images.org", "*.images.org:8080", "10.0.0.0/8", "[fd00::1]", "fd00::/8", "[fd00::1]:8080", "s3:8080")
    buckets = ("images", "s3://images", "gs://images", "az://images")
    request = parse_request({**GOOD, "image_hosts": hosts, "image_buckets": buckets})
    assert (request.image_hosts, request.image_buckets) == (hosts, buckets)

"""What single fields of a request may be, and how each is read from text, as templates and command lines give it."""

from __future__ import annotations

import ast
import codecs
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from clip_operator.errors import Reason
from clip_operator.redaction import holds_secret
from clip_operator.storage import dataset_name, display, refused


def _may_be_logged(uri: str) -> str:
    """Refuse secrets, and what no store can be asked for: to try it again would change nothing."""
    if problem := refused(uri):
        raise ValueError(f"{display(uri)}: {problem}")
    return uri


def _is_a_folder(uri: str) -> str:
    """Return the folder without a slash at its end; refuse what is none, or none to write to."""
    if dataset_name(uri) is not None or "*" in uri:
        raise ValueError(f"{display(uri)}: name a folder to write to, as in s3://bucket/embeddings")
    return uri.rstrip("/") or uri


def _is_a_bucket(name: str) -> str:
    _may_be_logged(name if ":/" in name else f"s3://{name}")
    return name


def _is_a_host(name: str) -> str:
    """Refuse what may be a password or a signature; how else a host is spelled is looked at when the job begins."""
    if any(mark in _may_be_logged(name) for mark in "@?#"):
        raise ValueError("a host is named alone, without user, password and query, as in example.org")
    return name


def _number(words: str) -> Callable[[Any, ValidatorFunctionWrapHandler], Any]:
    """Return what gives one message, in the words of who gives a limit."""

    def of_a_number(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            if not isinstance(value, bool):
                return validate(value)
        except ValidationError:
            pass
        raise ValueError(f"{words}, not {value!r:.40}")

    return of_a_number


def _rate_or_threshold(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One message for a value that is neither, where a union would give one for each."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"give a number from 0 to 1, or 'threshold' for the suggested one, not {value!r:.40}"
        ) from None


def _mark(value: Any) -> Any:
    """Return the one character that is meant; a tab can be written as command lines and templates write it."""
    mark = "\t" if value in ("\\t", "tab") else value
    if not isinstance(mark, str) or len(mark) != 1 or mark.isalnum() or mark in " \r\n\0+-._\ufeff":
        raise ValueError(
            f"must be a single character, and no letter, digit, space, line break, plus, minus, full stop or "
            f"underscore, not {value!r:.20}"
        )
    return mark


def _quote(value: Any) -> Any:
    return value if value == "none" else _mark(value)


_UNICODE = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
_ASCII = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def _encoding(name: str) -> str:
    """Return the name that Python has for an encoding in which lines can be told apart."""
    try:
        found = codecs.lookup(name)
        known = found.name in _UNICODE or _ASCII.decode().encode(found.name) == _ASCII
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise ValueError(
            f"{name!r:.40} is not read: name utf-8, utf-16 or an encoding that has ASCII in it, such as cp1252"
        )
    return "utf-8" if found.name == "utf-8-sig" else found.name  # a byte order mark is kept as it is


def _rewriting(rewrite: dict[str, str]) -> dict[str, str]:
    """Refuse what rewrites nothing well, or is told where all may read it."""
    for prefix, target in rewrite.items():
        if holds_secret(prefix):
            raise ValueError(f"{display(prefix)}: paths with a password or a query are not rewritten")
        if prefix.endswith(("/", "\\")) != target.endswith("/"):
            raise ValueError(
                f"{display(prefix)!r} and {display(target)!r}: either both end with a slash or none, as in "
                "/mnt/old/ and s3://bucket/new/"
            )
    return rewrite


def _repairs(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return each once, in one order, which is that in which they are made."""
    if {"nfc", "nfd"} <= set(names):
        raise ValueError("nfc composes what nfd takes apart; give one of them")
    return tuple(name for name in get_args(PathRepair) if name in names)


def structure_in(text: str) -> Any:
    """Return the list or the mapping in a text: in JSON, or as Python writes it, which templates make of one.

    :raises ValueError: it is neither; the message says what JSON misses.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise error from None


def names_in(value: Any) -> Any:
    """Return the names in a text, which templates and command lines give where a list is meant."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith(("[", "(", "{")):
        with suppress(ValueError):  # an address of IPv6 begins so, too
            return structure_in(value)
    return value.replace(",", " ").split()


def _pairs(value: Any) -> Any:
    """Return the mapping in a text such as ``"image_unavailable=0.01 text_empty=0.5"``, or as :func:`structure_in`."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return structure_in(value)
    pairs = [pair.partition("=") for pair in names_in(value)]
    return {name: rate for name, _, rate in pairs}


def _rewrites(value: Any) -> Any:
    """Return the mapping in a text such as ``/mnt/old/=s3://bucket/new/``, or as :func:`structure_in`."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return _pairs(value)
    if value.count("=") != 1:
        raise ValueError('give one pair as OLD=NEW; several, or such with an "=" in them, as JSON: {"OLD": "NEW"}')
    prefix, _, target = value.partition("=")
    return {prefix: target}


def _number_of_images(value: Any) -> int | Literal["auto"]:
    text = str(value).strip()
    if text == "auto":
        return "auto"
    if isinstance(value, bool) or not text.isdecimal() or not 1 <= int(text) <= 65536:
        raise ValueError(f"must be a number of images from 1 to 65536, or auto, not {text[:20]!r}")
    return int(text)


NonBlank = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Uri = Annotated[NonBlank, AfterValidator(_may_be_logged)]
Folder = Annotated[Uri, AfterValidator(_is_a_folder)]
Bucket = Annotated[NonBlank, AfterValidator(_is_a_bucket)]
Host = Annotated[NonBlank, AfterValidator(_is_a_host)]
ColumnName = Annotated[str, StringConstraints(min_length=1)]
Mark = Annotated[str, BeforeValidator(_mark)]
Quote = Annotated[str, BeforeValidator(_quote)]
Encoding = Annotated[NonBlank, AfterValidator(_encoding)]
OnError = Literal["null", "zero", "fail"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ImageDecoding = Literal["full", "reduced"]
ImageOrientation = Literal["stored", "exif"]
EmbeddingsType = Literal["float16", "float32"]
Rescore = Literal["failed"]
OnWeakThreshold = Literal["warn", "fail"]
Aggregate = Literal["mean", "max", "min", "all"]
PathRepair = Literal["blanks", "percent", "backslashes", "nfc", "nfd"]
PathPrefix = Annotated[str, StringConstraints(min_length=1)]
Rate = Annotated[float, Field(ge=0, le=1), WrapValidator(_number("must be a number from 0 to 1"))]
TopShare = Annotated[float, Field(gt=0, le=1), WrapValidator(_number("must be a number above 0 and up to 1"))]
Percentile = Annotated[float, Field(ge=0, le=100), WrapValidator(_number("must be a number from 0 to 100"))]
MinScore = Annotated[Annotated[float, Field(ge=0, le=1)] | Literal["threshold"], WrapValidator(_rate_or_threshold)]
ColumnNames = Annotated[tuple[ColumnName, ...], BeforeValidator(names_in)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(names_in)]
Buckets = Annotated[tuple[Bucket, ...], BeforeValidator(names_in)]
PathRewrite = Annotated[dict[PathPrefix, Uri], BeforeValidator(_rewrites), AfterValidator(_rewriting)]
PathRepairs = Annotated[tuple[PathRepair, ...], BeforeValidator(names_in), AfterValidator(_repairs)]
RatesByReason = Annotated[dict[Reason, Rate], BeforeValidator(_pairs)]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_number_of_images)]

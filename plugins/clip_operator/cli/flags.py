"""The fields of a request as flags: in sections, in the order in which people need them, with defaults in words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from textwrap import wrap
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from clip_operator.request import EvaluationRequest, names_in

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_SECTIONS = {
    "what is read and written": ("input", "output", "overwrite", "report"),
    "columns that are read": ("input_image_key", "input_text_key"),
    "columns that are added": (
        "output_key",
        "error_key",
        "cosine_key",
        "clipscore_key",
        "percentile_key",
        "sentence_key",
        "aggregate",
    ),
    "the model": ("model", "revision", "device", "precision"),
    "further steps with some of the rows": (
        "min_score",
        "max_score",
        "min_percentile",
        "keep_top",
        "filtered_output",
        "rejected_output",
    ),
    "embeddings": ("embeddings_path", "embeddings_dtype"),
    "gates that the step has to pass": ("min_mean_score", "min_auc", "max_below_threshold", "on_weak_threshold"),
    "rows without a score": ("on_error", "max_error_rate", "max_error_rates", "rescore"),
    "where images may be": (
        "image_root",
        "image_hosts",
        "image_buckets",
        "image_prefixes",
        "image_path_rewrite",
        "image_path_repairs",
    ),
    "what images may be": ("image_orientation", "max_image_bytes", "max_image_pixels", "max_image_seconds"),
    "speed, and work that is done already": (
        "batch_size",
        "image_decoding",
        "embedding_cache_bytes",
        "reuse",
        "resume_point_rows",
    ),
    "how CSV and TSV are written": ("delimiter", "quotechar", "escapechar", "encoding", "column_names"),
}

# The request's fields that no flag sets: who asks, and for which shard, is for Airflow to say.
_NOT_FLAGS = ("requested_by", "shard")

# What the help calls a flag's value, by the last word of its name; otherwise that word itself.
_METAVARS = {
    "buckets": "BUCKET",
    "hosts": "HOST",
    "input": "URI",
    "key": "COLUMN",
    "model": "NAME",
    "names": "COLUMN",
    "output": "URI",
    "prefixes": "URI",
    "rate": "SHARE",
    "rates": "REASON=SHARE",
    "reuse": "URI",
    "rewrite": "OLD=NEW",
    "repairs": "REPAIR",
    "root": "URI",
    "size": "IMAGES",
    "top": "SHARE",
}

_MIB, _MILLION = 1 << 20, 1_000_000


def flag(name: str) -> str:
    """Return the flag that sets a field."""
    return "--" + name.replace("_", "-")


FLAGS = {name: flag(name) for name in EvaluationRequest.model_fields if name not in _NOT_FLAGS}
"""The request's fields that have flags, and these."""


# What is a word, too, as "input", is left as one.
_FIELD = re.compile(rf"\b(?:{'|'.join(name for name in FLAGS if '_' in name)})\b")


def add_request_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser a flag for every field that a person may set."""
    placed = {name for names in _SECTIONS.values() for name in names}
    others = tuple(name for name in FLAGS if name not in placed)
    for title, names in {**_SECTIONS, "other": others}.items():
        section = parser.add_argument_group(title)
        for name in names:
            section.add_argument(FLAGS[name], **_options(name, EvaluationRequest.model_fields[name]))


class HelpLines(argparse.RawDescriptionHelpFormatter):
    """Breaks lines between words alone, so that a name can be copied."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 14  # commands stand two further in than argparse makes room for

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text("\n".join(wrap(text, width)) if "\n" not in text else text, width, indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width, break_on_hyphens=False, break_long_words=False)


class _Several(argparse.Action):
    """Takes several words as they are. A single one may be a list, as the operator's parameters may."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _flag: str | None = None,
    ) -> None:
        """Keep the words, or the items of the list."""
        assert isinstance(values, list), "of one or more words"
        setattr(namespace, self.dest, values if len(values) > 1 else names_in(values[0]))


def _options(name: str, field: FieldInfo) -> dict[str, Any]:
    """Return what argparse is to know of the flag of a field: its help, and how its value looks.

    Whether the value is right is for the request to say.
    """
    told = _FIELD.sub(lambda match: FLAGS[match[0]], field.description or "")
    options = {"help": f"{told}{_default(name, field)}".replace("%", "%%")}
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else [field.annotation]
    kind, *others = (kind for kind in kinds if kind is not NoneType)
    if kind is bool:
        return {**options, "action": argparse.BooleanOptionalAction if field.default else "store_true"}
    if get_origin(kind) is Literal and not others:
        return {**options, "choices": get_args(kind)}
    word = name.rpartition("_")[2]
    several = {"nargs": "+", "action": _Several} if get_origin(kind) is tuple else {}
    return {**options, **several, "metavar": _METAVARS.get(word, word.upper())}


def _default(name: str, field: FieldInfo) -> str:
    """Return a field's default as a sentence behind its description; nothing where there is none worth telling."""
    value = field.default
    if field.is_required():
        return " Required."
    if value in (None, False, (), {}):
        return ""
    if value is True:
        return " Default: yes."
    if name.endswith("_bytes"):
        return f" Default: {value} ({value / _MIB:g} MiB)."
    if isinstance(value, int) and value >= _MILLION:
        return f" Default: {value} ({value / _MILLION:g} million)."
    return f" Default: {value}."

"""Checks what a checkpoint says of its tokenizer: its class, its fields, and what its normalizer may make of a text."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clip_operator.model.json_file import UnfitFile, abridged, check_finite, whole_number

# Transformers' own, whose files are among those that a checkpoint is found by, and that need no other package.
_CLASSES = re.compile(
    "(Albert|Bert|ByT5|CLIP|Camembert|ChineseCLIP|DistilBert|Electra|GPT2|Gemma|Llama|MPNet|PreTrained|Roberta|Siglip|"
    "Siglip2|T5|Tipsv2|XLMRoberta)Tokenizer(Fast)?|TokenizersBackend|PythonBackend"
)

_TOKEN_FIELDS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS_OF_TOKENS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "never_split")
_PLAIN_FIELDS = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "do_basic_tokenize",
    "do_lower_case", "errors", "extra_ids", "keep_accents", "legacy", "padding_side", "remove_space",
    "spaces_between_special_tokens", "split_special_tokens", "strip_accents", "tokenize_chinese_chars", "trim_offsets",
    "truncation_side",
)  # fmt: skip
_TOKEN_PARTS = ("content", "lstrip", "rstrip", "normalized", "single_word", "special", "__type")

# What no limit is written as, in the files of tokenizers that have none.
_NO_LIMIT = 1 << 200
_MOST_EXTRA_IDS = 1000
_LONGEST_TOKEN = 1000
_LONGEST_WORD = 100

# All of tokenizer.json but its vocabulary: a few kilobytes.
_MOST_RULES_BYTES = 256 << 10
_DEEPEST_RULES = 32
_LONGEST_EXPANSION = 8192
_LONGEST_PATTERN = 4096


def check_tokenizer_config(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a tokenizer of the family has.

    :param name: the file's.
    :raises UnfitFile: it is another class, or one of the fields cannot be right; the text names it.
    """
    kept = check_special_tokens(name, found)
    tokenizer_class = found.get("tokenizer_class")
    if tokenizer_class is not None:
        if not isinstance(tokenizer_class, str) or not _CLASSES.fullmatch(tokenizer_class):
            raise UnfitFile(
                f"{name}: tokenizer_class is {abridged(tokenizer_class)}, which is no tokenizer of the CLIP family"
            )
        kept["tokenizer_class"] = tokenizer_class
        if tokenizer_class == "TokenizersBackend":  # so in transformers 5, which knows it by its old name, too
            kept |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    for field in _PLAIN_FIELDS:
        if field in found:
            kept[field] = _plain(f"{name}: {field}", found[field])
    if (limit := found.get("model_max_length")) is not None:
        kept["model_max_length"] = whole_number(f"{name}: model_max_length", limit, 1, _NO_LIMIT)
    if (inputs := found.get("model_input_names")) is not None:
        if not isinstance(inputs, list) or not set(map(str, inputs)) <= {
            "input_ids", "attention_mask", "token_type_ids", "position_ids",
        }:  # fmt: skip
            raise UnfitFile(f"{name}: model_input_names is {abridged(inputs)}, which a text tower does not take")
        kept["model_input_names"] = inputs
    return kept


def check_special_tokens(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the special and added tokens that a file names.

    :raises UnfitFile: one is no token.
    """
    kept: dict[str, Any] = {}
    for field in (*_TOKEN_FIELDS, *_LISTS_OF_TOKENS):
        if field in found:
            kept[field] = found[field]
            for token in _tokens(f"{name}: {field}", field, found[field]):
                _check_token(f"{name}: {field}", token)
    return kept


def _tokens(where: str, field: str, value: Any) -> list[Any]:
    if field in _TOKEN_FIELDS:
        return [value]
    if field == "added_tokens_decoder":
        if not isinstance(value, dict) or not all(re.fullmatch("[0-9]{1,9}", number) for number in value):
            raise UnfitFile(f"{where} is {abridged(value)}, and has to give tokens by their numbers")
        return list(value.values())
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _check_token(where: str, token: Any) -> None:
    if isinstance(token, dict):
        if not token.keys() <= set(_TOKEN_PARTS) or not isinstance(token.get("content"), str):
            raise UnfitFile(f"{where} has {abridged(sorted(token))} in a token, which no token has")
        token = token["content"]
    if token is not None and not (isinstance(token, str) and len(token) <= _LONGEST_TOKEN):
        raise UnfitFile(f"{where} has {abridged(token)} where a token has to be")


def _plain(where: str, value: Any) -> Any:
    check_finite(where, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return whole_number(where, value, 0, _MOST_EXTRA_IDS)
    if value is not None and not isinstance(value, (bool, float)) and not _is_word(value):
        raise UnfitFile(f"{where} is {abridged(value)}, which no tokenizer takes")
    return value


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_WORD


def check_tokenizer(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer of the ``tokenizers`` library, without the padding and truncation that it was saved with.

    :raises UnfitFile: what it does to a text takes more time or memory than any model needs.
    """
    kept = {**found, "padding": None, "truncation": None}
    if not isinstance(model := found.get("model"), dict) or model.get("dropout"):
        raise UnfitFile(f"{name} has no model, or one that gives a text other tokens each time (dropout)")
    _check_rules(name, {key: value for key, value in kept.items() if key not in ("model", "added_tokens")})
    tokens = found.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise UnfitFile(f"{name}: added_tokens is {abridged(tokens)}, and has to be a list of tokens")
    for token in tokens:
        _check_token(f"{name}: added_tokens", {key: value for key, value in token.items() if key != "id"})
    return kept


def _check_rules(name: str, rules: Mapping[str, Any]) -> None:
    """Refuse what a text cannot be put through in bounded time and memory."""
    parts = list(_parts(name, rules))
    tables = [str(part["precompiled_charsmap"]) for part in parts if part.get("precompiled_charsmap")]
    if len(json.dumps(rules)) - sum(map(len, tables)) > _MOST_RULES_BYTES:
        raise UnfitFile(f"{name} has more than {_MOST_RULES_BYTES >> 10} KiB of rules, which no model needs")
    expansion = math.prod(_longest_character(name, _decoded(name, table)) for table in tables)
    for part in parts:
        if part.get("type") == "Replace":
            expansion *= 1 + len(str(part.get("content", "")))
        elif part.get("type") == "ByteLevel":
            expansion *= 2
        pattern = part.get("pattern")
        if isinstance(pattern, dict) and may_take_forever(str(pattern.get("Regex", ""))):
            raise UnfitFile(
                f"{name}: the pattern {abridged(pattern['Regex'])} may take years for a text; it repeats what repeats "
                "already, or has more than plain groups and repetitions"
            )
    if expansion > _LONGEST_EXPANSION:
        raise UnfitFile(f"{name}: its rules make {abridged(expansion)} characters of one, which no model needs")


def _parts(name: str, value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a tokenizer's rules."""
    if depth > _DEEPEST_RULES:
        raise UnfitFile(f"{name} has rules inside rules, more than any model needs")
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _parts(name, item, depth + 1)


def check_sentencepiece(name: str, data: bytes) -> None:
    """Refuse a SentencePiece model whose table of normalized characters is not one, or makes much of little.

    :raises UnfitFile: it is damaged, or that table is.
    """
    try:
        specs = [value for field, value in _messages(data) if field == _NORMALIZER_SPEC]
        tables = [value for spec in specs for field, value in _messages(spec) if field == _PRECOMPILED_CHARSMAP]
    except (ValueError, IndexError):
        raise UnfitFile(f"{name} is no SentencePiece model") from None
    if (expansion := math.prod(_longest_character(name, table) for table in tables if table)) > _LONGEST_EXPANSION:
        raise UnfitFile(f"{name}: its rules make {abridged(expansion)} characters of one, which no model needs")


# The numbers of fields, in sentencepiece_model.proto.
_NORMALIZER_SPEC = 3
_PRECOMPILED_CHARSMAP = 2

_MOST_BITS = 63  # of a number


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field of a protocol buffer that is a message, a text or bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind == 2:
            length, position = _varint(data, position)
            yield tag >> 3, data[position : position + length]
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > _MOST_BITS:
            raise ValueError("a number without end")


def _decoded(name: str, table: str) -> bytes:
    try:
        return base64.b64decode(table, validate=True)
    except ValueError:
        raise UnfitFile(f"{name}: precompiled_charsmap is {abridged(table)}, and has to be base64") from None


def _longest_character(name: str, table: bytes) -> int:
    """Return how many bytes a SentencePiece normalizer makes of one character at most.

    Its table is the length of a trie, the trie, and what its leaves point to: texts that end in a zero.
    """
    length = int.from_bytes(table[:4], "little")
    if len(table) < 4 or length % 4 or length > len(table) - 4:  # at which the library ends the process
        raise UnfitFile(f"{name}: precompiled_charsmap has {len(table)} bytes, and its trie {length}")
    return max(1, *map(len, table[4 + length :].split(b"\0")), 1)


_SIGNS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:<?[=!]|>|i?:|i\))|\(\??|\)|[*+?|]|\{\d*,?\d*\}|.", re.DOTALL
)
_PLAIN_GROUPS = ("(", "(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i)")


def may_take_forever(expression: str) -> bool:
    """Tell whether a regular expression may need a time that doubles with each character of a text.

    It may if it repeats a group in which something repeats or is a choice, or refers back to a group.
    """
    groups, ambiguous = [False], False  # whether each open group is ambiguous, and whether the one just closed was
    for sign in _SIGNS.findall(expression):
        if sign == ")":
            ambiguous = groups.pop() if len(groups) > 1 else True
            groups[-1] |= ambiguous
            continue
        if (sign.startswith("(") and sign not in _PLAIN_GROUPS) or re.fullmatch(r"\\[1-9kgG]", sign):
            return True
        if sign.startswith("(") and sign != "(?i)":
            groups.append(False)
        elif sign in ("*", "+") or re.fullmatch(r"\{\d*,\d*\}", sign):
            if ambiguous:
                return True
            groups[-1] = True
        elif sign in ("?", "|"):
            groups[-1] = True
        ambiguous = ambiguous and sign == "?"
    return len(expression) > _LONGEST_PATTERN

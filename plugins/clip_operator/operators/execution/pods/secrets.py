"""What must not stand in a pod's specification, for all to read: what is called like a secret, or looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes.client import ApiClient, Configuration

from clip_operator.errors import RequestError
from clip_operator.redaction import without_tokens, without_users

# Behind the last of these words may stand a number, as in API_KEY_2.
_SECRET_NAME = re.compile(
    r"(?:(?:.*_)?(?:secret|token|pass|passphrase|credentials?|dsn|sas|sql_alchemy_conn)|.*(?:password|passwd)|.+_pwd"
    r"|.*(?:api|access|account|secret|private)key|.+_key|.*conn(?:ection)?_?str(?:ing)?|airflow_conn_.+)(?:_?\d+)?",
    re.IGNORECASE,
)
# Columns, objects and the like are called keys, too.
_NO_SECRET_NAME = re.compile(
    r"(?:.*_)?(?:image|text|output|input|error|cosine|clipscore|sentence|percentile|object|cache|public|partition|sort"
    r"|primary|foreign|group|join|row|column|topology|idempotency|score|caption|label|id|kms)_?key",
    re.IGNORECASE,
)
# What a mounted file may hold in its place.
_NAMED_FILE = re.compile(r"(?:.*_)?(?:credentials?|key|token|dsn)(?:_?\d+)?", re.IGNORECASE)
_FILE = re.compile(r"(?![A-Za-z0-9/+]{40}$)(?:(?:/[\w.@-]+)+/?|[\w./@-]+\.(?:pem|key|crt|p8|p12|json|txt))")
_FLAG = re.compile(r"(?:true|false|yes|no|on|off|none|null|\d{1,4})?", re.IGNORECASE)
# Other variables, which may come from a Secret: as Kubernetes puts them in, and as a shell, Vault and Datadog do.
_REFERENCE = re.compile(r"\$\(\w+\)")
_SHELL_REFERENCE = re.compile(
    r"\$(?:\(\w+\)|\{\w+(?::?-)?\}|[A-Z_][A-Z0-9_]*(?![a-z]))|\{\{[^{}]*\}\}|%%env_\w+%%", re.ASCII
)
_USER_AND_REFERENCE = re.compile(rf"(?<=://)[^/@\s:]*:(?:{_SHELL_REFERENCE.pattern})@")
# In Vault's annotations stand names of files, paths and permissions; a template's text is looked at as any.
_OF_VAULT = "metadata.annotations.vault.hashicorp.com/"
_CHECKSUM = re.compile(r"[0-9a-f]{32,128}")
_PATH_IN_A_VAULT = re.compile(r"[\w.{}-]+(?:/[\w.{}-]+)+")
_ASSIGNMENT = re.compile(
    r"(?<![\w./-])-{0,2}(?P<name>[A-Za-z_][\w.-]{0,80})(?:=|\"\s*:\s*)(?P<value>\"[^\"]*|'[^']*|[^\s;&,}]*)"
)
# AWS gives every key an id. Alone it opens nothing; beside others it stands for the key that is with it.
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")


def check_no_secret(pod: Any, request: str) -> None:
    """Refuse a pod whose specification holds a secret as it stands, and not as a reference to a Kubernetes Secret.

    :param pod: the whole ``V1Pod``.
    :param request: the argument that carries the request, which was looked at when it was made.
    :raises RequestError: names the place, and not the value.
    """
    manifest = ApiClient(configuration=Configuration()).sanitize_for_serialization(pod)
    for name, value in _variables(manifest["spec"]):
        if _sounds_secret(name) and not _stands_for_another(name, value):
            raise RequestError(
                f"pod: the environment variable {name} would stand in the pod's specification for all to "
                "read. Use a service account, or pod={'secrets': …} or 'env_from' with a Kubernetes Secret"
            )
    for place, name, value in _texts(manifest, ""):
        if value != request and (_is_named_secret(place, name, value) or _looks_secret(value)):
            raise RequestError(
                f"pod: {place} holds what looks like a secret, for all to read in the pod's specification. "
                "Use a service account, or pod={'secrets': …} or 'env_from' with a Kubernetes Secret"
            )


def _variables(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            for variable in container.get("env") or []:
                if value := variable.get("value"):
                    yield variable["name"], value


def _texts(value: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield where each text of a manifest stands, what it is called there, and the text."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        flag = ""
        for index, item in enumerate(value):
            named = item.get("name") if isinstance(item, Mapping) else None
            for where, name, text in _texts(item, f"{place}[{named or index}]"):
                yield where, flag if isinstance(item, str) else name, text
            flag = item if isinstance(item, str) and item.startswith("--") else ""
    elif isinstance(value, str):
        yield place, place.rpartition(".")[2], value


# Where people name things as they like. Elsewhere names are Kubernetes' own.
_FREE_NAMES = re.compile(r"metadata\.(?:annotations|labels)\.|\.(?:volumeAttributes|options)\.|\.(?:args|command)\[")


def _is_named_secret(place: str, name: str, value: str) -> bool:
    if not _FREE_NAMES.search(place) or place.startswith(_OF_VAULT):
        return False
    if place.startswith("metadata.") and _PATH_IN_A_VAULT.fullmatch(value):
        return False
    if "checksum" in name and _CHECKSUM.fullmatch(value):
        return False
    value = _SHELL_REFERENCE.sub("", value)
    return not value.startswith("-") and _sounds_secret(name) and not _stands_for_another(name, value)


def _looks_secret(text: str) -> bool:
    text = _SHELL_REFERENCE.sub("", _USER_AND_REFERENCE.sub("", text))
    if without_tokens(without_users(text)) != text:
        return True
    if (key := _AWS_KEY.search(text)) and key[0] != text.strip():
        return True
    return any(
        _sounds_secret(match["name"]) and not _stands_for_another(match["name"], match["value"].strip("\"'"))
        for match in _ASSIGNMENT.finditer(text)
    )


def _sounds_secret(name: str) -> bool:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return _SECRET_NAME.fullmatch(plain) is not None and _NO_SECRET_NAME.fullmatch(plain) is None


def _stands_for_another(name: str, value: str) -> bool:
    """Tell whether the value only says where the secret is, or whether there is one."""
    rest = _REFERENCE.sub("", value).strip()
    if _FLAG.fullmatch(rest) or rest.startswith(("$(", "`")):
        return True
    return _NAMED_FILE.fullmatch(re.sub(r"[^A-Za-z0-9]+", "_", name)) is not None and _FILE.fullmatch(rest) is not None

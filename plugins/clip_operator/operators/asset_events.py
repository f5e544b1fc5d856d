"""Asset events: they tell Airflow, and the DAGs that wait for it, that a step is there and how good it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias

from clip_operator.storage import display, scheme_of

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def add_asset_events(context: Context, output: str, extra: Mapping[str, Any]) -> None:
    """Add an event of the output to each asset alias among the task's outlets, and to the output's own asset.

    Airflow sends the events off when the task has succeeded.

    :param output: URI of the step that was written.
    :param extra: what DAGs that the event starts are to know; JSON.
    """
    outlets = context["task"].outlets or []
    if not outlets:
        return
    try:
        asset = Asset(asset_uri(output))
    except ValueError as error:  # such as a name too long, or a provider's rules for URIs
        log.warning("%s has no asset event, because Airflow takes no asset of that URI: %s", display(output), error)
        return
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(asset, extra=dict(extra))
        elif isinstance(outlet, Asset) and outlet.uri == asset.uri:
            context["outlet_events"][outlet].extra.update(extra)


def asset_uri(uri: str) -> str:
    """Return the URI by which Airflow knows an object or a local file, for ``schedule=Asset(...)``.

    Airflow would drop what comes behind a ``#`` and reorder what comes behind a ``?``, which may stand in names.
    """
    local = scheme_of(uri) == "file"
    full = f"file://{Path(uri.removeprefix('file://')).absolute()}" if local else uri
    return "".join(quote(letter, safe="") if letter in "?#" else letter for letter in full)

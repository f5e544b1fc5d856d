"""How a bucket in Google Cloud Storage is reached, by what the environment says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clip_operator.storage.cloud.names import Bucket

if TYPE_CHECKING:
    from obstore.store import GCSConfig


def config_of(bucket: Bucket, environment: Mapping[str, str]) -> GCSConfig:
    """Return what obstore is told beside what it reads from the environment by itself.

    That is ``GOOGLE_APPLICATION_CREDENTIALS``, gcloud's application default credentials and the metadata server, with
    which GKE's workload identity answers, too. ``STORAGE_EMULATOR_HOST`` is what Google's own libraries and gcsfs read.
    """
    config: GCSConfig = {"bucket": bucket.name}
    emulator = environment.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if emulator:
        config["base_url"] = emulator if "://" in emulator else f"http://{emulator}"
        config["bearer_token"] = "emulator"  # noqa: S105 - which takes anything
    return config


def endpoint_of(config: GCSConfig, environment: Mapping[str, str]) -> str:
    """Return where requests go to."""
    return config.get("base_url") or environment.get("GOOGLE_BASE_URL") or "https://storage.googleapis.com"

"""The buckets that images may be read from, as ``scheme://name``."""

from __future__ import annotations

import re

from clip_operator.errors import RequestError
from clip_operator.storage import canonical, display

# Stores in which a URI names a bucket and nothing else: who may read it, permissions decide. (With az:// the account is
# the environment's.) Other URIs hold hosts, accounts or local disks, and are followed only below the root.
BUCKET_STORES = frozenset({"s3", "gs", "az"})

# The naming rule of S3 and GCS, wider than Azure's, which excludes access-point ARNs: they name other accounts and
# regions to call.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


def bucket_of(uri: str) -> str | None:
    """Return the bucket of an object in S3, GCS or Azure, as in ``s3://bucket``; None for anything else."""
    scheme, _, rest = canonical(uri).partition("://")
    name = rest.partition("/")[0]
    return f"{scheme}://{name}" if scheme in BUCKET_STORES and _NAME.fullmatch(name) else None


def parse_bucket(entry: str) -> str:
    """Return ``scheme://name`` of an entry ``name``, ``s3://name``, ``gs://name`` or ``az://name``.

    :raises RequestError: it is none of these.
    """
    text = entry.strip()
    bucket = bucket_of(text if "://" in text else f"s3://{text}")
    key = text.rpartition("://")[2].partition("/")[2]
    if bucket is None or key or ("://" not in text and "/" in text):
        raise RequestError(
            f"'{display(text)}' is not a bucket that images can be read from; write the name alone for a bucket in S3, "
            "or s3://name, gs://name or az://name, without a key and without wildcards"
        )
    return bucket

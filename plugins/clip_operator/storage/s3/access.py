"""How S3 is reached: what a user may say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config


@dataclass(frozen=True)
class S3Access:
    """How S3 is reached.

    :param session: the boto3 session whose credentials and region are used; None for boto3's own chain
        (environment, profile, service account).
    :param endpoint_url: the endpoint, for stores other than AWS; None for ``AWS_ENDPOINT_URL(_S3)`` or AWS.
    :param verify: whether, or against which bundle, TLS certificates are verified; None leaves it to boto3.
    :param timeout_seconds: how long the store may be silent before the request counts as failed and is tried again.
        Also the time that every body has before its average speed counts, which must be 16 KiB/s.
    :param config: botocore settings of the user's own; what they set wins over the package's and the environment's.
    """

    session: boto3.session.Session | None = None
    endpoint_url: str | None = None
    verify: bool | str | None = None
    timeout_seconds: float = 20
    config: Config | None = None

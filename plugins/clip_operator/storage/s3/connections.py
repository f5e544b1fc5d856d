"""botocore's own connections to S3, with deadlines."""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool

from clip_operator.machine.connections import TimedConnection


class _Connection(TimedConnection, AWSHTTPConnection):  # type: ignore[misc] # botocore has no types
    """Plain."""


class _SecureConnection(TimedConnection, AWSHTTPSConnection):  # type: ignore[misc]
    """With TLS."""


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _SecureConnection


def keep_deadlines(client: Any) -> None:
    """Have the connections that a boto3 client will make keep to the deadlines of the threads that use them.

    botocore has no door to its connections; the table of their kinds is shared by all that its session makes, those
    through proxies among them.
    """
    client._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_SecurePool)

"""What boto3 keeps to on the way to a store, said to obstore; or why it cannot be said."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore

from clip_operator.storage.s3.client import S3Client
from clip_operator.storage.s3.route import NoRoute, Route

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# Settings of botocore's that show in the request of which the route is known, are read below, or do not touch reads.
_HEEDED = frozenset(
    {
        "account_id_endpoint_mode",
        "client_cert",
        "connect_timeout",
        "defaults_mode",
        "disable_request_compression",
        "endpoint_discovery_enabled",
        "ignore_configured_endpoint_urls",
        "inject_host_prefix",
        "max_pool_connections",
        "parameter_validation",
        "proxies",
        "proxies_config",
        "read_timeout",
        "region_name",
        "request_checksum_calculation",
        "request_min_compression_size_bytes",
        "response_checksum_validation",
        "retries",
        "s3",
        "s3_disable_express_session_auth",
        "signature_version",
        "tcp_keepalive",
        "use_dualstack_endpoint",
        "use_fips_endpoint",
        "user_agent",
        "user_agent_appid",
        "user_agent_extra",
    }
)

# obstore reads the environment, too. What it finds there is overridden below, but for these, which cannot be unset.
_OF_THE_ENVIRONMENT = ("AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_")

# Nothing listens there: to obstore it is the proxy to every host but the store's own, so that it follows no redirect.
_NOWHERE = "http://127.0.0.1:0"

# obstore bounds a request as a whole and knows no end of it that suits all sizes. The pace of the body bounds it here.
_WHOLE_REQUEST = timedelta(days=1)


def client_options(s3: S3Client, route: Route) -> ClientConfig:
    """Return what obstore is told of connections, so that it keeps to what boto3 keeps to.

    :raises NoRoute: it could not.
    """
    settings, connections = s3.boto3.meta.config, s3.boto3._endpoint.http_session
    given = set() if s3.config is None else s3.config._user_provided_options.keys()
    if unknown := sorted(given - _HEEDED):
        raise NoRoute(f"of the botocore settings {', '.join(unknown)}")
    if settings.retries.get("mode") == "adaptive":
        raise NoRoute("with the retry mode 'adaptive', boto3 limits the rate of requests")
    if connections._cert_file:
        raise NoRoute("boto3 shows a client certificate")
    if connections._proxy_config.proxy_url_for(route.base_url):
        raise NoRoute("boto3 reaches the store through a proxy")
    if found := sorted(name for name in os.environ if name.upper().startswith(_OF_THE_ENVIRONMENT)):
        raise NoRoute(f"obstore would heed {', '.join(found)}, which boto3 does not")
    if not settings.connect_timeout or not settings.read_timeout:
        raise NoRoute("botocore is told to wait without an end")
    return {
        "allow_http": route.base_url.startswith("http://"),
        "allow_invalid_certificates": _takes_any_certificate(connections._verify, route),
        "connect_timeout": timedelta(seconds=settings.connect_timeout),
        "read_timeout": timedelta(seconds=settings.read_timeout),
        "timeout": _WHOLE_REQUEST,
        "proxy_url": _NOWHERE,
        "proxy_excludes": urlsplit(route.base_url).hostname or "",
        "user_agent": f"obstore/{obstore.__version__} {route.user_agent}",
    }


def _takes_any_certificate(verify: bool | str, route: Route) -> bool:
    """Tell whether TLS certificates are taken unseen.

    :param verify: as botocore has it: a bundle is all that is trusted then. obstore trusts what the system does, and
        would trust a bundle besides; only ``SSL_CERT_FILE`` takes the place of the system's.
    :raises NoRoute: obstore would trust more, or less.
    """
    if route.base_url.startswith("http://") or verify is True:
        return False
    if verify is False:
        return True
    systems = os.environ.get("SSL_CERT_FILE")
    if systems is None or "SSL_CERT_DIR" in os.environ or Path(systems).resolve() != Path(verify).resolve():
        raise NoRoute(f"boto3 trusts the certificates in {verify} alone; let SSL_CERT_FILE name them, too")
    return False

"""What a data set may make the job read."""

from __future__ import annotations

from dataclasses import dataclass

from clip_operator.errors import RequestError
from clip_operator.images.buckets import parse_bucket
from clip_operator.images.hosts import AllowedHosts
from clip_operator.images.mending import AS_WRITTEN, PathMending
from clip_operator.storage import display, scheme_of


@dataclass(frozen=True)
class ImagePolicy:
    """The limits within which references from an untrusted data set are followed.

    :param root: URI or path of the folder that relative references are resolved against. A local root is also the
        only place on the local disk that is read; with a root in an object store the local disk is not read at all.
    :param image_hosts: the hosts that http(s) references and their redirects may name: ``"example.org"``,
        ``"*.example.org"`` (every subdomain, not the domain itself), an address (``"10.1.2.3"``, ``"[fd00::1]"``), or a
        network (``"10.0.0.0/8"``, ``"fd00::/8"``), each also with a ``":port"``. Without one, only the scheme's own
        port (80, 443) is meant. A name may lead to public addresses, and to those that are listed beside it: there an
        entry without a port means any. Empty, the default, refuses every http(s) reference.
    :param max_bytes: the most bytes of one image file; 64 MiB by default.
    :param max_pixels: the most pixels (width x height) of one image. The default, 178,956,970, is where Pillow itself
        refuses an image as a decompression bomb, so every image that plain Pillow opens is scored; a larger value
        has no effect. One image at the limit needs 0.7 GB while it is decoded, and up to 4.5 GB in the costliest format
        (JPEG 2000): lower it on small workers.
    :param http_timeout_seconds: how long a web host may stay silent; 30 by default. A whole image, with its redirects
        and retries, may take ten times that.
    :param buckets: buckets in S3 (``"name"`` or ``"s3://name"``), GCS (``"gs://name"``) and the account of the
        environment in Azure (``"az://name"``) that references may name, beside the root's own. Every object in them
        may be read.
    :param prefixes: what the URIs of all objects must start with, wherever else they may be; empty for no such limit.
    :param mending: what is done to references before they are followed, within the same limits.
    :raises RequestError: a value that can never work.
    """

    root: str
    image_hosts: tuple[str, ...] = ()
    max_bytes: int = 64 << 20
    max_pixels: int = 178_956_970
    http_timeout_seconds: float = 30.0
    buckets: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    mending: PathMending = AS_WRITTEN

    def __post_init__(self) -> None:
        if not self.root.strip() or "\0" in self.root:
            raise RequestError(
                "the image root is empty; name a folder or an object-store prefix, as in s3://bucket/dir"
            )
        if scheme_of(self.root) in ("http", "https"):
            raise RequestError(
                f"the image root {display(self.root)} is a web address; images on the web are named by whole URLs and "
                "allowed by host, the root is a folder or an object-store prefix"
            )
        if scheme_of(self.root) != "file" and not self.root.partition("://")[2].strip("/"):
            raise RequestError(f"the image root {self.root} names no bucket; write s3://bucket or s3://bucket/dir")
        if isinstance(self.image_hosts, str):
            raise RequestError(f"image_hosts is a list of host names, not the text '{self.image_hosts}'")
        AllowedHosts(self.image_hosts)
        if isinstance(self.buckets, str):
            raise RequestError(f"the buckets of images are a list of names, not the text '{self.buckets}'")
        for bucket in self.buckets:
            parse_bucket(bucket)
        for name in ("max_bytes", "max_pixels", "http_timeout_seconds"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be positive, not {getattr(self, name)}")

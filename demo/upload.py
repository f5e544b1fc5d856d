"""Puts a folder into a bucket, with boto3's standard settings: ``python -m demo.upload DIR s3://BUCKET/PREFIX``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def upload(client: Any, folder: Path, uri: str) -> int:
    """Put every file below ``folder`` below ``uri``, whose bucket is made if need be; return how many there are."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if bucket not in [known["Name"] for known in client.list_buckets()["Buckets"]]:
        region = client.meta.region_name
        elsewhere = {} if region in ("us-east-1", "aws-global") else {"LocationConstraint": region}
        client.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": elsewhere} if elsewhere else {}))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}".lstrip("/"))
    return len(files)


def main() -> None:
    """Upload what is asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.upload", description=__doc__)
    parser.add_argument("folder", type=Path, help="what to upload")
    parser.add_argument("uri", help="where to, s3://BUCKET/PREFIX; the bucket is made if need be")
    asked = parser.parse_args()
    if not asked.folder.is_dir():
        raise SystemExit(f"{asked.folder} is no folder")
    try:
        count = upload(boto3.client("s3"), asked.folder, asked.uri)
    except (BotoCoreError, ClientError) as error:
        raise SystemExit(f"Nothing could be put into {asked.uri}: {error}") from None
    print(f"{count} files are in {asked.uri}")


if __name__ == "__main__":
    main()

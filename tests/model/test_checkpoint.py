"""Where checkpoints are found, what is copied, and what makes two of them the same."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from safetensors.torch import load_file

from clip_operator.errors import JobError
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from clip_operator.storage import S3Access, Storage, StorageError
from tests.conftest import S3, SHAPES
from tests.model.conftest import Find

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# --- shipped with the package ---


def test_the_shipped_model_is_found_by_its_name(find: Find) -> None:
    checkpoint = find(SHAPES)
    assert (checkpoint.name, checkpoint.source, checkpoint.revision) == (SHAPES, "builtin", None)
    assert checkpoint.safetensors
    assert (checkpoint.path / "config.json").is_file()


@pytest.mark.parametrize("name", ["builtin://nothing", "builtin://", "builtin://..", "builtin://x/shapes-clip"])
def test_a_model_that_is_not_shipped_is_refused_with_those_that_are(find: Find, name: str) -> None:
    with pytest.raises(JobError, match=r"not found: the models in the package are .*shapes-clip"):
        find(name)


# --- in a local folder ---


def test_a_local_folder_is_found_by_path_and_by_file_uri(find: Find, checkpoint_folder: Path) -> None:
    by_path = find(checkpoint_folder)
    by_uri = find(f"file://{checkpoint_folder}")
    assert by_path.source == by_uri.source == "folder"
    assert by_path.path == by_uri.path == checkpoint_folder
    assert by_path.digest == by_uri.digest


def test_a_relative_folder_goes_before_a_hub_id_of_the_same_name(
    find: Find, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint_folder.parent.parent)
    assert find(f"{checkpoint_folder.parent.name}/{checkpoint_folder.name}").source == "folder"


def test_a_folder_without_a_configuration_or_without_weights_says_what_it_has(
    find: Find, checkpoint_folder: Path, tmp_path: Path
) -> None:
    (checkpoint_folder / "model.safetensors").rename(checkpoint_folder / "other.weights")
    with pytest.raises(JobError, match=r"holds no weights \(model.safetensors or pytorch_model.bin\); it has config"):
        find(checkpoint_folder)
    (checkpoint_folder / "config.json").unlink()
    with pytest.raises(JobError, match=r"holds no config\.json; it has .*other\.weights"):
        find(checkpoint_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="it has no files"):
        find(tmp_path / "empty")


@pytest.mark.parametrize("form", ["{}", "file://{}", "s3://bucket{}", SHAPES])
def test_only_a_hub_id_has_a_revision(checkpoint_folder: Path, form: str) -> None:
    with pytest.raises(JobError, match="is not a hub id, so it has no revision 'main'; leave revision out"):
        find_checkpoint(form.format(checkpoint_folder), "main", Storage())


# --- the digest ---


def test_the_digest_changes_with_every_file_that_decides_the_scores(find: Find, checkpoint_folder: Path) -> None:
    digests = {find(checkpoint_folder).digest}
    deciding = [*checkpoint_folder.iterdir()]
    for path in deciding:
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        digests.add(find(checkpoint_folder).digest)
        path.write_bytes(content)
    for name in ("special_tokens_map.json", "merges.txt", "spiece.model", "chat_template.jinja"):
        (checkpoint_folder / name).write_bytes(b"{}")
        digests.add(find(checkpoint_folder).digest)
    assert len(digests) == 1 + len(deciding) + 4


def test_the_digest_is_blind_to_what_does_not_decide_the_scores(find: Find, checkpoint_folder: Path) -> None:
    before = find(checkpoint_folder).digest
    for name in ("README.md", ".gitattributes", "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"):
        (checkpoint_folder / name).write_bytes(b"anything")
    (checkpoint_folder / "onnx").mkdir()
    (checkpoint_folder / "onnx" / "config.json").write_bytes(b"{}")
    assert find(checkpoint_folder).digest == before


def test_the_digest_is_the_same_wherever_the_checkpoint_lies(
    s3: S3, find: Find, checkpoint_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint_folder, tmp_path / "moved")
    uri = s3.put_folder(checkpoint_folder, "model")
    in_store = find_checkpoint(uri, None, s3.storage)
    assert find(checkpoint_folder).digest == find(tmp_path / "moved").digest == in_store.digest


# --- in object storage ---


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's own cache of checkpoints from object storage."""
    monkeypatch.setenv("CLIP_OPERATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def counted(s3: S3) -> tuple[Storage, Counter[str]]:
    """The server as its own storage, and how many requests of each kind were sent to it."""
    session = boto3.session.Session(s3.store.access_key, s3.store.secret_key, region_name="us-east-1")
    requests: Counter[str] = Counter()

    def count(event_name: str, **_: Any) -> None:
        requests[event_name.rpartition(".")[2]] += 1

    session.events.register("before-send.s3", count)
    return Storage(S3Access(session, s3.store.endpoint_url)), requests


@pytest.mark.parametrize("end", ["", "/"])
def test_the_shipped_model_works_from_a_prefix_in_s3(s3: S3, cache: Path, find: Find, end: str) -> None:
    shipped = find(SHAPES)
    uri = s3.put_folder(shipped.path, "models/shapes v1+2") + end

    checkpoint = find_checkpoint(uri, None, s3.storage)

    assert (checkpoint.name, checkpoint.source, checkpoint.revision) == (uri, "s3", None)
    assert checkpoint.digest == shipped.digest
    assert cache in checkpoint.path.parents
    encoder = load_encoder(checkpoint, choose_device("cpu"), "fp32")
    assert encoder.encode_texts(encoder.tokenize(["a red circle"])).shape[0] == 1


def test_a_checkpoint_is_copied_once(
    s3: S3, cache: Path, checkpoint_folder: Path, counted: tuple[Storage, Counter[str]]
) -> None:
    storage, requests = counted
    uri = s3.put_folder(checkpoint_folder, "model")

    first = find_checkpoint(uri, None, storage)
    assert requests["GetObject"] >= len(list(checkpoint_folder.iterdir()))
    requests.clear()
    second = find_checkpoint(uri, None, storage)

    assert second == first
    assert requests == {"ListObjectsV2": 1}


def test_a_file_that_changed_is_copied_anew(s3: S3, cache: Path, checkpoint_folder: Path) -> None:
    uri = s3.put_folder(checkpoint_folder, "model")
    first = find_checkpoint(uri, None, s3.storage)
    changed = (checkpoint_folder / "config.json").read_bytes() + b"\n"
    s3.put("model/config.json", changed)

    second = find_checkpoint(uri, None, s3.storage)

    assert second.digest != first.digest
    assert (second.path / "config.json").read_bytes() == changed
    assert (first.path / "config.json").read_bytes() != changed, "a job that is loading the first is not disturbed"


def test_other_frameworks_weights_and_subfolders_stay_in_the_store(
    s3: S3, cache: Path, checkpoint_folder: Path
) -> None:
    wanted = sorted(path.name for path in checkpoint_folder.iterdir())
    uri = s3.put_folder(checkpoint_folder, "model")
    for key in (
        "tf_model.h5",
        "flax_model.msgpack",
        "pytorch_model.bin",
        "README.md",
        "onnx/model.onnx",
        "x/config.json",
    ):
        s3.put(f"model/{key}", b"anything")
    s3.put("model-of-another-name/config.json", b"{}")

    checkpoint = find_checkpoint(uri, None, s3.storage)

    assert sorted(path.name for path in checkpoint.path.rglob("*")) == wanted


def test_a_copy_that_fails_leaves_nothing_that_the_next_try_would_take(
    s3: S3, cache: Path, checkpoint_folder: Path
) -> None:
    uri = s3.put_folder(checkpoint_folder, "model")

    class Failing(Storage):
        """Storage that breaks off at the last file, as a real one does once in a long while."""

        def download(self, info: Any, path: Path) -> None:
            if path.name == "tokenizer_config.json":
                raise StorageError("the connection broke")
            s3.storage.download(info, path)

        def list(self, prefix: str, start_after: str | None = None) -> Any:
            return s3.storage.list(prefix)

    with pytest.raises(StorageError, match="the connection broke"):
        find_checkpoint(uri, None, Failing())
    assert list((cache / "models").iterdir()) == []
    assert (find_checkpoint(uri, None, s3.storage).path / "tokenizer_config.json").is_file()


def test_a_prefix_with_nothing_below_it_is_not_found(s3: S3, cache: Path) -> None:
    s3.put("model/deeper/config.json", b"{}")
    for name in (f"s3://{s3.bucket}/nothing", f"s3://{s3.bucket}/model"):
        with pytest.raises(JobError, match=f"not found: there is no checkpoint file directly below {name}/"):
            find_checkpoint(name, None, s3.storage)


def test_a_model_in_a_bucket_that_does_not_exist_names_the_bucket(s3: S3, cache: Path) -> None:
    with pytest.raises(JobError, match="the bucket 'no-such-bucket' does not exist"):
        find_checkpoint("s3://no-such-bucket/model", None, s3.storage)


def test_weights_in_several_files_work_from_a_prefix_in_s3(s3: S3, cache: Path, checkpoint_folder: Path) -> None:
    shard(checkpoint_folder)
    uri = s3.put_folder(checkpoint_folder, "model")
    checkpoint = find_checkpoint(uri, None, s3.storage)
    assert len(list(checkpoint.path.glob("model-*-of-*.safetensors"))) > 1
    load_encoder(checkpoint, choose_device("cpu"), "fp32")


def test_a_prefix_of_another_store_works_through_its_driver(cache: Path, checkpoint_folder: Path) -> None:
    storage = Storage()
    for path in checkpoint_folder.iterdir():
        storage.upload(path, f"memory://models-{checkpoint_folder.parent.name}/tiny/{path.name}")
    name = f"memory://models-{checkpoint_folder.parent.name}/tiny"
    checkpoint = find_checkpoint(name, None, storage)
    assert checkpoint.source == "memory"
    assert checkpoint.digest == find_checkpoint(str(checkpoint_folder), None, storage).digest


@pytest.mark.usefixtures("drivers")
def test_a_checkpoint_whose_files_have_no_version_is_not_kept(cache: Path, checkpoint_folder: Path) -> None:
    for path in checkpoint_folder.iterdir():
        Storage().upload(path, f"silent://models/mine/{path.name}")
    with pytest.raises(JobError, match=r"store of model 'silent://models/mine' tells no versions apart"):
        find_checkpoint("silent://models/mine", None, Storage())
    assert not cache.exists() or not list(cache.rglob("*.safetensors"))


def shard(folder: Path) -> None:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")


# --- on the hub, and nowhere ---


@pytest.fixture
def in_hub_cache(hub_cache: Path, checkpoint_folder: Path) -> Callable[[str], Path]:
    """Put the tiny checkpoint where the hub's library keeps what it has fetched."""

    def put(name: str) -> Path:
        repository = hub_cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        shutil.copytree(checkpoint_folder, repository / "snapshots" / COMMIT)
        return repository / "snapshots" / COMMIT

    return put


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_id_is_found_in_the_local_cache_while_offline_and_its_revision_is_the_commit(
    in_hub_cache: Callable[[str], Path], revision: str | None
) -> None:
    folder = in_hub_cache("owner/tiny.model-1_0")
    checkpoint = find_checkpoint("owner/tiny.model-1_0", revision, Storage())
    assert (checkpoint.source, checkpoint.revision, checkpoint.path) == ("hub", COMMIT, folder)


def test_pickled_weights_in_the_hubs_cache_are_taken_where_there_are_no_others(
    in_hub_cache: Callable[[str], Path],
) -> None:
    pickle_weights(in_hub_cache("owner/tiny"))
    assert not find_checkpoint("owner/tiny", None, Storage()).safetensors


def test_a_revision_that_is_not_in_the_cache_is_not_found(in_hub_cache: Callable[[str], Path]) -> None:
    in_hub_cache("owner/tiny")
    with pytest.raises(JobError, match="the Hugging Face hub"):
        find_checkpoint("owner/tiny", "another-branch", Storage())


@pytest.mark.parametrize("name", ["owner/no-such-model", "no-such-model", "owner/a--b"])
def test_an_unknown_name_says_which_places_were_tried(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError) as caught:
        find(name)
    message = str(caught.value)
    assert f"model '{name}' not found" in message
    assert f"the local folder {tmp_path / name}" in message
    assert "the Hugging Face hub" in message
    assert "give a local folder or an s3:// prefix" in message


def test_an_unknown_name_says_that_the_hub_was_not_asked_because_it_may_not_be(find: Find) -> None:
    with pytest.raises(JobError, match="HF_HUB_OFFLINE is set, and the model is not in the local cache"):
        find("owner/no-such-model")


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "../model", "~/model", "file:///no/such/folder", "a b"])
def test_a_name_that_cannot_be_a_hub_id_is_looked_up_in_the_file_system_only(find: Find, name: str) -> None:
    with pytest.raises(JobError, match=r"not found; tried the local folder .* it cannot be a hub id"):
        find(name)


# --- pickled weights ---


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights_give_the_same_embeddings_and_a_warning(
    find: Find, checkpoint_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def embedding() -> torch.Tensor:
        encoder = load_encoder(find(checkpoint_folder), choose_device("cpu"), "fp32")
        return encoder.encode_texts(encoder.tokenize(["a red circle"]))

    with caplog.at_level(logging.WARNING):
        expected = embedding()
        assert caplog.messages == []
        pickle_weights(checkpoint_folder)
        assert torch.allclose(embedding(), expected, atol=1e-6)
    assert any("no safetensors weights; loading pytorch_model.bin" in message for message in caplog.messages)


def test_safetensors_are_taken_where_there_are_both(find: Find, checkpoint_folder: Path) -> None:
    (checkpoint_folder / "pytorch_model.bin").write_bytes(b"never opened")
    checkpoint = find(checkpoint_folder)
    assert checkpoint.safetensors
    load_encoder(checkpoint, choose_device("cpu"), "fp32")

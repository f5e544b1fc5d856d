"""What the tests of models share: no hub, and tiny checkpoints made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from clip_operator.model import Checkpoint, find_checkpoint
from clip_operator.storage import Storage
from tests.model.families import save_clip


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no hub. The library reads its environment when it is imported: too early."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: for models this small, threads that wait for each other cost more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-clip")
    save_clip(folder)
    return folder


@pytest.fixture
def checkpoint_folder(_tiny_clip: Path, tmp_path: Path) -> Path:
    """A folder with a tiny CLIP checkpoint, this test's own copy."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in _tiny_clip.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


Find = Callable[[Path | str], Checkpoint]


@pytest.fixture
def find() -> Find:
    """Find a checkpoint by name, without a revision, in local places."""
    return lambda name: find_checkpoint(str(name), None, Storage())

"""Which versions of the libraries that scores depend on are installed here."""

from __future__ import annotations

import contextlib
import importlib.metadata

_LIBRARIES = ("airflow-clip-operator", "torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow")
_OF_EXTRAS = ("open_clip_torch", "timm", "torchvision")


def library_versions() -> dict[str, str]:
    """Return the version of each library by its name; of those that only some install, of what is installed."""
    versions = {name: _version(name) for name in _LIBRARIES}
    for name in _OF_EXTRAS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"  # such as this package itself, in a plugins folder

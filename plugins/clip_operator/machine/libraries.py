"""Which versions of the libraries that scores depend on are installed here."""

from __future__ import annotations

import importlib.metadata

_LIBRARIES = ("airflow-clip-operator", "torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow")


def library_versions() -> dict[str, str]:
    """Return the version of each library by its name."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"  # such as this package itself, in a plugins folder

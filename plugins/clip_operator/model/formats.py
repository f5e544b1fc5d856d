"""The formats that checkpoints are saved in: which file describes the model, and which hold its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec

from clip_operator.errors import JobError


@dataclass(frozen=True)
class Format:
    """How a checkpoint is saved.

    :param name: of the library whose format it is.
    :param configuration: the file that describes the model.
    :param weights: patterns of the names of weights' files; the first that any file fits is taken.
    :param missing: what to say where there are none.
    :param package: what has to be installed beside transformers to load it; None for nothing.
    :param extra: the extra of this package that brings it.
    """

    name: str
    configuration: str
    weights: tuple[tuple[str, ...], ...]
    missing: str
    package: str | None = None
    extra: str | None = None

    def select_weights(self, names: Iterable[str]) -> list[str]:
        """Return the names of the files to take the weights from, or none."""
        names = sorted(names)
        for patterns in self.weights:
            if found := [n for n in names if any(fnmatchcase(n, p) for p in patterns)]:
                return found
        return []

    def check_installed(self, model: str) -> None:
        """Raise :class:`JobError` if what loads this format is not installed.

        :param model: the checkpoint's name, as it may be shown.
        """
        if self.package is not None and find_spec(self.package) is None:
            raise JobError(
                f"model {model!r} is saved in {self.name}'s format, and {self.name} is not installed where the scoring "
                f"runs: install the extra {self.extra} there, or give a checkpoint in transformers' format"
            )


TRANSFORMERS = Format(
    "transformers",
    "config.json",
    (("model.safetensors", "model-*.safetensors"), ("pytorch_model.bin", "pytorch_model-*.bin")),
    "weights (model.safetensors or pytorch_model.bin)",
)
OPEN_CLIP = Format(
    "open_clip",
    "open_clip_config.json",
    (("open_clip_model.safetensors",), ("open_clip_pytorch_model.safetensors",)),
    "weights (open_clip_model.safetensors or open_clip_pytorch_model.safetensors; pickled ones of open_clip are not "
    "loaded: save the model as safetensors)",
    package="open_clip",
    extra="open-clip",
)
FORMATS = (TRANSFORMERS, OPEN_CLIP)
"""In the order in which they are looked for: many checkpoints are saved in both."""


def choose_format(names: Sequence[str]) -> tuple[Format, list[str]]:
    """Return the format of a checkpoint with these files, and the names of those that hold its weights.

    Where none of the formats is complete, it is the last that is described by a file, and weights may be none.
    """
    described = [format for format in FORMATS if format.configuration in names] or [TRANSFORMERS]
    for format in described:
        if weights := format.select_weights(names):
            return format, weights
    return described[-1], []

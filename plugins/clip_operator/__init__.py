"""Scores image-text alignment with CLIP over data sets in object storage, from Airflow, a command line or Python.

The public names are imported on first use: a DAG file that imports the operator loads nothing heavy.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clip_operator.logs import PlainRecords

if TYPE_CHECKING:
    from clip_operator.dataflow import FileStorage, ImageCLIPEvaluator
    from clip_operator.job.evaluation import evaluate
    from clip_operator.job.in_memory import score
    from clip_operator.operators import ImageCLIPEvaluatorOperator
    from clip_operator.proof.manifest import EvaluationManifest
    from clip_operator.request import EvaluationRequest

__version__ = "0.1.0"

__all__ = [
    "EvaluationManifest",
    "EvaluationRequest",
    "FileStorage",
    "ImageCLIPEvaluator",
    "ImageCLIPEvaluatorOperator",
    "evaluate",
    "score",
]

logging.getLogger(__name__).addHandler(PlainRecords())

_HOMES = {
    "EvaluationManifest": "proof.manifest",
    "EvaluationRequest": "request",
    "FileStorage": "dataflow",
    "ImageCLIPEvaluator": "dataflow",
    "ImageCLIPEvaluatorOperator": "operators",
    "evaluate": "job.evaluation",
    "score": "job.in_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""The Airflow operators. Importing them loads Airflow's task SDK and nothing heavy; each is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_operator.operators.group import ClipEvaluationGroup, clip_evaluation_group
    from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator
    from clip_operator.operators.shards import MergeShardsOperator, PlanShardsOperator

__all__ = [
    "ClipEvaluationGroup",
    "ImageCLIPEvaluatorOperator",
    "MergeShardsOperator",
    "PlanShardsOperator",
    "clip_evaluation_group",
]

_HOMES = {
    "ClipEvaluationGroup": "group",
    "ImageCLIPEvaluatorOperator": "image_clip_evaluator",
    "MergeShardsOperator": "shards",
    "PlanShardsOperator": "shards",
    "clip_evaluation_group": "group",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""The Airflow operators. Importing them loads Airflow's task SDK and nothing heavy."""

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

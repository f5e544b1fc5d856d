"""The Airflow operator. Importing it loads Airflow's task SDK and nothing heavy."""

from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator

__all__ = ["ImageCLIPEvaluatorOperator"]

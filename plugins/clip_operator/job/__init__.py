"""The job: read a step, score every row, write the next step, prove it."""

from clip_operator.job.evaluation import evaluate

__all__ = ["evaluate"]

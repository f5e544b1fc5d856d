"""Whether Parquet can be decoded in bounded memory, found out by decoding it in a process that the kernel limits."""

from clip_operator.tables.parquet.trial.process import Attempt, Trial, shared_trial

__all__ = ["Attempt", "Trial", "shared_trial"]

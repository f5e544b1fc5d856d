"""The score store: scores kept by content, so that the next version of a data set costs only what is new in it."""

from clip_operator.reuse.prune import Pruned, prune
from clip_operator.reuse.reuse import ScoreReuse
from clip_operator.reuse.store import ScoreStore

__all__ = ["Pruned", "ScoreReuse", "ScoreStore", "prune"]

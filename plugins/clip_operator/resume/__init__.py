"""Goes on where a run that died has stopped: resume points beside the output, their use, and their removal."""

from clip_operator.resume.continuation import Continuation, PreviousOutput
from clip_operator.resume.leftovers import Leftovers, check_is_there, discard_leftovers, find_leftovers
from clip_operator.resume.points import ResumePoints

__all__ = [
    "Continuation",
    "Leftovers",
    "PreviousOutput",
    "ResumePoints",
    "check_is_there",
    "discard_leftovers",
    "find_leftovers",
]

"""The two places where a task waits for its pod, and how long a test waits for the task."""

from __future__ import annotations

import pytest

from tests.cluster.cluster import ENVIRONMENT

in_both_modes = pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])

SECONDS = int(ENVIRONMENT.get("CLIP_CLUSTER_SECONDS", "300"))
"""More than any try takes that ends at all."""

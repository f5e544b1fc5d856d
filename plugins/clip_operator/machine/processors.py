"""How many processors this process may really use, and what they can do."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")

_BF16_PRODUCTS = frozenset({"avx512_bf16", "amx_bf16"})
"""The kernel's names of instructions that multiply numbers in bf16. Others only convert them."""


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """Return the number of processors to plan for: those of the machine, less what the process is kept from.

    A container with ``cpu: 2`` on a machine of 64 sees all 64, and a program that starts 64 threads there is stopped by
    the kernel for most of every period. So the affinity mask counts, and the quota of the control group (version 2, or
    1), rounded up.

    :param cgroup: where the control group is mounted.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Return the processors that the control group grants, or None if it sets no limit."""
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        granted = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no control group at all
        return None
    return granted if granted > 0 else None  # version 1 writes -1 for no limit


def multiplies_in_bf16() -> bool:
    """Tell whether the processors have instructions for products in bf16; False where that cannot be known.

    PyTorch's own answer to this has another name, or none, in some of the versions that will do.
    """
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return not _BF16_PRODUCTS.isdisjoint(flags.split())

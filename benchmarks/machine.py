"""The machine that the figures are of."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "transformers", "tokenizers", "pillow", "numpy", "pyarrow", "boto3", "apache-airflow")


def machine() -> dict[str, Any]:
    """Return what decides the figures: processor, memory, GPU, system and libraries, and how busy it is just now."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": gpu() or "none",
        "os": _system(),
        "python": platform.python_version(),
        "libraries": dict(_versions()),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def gpu() -> str | None:
    """Return the GPUs with their memory and driver, or None if there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(answer.stdout.split("\n")).strip("; ") or None


def described(machine: dict[str, Any]) -> str:
    """Return the machine in a line."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"GPU: {machine['gpu']}; {machine['os']}, Python {machine['python']}; {libraries}"
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()}, {platform.machine()}"


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"

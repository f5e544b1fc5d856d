"""The scorer's real image: how tests get it, and the environment that podman needs here."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent

CONTAINERS_ENVIRONMENT = (
    {"CONTAINERS_CONF": str(REPOSITORY / "docker" / "containers.conf")} if os.geteuid() == 0 else {}
)
"""Environment variables that every call of podman needs, beyond this process's own."""


@cache
def build_image() -> str:
    """Return the name of the image: the one that ``CLIP_IMAGE`` names, else one built now of what is in the checkout.

    :raises RuntimeError: it cannot be built; the message has the end of what the build said.
    """
    return os.environ.get("CLIP_IMAGE") or build("clip-operator:test")


def build(name: str, *options: str) -> str:
    """Build the image under a name, with more options for ``podman build``, and return the name."""
    command = [sys.executable, str(REPOSITORY / "docker" / "build_locally.py"), "--tag", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the image cannot be built; the end of the output:\n{done.stderr[-4000:]}")
    return done.stdout.strip()

"""Runs containers as a strict platform would: nothing writable but /tmp and /cache, no capabilities, no root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from tests.docker.images import CONTAINERS_ENVIRONMENT


def podman(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of podman to its end, whatever its exit code."""
    return subprocess.run(
        ["podman", *arguments], input=stdin, capture_output=True, text=True, check=False, env=_environment()
    )


def run(
    image: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    network: str = "host",
    options: Sequence[str] = (),
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a container to its end; its exit code is the result's."""
    return podman(*_run(image, arguments, environment or {}, network, options), stdin=stdin)


def start(
    image: str, *arguments: str, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a container in the foreground of a process of its own."""
    return subprocess.Popen(
        ["podman", *_run(image, arguments, environment or {}, "host", options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )


def python(image: str, code: str) -> str:
    """Run Python code in a container, with the image's ``python``; return what it prints."""
    done = run(image, "-c", code, options=["--entrypoint=python"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(
    image: str, arguments: Sequence[str], environment: Mapping[str, str], network: str, options: Sequence[str]
) -> list[str]:
    return [
        "run",
        "--rm",
        "--interactive",
        f"--network={network}",
        "--read-only",
        "--read-only-tmpfs=false",  # podman would make more places writable than a pod has
        "--tmpfs=/tmp",
        "--tmpfs=/cache",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        *(f"--env={name}={value}" for name, value in environment.items()),
        *options,
        image,
        *arguments,
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, **CONTAINERS_ENVIRONMENT}

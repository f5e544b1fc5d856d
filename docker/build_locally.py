"""Builds the image with podman and no registry, for the tests; what it prints on standard output is the image's name.

Usage: `python docker/build_locally.py [--tag NAME] [OPTION...]`; options go to `podman build`.

A base image that is on this machine is used as it is. Where there is none, one is made of Debian's packages, which
takes root, Debian and debootstrap. Packages come from where this machine's pip and apt look for them.
"""
# ruff: noqa: S603, S607 - runs podman, debootstrap and apt as they are on this machine

from __future__ import annotations

import argparse
import ast
import fcntl
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "build" / "image"
BASE = "docker.io/library/python:3.11-slim"
RELEASE = "bookworm"  # the Debian whose python3 is 3.11
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

_INDEXES = ("index-url", "extra-index-url")
_LINKS = ("find-links",)
# Where packages come from and how they are reached; not, say, where pip installs to on this machine.
_FORWARDED = (*_INDEXES, *_LINKS, "no-index", "trusted-host", "proxy", "timeout", "default-timeout", "retries")


def main() -> None:
    """Build the image."""
    parser = argparse.ArgumentParser(prog="python docker/build_locally.py", description=__doc__)
    parser.add_argument("--tag", default="clip-operator:test", help="the image's name")
    options, for_podman = parser.parse_known_args()
    if os.geteuid() == 0:
        os.environ["CONTAINERS_CONF"] = str(REPOSITORY / "docker" / "containers.conf")
    if shutil.which("podman") is None:
        sys.exit("podman is not installed: apt-get install podman buildah runc conmon netavark aardvark-dns")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would make the base in the same folder
        if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode:
            make_base()
        build(options.tag, for_podman)
    print(options.tag)  # noqa: T201 - the result, for whoever calls this


def make_base() -> None:
    """Make a stand-in for the official Python image: the smallest Debian with its own Python 3.11."""
    if os.geteuid() or not shutil.which("debootstrap") or platform.freedesktop_os_release().get("ID") != "debian":
        sys.exit(
            f"the image {BASE} is not on this machine. Pull it (podman pull {BASE}), name an image that is built "
            "already in CLIP_IMAGE, or, as root on Debian, apt-get install debootstrap, of which a base can be made"
        )
    folder = FOLDER / "base"
    shutil.rmtree(folder, ignore_errors=True)
    include = "--include=ca-certificates,python3,python3-venv"
    run("debootstrap", "--variant=minbase", include, RELEASE, str(folder), apt_mirror())
    (folder / "usr/bin/python").symlink_to("python3")
    shutil.rmtree(folder / "var/cache/apt")
    shutil.rmtree(folder / "var/lib/apt/lists")
    with subprocess.Popen(["tar", "--directory", str(folder), "--create", "."], stdout=subprocess.PIPE) as tar:
        run("podman", "import", "--change", f"ENV PATH={PATH}", "-", BASE, stdin=tar.stdout)
    if tar.returncode:
        sys.exit("tar could not read the base that debootstrap made")
    shutil.rmtree(folder)


def apt_mirror() -> str:
    """Return where this machine's apt gets Debian's own packages from."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        release, _, site = line.partition(" ")
        if release == platform.freedesktop_os_release().get("VERSION_CODENAME") and site:
            return site
    sys.exit("apt knows no mirror with Debian's packages: set one in its sources, then apt-get update")


def build(tag: str, for_podman: list[str]) -> None:
    """Run the Dockerfile; a step that nothing has changed for comes from podman's own cache."""
    settings = pip_settings()
    volumes = {path: path for path in local_packages(settings)}
    own_sources = any(key in settings for key in (*_INDEXES, *_LINKS))
    configuration = ConfigParser(interpolation=None)
    configuration["global"] = {key: settings[key] for key in _FORWARDED if key in settings}
    bundle = ca_bundle(settings)
    if bundle:
        volumes[bundle] = configuration["global"]["cert"] = CA_BUNDLE
    with (FOLDER / "pip.conf").open("w") as file:
        configuration.write(file)
    volumes[str(FOLDER / "pip.conf")] = "/etc/pip.conf"
    run(
        "podman",
        "build",
        "--pull=never",
        "--network=host",
        f"--file={REPOSITORY / 'docker' / 'Dockerfile'}",
        f"--tag={tag}",
        f"--build-arg=BASE={BASE}",
        "--build-arg=DEVICE=cpu",  # Debian's podman passes over a stage that is named by an argument's default
        *(["--build-arg=TORCH_INDEX="] if own_sources else []),  # they may be the only ones that can be reached
        *(f"--volume={outside}:{inside}:ro" for outside, inside in volumes.items()),
        *for_podman,
        str(REPOSITORY),
    )


def pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine, from its files and, above them, from its environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    settings = {}
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    return settings


def local_packages(settings: dict[str, str]) -> Iterator[str]:
    """Yield the folders on this machine that pip takes packages from."""
    for key in (*_INDEXES, *_LINKS):
        for place in settings.get(key, "").split():
            url = urlsplit(place)
            if url.scheme in ("", "file"):
                # the pages of an index link to files beside it
                yield str(Path(url.path).parent if key in _INDEXES else Path(url.path))


def ca_bundle(settings: dict[str, str]) -> str | None:
    """Return this machine's CA certificates: what the network asks for here, the base image may not know."""
    places = (settings.get("cert"), os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile)
    return next((place for place in places if place and Path(place).is_file()), None)


def run(*command: str, stdin: IO[bytes] | None = None) -> None:
    """Run a command, what it prints going to standard error; end with its exit code if it fails."""
    done = subprocess.run(command, stdin=stdin, stdout=sys.stderr, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed with exit code {done.returncode}")


if __name__ == "__main__":
    main()

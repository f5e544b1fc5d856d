"""Writes what the package is used with, as a CycloneDX bill of materials: its extras' libraries at the pinned versions.

Usage: `python docker/bill_of_materials.py CYCLONEDX_PY FILE`, with the interpreter of an environment that holds them;
what else is in that environment, such as the tests' tools, is left out. `make dist` does this.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clip_operator import __version__

PACKAGE = "airflow-clip-operator"
LEFT_OUT = {"open-clip"}  # the extra that is installed beside the environment, as the Makefile has it
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> None:
    """Write the bill."""
    parser = argparse.ArgumentParser(prog="python docker/bill_of_materials.py", description=__doc__)
    parser.add_argument("tool", type=Path, help="the program cyclonedx-py")
    parser.add_argument("file", type=Path, help="where to write the bill")
    options = parser.parse_args()
    bill = of_environment(options.tool)
    needed = needs()
    root = bill["metadata"]["component"]
    root["version"] = __version__
    names = {each["bom-ref"]: str(canonicalize_name(each["name"])) for each in (root, *bill["components"])}
    references = {name: reference for reference, name in names.items() if name in needed}
    bill["components"] = [each for each in bill["components"] if names[each["bom-ref"]] in needed]
    bill["dependencies"] = [
        {"ref": references[name], "dependsOn": sorted(references[each] for each in needed[name])}
        for name in sorted(needed)
    ]
    options.file.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


def of_environment(tool: Path) -> dict[str, Any]:
    """Return the bill of all that is installed beside this interpreter.

    What it says of dependencies is not used: it follows extras that nobody asked for.
    """
    command = [str(tool), "environment", "--pyproject", str(PYPROJECT), "--mc-type", "library", "--output-reproducible"]
    done = subprocess.run([*command, sys.executable], capture_output=True, check=False)  # noqa: S603 - the one named
    if done.returncode:
        sys.exit(f"the environment cannot be listed: {done.stderr.decode()}")
    return dict(json.loads(done.stdout))


def needs() -> dict[str, set[str]]:
    """Return the packages that this one needs with its extras, by name, and which others each of them needs."""
    extras = {PACKAGE: set(distribution(PACKAGE).metadata.get_all("Provides-Extra", [])) - LEFT_OUT}
    needed: dict[str, set[str]] = {}
    to_look_at = [PACKAGE]
    while to_look_at:
        name = to_look_at.pop()
        found = list(requirements(name, extras.get(name, set())))
        needed[name] = {canonicalize_name(each.name) for each in found}
        for each in found:
            other = canonicalize_name(each.name)
            if other not in needed or not each.extras <= extras.get(other, set()):
                extras.setdefault(other, set()).update(each.extras)
                to_look_at.append(other)
    return needed


def requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Yield what an installed package needs on this machine, with some of its extras."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


if __name__ == "__main__":
    main()

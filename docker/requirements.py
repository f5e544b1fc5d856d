"""Prints what the package needs with the named extras, so that a layer can be built of it before the source is there.

Usage: `python requirements.py EXTRA...`, beside `pyproject.toml`.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
lines = [
    *project["dependencies"],
    *(line for extra in sys.argv[1:] for line in project["optional-dependencies"][extra]),
]
sys.stdout.write("\n".join(lines) + "\n")

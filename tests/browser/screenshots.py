"""Pictures of what the tests see, in build/screenshots/; ``python -m tests.browser.screenshots`` puts some in docs/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page

from demo.airflow_home import REPOSITORY

TAKEN = REPOSITORY / "build" / "screenshots"
SHOWN = REPOSITORY / "docs" / "images"
IN_DOCS = ("trigger-form", "task-tab", "report-dark-phone", "runs-page")
_COLOURS = 128
"""Enough for pages with some thumbnails, at a third of the bytes."""


def keep(seen: Page | Locator, name: str) -> None:
    """Keep a picture of a page or of a part of it."""
    TAKEN.mkdir(parents=True, exist_ok=True)
    seen.screenshot(path=TAKEN / f"{name}.png", animations="disabled")


def main() -> int:
    """Run the browser tests, and take the pictures for the documentation from theirs. Return the exit code."""
    tests = Path(__file__).parent
    environment = {**os.environ, "CI": "true"}  # a missing part is an error here: there would be no pictures
    failed = subprocess.run([sys.executable, "-m", "pytest", "-q", tests], env=environment, cwd=REPOSITORY).returncode
    if failed:
        return failed
    SHOWN.mkdir(parents=True, exist_ok=True)
    for name in IN_DOCS:
        with Image.open(TAKEN / f"{name}.png") as picture:
            picture.convert("RGB").quantize(_COLOURS).save(SHOWN / f"{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

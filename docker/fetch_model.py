"""Puts a checkpoint of the hub into a folder, found and fetched as a job would: only the files that are needed.

Usage: `python fetch_model.py NAME REVISION FOLDER`; an empty revision is the hub's default one.
"""

import shutil
import sys
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.model import find_checkpoint
from clip_operator.storage import Storage

name, revision, folder = sys.argv[1:]
try:
    checkpoint = find_checkpoint(name, revision or None, Storage())
except JobError as error:
    sys.exit(f"MODEL: {error}")
shutil.copytree(checkpoint.path, Path(folder) / name)  # follows the links that the hub's cache is made of

"""Runs the command line."""

import sys

from clip_operator.cli import main

sys.exit(main())

"""The command line: ``python -m clip_operator evaluate``. The pod and other interpreters run the job through it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from clip_operator.errors import JobError, RequestError
from clip_operator.request import EvaluationRequest, OnError, Precision, parse_request

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

log = logging.getLogger("clip_operator")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 the job failed, 2 the request is wrong.

    Logs go to standard error. Standard output carries one line: the manifest as JSON.
    """
    options = _parser().parse_args(arguments)
    # Of other libraries only warnings: at INFO, the hub's client logs every request.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s: %(message)s")
    log.setLevel(logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        request = _request(options)
        # Imported after the request is known to be right: a typing error is told at once, not after torch has loaded.
        from clip_operator.evaluation import evaluate

        with contextlib.redirect_stdout(sys.stderr):  # no library's chatter may come between us and the manifest
            manifest = evaluate(request, stop=stop)
    except RequestError as error:
        log.error("%s", error)
        return WRONG_REQUEST
    except JobError as error:
        log.error("%s", error)
        return FAILED
    sys.stdout.write(manifest.model_dump_json() + "\n")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clip_operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    evaluate = commands.add_parser(
        "evaluate",
        help="score a step file and write the next one",
        description="Score how well each row's image and text agree, and write the rows with their scores.",
        epilog="Exit codes: 0 done, 1 the job failed, 2 the request is wrong.",
        argument_default=argparse.SUPPRESS,  # what is not given is left to the request's own defaults
    )
    evaluate.add_argument(
        "--request", metavar="FILE", help="the whole request as JSON, from a file or from standard input (-)"
    )
    for flag, options in _FLAGS.items():
        evaluate.add_argument(flag, help=_help(_field(flag)), **options)
    return parser


_FLAGS: dict[str, dict[str, Any]] = {
    "--input": {"metavar": "URI"},
    "--output": {"metavar": "URI"},
    "--input-image-key": {"metavar": "COLUMN"},
    "--input-text-key": {"metavar": "COLUMN"},
    "--output-key": {"metavar": "COLUMN"},
    "--error-key": {"metavar": "COLUMN"},
    "--model": {"metavar": "NAME"},
    "--revision": {"metavar": "REVISION"},
    "--device": {"metavar": "DEVICE"},
    "--image-root": {"metavar": "URI"},
    "--image-hosts": {"metavar": "HOST", "nargs": "+"},
    "--on-error": {"choices": get_args(OnError)},
    "--batch-size": {"metavar": "ROWS", "type": int},
    "--precision": {"choices": get_args(Precision)},
    "--max-image-bytes": {"metavar": "BYTES", "type": int},
    "--max-image-pixels": {"metavar": "PIXELS", "type": int},
    "--overwrite": {"action": "store_true"},
}


def _field(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _help(name: str) -> str:
    field = EvaluationRequest.model_fields[name]
    default = "" if field.is_required() or field.default in (None, False, ()) else f" Default: {field.default}."
    return f"{field.description}{default}".replace("%", "%%")


def _request(options: argparse.Namespace) -> EvaluationRequest:
    given = {name: value for name, value in vars(options).items() if name not in ("command", "request")}
    if "request" not in options:
        return parse_request(given)
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise RequestError(f"--request holds the whole request, so it goes with no other flag ({flags})")
    if options.request == "-":
        return parse_request(sys.stdin.buffer.read())
    try:
        return parse_request(Path(options.request).read_bytes())
    except OSError as error:
        raise RequestError(f"cannot read the request file {options.request}: {error.strerror or error}") from None

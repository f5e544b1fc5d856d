"""The command line: ``python -m clip_operator``. The pod and other interpreters run the job through it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin

from clip_operator.errors import ClipOperatorError, JobError, RequestError
from clip_operator.logs import PlainLines
from clip_operator.redaction import plain
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.storage import Storage, display, refused

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from clip_operator.resume import Leftovers

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

log = logging.getLogger("clip_operator")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 the job failed, 2 the request is wrong.

    Logs go to standard error. Standard output carries one line, the manifest as JSON, or none if that is asked for.
    """
    options = vars(_parser().parse_args(arguments))
    # Of other libraries only warnings: at INFO, the hub's client logs every request.
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(PlainLines())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    termination_log = options.pop("termination_log", None)
    try:
        return _run(options.pop("command"), options)
    except Exception as error:
        known = isinstance(error, ClipOperatorError)
        text = str(error) if known else plain(f"{type(error).__name__}: {error}")
        log.error("%s", text, exc_info=None if known else error)
        if termination_log is not None:
            _write_termination_log(Path(termination_log), text)
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED


def _run(command: str, options: dict[str, Any]) -> int:
    if command == "evaluate":
        return _evaluate(options)
    for name, value in options.items():
        if isinstance(value, str) and (problem := refused(value)):
            raise RequestError(f"{name}: {display(value)}: {problem}")
    if command == "leftovers":
        return _leftovers(**options)
    return _prune(**options) if command == "prune" else _report(**options)


def _evaluate(options: dict[str, Any]) -> int:
    quiet = options.pop("quiet", False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    request = _request(options)
    # Imported after the request is known to be right: a typing error is told at once, not after torch has loaded.
    from clip_operator.job.evaluation import evaluate

    with contextlib.redirect_stdout(sys.stderr):  # no library's chatter may come between us and the manifest
        manifest = evaluate(request, stop=stop)
    if not quiet:
        sys.stdout.write(manifest.model_dump_json() + "\n")
    return DONE


def _leftovers(place: str, clean: bool) -> int:
    from clip_operator.resume import discard_leftovers, find_leftovers

    storage = Storage()
    found = False
    for left in find_leftovers(storage, place):
        found = True
        for line in _described(left):
            _tell(line)
        if clean:
            discard_leftovers(storage, left.output)
            _tell("  removed")
    if not found:
        _tell(f"Nothing is left behind at {display(place)}")
    return DONE


def _prune(store: str, older_than_days: float | None, max_bytes: int | None) -> int:
    from clip_operator.reuse import prune

    done = prune(Storage(), store, older_than_days, max_bytes)
    _tell(
        f"{display(store)}: removed {done.removed_packs:,} packs of scores ({done.removed_bytes:,} bytes), kept "
        f"{done.kept_packs:,} ({done.kept_bytes:,} bytes)"
    )
    return DONE


def _report(manifest: str, output: str | None) -> int:
    from urllib.parse import quote

    from clip_operator.proof.manifest import read_manifest
    from clip_operator.report import render
    from clip_operator.report.samples import read_samples
    from clip_operator.steps import MANIFEST_SUFFIX, manifest_uri, report_uri, worst_rows_uri
    from clip_operator.storage import ObjectNotFound, name_of, parent

    storage = Storage()
    uri = manifest if manifest.endswith(MANIFEST_SUFFIX) else manifest_uri(manifest)
    try:
        found = read_manifest(storage, uri)
    except ObjectNotFound:
        raise JobError(f"there is no manifest at {display(uri)}; name a manifest, or an output that has one") from None
    if found is None:
        raise JobError(f"{display(uri)} is not a manifest of this package, or of a later version of it")
    # Beside the manifest, wherever that says that the output is: what stands in a store leads nowhere else.
    place = uri.removesuffix(MANIFEST_SUFFIX)
    samples = read_samples(storage, place)
    if samples is None:
        log.warning("There are no samples beside %s, so the report shows no rows", display(place))
    target = output or report_uri(place)
    listed = worst_rows_uri(place)
    is_beside = parent(target) == parent(place) and storage.find(listed) is not None
    page = render(found, samples, worst_rows=quote(name_of(listed)) if is_beside else None)
    storage.write(page.encode(), target)
    _tell(display(target))
    return DONE


def _tell(line: str) -> None:
    sys.stdout.write(plain(line) + "\n")


def _described(left: Leftovers) -> Iterator[str]:
    state = "complete" if left.is_complete else "not complete"
    yield f"{display(left.output)} ({state})"
    if left.claim is not None:
        by = left.claim.requested_by
        who = (
            f"task {by.task_id!r} of DAG {by.dag_id!r}, run {by.run_id!r}"
            if by is not None
            else "a run outside Airflow"
        )
        yield f"  claim: {who}, at {left.claim.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
    if left.resume_points:
        size = sum(info.size for info in left.resume_points)
        saved_at = left.resume_points[-1].modified
        when = f", up to {saved_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if saved_at is not None else ""
        yield f"  resume points: {len(left.resume_points):,} ({size:,} bytes){when}"
    if left.shards:
        size = sum(info.size for info in left.shards)
        yield f"  shards that wait for a merge: {len(left.shards):,} objects ({size:,} bytes)"
    if left.unfinished_uploads:
        yield f"  unfinished uploads: {left.unfinished_uploads:,}"


def _write_termination_log(path: Path, text: str) -> None:
    # Kubernetes reads 4,096 bytes of it. Where it cannot be written, the log has the error all the same.
    with contextlib.suppress(OSError):
        path.write_bytes(f"ERROR: {text}".encode()[:4096])


class _Parser(argparse.ArgumentParser):
    """Repeats no secret of a command line that it does not understand."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m clip_operator", description=__doc__)
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
    evaluate.add_argument("--request-json", metavar="JSON", help="the whole request as JSON, right here")
    evaluate.add_argument("--quiet", action="store_true", help="do not write the manifest to standard output")
    evaluate.add_argument(
        "--termination-log", metavar="FILE", help="write the error that ends the job there too, as Kubernetes wants it"
    )
    for name, field in EvaluationRequest.model_fields.items():
        if name not in _NOT_FLAGS:
            evaluate.add_argument(_flag(name), **_flag_options(name, field))
    leftovers = commands.add_parser(
        "leftovers",
        help="show what a run that died has left beside its output, and remove it",
        description="Show the resume points, claims, shards that wait for a merge and unfinished uploads that stand "
        "beside outputs. The next try of "
        "the same work uses them and removes them when it is done, so remove them only if there will be none.",
    )
    leftovers.add_argument("place", metavar="URI", help="an output, or a folder with a slash at its end")
    leftovers.add_argument("--clean", action="store_true", help="remove it, if no run is at work there")
    prune = commands.add_parser(
        "prune",
        help="remove what a score store holds and nobody has used for long",
        description="Remove the packs of scores that were written longest ago. One that is in use is written anew "
        "every week. Jobs may use the store meanwhile: they score what they do not find.",
    )
    prune.add_argument("store", metavar="URI", help="the score store, as in reuse")
    prune.add_argument("--older-than-days", metavar="DAYS", type=float, help="packs written earlier go; at least 8")
    prune.add_argument("--max-bytes", metavar="BYTES", type=int, help="the oldest go until the rest is so small")
    report = commands.add_parser(
        "report",
        help="write the report on an output anew",
        description="Write the page that shows what an evaluation did, from its manifest and samples.",
    )
    report.add_argument("manifest", metavar="MANIFEST", help="URI of a manifest, or of the output beside it")
    report.add_argument("--output", metavar="FILE", help="where to write it; by default beside the manifest")
    return parser


# The request's fields that no flag sets: who asks, and for which shard, is for Airflow to say.
_NOT_FLAGS = ("requested_by", "shard")

# What the help calls a flag's value, by the last word of its name; otherwise that word itself.
_METAVARS = {
    "buckets": "BUCKET",
    "hosts": "HOST",
    "input": "URI",
    "key": "COLUMN",
    "model": "NAME",
    "names": "COLUMN",
    "output": "URI",
    "rate": "SHARE",
    "rates": "REASON=SHARE",
    "reuse": "URI",
    "rewrite": "OLD=NEW",
    "repairs": "REPAIR",
    "root": "URI",
    "size": "IMAGES",
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flag_options(name: str, field: FieldInfo) -> dict[str, Any]:
    """Return what argparse is to know of the flag of a field: its help, and how its value looks.

    Whether the value is right is for the request to say.
    """
    default = "" if field.is_required() or field.default in (None, False, (), {}) else f" Default: {field.default}."
    options = {"help": f"{field.description}{default}".replace("%", "%%")}
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else [field.annotation]
    kind, *others = (kind for kind in kinds if kind is not NoneType)
    if kind is bool:
        return {**options, "action": argparse.BooleanOptionalAction if field.default else "store_true"}
    if get_origin(kind) is Literal and not others:
        return {**options, "choices": get_args(kind)}
    word = name.rpartition("_")[2]
    several = {"nargs": "+"} if get_origin(kind) is tuple else {}
    return {**options, **several, "metavar": _METAVARS.get(word, word.upper())}


def _request(options: Mapping[str, Any]) -> EvaluationRequest:
    given = dict(options)
    whole = given.keys() & {"request", "request_json"}
    if not whole:
        return parse_request(given)
    if len(given) > 1:
        whole_request, *others = sorted(given, key=lambda name: name not in whole)
        flags = ", ".join(map(_flag, others))
        raise RequestError(f"{_flag(whole_request)} holds the whole request, so it goes with no other flag ({flags})")
    if "request_json" in given:
        return parse_request(str(given["request_json"]))
    if given["request"] == "-":
        return parse_request(sys.stdin.buffer.read())
    try:
        return parse_request(Path(given["request"]).read_bytes())
    except OSError as error:
        raise RequestError(f"cannot read the request file {given['request']}: {error.strerror or error}") from None

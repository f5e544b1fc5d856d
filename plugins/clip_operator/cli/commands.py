"""What the command line does: its commands, their exit codes, and what it says of errors."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from clip_operator import __version__
from clip_operator.cli.flags import FLAGS, HelpLines, add_request_flags, flag
from clip_operator.errors import ClipOperatorError, JobError, RequestError
from clip_operator.logs import PlainLines
from clip_operator.redaction import plain
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.steps import report_uri
from clip_operator.storage import Storage, StorageError, display, refused

if TYPE_CHECKING:
    from clip_operator.proof.manifest import EvaluationManifest
    from clip_operator.resume import Leftovers

DONE, FAILED, WRONG_REQUEST, GATES_NOT_PASSED = 0, 1, 2, 3

_EXIT_CODES = "Exit codes: 0 done, 1 the job failed, 2 the request is wrong, 3 done, and a gate is not passed."

log = logging.getLogger("clip_operator")


class GatesNotPassed(ClipOperatorError):
    """The step is complete, and is not what was asked for: the command line exits with 3."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 the job failed, 2 the request is wrong, or there is none, 3 a
    step is complete and does not pass its gates.

    Logs go to standard error. What came of an evaluation goes to standard output: for a person at a terminal as a few
    lines, else as one, the manifest in JSON, or nothing if that is asked for.
    """
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return WRONG_REQUEST
    options = vars(parser.parse_args(words))
    # Of other libraries only warnings: at INFO, the hub's client logs every request.
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(PlainLines())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)
    termination_log = options.pop("termination_log", None)
    try:
        return _run(options.pop("command"), options)
    except (Exception, KeyboardInterrupt) as error:
        text, is_bug = _explained(error)
        with_traceback = is_bug and not sys.stderr.isatty()
        log.error("%s", text, exc_info=error if with_traceback else None)
        if is_bug and not with_traceback:
            log.error("This is a fault of the program. Where 2> FILE keeps this log, it has the whole traceback")
        if termination_log is not None:
            _write_termination_log(Path(termination_log), text)
        return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, GatesNotPassed):
        return GATES_NOT_PASSED
    return WRONG_REQUEST if isinstance(error, RequestError) else FAILED


def _explained(error: BaseException) -> tuple[str, bool]:
    """Return what there is to say of an error, and whether it is one that nobody has thought of."""
    if isinstance(error, ClipOperatorError):
        return str(error), False
    if isinstance(error, KeyboardInterrupt):
        return "stopped", False
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("clip_operator"):
        needs = (
            f"{sys.executable} has no {error.name!r}: install the package there with its extra for scoring, [scoring]"
        )
        return plain(needs), False
    return plain(f"{type(error).__name__}: {error}"), True


def _run(command: str, options: dict[str, Any]) -> int:
    if command == "evaluate":
        return _evaluate(options)
    if command == "check-dags":
        return _check_dags(**options)
    for name, value in options.items():
        if isinstance(value, str) and (problem := refused(value)):
            raise RequestError(f"{name}: {display(value)}: {problem}")
    if command == "leftovers":
        return _leftovers(**options)
    return _prune(**options) if command == "prune" else _report(**options)


def _evaluate(options: dict[str, Any]) -> int:
    quiet, as_json, ignores_gates = (options.pop(name, False) for name in ("quiet", "json", "ignore_gates"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    request = _request(options)
    # Imported after the request is known to be right: a typing error is told at once, not after torch has loaded.
    from clip_operator.job.evaluation import evaluate

    storage = Storage()
    for_a_person = sys.stdout.isatty() and not quiet and not as_json
    beside_the_log = for_a_person and sys.stderr.isatty()
    if beside_the_log:  # what the log would say at the end is told anyway
        logging.getLogger("clip_operator.job.summary").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):  # no library's chatter may come between us and the manifest
        manifest = evaluate(request, storage, stop)
    missed = [] if ignores_gates else _judged(manifest)
    if for_a_person:
        _tell_summary(manifest, storage)
    elif not quiet:
        sys.stdout.write(manifest.model_dump_json() + "\n")
    if missed and not beside_the_log:  # where the summary stands below the log, it says so
        raise GatesNotPassed(
            f"the step does not pass its gates: {'; '.join(missed)}. It is complete nevertheless: "
            f"{display(manifest.output.uri)}"
        )
    return GATES_NOT_PASSED if missed else DONE


def _judged(manifest: EvaluationManifest) -> list[str]:
    """Return in words which gates a step does not pass, and log what makes them doubtful."""
    from clip_operator.proof.gates import doubts, verdicts

    for doubt in doubts(manifest, manifest.request):
        log.warning("%s", doubt)
    return [gate.words for gate in verdicts(manifest) if not gate.passed]


def _tell_summary(manifest: EvaluationManifest, storage: Storage) -> None:
    from clip_operator.cli.summary import summary

    report = report_uri(manifest.output.uri) if manifest.request.report else None
    with contextlib.suppress(StorageError):  # where that cannot be looked up, it stands there most likely
        report = report if report and storage.find(report) else None
    for line in ("", *summary(manifest, report, shutil.get_terminal_size().columns)):
        _tell(line)


def _check_dags(folders: Sequence[str]) -> int:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Airflow's own log goes there
            from clip_operator.testing import examine_dags

            examined = [examine_dags(folder) for folder in folders]
    except ModuleNotFoundError as error:
        raise JobError(
            f"this Python has no {error.name!r}, which the DAGs need: run it with the one that Airflow is installed in"
        ) from None
    findings = [finding for each in examined for finding in each.findings]
    for finding in findings:
        _tell(str(finding))
    seconds = {file: taken for each in examined for file, taken in each.seconds.items()}
    slowest = max(seconds, key=lambda file: seconds[file], default=None)
    longest = "" if slowest is None else f"; {slowest} took longest to read, {seconds[slowest]:.1f} s"
    log.info("Files: %d; findings: %d%s", len(seconds), len(findings), longest)
    return FAILED if findings else DONE


def _leftovers(place: str, clean: bool) -> int:
    from clip_operator.resume import check_is_there, discard_leftovers, find_leftovers

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
        check_is_there(storage, place)
        _tell(f"Nothing is left behind at {display(place)}")
    elif not clean and sys.stdout.isatty():
        _tell("The next try of the same work goes on with this. If there will be none, --clean removes it")
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
    from clip_operator.proof.manifest import read_manifest
    from clip_operator.report import page_beside, render
    from clip_operator.report.samples import read_samples
    from clip_operator.steps import MANIFEST_SUFFIX, manifest_uri, report_uri
    from clip_operator.storage import ObjectNotFound, parent

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
    is_beside = parent(target) == parent(place)
    page = page_beside(storage, found, samples, place) if is_beside else render(found, samples)
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
    """Says which flag may be meant, and repeats no secret of a command line that it does not understand."""

    # Typeshed has overloads for namespaces of any class, of which there is none here.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        """Refuse what is not known here, where the flags of the command are, and not in the parser above."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            close = [match for each in flags for match in get_close_matches(each, self._option_string_actions, 1)]
            hint = f"; did you mean {' and '.join(close)}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def _parser() -> argparse.ArgumentParser:
    # Where the package is not installed, as in a plugins folder, there is no script.
    program = (
        "python -m clip_operator"
        if Path(sys.argv[0]).parts[-2:] == ("clip_operator", "__main__.py")
        else "clip-operator"
    )
    parser = _Parser(
        prog=program,
        description="Scores with CLIP how well each image of a data set agrees with its text, on this machine.",
        epilog=f"for example:\n  {program} evaluate --input captions.jsonl --output scored.jsonl\n\n"
        f"{program} COMMAND --help says more of a command.\n{_EXIT_CODES}",
        formatter_class=HelpLines,
    )
    parser.add_argument("--version", action="version", version=f"clip-operator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, title="commands", metavar="COMMAND")
    evaluate = commands.add_parser(
        "evaluate",
        help="score a step file and write the next one",
        usage=f"{program} evaluate --input URI --output URI [flags]",
        description="Score how well the image and the text of each row agree. Write the rows with their scores and, "
        "beside them, a report and a manifest.",
        epilog=_EXIT_CODES,
        formatter_class=HelpLines,
        argument_default=argparse.SUPPRESS,  # what is not given is left to the request's own defaults
    )
    add_request_flags(evaluate)
    programs = evaluate.add_argument_group("for programs")
    programs.add_argument("--json", action="store_true", help="write the manifest as JSON on a terminal, too")
    programs.add_argument(
        "--ignore-gates", action="store_true", help="exit with 0 where a gate is not passed, and leave it to the reader"
    )
    programs.add_argument("--quiet", action="store_true", help="do not write the manifest to standard output")
    programs.add_argument(
        "--request", metavar="FILE", help="the whole request as JSON, from a file or from standard input (-)"
    )
    programs.add_argument("--request-json", metavar="JSON", help="the whole request as JSON, right here")
    programs.add_argument(
        "--termination-log", metavar="FILE", help="write the error that ends the job there too, as Kubernetes wants it"
    )
    check_dags = commands.add_parser(
        "check-dags",
        help="tell what is wrong with DAGs, without running them",
        description="Load DAGs as Airflow does, and say what is wrong with them, one line each: imports, and of this "
        "package's operators parameters, templates, pods and outputs. No store, model, cluster or database is asked.",
        epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 there is no such folder.",
    )
    check_dags.add_argument("folders", metavar="FOLDER", nargs="+", help="a folder of DAGs, or one file")
    leftovers = commands.add_parser(
        "leftovers",
        help="show or remove what a run that died has left",
        description="Show the resume points, claims, shards that wait for a merge and unfinished uploads that stand "
        "beside outputs. The next try of "
        "the same work uses them and removes them when it is done, so remove them only if there will be none.",
    )
    leftovers.add_argument("place", metavar="URI", help="an output, or a folder with a slash at its end")
    leftovers.add_argument("--clean", action="store_true", help="remove it, if no run is at work there")
    prune = commands.add_parser(
        "prune",
        help="remove from a score store what nobody has used for long",
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


def _request(options: Mapping[str, Any]) -> EvaluationRequest:
    given = dict(options)
    whole = given.keys() & {"request", "request_json"}
    if not whole:
        return parse_request(given, called=FLAGS)
    if len(given) > 1:
        whole_request, *others = sorted(given, key=lambda name: name not in whole)
        flags = ", ".join(map(flag, others))
        raise RequestError(f"{flag(whole_request)} holds the whole request, so it goes with no other flag ({flags})")
    if "request_json" in given:
        return parse_request(str(given["request_json"]))
    if given["request"] == "-":
        return parse_request(sys.stdin.buffer.read())
    try:
        return parse_request(Path(given["request"]).read_bytes())
    except OSError as error:
        raise RequestError(f"cannot read the request file {given['request']}: {error.strerror or error}") from None

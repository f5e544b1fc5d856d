"""The command line as another program meets it: exit codes, one line of output, logs on standard error."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import clip_operator
from clip_operator.cli import main
from clip_operator.operators.execution.log_lines import last_error
from clip_operator.proof.manifest import parse_manifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import plan_shards
from clip_operator.storage import Storage
from tests.command_line import run, run_on_terminal
from tests.conftest import S3, SHAPES


def test_flags_make_the_request_and_the_manifest_is_the_only_output(shapes_dataset: Path, s3: S3) -> None:
    folder = s3.put_folder(shapes_dataset, "shapes")
    flags = {
        "--input": f"{folder}/captions.jsonl",
        "--output": f"{folder}/out.jsonl",
        "--input-image-key": "image_path",
        "--input-text-key": "alt_text",
        "--output-key": "score",
        "--error-key": "why",
        "--model": SHAPES,
        "--device": "cpu",
        "--image-root": folder,
        "--on-error": "zero",
        "--batch-size": "7",
        "--precision": "fp32",
    }
    arguments = [part for flag in flags.items() for part in flag]
    code, stdout, stderr = run("evaluate", *arguments, **s3.store.environment)
    assert code == 0, stderr
    assert stdout.count("\n") == 1
    manifest = parse_manifest(stdout.encode())
    assert manifest is not None
    assert manifest.request == parse_request(
        {flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()}
    )
    assert manifest.rows.failures == {"image_not_found": 1, "image_unreadable": 1}
    assert "WARNING: Row 14 has no score: image_unreadable" in stderr
    assert s3.store.secret_key not in stdout + stderr


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_field_of_the_request_has_a_flag_that_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    told = "".join(help_of(capsys, "evaluate").split())  # as wide as the terminal is
    for name, field in EvaluationRequest.model_fields.items():
        is_flag = name not in ("requested_by", "shard")
        assert ("--" + name.replace("_", "-") in told) == is_flag, name
        described = re.sub(r"\b(image_root|filtered_output)\b", as_flag, field.description or "")
        assert ("".join(described.split()) in told) == is_flag, name
    assert "--report,--no-report" in told
    assert "--on-error{null,zero,fail}" in told
    assert "--image-hostsHOST[HOST...]" in told
    assert "Default:67108864(64MiB)." in told


def as_flag(name: re.Match[str]) -> str:
    return "--" + name[0].replace("_", "-")


def test_the_help_goes_from_what_everybody_needs_to_what_few_do_and_leaves_no_flag_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = help_of(capsys, "evaluate")
    sections = re.findall(r"^(\S.*):$", told, re.MULTILINE)
    assert sections[:3] == ["options", "what is read and written", "columns that are read"]
    assert sections[-1] == "for programs"
    assert "other" not in sections, "give the flags there a section"
    assert all(len(line) < 80 for line in told.splitlines())
    assert "openai/clip-vit-base-patch32" in told, "in one piece"


def test_without_a_command_there_is_a_short_help_and_nothing_was_done() -> None:
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert "usage: python -m clip_operator" in stderr
    assert "\n    leftovers   show or remove" in stderr
    assert len(stderr.splitlines()) < 25


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"clip-operator {clip_operator.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["evaluate", "--inptu", "a.jsonl", "--ouput=b.jsonl"], "did you mean --input and --output?"),
        (["evaluate", "--ouput-key", "score"], "did you mean --output-key?"),
        (["prune", "scores", "--max-byte-count", "5"], "did you mean --max-bytes?"),
        (["leftovers", "a", "--xyz"], "unrecognized arguments: --xyz\n"),
    ],
)
def test_a_flag_that_there_is_not_is_answered_by_the_one_that_is_like_it(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert hint in told
    assert f"usage: clip-operator {arguments[0]} " in told


@pytest.mark.parametrize(
    "names",
    [["image_path", "a caption"], ['["image_path", "a caption"]'], ["['image_path', 'a caption']"]],
)
def test_names_are_given_as_words_or_as_a_list(names: list[str], shapes_dataset: Path, tmp_path: Path) -> None:
    table = tmp_path / "no-header.csv"
    table.write_text("images/00000.png,a green dot\n")
    flags = ["--input", str(table), "--output", f"{tmp_path}/out.csv", "--image-root", str(shapes_dataset)]
    columns = ["--column-names", *names, "--input-text-key", "a caption"]
    code, stdout, stderr = run("evaluate", *flags, *columns, "--model", SHAPES)
    assert code == 0, stderr
    assert json.loads(stdout)["request"]["column_names"] == ["image_path", "a caption"]
    assert (tmp_path / "out.csv").read_text().startswith("images/00000.png,a green dot,0.")


def test_at_a_terminal_a_person_is_told_what_came_of_it_and_where_it_is(shapes_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", str(output), "--model", SHAPES]
    kept = ["--min-score", "0.6", "--filtered-output", f"{tmp_path}/kept.jsonl"]
    beside = ["--rejected-output", f"{tmp_path}/others.jsonl", "--embeddings-path", f"{tmp_path}/embeddings"]
    code, screen = run_on_terminal("evaluate", *flags, *kept, *beside, "--error-key", "why")
    assert code == 0, screen
    log, _, told = screen.partition("\n\nRows ")
    assert log.index("Loading torch and the model builtin://shapes-clip …") < log.index("INFO: Model builtin:")
    assert "Scored 60 of 64" not in log, "which is told now"
    assert "WARNING: Row 14 has no score" in log
    assert "100%|" in log, "the bar"
    of_manifest = json.loads(Storage().read(f"{output}.manifest.json"))
    lines = f"Rows {told}".splitlines()
    assert lines[0] == "Rows        60 of 64 have a score (93.8 %)"
    assert lines[1].startswith("No score    4: 1 image_not_found, 1 image_unreadable")
    assert " ".join(told.split()).count("; column why") == 1
    assert f"mean {of_manifest['scores']['mean']:.4f}, from " in told
    assert f"\nAUC         {of_manifest['calibration']['auc']:.4f} (" in told
    assert "\nGates       none is set\n" in told
    assert f"\nThreshold   {of_manifest['calibration']['threshold']:.4f}: " in told
    assert f"\nKept        {of_manifest['filtered']['rows']} of 64 rows are in\n" in told
    assert lines[-7:] == [
        f"            {tmp_path}/kept.jsonl",
        f"Rejected    the other {of_manifest['rejected']['rows']} rows are in",
        f"            {tmp_path}/others.jsonl",
        "Embeddings  those of all 64 rows are in",
        f"            {tmp_path}/embeddings",
        f"Output      {output}",
        f"Report      {output}.report.html",
    ]
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)


def test_at_a_terminal_the_place_of_a_report_is_told_only_if_there_is_one(shapes_dataset: Path, tmp_path: Path) -> None:
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    code, screen = run_on_terminal("evaluate", *flags, "--no-report", columns=200)
    assert (code, screen.splitlines()[-1]) == (0, f"Output      {tmp_path}/out.jsonl")
    code, screen = run_on_terminal("evaluate", *flags, "--no-report")
    assert "is complete already" in screen
    assert screen.splitlines()[-1] == f"Output      {tmp_path}/out.jsonl"


@pytest.mark.parametrize(("flag", "is_written"), [("--json", True), ("--quiet", False)])
def test_the_manifest_is_had_at_a_terminal_too_or_nothing(
    flag: str, is_written: bool, shapes_dataset: Path, tmp_path: Path
) -> None:
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    code, screen = run_on_terminal("evaluate", *flags, flag)
    assert code == 0, screen
    assert (parse_manifest(screen.splitlines()[-1].encode()) is not None) == is_written
    assert "\nOutput " not in screen
    assert "INFO: Scored 60 of 64 rows" in screen


def test_a_gate_that_is_not_passed_has_an_exit_code_of_its_own_and_the_output_is_complete(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "out.jsonl", tmp_path / "termination-log"
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", str(output), "--model", SHAPES]
    code, stdout, stderr = run("evaluate", *flags, "--min-mean-score", "0.2", "--min-auc", "0.7")
    assert code == 0, stderr
    assert "WARNING: min_auc judged by 60 different images" in stderr
    gates = ["--min-mean-score", "0.2", "--min-auc", "0.99"]
    code, stdout, stderr = run("evaluate", *flags, *gates, "--termination-log", str(log))
    assert code == 3
    manifest = parse_manifest(stdout.encode())
    assert manifest is not None
    assert manifest.output.uri == str(output)
    auc = f"{json.loads(stdout)['calibration']['auc']:.4f}"
    problem = (
        rf"ERROR: the step does not pass its gates: the AUC is {auc}, below min_auc=0.99 by 0\.\d+\. It is complete "
    )
    assert re.fullmatch(f"{problem}nevertheless: {re.escape(str(output))}", stderr.splitlines()[-1])
    assert log.read_text() == stderr.splitlines()[-1]
    code, ignored, stderr = run("evaluate", *flags, *gates, "--ignore-gates")
    assert (code, ignored) == (0, stdout)
    assert "min_auc" not in stderr
    code, screen = run_on_terminal("evaluate", *flags, *gates)
    assert code == 3
    assert "\nGate        passed: the mean score is " in screen
    assert f"\nGate        NOT PASSED: the AUC is {auc}, below min_auc=0.99 by " in screen
    assert "ERROR" not in screen
    assert screen.splitlines()[-1] == f"Report      {output}.report.html"


def test_an_error_at_a_terminal_is_one_line(tmp_path: Path) -> None:
    code, screen = run_on_terminal("evaluate", "--input", f"{tmp_path}/none.jsonl", "--output", f"{tmp_path}/out.jsonl")
    assert (code, screen) == (1, f"ERROR: {tmp_path}/none.jsonl does not exist\n")


def test_a_request_comes_as_json_from_a_file_or_standard_input(shapes_dataset: Path, tmp_path: Path) -> None:
    request = {"input": f"{shapes_dataset}/captions.jsonl", "output": f"{tmp_path}/out.jsonl", "model": SHAPES}
    (tmp_path / "request.json").write_text(json.dumps(request))
    code, first, stderr = run("evaluate", "--request", str(tmp_path / "request.json"))
    assert code == 0, stderr
    code, second, stderr = run("evaluate", "--request", "-", stdin=json.dumps(request))
    assert (code, second) == (0, first)
    assert "is complete already" in stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["--input", "a.jsonl"], "", "the request is not valid: --output: must be given"),
        (["--input", "a.jsonl", "--output", "b.jsonl", "--on-error", "ignore"], "", "invalid choice: 'ignore'"),
        (["--request", "-"], "{", "Invalid JSON"),
        (["--request", "-"], '{"input": "a.jsonl", "output": "b.jsonl", "modle": "x"}', "modle: Extra inputs"),
        (["--request", "/no/such/file"], "", "cannot read the request file /no/such/file"),
        (["--request", "-", "--device", "cpu"], "{}", r"--request holds the whole request.*--device"),
        (["--input", "a.pkl", "--output", "b.jsonl"], "", "(?i)pickle"),
    ],
)
def test_a_wrong_request_ends_with_2(arguments: list[str], stdin: str, message: str) -> None:
    code, stdout, stderr = run("evaluate", *arguments, stdin=stdin)
    assert (code, stdout) == (2, "")
    assert re.search(message, stderr), stderr
    assert "Traceback" not in stderr


def test_a_failed_job_ends_with_1_and_a_reason(tmp_path: Path) -> None:
    code, stdout, stderr = run("evaluate", "--input", f"{tmp_path}/none.jsonl", "--output", f"{tmp_path}/out.jsonl")
    assert (code, stdout) == (1, "")
    assert f"ERROR: {tmp_path}/none.jsonl does not exist" in stderr
    assert "Traceback" not in stderr


def test_a_terminated_job_ends_with_1_and_leaves_nothing(shapes_dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(shapes_dataset, tmp_path / "data")
    captions = data / "captions.jsonl"
    captions.write_text(captions.read_text() * 500)
    before = sorted(path.name for path in data.iterdir())
    flags = ["--input", str(captions), "--output", f"{data}/out.jsonl", "--model", SHAPES]
    process = subprocess.Popen(
        [sys.executable, "-m", "clip_operator", "evaluate", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Row 14 has no score" in line:
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "stopped before all rows were scored" in stderr
    assert sorted(path.name for path in data.iterdir()) == before


def test_a_pod_gets_its_request_as_an_argument_and_says_nothing_on_standard_output(
    shapes_dataset: Path, tmp_path: Path
) -> None:
    request = {"input": str(shapes_dataset / "captions.jsonl"), "output": str(tmp_path / "out.jsonl"), "model": SHAPES}
    log = tmp_path / "termination-log"
    arguments = ["--quiet", "--termination-log", str(log), "--request-json", json.dumps(request)]
    code, stdout, stderr = run("evaluate", *arguments)
    assert (code, stdout) == (0, ""), stderr
    assert (tmp_path / "out.jsonl").exists()
    assert not log.exists()


@pytest.mark.parametrize(
    ("request_fields", "code", "words"),
    [
        ({"input": "/no/such/é.jsonl", "output": "/tmp/out.jsonl"}, 1, "/no/such/é.jsonl"),
        ({"input": "in.jsonl"}, 2, "the request is not valid: output: must be given"),
    ],
)
def test_the_error_that_ends_a_pod_is_in_its_termination_log(
    request_fields: dict[str, str], code: int, words: str, tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    arguments = ["--termination-log", str(log), "--request-json", json.dumps({**request_fields, "model": SHAPES})]
    ended, _, stderr = run("evaluate", *arguments)
    assert ended == code
    assert words in log.read_text()
    assert log.read_text().startswith("ERROR: ")
    assert log.read_text() in stderr


def test_a_termination_log_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    code, _, stderr = run("evaluate", "--termination-log", str(tmp_path), "--request-json", "{")
    assert code == 2
    assert "ERROR: the request is not valid" in stderr


def test_a_long_error_keeps_its_beginning_where_kubernetes_reads_only_the_last_4096_bytes(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    wrong = json.dumps({f"no_such_field_{number}": number for number in range(200)})
    code, _, stderr = run("evaluate", "--termination-log", str(log), "--request-json", wrong)
    assert code == 2
    assert len(log.read_bytes()) == 4096
    assert log.read_text().startswith("ERROR: the request is not valid")
    assert log.read_text() in stderr


FORGED = "a\nERROR: forged\r\x1b[2KERROR: forged\u2028ERROR: forged\x85::endgroup::"


def test_names_in_a_store_forge_no_line_of_the_log(s3: S3, tmp_path: Path) -> None:
    s3.put(f"parts/{FORGED}.jsonl", b"{no json\n")
    log = tmp_path / "termination-log"
    request = {"input": f"s3://{s3.bucket}/parts/", "output": str(tmp_path / "out.jsonl"), "model": SHAPES}
    arguments = ["--termination-log", str(log), "--request-json", json.dumps(request)]
    code, _, stderr = run("evaluate", *arguments, **s3.store.environment)
    assert code == 1
    assert r"a\nERROR: forged\r\x1b[2KERROR: forged\u2028ERROR: forged\x85\x3a:endgroup::.jsonl" in stderr
    assert len(log.read_text().splitlines()) == 1, "of one error"
    assert log.read_text() in stderr
    assert all(re.match(r"(INFO|WARNING|ERROR): ", line) for line in stderr.splitlines()), stderr
    assert last_error(stderr.splitlines()) == log.read_text().removeprefix("ERROR: ")


def test_names_of_what_is_left_behind_forge_no_line(shapes_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "a\nNothing is left behind\x1b[2K.jsonl"
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", str(output), "--model", SHAPES]
    assert run("evaluate", *flags, "--max-error-rate", "0.01")[0] == 1
    code, stdout, _ = run("leftovers", f"{tmp_path}/")
    assert code == 0
    assert stdout.splitlines()[0] == rf"{tmp_path}/a\nNothing is left behind\x1b[2K.jsonl (not complete)"


def ending_with(error: str) -> list[str]:
    """Return a command whose evaluation ends with an error that nobody has thought of."""
    script = (
        "import sys, types\n"
        f"def evaluate(*_, **__): raise {error}\n"
        "sys.modules['clip_operator.job.evaluation'] = types.SimpleNamespace(evaluate=evaluate)\n"
        "from clip_operator.cli import main\n"
        "sys.exit(main(['evaluate', '--input', 'a.jsonl', '--output', 'b.jsonl']))\n"
    )
    return [sys.executable, "-c", script]


BUG = "ValueError('https://u:hush@h/x?sig=hush\\nERROR: forged')"


def test_a_bug_is_told_in_one_line_and_its_traceback_forges_none(tmp_path: Path) -> None:
    ended = subprocess.run(ending_with(BUG), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert lines[0] == r"ERROR: ValueError: https://h/x?…\nERROR: forged"
    assert "Traceback (most recent call last):" in ended.stderr
    assert [line for line in lines[1:] if not line.startswith("  ")] == []
    assert "hush" not in ended.stderr


def test_at_a_terminal_a_bug_is_told_without_its_traceback(tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    ended = subprocess.run(ending_with(BUG), stdout=terminal, stderr=terminal, check=False, cwd=tmp_path)
    os.close(terminal)
    assert ended.returncode == 1
    lines = os.read(screen, 1 << 16).decode().splitlines()
    os.close(screen)
    assert lines[0] == r"ERROR: ValueError: https://h/x?…\nERROR: forged"
    assert lines[1:] == [
        "ERROR: This is a fault of the program. Where 2> FILE keeps this log, it has the whole traceback"
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ModuleNotFoundError(name='pyarrow')", f"{sys.executable} has no 'pyarrow': install the package there with"),
        ("KeyboardInterrupt", "stopped"),
    ],
)
def test_what_is_nobodys_fault_has_no_traceback(error: str, message: str, tmp_path: Path) -> None:
    ended = subprocess.run(ending_with(error), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"ERROR: {message}")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--input", "s3://AKIA:hu/sh@bucket/x.jsonl", "--output", "b.jsonl"),
        ("evaluate", "--request-json", '{"input": "a.jsonl", "output": "https://h/b.jsonl?sig=hu/sh"}'),
        ("evaluate", "--inputs", "s3://AKIA:hu/sh@bucket/x.jsonl"),
        ("leftovers", "s3://AKIA:hu/sh@bucket/"),
        ("leftovers", "s3:AKIA:hu/sh@bucket/"),
        ("prune", "simplecache::s3://AKIA:hu/sh@bucket/", "--max-bytes", "0"),
        ("report", "https://host/x?X-Amz-Signature=hu/sh"),
        ("report", "x.manifest.json", "--output", "ftp://u:hu/sh@host/x.html"),
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(arguments: tuple[str, ...]) -> None:
    code, stdout, stderr = run(*arguments)
    assert code == 2
    assert "must not hold a password" in stderr or "unrecognized arguments" in stderr
    assert "hu/sh" not in stdout + stderr


def test_a_password_in_an_endpoint_stands_in_no_message() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    endpoint = f"http://user:hush@127.0.0.1:{server.getsockname()[1]}"
    server.close()  # so that nobody listens there
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    code, stdout, stderr = run("leftovers", "s3://bucket/x.jsonl", AWS_ENDPOINT_URL_S3=endpoint, **keys)
    assert code == 1
    assert "ERROR: " in stderr
    assert "hush" not in stdout + stderr


def test_a_request_is_given_in_one_way_only() -> None:
    code, _, stderr = run("evaluate", "--request", "a.json", "--request-json", "{}")
    assert code == 2
    assert "holds the whole request, so it goes with no other flag" in stderr


def test_what_a_run_that_died_has_left_is_shown_and_removed(shapes_dataset: Path, s3: S3) -> None:
    folder = s3.put_folder(shapes_dataset, "shapes")
    flags = ["--input", f"{folder}/captions.jsonl", "--output", f"{folder}/out.jsonl", "--model", SHAPES]
    code, _, stderr = run("evaluate", *flags, "--max-error-rate", "0.01", **s3.store.environment)
    assert code == 1
    assert "too many rows have no score: 4 of the 64 rows" in stderr
    upload = s3.client.create_multipart_upload(Bucket=s3.bucket, Key="shapes/out.jsonl")
    s3.client.upload_part(
        Bucket=s3.bucket, Key="shapes/out.jsonl", UploadId=upload["UploadId"], PartNumber=1, Body=b"a part"
    )
    for place in (f"{folder}/out.jsonl", f"{folder}/"):
        code, stdout, _ = run("leftovers", place, **s3.store.environment)
        assert code == 0
        described = (
            re.escape(f"{folder}/out.jsonl (not complete)\n")
            + r"  resume points: 1 \([\d,]+ bytes\), up to [\d-]+ [\d:]+ UTC\n"
            + r"  unfinished uploads: 1\n"
        )
        assert re.fullmatch(described, stdout)
    code, stdout, _ = run("leftovers", "--clean", f"{folder}/", **s3.store.environment)
    assert stdout.endswith("  removed\n")
    assert not [key for key in s3.object_keys() if "out.jsonl" in key]
    assert not s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads")
    code, stdout, _ = run("leftovers", f"{folder}/", **s3.store.environment)
    assert (code, stdout) == (0, f"Nothing is left behind at {folder}/\n")


def test_the_limits_for_single_reasons_are_given_as_pairs(shapes_dataset: Path, tmp_path: Path) -> None:
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    code, _, stderr = run("evaluate", *flags, "--max-error-rates", "image_unreadable=0.01,text_empty=0.5")
    assert code == 1
    assert "image_unreadable: 1 of the 64 rows (1.6 %), more than the 1 % of max_error_rates" in stderr
    code, _, stderr = run("evaluate", *flags, "--max-error-rates", "image_unreadabel=0.01")
    assert code == 2
    assert "--max-error-rates" in stderr
    assert "Traceback" not in stderr


def test_at_a_terminal_it_is_said_what_becomes_of_what_was_left(shapes_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", str(output), "--model", SHAPES]
    assert run("evaluate", *flags, "--max-error-rate", "0.01")[0] == 1
    hint = "The next try of the same work goes on with this. If there will be none, --clean removes it"
    code, screen = run_on_terminal("leftovers", str(output))
    assert (code, screen.splitlines()[-1]) == (0, hint)
    assert hint not in run("leftovers", str(output))[1]
    code, screen = run_on_terminal("leftovers", str(output), "--clean")
    assert (code, screen.splitlines()[-1]) == (0, "  removed")


def test_shards_that_wait_for_a_merge_are_shown_and_removed(shapes_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    fields = {"input": f"{shapes_dataset}/captions.jsonl", "output": str(output), "model": SHAPES}
    plan_shards(parse_request({**fields, "resume_point_rows": 16}), Storage(), shards=2)
    code, stdout, _ = run("leftovers", str(output))
    assert code == 0
    assert re.fullmatch(
        re.escape(f"{output} (not complete)\n") + r"  shards that wait for a merge: 1 objects \([\d,]+ bytes\)\n",
        stdout,
    )
    run("leftovers", "--clean", str(output))
    assert not list(tmp_path.rglob("plan.json"))


def test_a_score_store_is_filled_used_and_pruned(shapes_dataset: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "scores")
    for number, reused in enumerate([0, 60]):
        output = f"{tmp_path}/{number}.jsonl"
        flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", output, "--model", SHAPES]
        code, stdout, _ = run("evaluate", *flags, "--reuse", store)
        assert code == 0
        assert json.loads(stdout)["rows"]["reused"] == reused
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert run("prune", store)[0] == 2, "it has to be said what is to be removed"
    code, stdout, _ = run("prune", store, "--max-bytes", "0")
    assert code == 0
    assert re.fullmatch(
        re.escape(store) + r": removed [1-9]\d* packs of scores \([\d,]+ bytes\), kept 0 \(0 bytes\)\n", stdout
    )


def test_a_place_that_there_is_not_is_no_place_where_nothing_was_left(tmp_path: Path, s3: S3) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "step1.jsonl").touch()
    s3.put("steps/step1.jsonl", b"{}\n")
    bucket = f"s3://{s3.bucket}"
    for place in (
        f"{tmp_path}/empty/",
        f"{tmp_path}/steps/step1.jsonl",
        f"{bucket}/steps/",
        f"{bucket}/steps/step1.jsonl",
    ):
        code, stdout, _ = run("leftovers", place, **s3.store.environment)
        assert (code, stdout) == (0, f"Nothing is left behind at {place}\n")
    for place, problem in {
        f"{tmp_path}/stpes/": f"there is no folder {tmp_path}/stpes/",
        f"{tmp_path}/steps/step2.jsonl": f"there is no output at {tmp_path}/steps/step2.jsonl",
        f"{tmp_path}/steps": f"{tmp_path}/steps is a folder: name it with a slash at its end, as in {tmp_path}/steps/",
        f"{bucket}/stpes/": f"there is no folder {bucket}/stpes/; in an object store, that is one with nothing",
        f"{bucket}/steps/step2.jsonl": f"there is no output at {bucket}/steps/step2.jsonl",
        f"{bucket}/steps": f"{bucket}/steps is a folder",
    }.items():
        for clean in ([], ["--clean"]):
            code, stdout, stderr = run("leftovers", place, *clean, **s3.store.environment)
            assert (code, stdout) == (1, "")
            assert stderr.startswith(f"ERROR: {problem}")


def test_part_files_are_an_output_too(tmp_path: Path) -> None:
    (tmp_path / "part-00001-of-00002.jsonl").touch()
    code, stdout, _ = run("leftovers", f"{tmp_path}/part-*.jsonl")
    assert (code, stdout) == (0, f"Nothing is left behind at {tmp_path}/part-*.jsonl\n")
    assert run("leftovers", f"{tmp_path}/part-*.csv")[0] == 1


def test_a_score_store_that_never_was_is_not_pruned(shapes_dataset: Path, tmp_path: Path) -> None:
    store = tmp_path / "scores"
    code, stdout, stderr = run("prune", str(store), "--max-bytes", "0")
    assert (code, stdout) == (1, "")
    assert stderr == f"ERROR: there is no score store at {store}; name the one that reuse names\n"
    flags = ["--input", f"{shapes_dataset}/captions.jsonl", "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    assert run("evaluate", *flags, "--reuse", str(store))[0] == 0
    assert run("prune", str(store), "--max-bytes", "0")[0] == 0
    code, stdout, _ = run("prune", str(store), "--max-bytes", "0")
    assert (code, stdout) == (0, f"{store}: removed 0 packs of scores (0 bytes), kept 0 (0 bytes)\n"), "it is empty"

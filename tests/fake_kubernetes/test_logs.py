"""Logs as the real client reads and follows them, and connections that break."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ProtocolError

from tests.fake_kubernetes import FakeKubernetes
from tests.fake_kubernetes.manifests import has_phase, pod
from tests.fake_kubernetes.objects import time_text


def read_lines(api: CoreV1Api, name: str, **options: Any) -> list[str]:
    """Read a log as bytes came: the client's own decoding is not to be relied on."""
    response = api.read_namespaced_pod_log(name, "default", _preload_content=False, **options)
    return b"".join(response.stream()).decode().splitlines()


def test_stdout_and_stderr_are_one_log_in_order(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo 1; echo 2 >&2; echo 3; printf unfinished"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert read_lines(api, "one") == ["1", "2", "3", "unfinished"]
    assert read_lines(api, "one", tail_lines=2) == ["3", "unfinished"]
    assert read_lines(api, "one", follow=True) == ["1", "2", "3", "unfinished"]


def test_lines_carry_the_time_at_which_they_came(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    before = time.time()
    api.create_namespaced_pod("default", pod("one", "echo a line; echo; echo another"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    stamps, texts = zip(*(line.split(" ", 1) for line in read_lines(api, "one", timestamps=True)), strict=True)
    assert texts == ("a line", "", "another")
    assert [len(stamp) for stamp in stamps] == [len("2026-01-31T12:34:56.123456789Z")] * 3
    assert list(stamps) == sorted(stamps)
    assert time_text(1_000_000_007, fraction=True) == "1970-01-01T00:00:01.000000007Z"
    assert before - 1 < datetime.fromisoformat(stamps[0]).timestamp() < time.time() + 1


def test_old_lines_are_left_out_on_request(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo old; sleep 1.2; echo new"))
    cluster.wait_for_log("new")
    assert read_lines(api, "one", since_seconds=1) == ["new"]
    assert read_lines(api, "one", since_seconds=1000) == ["old", "new"]
    with pytest.raises(ApiException, match="must be greater than 0"):
        read_lines(api, "one", since_seconds=0)


def test_a_followed_log_comes_line_by_line_and_ends_with_the_container(
    cluster: FakeKubernetes, api: CoreV1Api, tmp_path: Path
) -> None:
    # One gate for each line: the reader of a pipe may still be there when its next writer comes.
    gates = [tmp_path / line for line in ("second", "third")]
    for gate in gates:
        os.mkfifo(gate)
    api.create_namespaced_pod("default", pod("one", f"echo first; cat {gates[0]}; cat {gates[1]}"))
    cluster.wait_for_log("first")
    cluster.wait_until(has_phase("one", "Running"))
    stream = api.read_namespaced_pod_log("one", "default", follow=True, _preload_content=False).stream()
    assert next(stream) == b"first\n"
    for gate in gates:
        gate.write_text(f"{gate.name}\n")
        assert next(stream) == f"{gate.name}\n".encode()
    assert list(stream) == []


def test_a_log_stream_can_break_in_the_middle(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    api.create_namespaced_pod("default", pod("one", "echo 1; echo 2; echo 3"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    cluster.drop_log_stream(after_lines=2)
    stream = api.read_namespaced_pod_log("one", "default", follow=True, _preload_content=False).stream()
    received = b""
    while received != b"1\n2\n":
        received += next(stream)
    with pytest.raises(ProtocolError):
        next(stream)
    assert read_lines(api, "one", follow=True) == ["1", "2", "3"]


def test_a_container_has_to_be_chosen_where_there_are_several(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    manifest = pod("one", "echo from base")
    manifest["spec"]["containers"].append({**manifest["spec"]["containers"][0], "name": "side", "args": ["echo side"]})
    api.create_namespaced_pod("default", manifest)
    cluster.wait_until(has_phase("one", "Succeeded"))
    assert read_lines(api, "one", container="side") == ["side"]
    with pytest.raises(ApiException, match=r"choose one of: \[base side\]"):
        read_lines(api, "one")
    with pytest.raises(ApiException, match="container else is not valid for pod one"):
        read_lines(api, "one", container="else")


def test_a_long_line_and_bytes_that_are_no_text_come_whole(cluster: FakeKubernetes, api: CoreV1Api) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; printf '\\n\\377\\n'"
    api.create_namespaced_pod("default", pod("one", script))
    cluster.wait_until(has_phase("one", "Succeeded"))
    response = api.read_namespaced_pod_log("one", "default", _preload_content=False)
    assert b"".join(response.stream()) == b"x" * 300_000 + b"\n\xff\n"


def test_what_a_container_leaves_in_its_termination_log_is_in_its_status(
    cluster: FakeKubernetes, api: CoreV1Api
) -> None:
    api.create_namespaced_pod("default", pod("one", "printf '{\"rows\": 7}' > /dev/termination-log"))
    at_length = "head -c 5000 /dev/zero | tr '\\0' y > /tmp/last-words; printf z >> /tmp/last-words"
    api.create_namespaced_pod("default", pod("long", at_length, terminationMessagePath="/tmp/last-words"))
    cluster.wait_until(has_phase("one", "Succeeded"))
    cluster.wait_until(has_phase("long", "Succeeded"))

    def message(name: str) -> str:
        status = api.read_namespaced_pod(name, "default").status.container_statuses[0]
        return str(status.state.terminated.message)

    assert message("one") == '{"rows": 7}'
    assert message("long") == "y" * 4095 + "z"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done; exit 1", "".join(f"{n}\n" for n in range(20, 100))),
        ("echo why; echo words > /dev/termination-log; exit 1", "words\n"),
        ("echo all is well", None),
    ],
)
def test_the_end_of_the_log_stands_in_for_last_words(
    cluster: FakeKubernetes, api: CoreV1Api, script: str, message: str | None
) -> None:
    api.create_namespaced_pod("default", pod("one", script, terminationMessagePolicy="FallbackToLogsOnError"))
    cluster.wait_until(lambda cluster: cluster.pod("one")["status"]["phase"] in ("Succeeded", "Failed"))
    status = api.read_namespaced_pod("one", "default").status.container_statuses[0]
    assert status.state.terminated.message == message

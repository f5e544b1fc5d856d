"""Every promise in SECURITY.md names tests that hold it, as sentences; each is a test that runs."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import pytest

from tests.docs.pages import path_beside, text_of

_HELD = re.compile(r"\[`[^`\]]+`\]\((tests/[^)#]+\.py)\):((?: \*[^*]+\*,?)+)")
_SENTENCE = re.compile(r"\*([^*]+)\*")
_UNCONDITIONAL = {"skip", "skipif", "xfail"}


@dataclass(frozen=True)
class Promise:
    """A row of a table whose last column tells what it is held by."""

    words: str
    held_by: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        """The file and the name of each test."""
        return [
            (file, "test_" + re.sub(r"\W+", "_", sentence))
            for file, sentences in _HELD.findall(self.held_by)
            for sentence in _SENTENCE.findall(sentences)
        ]


def promises() -> list[Promise]:
    """Return the promises, in their order."""
    found = []
    inside = False
    for line in text_of("SECURITY.md").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[-1] == "Held by":
            inside = True
        elif inside and set(line) - set("|- ") and cells[-1] != "nothing needs to":
            found.append(Promise(cells[0], cells[-1]))
    return found


def test_there_are_promises() -> None:
    assert len(promises()) > 40


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.words[:60])
def test_a_promise_is_held_by_tests_that_run(promise: Promise) -> None:
    assert promise.tests, f"{promise.words} names no test"
    for file, name in promise.tests:
        assert name in running_tests(file), f"{file} has no {name}"


def running_tests(file: str) -> set[str]:
    """Return the names of a file's tests that nothing switches off."""
    tree = ast.parse(path_beside("SECURITY.md", file).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            attributes = {
                each.attr for mark in node.decorator_list for each in ast.walk(mark) if isinstance(each, ast.Attribute)
            }
            if not attributes & _UNCONDITIONAL:
                found.add(node.name)
    return found

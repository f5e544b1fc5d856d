"""The messages that the documentation explains are those that the code gives."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from demo.airflow_home import REPOSITORY
from tests.docs.pages import prose

PAGE = "docs/troubleshooting.md"

# Between these, too, a value may stand in a message: 'x' for {x!r}.
_GAP = re.compile(r"\s*['\"]?…['\"]?\s*")
_FEWEST_LETTERS = 12


@functools.cache
def spoken() -> list[str]:
    """Every text in the package's sources, with … for what is put into it."""
    found: list[str] = []
    for path in sorted((REPOSITORY / "plugins" / "clip_operator").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sd]", "…", node.value))
            elif isinstance(node, ast.BinOp):
                found.append("".join(_added(node)))
    return found


def _added(node: ast.expr) -> Iterator[str]:
    """The pieces of texts that are added to each other."""
    if isinstance(node, ast.BinOp):
        yield from _added(node.left)
        yield from _added(node.right)
    elif isinstance(node, ast.JoinedStr):
        yield from (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    else:
        yield "…"


def quoted() -> list[str]:
    """The messages in the first column of the page's tables."""
    return re.findall(r"^\| `(.+?)` \|", prose(PAGE), re.MULTILINE)


def test_there_are_messages_in_every_section() -> None:
    sections = prose(PAGE).split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections if "\n| `" not in section] == ["It runs, but"]
    assert len(quoted()) > 100


@pytest.mark.parametrize("message", quoted())
def test_a_message_stands_in_the_code(message: str) -> None:
    fragments = [fragment for fragment in _GAP.split(message) if fragment]
    assert max(map(len, fragments)) >= _FEWEST_LETTERS or message in spoken(), "too little to tell it from others"
    pattern = re.compile(".*?".join(re.escape(fragment) for fragment in fragments), re.DOTALL)
    assert any(pattern.search(text) for text in spoken())

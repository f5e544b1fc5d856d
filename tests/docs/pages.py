"""The documentation as the tests read it: its pages, and the blocks, links, anchors and commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.airflow_home import REPOSITORY

# In the order in which a reader meets them: what one page makes, a later one may use.
FIRST = ("README.md", "docs/quickstart.md")

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)|^\[[^\]]+\]: (\S+)$|<img src=\"([^\"]+)\"", re.MULTILINE)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """Where it stands, for a message."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a console block, and what the page says that it prints."""

    where: str
    text: str
    output: str

    @property
    def words(self) -> list[str]:
        """The command's words, as a shell splits them; without the comment behind it."""
        return shlex.split(self.text.replace("\\\n", " "), comments=True)


def pages() -> list[str]:
    """Return the paths of all pages, relative to the repository."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "benchmarks" / "README.md"]
    others = sorted(str(path.relative_to(REPOSITORY)) for path in found)
    return [*FIRST, *(page for page in others if page not in FIRST)]


def text_of(page: str) -> str:
    """Return a page's text."""
    return (REPOSITORY / page).read_text()


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages, or those in some languages."""
    return [block for page in pages() for block in _blocks(page) if not languages or block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = text_of(page)
    for match in _FENCE.finditer(text):
        indent = len(match[1])
        lines = [line[indent:] for line in match[3].splitlines()]
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], "\n".join(lines) + "\n")


def commands() -> list[Command]:
    """Return the commands of all console blocks, in the order in which a reader meets them."""
    return [command for block in blocks("console", "bash") for command in _commands(block)]


def _commands(block: Block) -> Iterator[Command]:
    # A command begins behind "$ " and ends with the first line without a backslash at its end; all else is output.
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE):
        if not part.strip():
            continue
        lines = part.splitlines()
        last = next(number for number, line in enumerate(lines) if not line.endswith("\\"))
        yield Command(block.where, "\n".join(lines[: last + 1]), "".join(f"{line}\n" for line in lines[last + 1 :]))


def prose(page: str) -> str:
    """Return a page's text without its blocks, at the same lines."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text_of(page))


def links(page: str) -> list[str]:
    """Return where a page's links and pictures lead."""
    return ["".join(match.groups(default="")) for match in _LINK.finditer(_INLINE_CODE.sub("", prose(page)))]


def inline_code(page: str) -> list[str]:
    """Return what stands between single backticks."""
    return _INLINE_CODE.findall(prose(page))


def anchors(page: str) -> set[str]:
    """Return the names by which a page's headings can be linked to, as GitHub makes them."""
    names = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(page)))
    return set(names)


def table_under(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows of all tables between a heading and the next one of its level or above."""
    text = prose(page)
    level = heading.split(" ")[0]
    start = text.index(heading) + len(heading)
    end = re.compile(rf"^#{{1,{len(level)}}} ", re.MULTILINE).search(text, start)
    section = text[start : end.start() if end else len(text)]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in rows]
    return [row for row in cells if any(row) and not set("".join(row)) <= set("-|")]


def path_beside(page: str, target: str) -> Path:
    """Return the file that a relative link on a page leads to."""
    return (REPOSITORY / page).parent / target

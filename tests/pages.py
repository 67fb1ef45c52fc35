"""The pages of the project, as blocks, tables and prose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.conftest import REPOSITORY

CHANGELOG: Final = ".github/CHANGELOG.md"
PAGES: Final = {
    name: (REPOSITORY / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "worker/README.md",
        "jobs/README.md",
        "infra/README.md",
        "tests/README.md",
        ".github/CONTRIBUTING.md",
        CHANGELOG,
    )
}
_HEADING: Final = re.compile(r"#+ (.+)")
_FENCE: Final = re.compile(r"\s*```(\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and section that it is in, and its language."""

    page: str
    section: str
    language: str
    text: str


def _read_blocks(page: str) -> Iterator[Block]:
    section, language, lines = "", None, list[str]()
    for line in PAGES[page].splitlines():
        fence = _FENCE.fullmatch(line)
        if fence and language is None:
            language, lines = fence[1], []
        elif fence and language is not None:
            yield Block(page, section, language, "".join(f"{one}\n" for one in lines))
            language = None
        elif language is not None:
            lines.append(line)
        elif heading := _HEADING.fullmatch(line):
            section = heading[1]


BLOCKS: Final = tuple(block for page in PAGES for block in _read_blocks(page))
#: The pages without their blocks.
PROSE: Final = {page: re.sub(r"(?ms)^ *```.*?^ *```$", "", text) for page, text in PAGES.items()}


def blocks(page: str, section: str, language: str) -> list[str]:
    """The blocks of a section in one language, in order."""
    return [block.text for block in BLOCKS if (block.page, block.section, block.language) == (page, section, language)]


def headings(page: str) -> list[str]:
    """The headings of a page, as links name them."""
    found = (heading[1] for line in PROSE[page].splitlines() if (heading := _HEADING.fullmatch(line)))
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found]


def section(page: str, title: str) -> str:
    """The prose of a section, with the sections below it."""
    _, level, rest = re.split(rf"(?m)^(#+) {re.escape(title)}$", PROSE[page], maxsplit=1)
    return re.split(rf"(?m)^#{{1,{len(level)}}} ", rest, maxsplit=1)[0]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, without its header."""
    found = re.findall(r"(?m)(?:^\|.*\n)+", f"{text}\n")
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in one.splitlines()[2:]] for one in found]


def quoted(text: str) -> list[str]:
    """What is marked as code."""
    return re.findall(r"`([^`\n]+)`", text)

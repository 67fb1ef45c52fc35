"""Manifests that are JSON: lines of it, and SageMaker's array."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TextIO

from worker.errors import ErrorCode, Reject
from worker.table import ImageRef, text_of
from worker.unpacking import MAX_LINE

_PIECE: Final = 64 * 1024


def members(line: str) -> dict[str, Any]:
    """Those of the JSON object that a line is; none where it is anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def from_lines(lines: Iterable[str]) -> Iterator[ImageRef]:
    """A reference for every line that is not blank."""
    for line in lines:
        if line.strip():
            document = members(line)
            ref = document.get("source-ref")
            if not isinstance(ref, str) or not _encodes(ref):
                yield ImageRef.of(line.strip())
            else:
                others = ((name, value) for name, value in document.items() if name != "source-ref")
                # An augmented manifest holds labels, and objects about them: what fits into a cell is kept.
                cells = {name: text_of(value) for name, value in others if isinstance(value, str | int | float)}
                yield ImageRef.of(ref, columns={name: cell for name, cell in cells.items() if _encodes(name + cell)})


def from_array(text: TextIO, uri: str) -> Iterator[ImageRef]:
    """What follows the opening bracket, one item at a time:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html .
    """
    items = _items(text, uri)
    head = next(items, None)
    if not (isinstance(head, dict) and isinstance(head.get("prefix"), str) and _encodes(head["prefix"])):
        begins = json.dumps(head)[:100]
        raise Reject(
            ErrorCode.BAD_MANIFEST, f"{uri}: expected a JSON array with a prefix first; the array begins with {begins}"
        )
    for item in items:
        known = isinstance(item, str) and _encodes(item)
        yield ImageRef.of(head["prefix"] + item if known else json.dumps(item))


def _items(text: TextIO, uri: str) -> Iterator[Any]:
    """The items of a JSON array whose bracket was read already."""
    decoder = json.JSONDecoder()
    buffer, place, ended = "", 0, False
    while True:
        while place < len(buffer) and buffer[place] in " \t\r\n,":
            place += 1
        try:
            if buffer[place : place + 1] == "]":
                return
            item, stop = decoder.raw_decode(buffer, place)
            if stop == len(buffer) and not ended:
                raise ValueError("a number may go on")  # noqa: TRY301 - as an item that is cut
        except (ValueError, RecursionError):
            more = text.read(_PIECE)
            ended = not more
            if ended or len(buffer) - place > MAX_LINE:
                raise Reject(ErrorCode.BAD_MANIFEST, f"{uri}: JSON breaks off at {buffer[place:][:100]!r}") from None
            buffer, place = buffer[place:] + more, 0
            continue
        yield item
        place = stop


def _encodes(text: str) -> bool:
    """Whether a CSV could hold it: a lone surrogate is JSON, and no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The page on which a person labels images: one HTML file, images included.

    render_labelling_page(images, title="photos", classes=("cat", "dog"), key="3f9a…", file_name="labels.csv")

The browser keeps what was said, under ``key``, and its Save downloads a labelled list: the bytes that
``labelled_list_csv`` would write. The only script is ``labelling.js``. The Content-Security-Policy names it, and the
style, by their digests, and the page can reach nothing but, where it is ``served``, the server it came from.
"""

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from jobs import html
from jobs.labelled_list import COLUMNS, LabelledLine, labelled_list_csv
from jobs.printable import printable
from worker.predictions import unguarded

#: Characters that could end the element that holds a JSON document, or start another one.
_MARKUP: Final = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}

#: What a label is called that is blank in the list.
UNSURE: Final = "unsure"
_JPEG: Final = b"\xff\xd8\xff"


@dataclass(frozen=True)
class PageImage:
    """An image of the page."""

    source_ref: str  #: as the labelled list has it
    name: str  #: what a person reads: the name of the file
    thumbnail: bytes | None  #: WebP or JPEG; None: it cannot be shown, and ``problem`` says why
    problem: str | None = None
    said: str | None = None  #: what the model said, where the person may see it
    score: float | None = None


def render_labelling_page(  # noqa: PLR0913 - two of them have defaults that fit a page that is opened as a file
    images: Sequence[PageImage],
    *,
    title: str,
    classes: tuple[str, str],
    key: str,
    file_name: str,
    intro: str = "",
    kept: Iterable[LabelledLine] = (),
    served: bool = False,
) -> bytes:
    """Renders the page, in UTF-8.

    The first of ``classes`` is the one on the left, with the colour of class 0. ``kept`` are the lines of the list as
    it was before: what Save writes has all of them, and those of images of the page are their answers until the person
    gives another one. A ``served`` page sends each answer to its server (``jobs.labelling.serving``) instead.
    """
    facts: dict[str, Any] = {
        "key": key,
        "file": file_name,
        "classes": classes,
        "names": [*map(printable, classes), UNSURE],
        "columns": COLUMNS,
        "served": served,
        "images": [_facts(image) for image in images],
        "kept": _cells(kept),
    }
    page = html.render(
        "labelling_page.html.j2",
        title=title,
        intro=intro,
        classes=classes,
        served=served,
        total=len(images),
        style=Markup("\n").join(html.source(name) for name in ("colours.css", "labelling.css")),
        script=html.source("labelling.js"),
        facts=Markup(json.dumps(facts).translate(_MARKUP)),  # noqa: S704 - nothing in it is markup any more
        thumbnails=Markup("\n".join(_data_uri(image.thumbnail) for image in images)),  # noqa: S704 - base64
    )
    return page.encode()


def _data_uri(thumbnail: bytes | None) -> str:
    if thumbnail is None:
        return ""
    kind = "jpeg" if thumbnail.startswith(_JPEG) else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(thumbnail).decode()}"


def _facts(image: PageImage) -> dict[str, Any]:
    """Returns what the script needs of an image, without what it lacks."""
    texts = {"name": image.name, "problem": image.problem, "said": image.said}
    facts: dict[str, Any] = {name: printable(text) for name, text in texts.items() if text is not None}
    return {"ref": image.source_ref} | facts | ({} if image.score is None else {"score": image.score})


def _cells(lines: Iterable[LabelledLine]) -> list[list[str]]:
    """Returns the cells of lines as the list has them, but for what guards them from a spreadsheet."""
    rows = csv.reader(io.StringIO(labelled_list_csv(lines).decode(), newline=""))
    return [[unguarded(cell) for cell in row] for row in rows][1:]

"""A strict HTML reader for the tests of both reports, and what must hold of each page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}

#: Names that try to break out of the page or to hide: markup, formulas, templates, and characters that are control
#: characters, invisible, or reorder the text around them. Each is shown as the second text.
HOSTILE = [
    pytest.param("</style><script>alert(1)</script>", "</style><script>alert(1)</script>", id="script"),
    pytest.param("\"'><img src=x onerror=alert(1)>", "\"'><img src=x onerror=alert(1)>", id="attribute"),
    pytest.param("=cmd|'/c calc'!A1", "=cmd|'/c calc'!A1", id="formula"),
    pytest.param("{{ 7*7 }}&lt;", "{{ 7*7 }}&lt;", id="template"),
    pytest.param("a\u202egpj.exe", r"a\u202egpj.exe", id="right-to-left override"),
    pytest.param("a\x01\x7f.jpg", r"a\x01\x7f.jpg", id="control characters"),
    pytest.param("a\u200b\ufeff.jpg", r"a\u200b\ufeff.jpg", id="zero width"),
    pytest.param("a\u2066\u061c\u2029.jpg", r"a\u2066\u061c\u2029.jpg", id="isolate, mark, separator"),
    pytest.param("https://u:p@host/a.jpg?X-Amz-Signature=5ec7e7", "https://host/a.jpg", id="presigned address"),
]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Fails unless every element is closed, in order."""

    html: str
    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in <{tag}>"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag
        if tag in {"td", "th", "p", "li", "caption", "small", "dd", "dt"}:
            self.handle_data(" ")  # apart on the page

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str) -> Iterator[Element]:
        return (element for element in self.elements if element.tag == tag)

    @property
    def text(self) -> str:
        """The text of the body, with every run of white space as one space."""
        return re.sub(r"\s+", " ", next(self.all("body")).text)


def assert_self_contained(page: Page, *, citations: frozenset[str] = frozenset()) -> None:
    """The page loads nothing and runs nothing, and its Content-Security-Policy makes the browser enforce that."""
    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & {e.tag for e in page.elements}
    assert all(e.attributes["src"].startswith("data:image/") for e in page.all("img"))
    assert all("src" not in e.attributes for e in page.elements if e.tag != "img")
    hrefs = {e.attributes["href"] for e in page.elements if "href" in e.attributes}
    assert {href for href in hrefs if not href.startswith("#")} == citations
    assert {href[1:] for href in hrefs if href.startswith("#")} <= {e.attributes.get("id", "") for e in page.elements}
    assert not any(name.startswith("on") for e in page.elements for name in e.attributes)
    assert "url(" not in page.html
    assert "@import" not in page.html


def assert_only_text(hostile: Page, sound: Page) -> None:
    """Hostile names add no element and no attribute, no character of the page is invisible, and no address signed."""
    assert {e.tag for e in hostile.elements} == {e.tag for e in sound.elements}
    assert {a for e in hostile.elements for a in e.attributes} == {a for e in sound.elements for a in e.attributes}
    unseen = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
    assert re.findall(unseen, hostile.html) == []
    assert "X-Amz-Signature" not in hostile.html


def assert_axes_have_numbers(page: Page) -> None:
    """Every chart has a number at 0 or at both ends of its y axis, three or more below, and the names of both axes."""
    for chart in re.findall(r"<svg.*?</svg>", page.html, re.DOTALL):
        names = re.findall(r'<text class="axis[^>]*>([^<]+)', chart)
        beside, below = (re.findall(rf'<text class="tick {end}"[^>]*>([^<]+)', chart) for end in ("end", "mid"))
        assert len(names) == 2, chart
        assert all(re.search(r"\d", number) for number in beside + below), chart
        assert len(beside) >= 2, chart
        assert len(below) >= 2, chart

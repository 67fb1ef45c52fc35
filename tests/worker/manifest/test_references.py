"""Manifests: every reference comes back as it was given, and a file that is no manifest is refused in words."""

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from worker.contract import ManifestFormat, ManifestRef
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef
from worker.manifest.references import references
from worker.manifest.text import BOMB_BYTES

characters = st.characters(exclude_categories=["Cs"])
#: Any reference, most of them of the kind that lists break on.
refs = st.text(st.sampled_from(" +%\"',;=#\n\r\t\0\x0b\x1c\x85\u2028\ufeff/é😀") | characters, max_size=20)
ref_lists = st.lists(refs, min_size=1, max_size=8)

NASTY = ["s3://b/a b.jpg", "s3://b/a+b%20c.jpg", 's3://b/"q",\'.jpg', "s3://b/é😀\u2028.jpg", "s3://b/a b.jpg", ""]
NAMES = ["list.csv", "list.csv.gz", "list.jsonl", "list.manifest", "list"]


def _csv(lines: list[list[str]], *, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows(lines)  # type: ignore[arg-type]
    return text.getvalue().encode()


def _jsonl(references: list[str], *, ascii_only: bool = True) -> bytes:
    return "".join(json.dumps({"source-ref": ref}, ensure_ascii=ascii_only) + "\n" for ref in references).encode()


def _read(data: bytes, *, uri: str = "s3://shelter/list", declared: ManifestFormat | None = None) -> list[str]:
    return [ref.source_ref for ref in _refs(data, uri=uri, declared=declared)]


def _refs(data: bytes, *, uri: str = "s3://shelter/list", declared: ManifestFormat | None = None) -> list[ImageRef]:
    def opener(asked: str, version_id: str | None) -> Iterator[bytes]:
        assert (asked, version_id) == (uri, None)
        # In pieces of odd sizes, as a network has them.
        return (data[place : place + 7 + place] for place in _places(len(data)))

    return list(references(ManifestRef(uri=uri, format=declared), opener=opener, lister=lambda _: ()))


def _places(size: int) -> Iterator[int]:
    place = 0
    while place < size:
        yield place
        place += 7 + place


def _refusal(data: bytes, *, declared: ManifestFormat | None = None) -> str:
    with pytest.raises(Reject) as caught:
        _read(data, declared=declared)
    assert caught.value.code is ErrorCode.BAD_MANIFEST
    assert caught.value.message.startswith("s3://shelter/list: ")
    assert len(caught.value.message) < 1000
    return caught.value.message


@given(references=ref_lists, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), packed=st.booleans())
@example(references=NASTY, quoting=csv.QUOTE_MINIMAL, packed=True)
def test_a_csv_gives_back_its_references(references: list[str], quoting: int, *, packed: bool) -> None:
    """In order, the same one twice included, to the character."""
    data = _csv([["source_ref"], *([ref] for ref in references)], quoting=quoting)
    assert _read(gzip.compress(data, 1) if packed else data) == references


@given(references=ref_lists, ascii_only=st.booleans(), packed=st.booleans())
@example(references=NASTY, ascii_only=False, packed=True)
def test_json_lines_give_back_their_references(references: list[str], *, ascii_only: bool, packed: bool) -> None:
    """As SageMaker writes them, escaped or not."""
    data = _jsonl(references, ascii_only=ascii_only)
    assert _read(gzip.compress(data, 1) if packed else data) == references


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_form_is_told_from_the_content(kind: str, name: str, *, packed: bool) -> None:
    """Names lie; a CSV's header and a JSON line announce themselves."""
    data = _csv([["source_ref"], ["s3://b/k"]]) if kind == "csv" else _jsonl(["s3://b/k"])
    assert _read(gzip.compress(data) if packed else data, uri=f"s3://shelter/{name}") == ["s3://b/k"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_byte_order_mark_line_ends_and_the_last_newline_change_nothing(
    kind: str, bom: bytes, line_end: bytes, *, last: bool
) -> None:
    """As spreadsheets and editors leave files behind."""
    lines = [b"source_ref", b"s3://b/a.jpg", b"s3://b/b.jpg"] if kind == "csv" else _jsonl(["s3://b/a.jpg"] * 2).split()
    lines = [b'{"source-ref":"s3://b/a.jpg"}', b'{"source-ref":"s3://b/b.jpg"}'] if kind == "jsonl" else lines
    data = bom + line_end.join(lines) + (line_end if last else b"")
    assert _read(data) == ["s3://b/a.jpg", "s3://b/b.jpg"]


def test_other_columns_and_keys_are_ignored() -> None:
    """A prediction CSV is a manifest, and so is SageMaker's augmented one."""
    table = [["row", "source_ref", "note"], ["0", "s3://b/a", "x"], ["1", "s3://b/b"], ["2", "s3://b/c", "y", "z"]]
    assert _read(_csv(table)) == ["s3://b/a", "s3://b/b", "s3://b/c"]
    line = {"label": 1, "source-ref": "s3://b/a", "meta": {"source-ref": "s3://b/z"}}
    assert _read(json.dumps(line).encode()) == ["s3://b/a"]


def test_a_blank_line_asks_for_nothing() -> None:
    """Between, before and after the lines that do."""
    assert _read(b"source_ref\n\ns3://b/a\n\n\ns3://b/b\n\n") == ["s3://b/a", "s3://b/b"]
    assert _read(b'\n{"source-ref":"s3://b/a"}\n\n  \n{"source-ref":"s3://b/b"}\n\n') == ["s3://b/a", "s3://b/b"]
    assert _read(b"\n\nsource_ref\ns3://b/a\n") == ["s3://b/a"]


def test_a_cut_last_line_costs_its_own_row_alone() -> None:
    """What is left of it stands for itself, and fails later as an image that is not there."""
    assert _read(_jsonl(["s3://b/a", "s3://b/b"])[:-5]) == ["s3://b/a", '{"source-ref": "s3://b']
    assert _read(_csv([["source_ref"], ["s3://b/a"], ["s3://b/b.jpg"]])[:-5]) == ["s3://b/a", "s3://b/b."]


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"null",
        b"7",
        b"[]",
        b'"s3://b/a"',
        b'{"source-ref": null}',
        b'{"source-ref": ["s3://b/a"]}',
        b'{"source_ref": "s3://b/a"}',
        b"<html>",
        b"[" * 5000,
        b"1" * 5000,
    ],
)
def test_a_json_line_that_holds_no_reference_costs_its_own_row_alone(line: bytes) -> None:
    """One row each, in its place, and the rest is answered."""
    data = b'{"source-ref": "s3://b/a"}\n' + line + b'\n{"source-ref": "s3://b/b"}\n'
    assert _read(data) == ["s3://b/a", line.decode()[:2048], "s3://b/b"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@given(references=st.lists(st.from_regex(r"s3://[a-z]{3,9}/\w{1,9}", fullmatch=True), min_size=1), data=st.data())
def test_a_byte_that_is_no_utf8_costs_its_own_row_alone(kind: str, references: list[str], data: st.DataObject) -> None:
    """Latin-1 in one key of a list does not lose the others."""
    place = data.draw(st.integers(0, len(references) - 1))
    bad = data.draw(st.binary(min_size=1, max_size=3).filter(lambda b: min(b) >= 0x80 and b.decode(errors="replace")))
    bad += b"\xff"
    lines = [ref.encode() for ref in references]
    lines[place] = b"s3://b/" + bad
    if kind == "csv":
        body = b"source_ref\n" + b"\n".join(lines)
    else:
        body = b"\n".join(b'{"source-ref": "' + line + b'"}' for line in lines)
    found = _read(body)
    assert len(found) == len(references)
    assert "\\xff" in found[place]
    found[place] = references[place]
    assert found == references


def test_an_escaped_lone_surrogate_costs_its_own_row_alone() -> None:
    """It is no text that could be written to the CSV: it is, as an escape."""
    first, bad, last = _read(b'{"source-ref": "a"}\n{"source-ref": "s3://b/\\ud800"}\n{"source-ref": "b"}\n')
    assert (first, last) == ("a", "b")
    assert "\\ud800" in bad


def test_a_reference_that_is_too_long_is_cut_and_still_a_row() -> None:
    """At 2,048 characters, as in a request: it fails as that row."""
    assert _read(_csv([["source_ref"], ["a" * 3000], ["s3://b/k"]])) == ["a" * 2048, "s3://b/k"]


@pytest.mark.parametrize("reference", ['"s3://b/a.jpg', 's3://b/b.jpg\n"s3://b/a.jpg'])
def test_a_quote_that_is_never_closed_swallows_no_rows(reference: str) -> None:
    """It would make one reference of all lines after it: such a file is refused, not answered with rows missing."""
    _refusal(f"source_ref\n{reference}\ns3://b/c.jpg\ns3://b/d.jpg\n".encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no lines"),
        (b"\xef\xbb\xbf", "no lines"),
        (b" \n\r\n\t\n", "no lines"),
        (gzip.compress(b""), "no lines"),
        (b"source_ref\n", "no images"),
        (b"source_ref", "no images"),
        (b"row,source_ref\n\n\n", "no images"),
        (b"<html>\n<body>no such bucket</body>", "<html>"),
        (b"s3://b/a.jpg\ns3://b/b.jpg\n", "s3://b/a.jpg"),
        (b"path,label\ns3://b/a.jpg,cat\n", "path,label"),
        (b'["s3://b/a.jpg"]', 'the array begins with "s3://b/a.jpg"'),
        (b"source_ref;label\ns3://b/a.jpg;cat\n", "source_ref;label"),
        ("source_ref\ns3://b/a.jpg\n".encode("utf-16"), "first line"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"PK\x03\x04 a zip", "zip"),
        (b"a" * 200_000, "aaaa"),
        (b"\xff" * 200_000, "xff"),
        (b"\0" * 1000, "first line"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_in_words(data: bytes, said: str) -> None:
    """The message shows the first line, or says that there is none."""
    message = _refusal(data)
    assert said in message
    if "first line" in message:
        assert "source_ref" in message


@pytest.mark.parametrize(
    "data",
    [
        b"\x1f\x8b",
        b"\x1f\x8b" + b"\0" * 100,
        gzip.compress(b"source_ref\ns3://b/a\n" * 100)[:-9],
        gzip.compress(b"source_ref\ns3://b/a\n")[:12],
        gzip.compress(b"source_ref\ns3://b/a\n") + b"junk",
        gzip.compress(b"source_ref\ns3://b/a\n")[:-8] + b"\0" * 8,
    ],
)
def test_a_gzip_that_is_cut_or_altered_is_refused(data: bytes) -> None:
    """A part of a list is not the list: no row is lost in silence."""
    assert "cannot be unpacked" in _refusal(data)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"source_ref\n", b'{"', b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\0"])
)
def test_no_bytes_whatever_do_anything_but_list_or_be_refused(data: bytes, start: bytes) -> None:
    """A manifest comes from storage: it may be anything."""
    try:
        found = _read(start + data)
    except Reject:
        _refusal(start + data)
    else:
        assert found
        "".join(found).encode()  # can be written to the CSV


def test_a_form_that_was_declared_is_not_guessed() -> None:
    """A CSV declared as JSON Lines gives rows that fail, and JSON Lines declared as CSV have no header."""
    assert _read(b"source_ref\ns3://b/a\n", declared="jsonl") == ["source_ref", "s3://b/a"]
    assert "no column source_ref" in _refusal(_jsonl(["s3://b/a"]), declared="csv")
    assert "no column source_ref" in _refusal(b"a" * 5000 + b"\nx", declared="csv")
    assert "no column source_ref" in _refusal(b"a," * 5000 + b"\nx", declared="csv")


def test_a_bomb_is_refused_and_a_list_of_one_name_is_not() -> None:
    """Packed a thousand times, and more of it than a short list has."""
    assert "compressed over" in _refusal(
        gzip.compress(b"source_ref\n" + (b"s3://b/".ljust(1000, b"k") + b"\n") * (BOMB_BYTES // 900))
    )
    assert len(_read(gzip.compress(b"source_ref\n" + b"s3://b/k\n" * 300_000))) == 300_000


#: What can be in a gzip file of a few hundred KiB; several files one after the other are one.
BOMBS = {
    "a gigabyte": 'b"x" * (60 << 20), 17',
    "empty lines": 'b"\\n" * (60 << 20), 1',
    "no UTF-8": 'b"\\xff" * (60 << 20), 1',
    "a header and one line": 'b"source_ref\\n" + b"x" * (60 << 20), 1',
}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_take_much_memory(bomb: str) -> None:
    """A gzip bomb cannot end a worker in a small container: the process stays below 512 MiB."""
    code = f"""
import gzip, re
from worker.errors import Reject
from worker.manifest.references import references
from worker.contract import ManifestRef
content, times = {BOMBS[bomb]}
data = gzip.compress(content, 1) * times
try:
    for _ in references(ManifestRef(uri="s3://bucket/m"), opener=lambda *_: [data], lister=None): pass
except Reject:
    print(*re.findall(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert int(done.stdout) / 1024 < 512

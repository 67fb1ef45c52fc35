"""Manifests: every reference comes back as it was written, and any other file is refused with a reason."""

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

characters = st.characters(exclude_categories=["Cs"])
#: Any reference, with many of the characters that break lists.
refs = st.text(st.sampled_from(" +%\"',;=#\n\r\t\0\x0b\x1c\x85\u2028\ufeff/é😀") | characters, max_size=20)
ref_lists = st.lists(refs, min_size=1, max_size=8)

NASTY = ["s3://b/a b.jpg", "s3://b/a+b%20c.jpg", 's3://b/"q",\'.jpg', "s3://b/é😀\u2028.jpg", "s3://b/a b.jpg", ""]
NAMES = ["list.csv", "list.csv.gz", "list.jsonl", "list.manifest", "list"]


def _csv(lines: list[list[str]], *, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows(lines)  # type: ignore[arg-type]
    return text.getvalue().encode()


def _gzip(data: bytes, level: int = 1) -> bytes:
    """Without the clock: these bytes are the same whenever the tests are collected."""
    return gzip.compress(data, level, mtime=0)


def _jsonl(references: list[str], *, ascii_only: bool = True) -> bytes:
    return "".join(json.dumps({"source-ref": ref}, ensure_ascii=ascii_only) + "\n" for ref in references).encode()


def _read(data: bytes, *, uri: str = "s3://shelter/list", declared: ManifestFormat | None = None) -> list[str]:
    return [ref.source_ref for ref in _refs(data, uri=uri, declared=declared)]


def _refs(data: bytes, *, uri: str = "s3://shelter/list", declared: ManifestFormat | None = None) -> list[ImageRef]:
    def opener(asked: str, version_id: str | None) -> Iterator[bytes]:
        assert (asked, version_id) == (uri, None)
        # In pieces of any size, as from a network.
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
def test_a_csv_yields_its_references(references: list[str], quoting: int, *, packed: bool) -> None:
    """In order, with duplicates, character by character."""
    data = _csv([["source_ref"], *([ref] for ref in references)], quoting=quoting)
    assert _read(_gzip(data) if packed else data) == references


@given(references=ref_lists, ascii_only=st.booleans(), packed=st.booleans())
@example(references=NASTY, ascii_only=False, packed=True)
def test_json_lines_yield_their_references(references: list[str], *, ascii_only: bool, packed: bool) -> None:
    """As SageMaker writes them, with and without escapes."""
    data = _jsonl(references, ascii_only=ascii_only)
    assert _read(_gzip(data) if packed else data) == references


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_format_is_detected_from_the_content(kind: str, name: str, *, packed: bool) -> None:
    """And not from the file's name, which is often wrong."""
    data = _csv([["source_ref"], ["s3://b/k"]]) if kind == "csv" else _jsonl(["s3://b/k"])
    assert _read(_gzip(data) if packed else data, uri=f"s3://shelter/{name}") == ["s3://b/k"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["no BOM", "BOM"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["last newline", "no last newline"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_byte_order_mark_line_ends_and_the_last_newline_do_not_matter(
    kind: str, bom: bytes, line_end: bytes, *, last: bool
) -> None:
    """Spreadsheets and editors write all of these."""
    lines = [b"source_ref", b"s3://b/a.jpg", b"s3://b/b.jpg"] if kind == "csv" else _jsonl(["s3://b/a.jpg"] * 2).split()
    lines = [b'{"source-ref":"s3://b/a.jpg"}', b'{"source-ref":"s3://b/b.jpg"}'] if kind == "jsonl" else lines
    data = bom + line_end.join(lines) + (line_end if last else b"")
    assert _read(data) == ["s3://b/a.jpg", "s3://b/b.jpg"]


def test_other_columns_and_keys_are_ignored() -> None:
    """A prediction CSV is a manifest, and so is SageMaker's augmented manifest."""
    table = [["row", "source_ref", "note"], ["0", "s3://b/a", "x"], ["1", "s3://b/b"], ["2", "s3://b/c", "y", "z"]]
    assert _read(_csv(table)) == ["s3://b/a", "s3://b/b", "s3://b/c"]
    line = {"label": 1, "source-ref": "s3://b/a", "meta": {"source-ref": "s3://b/z"}}
    assert _read(json.dumps(line).encode()) == ["s3://b/a"]


@pytest.mark.parametrize("name", ["filename", "File Name", "image_path", "path", "s3-uri", "Image URL", "photo"])
def test_the_one_column_that_obviously_names_the_images_is_taken(name: str) -> None:
    """Without renaming it to source_ref. Its other columns are kept. A real source_ref comes first."""
    table = _csv([["label", name], ["cat", "s3://b/a, b.jpg"], ["dog", "c.jpg"]])
    found = [(ref.source_ref, ref.columns) for ref in _refs(table)]
    assert found == [("s3://b/a, b.jpg", {"label": "cat"}), ("c.jpg", {"label": "dog"})]
    assert _read(_csv([[name, "source_ref"], ["a", "s3://b/a"]])) == ["s3://b/a"]
    assert _read(_csv([[name], ["s3://b/a"]])) == ["s3://b/a"]


@pytest.mark.parametrize("first", ["s3://b/a b.jpg", "s3://b/key", "photos/a b.JPG", "a.tiff", "/mnt/é.webp"])
def test_a_list_may_have_one_path_a_line(first: str) -> None:
    """Without a header. Each line is one reference, whatever is in it."""
    lines = [first, "s3://b/a, b.jpg", 's3://b/"q".jpg']
    assert _read("\r\n".join(["", *lines, ""]).encode()) == lines


def test_blank_lines_are_skipped() -> None:
    """Before, between and after other lines."""
    assert _read(b"source_ref\n\ns3://b/a\n\n\ns3://b/b\n\n") == ["s3://b/a", "s3://b/b"]
    assert _read(b'\n{"source-ref":"s3://b/a"}\n\n  \n{"source-ref":"s3://b/b"}\n\n') == ["s3://b/a", "s3://b/b"]
    assert _read(b"\n\nsource_ref\ns3://b/a\n") == ["s3://b/a"]


def test_a_truncated_last_line_costs_only_its_own_row() -> None:
    """What is left of it is a reference, which fails later as a missing image."""
    assert _read(_jsonl(["s3://b/a", "s3://b/b"])[:-5]) == ["s3://b/a", '{"source-ref": "s3://b']
    assert _read(_csv([["source_ref"], ["s3://b/a"], ["s3://b/b.jpg"]])[:-5]) == ["s3://b/a", "s3://b/b."]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "null",
        "7",
        "[]",
        '"s3://b/a"',
        '{"source-ref": null}',
        '{"source-ref": ["s3://b/a"]}',
        '{"source_ref": "s3://b/a"}',
        "<html>",
        pytest.param("[" * 5000, id="deep lists"),
        pytest.param("1" * 5000, id="a long number"),
    ],
)
def test_a_json_line_without_a_reference_costs_only_its_own_row(line: str) -> None:
    """The row is in its place, and the rest is answered."""
    data = f'{{"source-ref": "s3://b/a"}}\n{line}\n{{"source-ref": "s3://b/b"}}\n'.encode()
    assert _read(data) == ["s3://b/a", line[:2048], "s3://b/b"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@given(references=st.lists(st.text("abcéß_9", min_size=1).map("s3://shelter/{}".format), min_size=1), data=st.data())
def test_a_byte_that_is_not_utf8_costs_only_its_own_row(kind: str, references: list[str], data: st.DataObject) -> None:
    """Latin-1 in one key does not lose the others."""
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


def test_an_escaped_lone_surrogate_costs_only_its_own_row() -> None:
    """A CSV cannot hold it, so it is written as an escape."""
    first, bad, last = _read(b'{"source-ref": "a"}\n{"source-ref": "s3://b/\\ud800"}\n{"source-ref": "b"}\n')
    assert (first, last) == ("a", "b")
    assert "\\ud800" in bad


def test_a_reference_that_is_too_long_is_cut_and_keeps_its_row() -> None:
    """At 2,048 characters, as in a request. It fails as that row."""
    assert _read(_csv([["source_ref"], ["a" * 3000], ["s3://b/k"]])) == ["a" * 2048, "s3://b/k"]


@pytest.mark.parametrize("reference", ['"s3://b/a.jpg', 's3://b/b.jpg\n"s3://b/a.jpg'])
def test_a_quote_that_is_never_closed_swallows_no_rows(reference: str) -> None:
    """It would turn all lines after it into one reference. Such a file is refused, not answered with rows missing."""
    _refusal(f"source_ref\n{reference}\ns3://b/c.jpg\ns3://b/d.jpg\n".encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no lines", id="empty"),
        pytest.param(b"\xef\xbb\xbf", "no lines", id="only a BOM"),
        pytest.param(b" \n\r\n\t\n", "no lines", id="only white space"),
        pytest.param(_gzip(b""), "no lines", id="gzip of nothing"),
        pytest.param(b"source_ref\n", "no images", id="only a header"),
        pytest.param(b"source_ref", "no images", id="only a header, no newline"),
        pytest.param(b"row,source_ref\n\n\n", "no images", id="a header and blank lines"),
        pytest.param(b"<html>\n<body>no such bucket</body>", "<html>", id="HTML"),
        pytest.param(b"s3://b/a.jpg,cat\ns3://b/b.jpg,dog\n", "one path a line", id="no header"),
        pytest.param(b"where,label\ns3://b/a.jpg,cat\n", "names the images, rename it to source_ref", id="other names"),
        pytest.param(b"path,url\na.jpg,b.jpg\n", "rename 'path' or 'url' to source_ref", id="two obvious names"),
        pytest.param(b'["s3://b/a.jpg"]', 'the array begins with "s3://b/a.jpg"', id="an array without a prefix"),
        pytest.param(b"source_ref;label\ns3://b/a.jpg;cat\n", "source_ref;label", id="semicolons"),
        pytest.param("\ufeffsource_ref\ns3://b/a.jpg\n".encode("utf-16-le"), "first line", id="UTF-16"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG", id="PNG"),
        pytest.param(b"PK\x03\x04 a zip", "zip", id="zip"),
        pytest.param(b"a" * 200_000, "aaaa", id="one long word"),
        pytest.param(b"\xff" * 200_000, "xff", id="one long line that is not UTF-8"),
        pytest.param(b"\0" * 1000, "first line", id="NULs"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    """The message shows the first line, or says that there is none."""
    message = _refusal(data)
    assert reason in message
    if "first line" in message:
        assert "source_ref" in message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x1f\x8b", id="two bytes"),
        pytest.param(b"\x1f\x8b" + b"\0" * 100, id="zeros"),
        pytest.param(_gzip(b"source_ref\ns3://b/a\n" * 100)[:-9], id="cut at its end"),
        pytest.param(_gzip(b"source_ref\ns3://b/a\n")[:12], id="cut in its header"),
        pytest.param(_gzip(b"source_ref\ns3://b/a\n") + b"junk", id="junk behind it"),
        pytest.param(_gzip(b"source_ref\ns3://b/a\n")[:-8] + b"\0" * 8, id="another checksum"),
    ],
)
def test_a_gzip_that_is_truncated_or_altered_is_refused(data: bytes) -> None:
    """A part of a list is not the list, so no row is lost silently."""
    assert "cannot be unpacked" in _refusal(data)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"source_ref\n", b'{"', b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\0"])
)
def test_any_bytes_are_listed_or_refused(data: bytes, start: bytes) -> None:
    """A manifest comes from storage and may be anything."""
    try:
        found = _read(start + data)
    except Reject:
        _refusal(start + data)
    else:
        assert found
        "".join(found).encode()  # can be written to the CSV


def test_a_declared_format_is_not_detected() -> None:
    """A CSV declared as JSON Lines gives rows that fail. JSON Lines declared as CSV have no header."""
    assert _read(b"source_ref\ns3://b/a\n", declared="jsonl") == ["source_ref", "s3://b/a"]
    assert "no column source_ref" in _refusal(_jsonl(["s3://b/a"]), declared="csv")
    assert "no column source_ref" in _refusal(b"a" * 5000 + b"\nx", declared="csv")
    assert "no column source_ref" in _refusal(b"a," * 5000 + b"\nx", declared="csv")


def test_a_bomb_is_refused_and_a_list_of_one_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is both highly compressed and large. The limits of production are tested below."""
    monkeypatch.setattr("worker.manifest.text.BOMB_BYTES", 1 << 20)
    assert "compressed over" in _refusal(_gzip(b"source_ref\n" + (b"s3://b/".ljust(1000, b"k") + b"\n") * 2_000, 9))
    assert len(_read(_gzip(b"source_ref\n" + b"s3://b/k\n" * 100_000, 9))) == 100_000


#: What a gzip file of a few hundred KiB can hold. Several gzip files in a row are one.
BOMBS = {
    "a gigabyte": 'b"x" * (60 << 20), 17',
    "empty lines": 'b"\\n" * (60 << 20), 1',
    "not UTF-8": 'b"\\xff" * (60 << 20), 1',
    "a header and one line": 'b"source_ref\\n" + b"x" * (60 << 20), 1',
}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_take_much_memory(bomb: str) -> None:
    """A gzip bomb does not kill a worker in a small container: the process stays below 512 MiB."""
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

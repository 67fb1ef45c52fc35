"""The manifests of S3 and SageMaker: every list of keys comes back as it was, in order."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.contract import ManifestRef
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef
from worker.manifest.references import references

#: Any key, with many of the characters that break lists.
characters = st.text(
    st.sampled_from(" +%\"',;=#&?\n\r\t/é😀\u2028[]{}")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=20,
)
key_lists = st.lists(characters.map("in/{}.jpg".format), min_size=1, max_size=8)
NASTY = ["in/a b+c%20\"d',;é😀\r\n.jpg", "in/a b.jpg", "in/[x]{y}.jpg", "in/a b.jpg"]
versions = st.sampled_from(["", "null", "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"])


def _table(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def _read(objects: dict[str, bytes], uri: str = "s3://lists/m", *, listed: list[str] | None = None) -> list[ImageRef]:
    def opener(asked: str, version_id: str | None) -> Iterator[bytes]:
        assert version_id is None
        if asked not in objects:
            raise Reject(ErrorCode.NOT_FOUND, f"{asked}: no such object")
        data = objects[asked]
        return (data[place : place + 11] for place in range(0, len(data), 11))

    return list(references(ManifestRef(uri=uri), opener=opener, lister=lambda _: listed or ()))


def _uris(keys: list[str]) -> list[str]:
    return [f"s3://shelter/{key}" for key in keys]


@given(keys=key_lists, packed=st.booleans(), data=st.data())
@example(keys=NASTY, packed=True, data=None)
def test_a_csv_with_bucket_and_key_yields_its_keys(keys: list[str], *, packed: bool, data: Any) -> None:
    """As they are. In a table with a header, keys are not URL-encoded."""
    wanted = [data.draw(versions) if data else "" for _ in keys]
    table = _table(
        [["Bucket", "Key", "VersionId", "note"], *(["shelter", k, v, "x"] for k, v in zip(keys, wanted, strict=True))]
    )
    found = _read({"s3://lists/m": gzip.compress(table, 1, mtime=0) if packed else table})
    assert [ref.source_ref for ref in found] == _uris(keys)
    assert [ref.version_id or "" for ref in found] == wanted
    assert found[0].columns == {"note": "x"}


@pytest.mark.parametrize("encode", [quote, quote_plus])
@given(keys=key_lists, version=st.sampled_from([None, "", "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"]))
@example(keys=NASTY, version=None)
def test_a_csv_of_s3_batch_operations_yields_its_keys(
    encode: Callable[..., str], keys: list[str], version: str | None
) -> None:
    """No header, URL-encoded keys, with or without a version."""
    rows = [["shelter", encode(key, safe="/"), *([] if version is None else [version])] for key in keys]
    found = _read({"s3://lists/m": _table(rows)})
    assert [ref.source_ref for ref in found] == _uris(keys)
    assert {ref.version_id for ref in found} == {version or None}


@given(
    keys=key_lists, prefix=st.sampled_from(["s3://shelter/", "s3://shelter/in", ""]), indent=st.sampled_from([None, 2])
)
@example(keys=NASTY, prefix="s3://shelter/", indent=2)
def test_a_manifest_file_of_sagemaker_yields_its_keys(keys: list[str], prefix: str, indent: int | None) -> None:
    """A JSON array with the prefix first, on one line or many, in pieces of any size."""
    array = json.dumps([{"prefix": prefix}, *keys], indent=indent).encode()
    assert [ref.source_ref for ref in _read({"s3://lists/m": array})] == [prefix + key for key in keys]


@given(keys=key_lists, versioned=st.booleans(), files=st.integers(1, 3), indent=st.sampled_from([None, 2]))
@example(keys=NASTY, versioned=True, files=2, indent=2)
def test_an_inventory_yields_its_keys(keys: list[str], files: int, indent: int | None, *, versioned: bool) -> None:
    """Through its manifest.json, which names gzipped CSV files. A delete marker is not an image."""
    columns = ["Bucket", "Key", *(["VersionId", "IsLatest", "IsDeleteMarker"] if versioned else []), "Size"]
    rows = [["shelter", quote_plus(key, safe="/"), *(["v", "true", "false"] if versioned else []), "7"] for key in keys]
    if versioned:
        rows.insert(1, ["shelter", "gone.jpg", "v", "true", "true", ""])
    size = -(-len(rows) // files)
    names = [f"inventory/{number}.csv.gz" for number in range(files)]
    objects = {
        f"s3://lists/{name}": gzip.compress(_table(rows[place * size : (place + 1) * size]), 1, mtime=0)
        for place, name in enumerate(names)
    }
    manifest = {
        "sourceBucket": "shelter",
        "destinationBucket": "arn:aws:s3:::lists",
        "version": "2016-11-30",
        "fileFormat": "CSV",
        "fileSchema": ", ".join(columns),
        "files": [{"key": name, "size": 1, "MD5checksum": "0"} for name in names],
    }
    objects["s3://lists/m"] = json.dumps(manifest, indent=indent).encode()
    found = _read(objects)
    assert [ref.source_ref for ref in found] == _uris(keys)
    assert found[0].columns == {"Size": "7"}
    assert found[0].version_id == ("v" if versioned else None)


@given(keys=key_lists)
@example(keys=NASTY)
def test_a_single_inventory_file_yields_its_keys(keys: list[str]) -> None:
    """The size in its third column is not taken for a version."""
    for extra in ([], ["7"], ["7", "2026-11-24T00:00:00.000Z", "STANDARD"], ["v", "true", "false", "7"]):
        rows = [["shelter", quote_plus(key, safe="/"), *extra] for key in keys]
        found = _read({"s3://lists/m": _table(rows)})
        assert [ref.source_ref for ref in found] == _uris(keys)
        assert {ref.version_id for ref in found} == {"v" if "v" in extra else None}


@given(keys=key_lists)
def test_a_prefix_yields_the_objects_below_it(keys: list[str]) -> None:
    """Except for objects that only mark a folder."""
    found = _read({}, "s3://shelter/in/", listed=[*_uris(keys), "s3://shelter/in/folder/"])
    assert [ref.source_ref for ref in found] == _uris(keys)


@pytest.mark.parametrize("uri", ["s3://shelter/in", "s3://shelter/in/", "s3://shelter"])
def test_a_listing_stays_inside_its_folder(uri: str) -> None:
    """To S3 a prefix is any start of a key: "in" is also that of "in-secret/a.jpg"."""
    asked: list[str] = []

    def lister(prefix: str) -> list[str]:
        asked.append(prefix)
        return [f"{prefix}a.jpg"]

    manifest = ManifestRef(uri=uri, format="listing")
    (found,) = references(manifest, opener=lambda *_: (), lister=lister)
    assert asked == [f"{uri.rstrip('/')}/"]
    assert found.source_ref == f"{uri.rstrip('/')}/a.jpg"


_INVENTORY = '{"fileSchema": "Bucket, Key", "fileFormat": "CSV", "destinationBucket": "b-1", "files": [FILE]}'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[]", "array begins with null"),
        ('["a.jpg"]', 'array begins with "a.jpg"'),
        ('[{"prefix": 7}, "a.jpg"]', "array begins with"),
        ('[{"prefix": "s3://b/"}]', "no images"),
        ('[{"prefix": "s3://b/"}, "a.jp', "truncated or invalid JSON"),
        ('[{"prefix": "s3://b/"}, "a.jpg"', "truncated or invalid JSON"),
        ('{"fileSchema": "Bucket, Key", "fileFormat": "ORC", "files": []}', "set it to CSV"),
        ('{"fileSchema": "Bucket, Key", "fileFormat": "CSV", "destinationBucket": "b-1", "files": []}', "no images"),
        ('{"fileSchema": "Bucket, Key", "fileFormat": "CSV", "files": []}', "a destinationBucket"),
        ('{"fileSchema": "Bucket", "fileFormat": "CSV", "destinationBucket": "b-1", "files": []}', "Bucket and Key"),
        ('{"fileSchema": "Key, Size", "fileFormat": "CSV", "destinationBucket": "b-1", "files": []}', "'Key, Size'"),
        (_INVENTORY.replace("FILE", "7"), "a key for each of its files"),
        (_INVENTORY.replace("FILE", '{"size": 7}'), "a key for each of its files"),
        (_INVENTORY.replace("FILE", '{"key": 7}'), "a key for each of its files"),
        ('{\n"fileFormat": "CSV"\n}', "expected a CSV"),
        ('{\n"a": ', "expected a CSV"),
        ("bucket,key\n", "no images"),
        ("shelter\n", "first line is 'shelter"),
    ],
)
def test_an_invalid_manifest_of_s3_is_refused_with_a_reason(body: str, reason: str) -> None:
    """The message names the object, and says what was expected or where it is truncated."""
    with pytest.raises(Reject) as caught:
        _read({"s3://lists/m": body.encode()})
    assert caught.value.code is ErrorCode.BAD_MANIFEST
    assert reason in caught.value.message
    assert caught.value.message.startswith("s3://lists/m")


def test_an_inventory_with_a_missing_file_is_refused() -> None:
    """A part of a list is not the list."""
    manifest = {"fileSchema": "Bucket, Key", "fileFormat": "CSV", "destinationBucket": "arn:aws:s3:::lists"}
    with pytest.raises(Reject) as caught:
        _read({"s3://lists/m": json.dumps(manifest | {"files": [{"key": "gone.csv.gz"}]}).encode()})
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("schema", ["Bucket, Key, Size", "Key, Bucket, Size", "Size, Key, Bucket"])
def test_an_inventory_with_a_short_line_is_refused(schema: str) -> None:
    """S3 writes every column: a line without one shows that the rest of the file is missing. The message names it."""
    manifest = {"fileSchema": schema, "fileFormat": "CSV", "destinationBucket": "arn:aws:s3:::lists"}
    row = {"Bucket": "shelter", "Key": "a.jpg", "Size": "7"}
    whole = [row[name] for name in schema.split(", ")]
    objects = {"s3://lists/m": json.dumps(manifest | {"files": [{"key": "file"}]}).encode()}
    assert len(_read(objects | {"s3://lists/file": _table([whole, [], whole])})) == 2
    for columns in (1, 2):
        with pytest.raises(Reject, match=rf"a line has {columns} of 3 columns in s3://lists/file, after 1 ") as caught:
            _read(objects | {"s3://lists/file": _table([whole, whole[:columns]])})
        assert caught.value.code is ErrorCode.BAD_MANIFEST


def test_a_short_line_of_a_table_costs_only_its_own_row() -> None:
    """Wherever its bucket and its key are."""
    for header in (["Bucket", "Key"], ["Key", "Bucket"], ["note", "Key", "Bucket"]):
        found = _read({"s3://lists/m": _table([header, ["shelter"], ["shelter"] * len(header)])})
        assert [ref.source_ref for ref in found] == ["shelter", "s3://shelter/shelter"]


def test_other_columns_are_kept_within_limits() -> None:
    """They are joined to the results later. Also numbers and booleans of JSON Lines; long names and cells are cut."""
    line = {"source-ref": "s3://b/k", "age": 3, "tame": True, "note": "x" * 5000, "meta": {"a": 1}, "none": None}
    (found,) = _read({"s3://lists/m": json.dumps(line).encode()})
    assert found.columns == {"age": "3", "tame": "true", "note": "x" * 1024 + "…"}
    for table in (
        _table([["source_ref", "n" * 5000], ["s3://b/k", "x"]]),
        b'{"source-ref":"a","%s":"x"}' % (b"n" * 5000),
    ):
        assert _read({"s3://lists/m": table})[0].columns == {"n" * 1024 + "…": "x"}
    wide = _table([["source_ref", *(f"c{n}" for n in range(500))], ["s3://b/k", *("x" for _ in range(500))]])
    assert len(_read({"s3://lists/m": wide})[0].columns) == 100


def test_an_array_item_that_is_a_number_is_one_row() -> None:
    """Wherever a long array is cut into pieces: the end of a number is seen only in what follows."""
    for length in range(65_500, 65_536):
        array = f'[{{"prefix": "{"x" * (length - 14)}"}}, 123456789012, "a.jpg"]'.encode()
        number, name = _read({"s3://lists/m": array})
        assert number.source_ref == "123456789012"
        assert len(name.source_ref) == 2048  # the prefix alone is longer


@pytest.mark.parametrize("item", ["1" * 5000, f"-{'1' * 5000}", "1.5e7", '{"a": [1, null]}', "null", '"\\ud800"'])
def test_an_array_item_that_is_no_name_is_one_row_as_it_is_written(item: str) -> None:
    """A number of 5,000 digits, too, which Python itself refuses to read."""
    found = _read({"s3://lists/m": f'[{{"prefix": "s3://b/"}}, "a.jpg", {item}, "b.jpg"]'.encode()})
    assert [ref.source_ref for ref in found] == ["s3://b/a.jpg", item[:2048], "s3://b/b.jpg"]

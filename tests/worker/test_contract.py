"""The contract: a request is parsed as it is written, and anything else is refused in one line."""

import ast
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.conftest import REPOSITORY
from worker.contract import (
    MAX_REQUEST_BYTES,
    ClassifyRequest,
    Job,
    ManifestRef,
    ModelManifest,
    PartReport,
    PredictionRow,
    explain,
)

#: The smallest request.
ASKED: dict[str, Any] = {"schema_version": 1, "job_id": "intake", "images": ["s3://shelter/in/a.jpg"]}

text = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
job_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
s3_uris = st.builds(
    "s3://{}/{}".format,
    st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True),
    keys.filter(lambda key: not {".", ".."} & set(key.split("/"))),
)
thresholds = st.floats(0.0, 1.0)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Any valid request as a producer's JSON object, with fields left out, null or given."""
    asked: dict[str, Any] = {"schema_version": 1, "job_id": draw(job_ids)}
    if draw(st.booleans()):
        asked["images"] = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
    else:
        formats = st.sampled_from(["csv", "jsonl", None])
        asked["manifest"] = draw(st.fixed_dictionaries({"uri": s3_uris}, optional={"format": formats}))
    optional = {
        "model_uri": st.none() | s3_uris,
        "output_uri": st.none() | s3_uris,
        "threshold": st.none() | thresholds,
    }
    return asked | draw(st.fixed_dictionaries({}, optional=optional))


def _refusal(body: str) -> str:
    """Returns why ``parse`` refuses a body. It must raise ValueError, with a message of one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        ClassifyRequest.parse(body)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def _examples(document: str) -> Iterator[dict[str, Any]]:
    """Yields the requests in the JSON and Python blocks of a Markdown file."""
    for language, block in re.findall(r"^```(json|python)\n(.*?)^```", document, flags=re.DOTALL | re.MULTILINE):
        if language == "json":
            found = [json.loads(block)]
        else:
            dicts = (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Dict))
            found = [ast.literal_eval(node) for node in dicts if "job_id" in ast.unparse(node)]
        yield from (example for example in found if {"images", "manifest"} & set(example))


def test_every_request_in_the_readme_is_valid() -> None:
    """A producer can copy any of them."""
    examples = list(_examples((REPOSITORY / "worker/README.md").read_text(encoding="utf-8")))
    assert examples
    for example in examples:
        ClassifyRequest.parse(json.dumps(example))


def test_every_request_in_the_design_is_valid(shared: Path) -> None:
    """The design and the code mean the same message."""
    examples = list(_examples((shared / "DESIGN.md").read_text(encoding="utf-8")))
    assert examples
    for example in examples:
        ClassifyRequest.parse(json.dumps(example))


@given(requests())
def test_a_valid_request_is_parsed_as_it_is_written(asked: dict[str, Any]) -> None:
    """No field is changed."""
    parsed = ClassifyRequest.parse(json.dumps(asked)).model_dump(mode="json", exclude_unset=True)
    assert parsed == asked


@given(requests())
def test_a_request_survives_a_round_trip_through_json(asked: dict[str, Any]) -> None:
    """``parse`` reverses ``model_dump_json``, and the digest stays the same."""
    request = ClassifyRequest.parse(json.dumps(asked))
    again = ClassifyRequest.parse(request.model_dump_json())
    assert again == request
    assert again.digest() == request.digest()


@given(asked=requests(), indent=st.sampled_from([None, 1, 4]), ascii_only=st.booleans(), data=st.data())
def test_the_digest_depends_on_what_is_asked_and_not_on_how_it_is_written(
    asked: dict[str, Any], indent: int | None, *, ascii_only: bool, data: st.DataObject
) -> None:
    """Key order, white space, escapes and explicit defaults change nothing."""
    explicit = {"images": None, "manifest": None, "model_uri": None, "output_uri": None, "threshold": None} | asked
    if explicit["manifest"] is not None:
        explicit["manifest"] = {"format": None} | explicit["manifest"]
    shuffled = dict(data.draw(st.permutations(list(explicit.items()))))
    body = json.dumps(shuffled, indent=indent, ensure_ascii=ascii_only)
    assert ClassifyRequest.parse(body).digest() == ClassifyRequest.parse(json.dumps(asked)).digest()


@given(requests(), requests())
def test_only_equal_requests_have_the_same_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The digest is the identity of a request."""
    first, second = ClassifyRequest.parse(json.dumps(one)), ClassifyRequest.parse(json.dumps(other))
    assert (first.digest() == second.digest()) == (first == second)


def test_any_change_of_a_request_changes_its_digest() -> None:
    """Each field counts, and so does the order of the images."""
    two = ASKED | {"images": ["s3://shelter/a.jpg", "s3://shelter/b.jpg"]}
    manifest = {key: value for key, value in ASKED.items() if key != "images"}
    variants = [
        ASKED,
        ASKED | {"job_id": "other"},
        two,
        two | {"images": two["images"][::-1]},
        two | {"images": two["images"][:1] * 2},
        ASKED | {"threshold": 0.5},
        ASKED | {"threshold": 0.25},
        ASKED | {"threshold": 0.0},
        ASKED | {"model_uri": "s3://shelter/models/a"},
        ASKED | {"output_uri": "s3://shelter/models/a"},
        ASKED | {"output_uri": "s3://shelter/models/a/"},
        manifest | {"manifest": {"uri": "s3://shelter/in/a.jpg"}},
        manifest | {"manifest": {"uri": "s3://shelter/in/a.jpg", "format": "csv"}},
        manifest | {"manifest": {"uri": "s3://shelter/in/a.jpg", "format": "jsonl"}},
    ]
    digests = {ClassifyRequest.parse(json.dumps(asked)).digest() for asked in variants}
    assert len(digests) == len(variants)


def test_a_threshold_of_minus_zero_is_zero() -> None:
    """Both ask for the same, so they have the same digest."""
    zero, minus = (ClassifyRequest.parse(json.dumps(ASKED | {"threshold": value})) for value in (0.0, -0.0))
    assert minus.digest() == zero.digest()


#: Changes that make the request invalid, and a word of the reason.
BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "a newer schema_version": ({"schema_version": 2}, "schema_version"),
    "schema_version as text": ({"schema_version": "1"}, "schema_version"),
    "schema_version as a boolean": ({"schema_version": True}, "schema_version"),
    "no job_id": ({"job_id": None}, "job_id"),
    "job_id as a number": ({"job_id": 1}, "job_id"),
    "an empty job_id": ({"job_id": ""}, "job_id"),
    "job_id with a newline at its end": ({"job_id": "intake\n"}, "job_id"),
    "job_id of dots": ({"job_id": ".."}, "job_id"),
    "job_id with a slash": ({"job_id": "a/b"}, "job_id"),
    "job_id with a backslash": ({"job_id": "a\\b"}, "job_id"),
    "job_id with a space": ({"job_id": "a b"}, "job_id"),
    "job_id that begins with a dot": ({"job_id": ".a"}, "job_id"),
    "job_id of digits that are not ASCII": ({"job_id": "١٢٣"}, "job_id"),
    "job_id of 129 characters": ({"job_id": "a" * 129}, "job_id"),
    "neither images nor manifest": ({"images": None}, "exactly one"),
    "both images and manifest": ({"manifest": {"uri": "s3://shelter/m.csv"}}, "exactly one"),
    "an empty list of images": ({"images": []}, "images"),
    "images as text": ({"images": "s3://shelter/a.jpg"}, "images"),
    "an image that is not text": ({"images": ["s3://shelter/a.jpg", 7]}, "images.1"),
    "an empty image": ({"images": [""]}, "images.0"),
    "an image of 2,049 characters": ({"images": ["a" * 2049]}, "images.0"),
    "threshold above 1": ({"threshold": 1.0000001}, "threshold"),
    "threshold below 0": ({"threshold": -1e-9}, "threshold"),
    "threshold as text": ({"threshold": "0.5"}, "threshold"),
    "threshold as a boolean": ({"threshold": True}, "threshold"),
    "threshold as a list": ({"threshold": [0.5]}, "threshold"),
    "output_uri with a dot-dot segment": ({"output_uri": "s3://shelter/out/../models/"}, "output_uri"),
    "output_uri that ends in a dot-dot segment": ({"output_uri": "s3://shelter/out/.."}, "output_uri"),
    "output_uri with a dot segment": ({"output_uri": "s3://shelter/./out"}, "output_uri"),
    "model_uri with a dot-dot segment": ({"model_uri": "s3://shelter/../evil/model"}, "model_uri"),
    "manifest with a dot-dot segment": ({"images": None, "manifest": {"uri": "s3://shelter/../m.csv"}}, "manifest.uri"),
    "a local output_uri": ({"output_uri": "/tmp/out"}, "output_uri"),
    "output_uri over http": ({"output_uri": "http://169.254.169.254/"}, "output_uri"),
    "output_uri with a newline": ({"output_uri": "s3://shelter/out\n"}, "output_uri"),
    "model_uri of 1,101 characters": ({"model_uri": "s3://shelter/" + "a" * 1088}, "model_uri"),
    "an unknown field": ({"priority": 1}, "priority"),
    "an unknown field that is null": ({"priority": None}, "priority"),
    "an unknown field with a line break in its name": ({"pri\nority": 1}, "pri"),
    "an unknown field of the manifest": (
        {"images": None, "manifest": {"uri": "s3://shelter/m", "etag": "x"}},
        "manifest.etag",
    ),
    "a manifest of an unknown format": (
        {"images": None, "manifest": {"uri": "s3://shelter/m", "format": "parquet"}},
        "format",
    ),
    "a manifest without uri": ({"images": None, "manifest": {}}, "manifest.uri"),
    "a manifest as text": ({"images": None, "manifest": "s3://shelter/m"}, "manifest"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_wrong_field_is_refused_by_its_name(name: str) -> None:
    """The message shows which field to fix."""
    changes, reason = BAD_VALUES[name]
    assert reason in _refusal(json.dumps(ASKED | changes))


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_wrong_field_is_described_without_pydantics_words(name: str) -> None:
    """Whoever reads the dead letter may not know Python."""
    changes, _ = BAD_VALUES[name]
    refusal = _refusal(json.dumps(ASKED | changes))
    assert [
        words for words in ("Input should", "String should", "Extra inputs", "Field required") if words in refusal
    ] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"job_id": "a b"},
            "job_id: must be 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit, not 'a b'",
        ),
        ({"threshold": 1.5}, "threshold: must be at most 1, not 1.5"),
        ({"threshold": "0.5"}, "threshold: must be a number, not the text '0.5'"),
        ({"images": "a.jpg"}, "images: must be a list, not the text 'a.jpg'"),
        ({"images": []}, "images: must have 1 or more entries, not 0"),
        ({"model_uri": "models/pets"}, "model_uri: must be s3://BUCKET or s3://BUCKET/KEY, not 'models/pets'"),
        ({"imagez": ["a"]}, "imagez: unknown field; did you mean images?"),
        ({"colour": "red"}, "colour: unknown field"),
        (
            {"images": None, "manifest": {"urii": "x"}},
            "manifest.uri: is missing; manifest.urii: unknown field; did you mean uri?",
        ),
    ],
)
def test_a_wrong_field_is_described_by_what_is_allowed_and_what_was_given(changes: dict[str, Any], words: str) -> None:
    """With a suggestion where it looks like a typo."""
    assert _refusal(json.dumps(ASKED | changes)) == words


def test_a_value_is_repeated_only_in_part() -> None:
    """Neither what may be a secret, nor all of what may be very long."""
    refusal = _refusal(
        json.dumps(ASKED | {"job_id": "x" * 5000, "model_uri": "https://me:5ec7e7@host/?X-Amz-Signature=5ec7e7"})
    )
    assert "not an address that begins with 'https'" in refusal
    assert "5ec7e7" not in refusal
    assert len(refusal) < 400


def test_a_damaged_model_manifest_is_described_in_plain_words() -> None:
    """By the place where it stops being JSON."""
    with pytest.raises(ValidationError) as caught:
        ModelManifest.model_validate_json('{"name":\n"pets"')
    assert explain(caught.value) == "not JSON: see line 2 column 6"


_BODY = json.dumps(ASKED)
_OPEN = _BODY[:-1]

#: Bodies that are not the JSON of a request, and a word of the reason.
BAD_BODIES: dict[str, tuple[str, str]] = {
    "empty": ("", "not JSON"),
    "white space": (" \n\t ", "not JSON"),
    "HTML": ("<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>", "not JSON"),
    "a byte order mark": ("\ufeff" + _BODY, "BOM"),
    "a truncated message": (_OPEN, "not JSON"),
    "two requests": (_BODY + "\n" + _BODY, "not JSON"),
    "a trailing comma": (_OPEN + ",}", "not JSON"),
    "a comment": (_OPEN + "/* urgent */}", "not JSON"),
    "single quotes": (_BODY.replace('"', "'"), "not JSON"),
    "a raw line break in text": (_BODY.replace("intake", "in\ntake"), "not JSON"),
    "a NUL": (_BODY + "\0", "not JSON"),
    "null": ("null", "object"),
    "a list": (f"[{_BODY}]", "object"),
    "a number": ("1", "object"),
    "NaN": (_OPEN + ',"threshold":NaN}', "NaN"),
    "Infinity": (_OPEN + ',"threshold":Infinity}', "Infinity"),
    "-Infinity": (_OPEN + ',"threshold":-Infinity}', "Infinity"),
    "a number above all floats": (_OPEN + ',"threshold":1e400}', "threshold"),
    "a number of 5,000 digits": (_OPEN + ',"threshold":' + "1" * 5000 + "}", "a number of 5,000 digits, over"),
    "a number of -5,000 digits": (_OPEN + ',"threshold":-' + "1" * 5000 + "}", "a number of 5,000 digits, over"),
    "a number of 5,000 digits as schema_version": ('{"schema_version":' + "1" * 5000 + "}", "a number of 5,000"),
    "a key twice": (_OPEN + ',"job_id":"other"}', "twice"),
    "a key twice, once escaped": (_OPEN + ',"job\\u005fid":"other"}', "twice"),
    "a key of the manifest twice": (
        '{"schema_version":1,"job_id":"a","manifest":{"uri":"s3://shelter/a","uri":"s3://shelter/b"}}',
        "twice",
    ),
    "lists 100,000 deep": ("[" * 100_000, "deep"),
    "a field of lists 100,000 deep": (_OPEN + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}", "deep"),
    "objects 40,000 deep": ('{"a":' * 40_000, "deep"),
    "a lone surrogate": (_BODY.replace("a.jpg", "\ud800.jpg"), ""),
    "an escaped lone surrogate": (_BODY.replace("a.jpg", "\\ud800.jpg"), ""),
    "a lone surrogate as key": ('{"\ud800":1}', ""),
    "a lone surrogate as key, twice": ('{"\ud800":1,"\ud800":1}', "twice"),
    "more than 256 KiB": (_BODY + " " * MAX_REQUEST_BYTES, "manifest"),
    "more than 256 KiB in bytes, not in characters": (_BODY + '"é' * (MAX_REQUEST_BYTES // 3 + 1), "manifest"),
    "Latin-1 read as UTF-8": (_BODY.replace("a.jpg", "\udce9.jpg"), ""),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_not_a_request_is_refused(name: str) -> None:
    """With a clear reason in one line."""
    body, reason = BAD_BODIES[name]
    assert reason in _refusal(body)


def test_a_request_of_exactly_256_kib_is_accepted() -> None:
    """The limit itself passes."""
    assert ClassifyRequest.parse(_BODY.ljust(MAX_REQUEST_BYTES)).job_id == "intake"


def test_a_duplicate_key_is_found_among_25_000() -> None:
    """In one pass over the keys, so a hostile message cannot keep a worker busy."""
    assert "twice" in _refusal("{" + ",".join(f'"{i:x}":0' for i in range(25_000)) + ',"0":0}')


@given(st.text(), st.integers(0, 2**31))
def test_any_text_is_parsed_or_refused(noise: str, place: int) -> None:
    """Alone and in the middle of a request, lone surrogates included."""
    cut = place % len(_BODY)
    for body in (noise, _BODY[:cut] + noise + _BODY[cut:]):
        try:
            ClassifyRequest.parse(body)
        except ValueError:
            _refusal(body)


@given(json_values, st.sampled_from([*ClassifyRequest.model_fields, "manifest.uri", "manifest.format", "images.0"]))
def test_any_json_is_parsed_or_refused(value: Any, place: str) -> None:
    """Alone and in place of each field."""
    field, _, inner = place.partition(".")
    nested = {"": value, "0": [value]}.get(inner, {"uri": "s3://shelter/m.csv", inner: value})
    for body in (json.dumps(value), json.dumps(ASKED | {field: nested}), json.dumps(ASKED | {str(value): value})):
        try:
            ClassifyRequest.parse(body)
        except ValueError:
            _refusal(body)


def test_a_request_cannot_be_changed() -> None:
    """All models of the contract are frozen."""
    request = ClassifyRequest.parse(_BODY)
    with pytest.raises(ValidationError, match="frozen"):
        request.job_id = "other"  # type: ignore[misc]


_SCORED: dict[str, Any] = {"label": "dog", "confidence": 0.9, "score": 0.9}
_ROW: dict[str, Any] = {"row": 0, "source_ref": "s3://shelter/a.jpg", "threshold": 0.5, "model_version": "v1"}


@pytest.mark.parametrize(
    "cells",
    [
        {},
        _SCORED | {"error_code": "damaged"},
        {"label": "dog"},
        {"label": "dog", "confidence": 0.9},
        {"score": 0.9},
        {"score": 0.9, "error_code": "damaged"},
        {"confidence": 0.0, "error_code": "damaged"},
        {"error_message": "no code"},
    ],
)
def test_a_row_is_either_scored_or_failed(cells: dict[str, Any]) -> None:
    """It has label, confidence and score, or else an error_code."""
    with pytest.raises(ValidationError, match="or else an error_code"):
        PredictionRow(**_ROW, **cells)


@pytest.mark.parametrize("cells", [_SCORED, {"error_code": "damaged"}, {"error_code": "damaged", "error_message": "x"}])
def test_a_scored_or_a_failed_row_is_valid(cells: dict[str, Any]) -> None:
    """The two kinds of row."""
    assert PredictionRow(**_ROW, **cells).model_dump(exclude_unset=True) == _ROW | cells


@pytest.mark.parametrize(
    "cells",
    [
        _SCORED | {"score": float("nan")},
        _SCORED | {"score": 1.5},
        _SCORED | {"confidence": float("inf")},
        _SCORED | {"label": ""},
        {"error_code": "Not A Code"},
        {"error_code": ""},
        {"error_code": "damaged", "row": -1},
        {"error_code": "damaged", "note": "x"},
    ],
)
def test_a_row_with_a_cell_out_of_range_is_refused(cells: dict[str, Any]) -> None:
    """NaN, a number outside [0, 1], an error_code with spaces."""
    with pytest.raises(ValidationError):
        PredictionRow(**_ROW | cells)


_REPORT: dict[str, Any] = {
    "job_id": "intake",
    "request_digest": "0" * 64,
    "rows": 10,
    "scored": 7,
    "failed": 3,
    "errors": {"damaged": 2, "not_found": 1},
    "sha256": "1" * 64,
    "size_bytes": 700,
    "model_name": "pets",
    "model_version": "v1",
    "threshold": 0.5,
    "seconds": 1.5,
}


def test_a_report_that_adds_up_is_valid() -> None:
    """It survives a round trip through JSON, which a part's metadata holds."""
    report = PartReport(**_REPORT)
    assert PartReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 11},
        {"scored": 8},
        {"failed": 2},
        {"failed": 2, "rows": 9},
        {"errors": {}},
        {"errors": {"damaged": 4}},
        {"errors": {"damaged": 3, "not_found": 0}},
    ],
)
def test_a_report_that_does_not_add_up_is_refused(changes: dict[str, Any]) -> None:
    """``rows = scored + failed`` and ``failed = the sum of errors`` hold for every request."""
    with pytest.raises(ValidationError):
        PartReport(**_REPORT | changes)


_FILE: dict[str, Any] = {"sha256": "3" * 64, "size_bytes": 9}
_MODEL: dict[str, Any] = {
    "schema_version": 1,
    "name": "pets",
    "version": "v1",
    "created_at": datetime(2026, 11, 23, tzinfo=UTC).isoformat(),
    "labels": ["cat", "dog"],
    "image_size": 160,
    "decoder_fingerprint": "2" * 64,
    "threshold": 0.5,
    "files": {"model.tflite": _FILE},
    "training_config": {"epochs": 20},
    "dataset_digest": "4" * 64,
    "libraries": {"keras": "3.15.1"},
    "metrics": {"accuracy": 0.97},
}


def test_a_model_manifest_survives_a_round_trip_through_json() -> None:
    """``model.json`` is read as it was written, and may be longer than a message."""
    for more in ({}, {"training_config": {"data": "x" * MAX_REQUEST_BYTES}}):
        manifest = ModelManifest.parse(json.dumps(_MODEL | more))
        assert ModelManifest.parse(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["cat", "dog", "bird"]},
        {"labels": ["cat"]},
        {"labels": ["cat", "cat"]},
        {"labels": ["cat", ""]},
        {"schema_version": 2},
        {"schema_version": "1"},
        {"owner": "me"},
        {"files": {"model.tflite": _FILE | {"md5": "x"}}},
        {"files": {"model.tflite": _FILE | {"sha256": "3" * 63}}},
        {"files": {"model.tflite": _FILE | {"size_bytes": "9"}}},
        {"image_size": 16},
        {"image_size": 160.5},
        {"threshold": 1.1},
        {"created_at": "2026-11-23T00:00:00"},
        {"version": "../v1"},
        {"version": "v1\n"},
        {"name": ""},
        {"decoder_fingerprint": "2" * 63 + "G"},
        {"metrics": {"accuracy": "0.97"}},
    ],
)
def test_a_model_manifest_with_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    """Labels must differ, digests be digests, times have a zone; unknown fields are refused."""
    with pytest.raises(ValidationError):
        ModelManifest.model_validate_json(json.dumps(_MODEL | changes))


_MODEL_JSON = json.dumps(_MODEL).encode()
#: ``model.json`` as no program of ours writes it, and a word of the reason.
BAD_MODELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + _MODEL_JSON, "BOM"),
    "UTF-16": (_MODEL_JSON.decode().encode("utf-16"), "not UTF-8: the byte 0xff at 0"),
    "Latin-1": (_MODEL_JSON.replace(b"cat", b"\xe9"), "not UTF-8"),
    "a key twice": (_MODEL_JSON[:-1] + b', "threshold": 0.9}', "the key 'threshold' occurs twice"),
    "a key of a file twice": (_MODEL_JSON.replace(b'"size_bytes"', b'"sha256": "0", "size_bytes"'), "twice"),
    "NaN": (_MODEL_JSON.replace(b"0.97", b"NaN"), "NaN is not JSON"),
    "Infinity": (_MODEL_JSON.replace(b"20", b"Infinity"), "Infinity is not JSON"),
    "a number of 5,000 digits": (_MODEL_JSON.replace(b"160", b"1" * 5000), "a number of 5,000 digits"),
    "lists 100,000 deep": (_MODEL_JSON.replace(b"20", b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
    "two documents": (_MODEL_JSON * 2, "not JSON"),
    "cut": (_MODEL_JSON[:-9], "not JSON"),
    "a list": (b"[" + _MODEL_JSON + b"]", "object"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_manifest_is_read_as_strictly_as_a_message(name: str) -> None:
    """Whoever altered it, two programs must not read two different models from it."""
    body, reason = BAD_MODELS[name]
    with pytest.raises(ValueError, match=r".") as caught:
        ModelManifest.parse(body)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=50)
@given(s3_uris)
def test_a_manifest_may_have_any_key(uri: str) -> None:
    """Except for dot segments."""
    assert ManifestRef(uri=uri).uri == uri


def test_the_digests_of_earlier_versions_still_hold() -> None:
    """Fields have been added since, and parts in buckets must still match their requests."""
    images = ClassifyRequest(schema_version=1, job_id="june", images=("s3://shelter/a.jpg",), threshold=0.5)
    manifest = ClassifyRequest(schema_version=1, job_id="june", manifest=ManifestRef(uri="s3://shelter/a.csv"))
    assert images.digest() == "501704ebadc48b51ef5819585744e29b642fc12b7bd072df16528ffaf8f3c684"
    assert manifest.digest() == "90608ade5b812aaef5eea77eb0149f01f7c7623b53ed0918a120216e59532e1a"


def test_each_shard_is_a_request_of_its_own() -> None:
    """It needs a manifest, and a number of at most five digits."""
    shard = {"schema_version": 1, "job_id": "june", "manifest": {"uri": "s3://shelter/june/shards/00000.jsonl"}}
    digests = {ClassifyRequest.parse(json.dumps(shard | {"shard": number})).digest() for number in (0, 1, 99_999)}
    assert len(digests | {ClassifyRequest.parse(json.dumps(shard)).digest()}) == 4
    for wrong in (shard | {"shard": -1}, shard | {"shard": 100_000}, ASKED | {"shard": 0}):
        with pytest.raises(ValueError, match="shard"):
            ClassifyRequest.parse(json.dumps(wrong))


@given(images=st.integers(1, 10_000), size=st.integers(1, 700))
def test_the_parts_of_a_job_hold_all_its_images(images: int, size: int) -> None:
    """Every part but the last is full, and the last is not empty."""
    common: dict[str, Any] = {"job_id": "june", "created_at": datetime.now(UTC), "sources": (), "digest": "0" * 64}
    job = Job(**common, images=images, shards=-(-images // size), shard_images=size, output_uri="s3://shelter/out")
    rows = [job.rows_of(part) for part in range(job.parts)]
    assert sum(rows) == images
    assert set(rows[:-1]) <= {size}
    assert 0 < rows[-1] <= size
    assert Job(**common, images=images, output_uri="s3://shelter/out").rows_of(0) == images


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"unsure": [0.7, 0.3]}, "unsure: must be two numbers, the lower one first, not 0.7 and 0.3"),
        ({"unsure": [0.3]}, "unsure.1: is missing"),
        ({"unsure": [0.3, 0.5, 0.7]}, "unsure: must have 2 or fewer entries, not 3"),
        ({"unsure": [0.3, 1.2]}, "unsure.1: must be at most 1, not 1.2"),
        ({"unsure": "0.3:0.7"}, "unsure: must be a list, not the text '0.3:0.7'"),
        ({"unsure": {"low": 0.3, "high": 0.7}}, "unsure: must be a list, not an object"),
        ({"unsure": [0.3, 0.7], "threshold": 0.8}, "'unsure' must hold the threshold: 0.8 is not from 0.3 to 0.7"),
    ],
)
def test_a_band_of_unsure_scores_is_two_numbers_around_the_threshold(fields: dict[str, Any], reason: str) -> None:
    """The message says what is wrong with any other."""
    assert _refusal(json.dumps(ASKED | fields)) == reason


def test_what_has_no_band_is_written_as_before_there_were_bands(bundle: Path) -> None:
    """So a worker or a command of an earlier version, which refuses unknown fields, can still read it."""
    request = ClassifyRequest.parse(json.dumps(ASKED | {"unsure": None}))
    job = Job(job_id="a", created_at=datetime.now(UTC), sources=(), digest="0" * 64, images=1, output_uri="s3://abc")
    manifest = ModelManifest.parse((bundle / "model.json").read_bytes())
    for document in (request, job, PartReport(**_REPORT), PredictionRow(**_ROW, **_SCORED), manifest):
        dumped = document.model_dump_json(indent=2)
        assert "unsure" not in dumped
        assert "decision" not in dumped
    assert manifest.model_dump_json(indent=2).encode() == (bundle / "model.json").read_bytes()
    assert "unsure" not in (bundle / "evaluation.json").read_text()


def test_a_band_is_part_of_a_request_and_of_its_digest() -> None:
    """It is kept in JSON, and another band is another request."""
    bands: list[dict[str, Any]] = [{}, {"unsure": [0.3, 0.7]}, {"unsure": [0.3, 0.8]}, {"unsure": [0.5, 0.5]}]
    requests = [ClassifyRequest.parse(json.dumps(ASKED | band)) for band in bands]
    assert len({request.digest() for request in requests}) == 4
    assert [ClassifyRequest.parse(request.model_dump_json()) for request in requests] == requests


@pytest.mark.parametrize(
    "changes",
    [
        {"unsure": [0.6, 0.7]},
        {"unsure": [0.3, 0.7], "labels": ["cat", "unsure"]},
        {"unsure": [0.3, 0.7], "labels": ["Unsure", "cat"]},
    ],
)
def test_a_model_has_no_band_that_contradicts_it(changes: dict[str, Any]) -> None:
    """It holds the threshold, and no class has the name of no answer."""
    with pytest.raises(ValueError, match="'unsure'"):
        ModelManifest.parse(json.dumps(_MODEL | changes))
    assert ModelManifest.parse(json.dumps(_MODEL | {"labels": ["Unsure", "cat"]})).unsure is None


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (_SCORED | {"decision": "cat"}, "a decision is the label or 'unsure'"),
        ({"error_code": "damaged", "decision": "unsure"}, "a row without a score has no decision"),
    ],
)
def test_a_decision_is_the_label_or_unsure(cells: dict[str, Any], reason: str) -> None:
    """And only a row with a score has one."""
    with pytest.raises(ValidationError, match=reason):
        PredictionRow(**_ROW, **cells)
    for decision in ("dog", "unsure", None):
        assert PredictionRow(**_ROW, **_SCORED, decision=decision).decision == decision


@pytest.mark.parametrize(
    "changes", [{"unsure": (0.3, 0.7)}, {"unsure_rows": 1}, {"unsure": (0.3, 0.7), "unsure_rows": 8}]
)
def test_a_report_counts_the_unsure_rows_where_there_is_a_band(changes: dict[str, Any]) -> None:
    """They are among the scored ones."""
    with pytest.raises(ValidationError, match="unsure rows"):
        PartReport(**_REPORT | changes)
    report = PartReport(**_REPORT, unsure=(0.3, 0.7), unsure_rows=7)
    assert PartReport.model_validate_json(report.model_dump_json()) == report

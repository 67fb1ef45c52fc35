"""The labelled list: it reads back as it was written, a spreadsheet runs nothing in it, and a wrong line is named."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.labelled_list import COLUMNS, LabelledLine, labelled_list_csv, read_labelled_list
from jobs.metrics import scored_images
from jobs.metrics.scored_images import ScoredImage
from jobs.user_error import UserError
from tests.worker.test_predictions import FORMULA, texts
from worker.contract import ManifestRef, PredictionRow
from worker.manifest.references import references
from worker.predictions import Rule, to_csv

#: Any text with something to see in it.
filled = texts.filter(str.strip)
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
lines = st.builds(
    LabelledLine,
    source_ref=filled,
    label=st.none() | filled.map(str.strip),
    reviewed_at=st.none() | times,
    reviewer=st.none() | texts.filter(bool),
    note=st.none() | texts.filter(bool),
)
AT = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def _read(text: str) -> list[LabelledLine]:
    return read_labelled_list(text.encode(), where="labels.csv")


def _refused(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_labelled_list(data, where="labels.csv")
    return str(caught.value)


@settings(max_examples=50)
@given(st.lists(lines, max_size=8))
@example([LabelledLine("a\rb", "=cat"), LabelledLine("'=1", "-", note="'"), LabelledLine(" a ", None)])
def test_lines_read_back_as_they_were_written(written: list[LabelledLine]) -> None:
    """With any text: quotes, commas, line breaks, formulas, apostrophes, any script."""
    assert read_labelled_list(labelled_list_csv(written), where="labels.csv") == written


@settings(max_examples=50)
@given(st.lists(lines, max_size=8))
@example([LabelledLine("=cmd()", "+cat", reviewer="@ada", note="-")])
def test_the_file_is_a_csv_in_which_a_spreadsheet_runs_nothing(written: list[LabelledLine]) -> None:
    """As Python's csv module reads it: five columns, a record for every line, and no cell begins like a formula."""
    cells = list(csv.reader(io.StringIO(labelled_list_csv(written).decode(), newline="")))
    assert cells[0] == ["source_ref", "label", "reviewed_at", "reviewer", "note"] == list(COLUMNS)
    assert [len(line) for line in cells] == [5] * (1 + len(written))
    assert [cell for line in cells for cell in line if cell.startswith(tuple(FORMULA))] == []


@settings(max_examples=50)
@given(st.binary(max_size=200) | texts.map(str.encode) | texts.map("source_ref,label\n{}".format).map(str.encode))
@example(b"source_ref,label,reviewed_at\na,cat,0001-01-01T00:00:00+23:00\n")
@example(b'source_ref,label\n"a,cat\n')
@example(b'{"source_ref": "\\ud800", "label": "cat"}')
@example(b'{"source-ref": "a", "p": 0, "p-metadata": {"type": ["x"]}}')
@example(b"{" * 3000)
def test_bytes_are_a_list_or_refused_in_a_sentence(data: bytes) -> None:
    """Never another error, whatever they hold. What was read can be written and read again."""
    try:
        found = read_labelled_list(data, where="labels.csv")
    except UserError as error:
        assert re.match(r"labels\.csv(, line \d+)?( |: )", str(error))  # noqa: PT017 - most bytes are refused
        return
    assert read_labelled_list(labelled_list_csv(found), where="again") == found


@settings(max_examples=50)
@given(st.lists(lines, min_size=1, max_size=8))
def test_the_worker_takes_a_labelled_list_as_a_manifest(written: list[LabelledLine]) -> None:
    """Its column source_ref names the images, so a list that was labelled can also be submitted."""
    data = labelled_list_csv([LabelledLine(f"s3://shelter/{line.source_ref}", line.label) for line in written])
    found = references(ManifestRef(uri="s3://shelter/a.csv"), opener=lambda *_: [data], lister=lambda _: ())
    assert [ref.source_ref for ref in found] == [f"s3://shelter/{line.source_ref}" for line in written]


def test_two_columns_are_enough() -> None:
    """In any order, from any program: a byte order mark, CR LF, blank lines and cells, other columns, short lines."""
    text = "\ufeffsize, label ,source_ref,note\r\n\r\n1, cat ,a.jpg,x\r\n2,dog,b.jpg\r\n,,,\r\n3, ,c.jpg,\r\n"
    assert _read(text) == [
        LabelledLine("a.jpg", "cat", note="x"),
        LabelledLine("b.jpg", "dog"),
        LabelledLine("c.jpg", None),
    ]


def test_a_time_is_written_in_utc_and_read_from_any_zone() -> None:
    """To the second, unless it has a fraction. A browser writes milliseconds."""
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert labelled_list_csv([LabelledLine("a", "cat", elsewhere)]).splitlines()[1] == b"a,cat,2026-11-24T10:15:00Z,,"
    given_times = ["2026-11-24T10:15:00Z", "2026-11-24 15:45:00+05:30", "2026-11-24T10:15:00.000Z"]
    for text in given_times:
        (line,) = _read(f"source_ref,label,reviewed_at\na,cat,{text}\n")
        assert (line.reviewed_at, line.reviewed_at and line.reviewed_at.tzinfo) == (AT, UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column source_ref and no column label"),
        ("file,label\na,cat\n", "has no column source_ref: a labelled list begins with source_ref,label and not"),
        ("source_ref;label\na;cat\n", "Separate the columns by commas"),
        ("source_ref,label,label\na,cat,cat\n", "has the column label twice"),
        ('source_ref,label\na,cat\n"b\nc",dog\n,dog\n', "line 5 names no image"),
        ("source_ref,label\na,cat\nb, c.jpg,dog\n", "line 3 has 3 cells, but the header has 2"),
        ('source_ref,label\n"a,cat\nb,dog\n', "line 2: unexpected end of data. Check its quotes"),
        (f"source_ref,label\na,{'x' * 129}\n", "line 2: 'xxx"),
        ("source_ref,label,reviewed_at\na,cat,yesterday\n", "line 2: reviewed_at must be a time with its zone"),
        ("source_ref,label,reviewed_at\na,cat,2026-11-24T10:15:00\n", "not '2026-11-24T10:15:00'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str) -> None:
    """And what to do about it."""
    assert message in _refused(text.encode())


def test_bytes_that_are_not_utf8_are_named_with_their_line() -> None:
    """As some spreadsheets save a CSV."""
    assert _refused("source_ref,label\na,cat\nb,fée\n".encode("latin-1")).startswith("labels.csv, line 3 is not UTF-8")


def test_predictions_are_no_labels() -> None:
    """Training on a model's own answers would teach it nothing, and look well in the report."""
    rule = Rule(labels=("cat", "dog"), threshold=0.5, model_version="v1")
    table = to_csv([rule.scored(0, "a.jpg", 0.9), rule.scored(1, "b.jpg", 0.2)])
    assert "its column label is what a model said" in _refused(table)
    corrected = table.replace(b"error_message\n", b"error_message,true_label\n", 1)
    assert "its column true_label is blank in every line" in _refused(corrected)
    found = read_labelled_list(corrected.replace(b"v1,,\n", b"v1,,,dog\n"), where="labels.csv")
    assert found == [LabelledLine("a.jpg", "dog"), LabelledLine("b.jpg", "dog")]


def test_the_test_predictions_of_a_bundle_have_their_true_labels() -> None:
    """They are written by the same rules."""
    row = PredictionRow(
        row=0, source_ref="=a.jpg", label="cat", confidence=0.9, score=0.1, threshold=0.5, model_version="v1"
    )
    data = scored_images.to_csv([ScoredImage.of(row, true_label="-dog", sha256="0" * 64)])
    assert read_labelled_list(data, where="test_predictions.csv") == [LabelledLine("=a.jpg", "-dog")]


@settings(max_examples=50)
@given(st.lists(lines, min_size=1, max_size=8))
def test_json_lines_are_read_like_the_csv(written: list[LabelledLine]) -> None:
    """With the same names; ``source-ref`` is read too. What is missing or null is blank."""
    documents = [
        {"source-ref" if number % 2 else "source_ref": line.source_ref, "label": line.label, "note": line.note}
        | ({"reviewed_at": line.reviewed_at.isoformat()} if line.reviewed_at else {})
        | ({"reviewer": line.reviewer} if line.reviewer else {})
        for number, line in enumerate(written)
    ]
    assert (
        _read(
            "\n\n".join(json.dumps(document, ensure_ascii=number % 2 == 0) for number, document in enumerate(documents))
        )
        == written
    )


def _augmented(ref: str, name: str | None, **others: object) -> str:
    """A line of Ground Truth's output.manifest, as its documentation shows it; without a name it is not labelled."""
    described = {
        "class-name": name,
        "confidence": 0.0,
        "type": "groundtruth/image-classification",
        "job-name": "identify-pets",
        "human-annotated": "yes",
        "creation-date": "2018-10-18T22:18:13.527256",
    }
    return json.dumps({"source-ref": ref, **({"pets": 0, "pets-metadata": described} if name else {}), **others})


def test_an_augmented_manifest_names_its_label_attribute_itself() -> None:
    """By its ``-metadata`` twin. The class is the class-name, not the number; a line without a label is undecided."""
    verified = {"check": "1", "check-metadata": {"class-name": "bad", "type": "groundtruth/label-verification"}}
    text = "\n".join(
        [
            _augmented("s3://shelter/1.jpg", "cat", label="unused"),
            _augmented("s3://shelter/2.jpg", "dog", **verified),
            _augmented("s3://shelter/3.jpg", None),
        ]
    )
    assert _read(text) == [
        LabelledLine("s3://shelter/1.jpg", "cat"),
        LabelledLine("s3://shelter/2.jpg", "dog"),
        LabelledLine("s3://shelter/3.jpg", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"source-ref": "a", "label": "cat"}\n{"source-ref": \n', "line 2 is not JSON"),
        ('{"source-ref": "a", "label": "cat"}\n["b"]\n', "line 2 is not a JSON object"),
        ('{"source-ref": "a"}\n', "has no column label"),
        ('{"label": "cat"}\n{"source_ref": "a", "label": "cat"}\n', "line 1 names no image"),
        (
            _augmented("a", "cat", mood=1, **{"mood-metadata": {"class-name": "happy"}}),
            "attributes, mood, pets. Remove",
        ),
        (_augmented("a", "cat") + '\n{"source-ref": "b", "pets": 1}', "line 2 has pets without a class-name"),
        (
            '{"source-ref": "a", "x": [1], "x-metadata": {"type": "groundtruth/image-classification-multilabel"}}',
            "labels of the type groundtruth/image-classification-multilabel",
        ),
    ],
)
def test_what_is_wrong_with_json_lines_is_named(text: str, message: str) -> None:
    """With its line."""
    assert message in _refused(text.encode())

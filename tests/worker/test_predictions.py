"""The prediction CSV: it reads back as it was written, and a spreadsheet runs nothing in it."""

import csv
import io
import string
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.contract import ManifestRef, ModelManifest, PredictionRow
from worker.errors import ErrorCode, Reject
from worker.manifest.references import references
from worker.predictions import COLUMNS, Rule, csv_bytes, from_csv, only_failed, to_csv

HEADER = b"row,source_ref,label,confidence,score,threshold,model_version,error_code,error_message\n"
#: What makes a cell a formula in a spreadsheet when it comes first, full-width forms included.
FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"

ALPHANUMERIC = string.ascii_letters + string.digits

characters = st.characters(exclude_categories=["Cs"])
#: Any text, with many of the characters that break CSV files.
texts = st.text(st.sampled_from(FORMULA + "'\",; \0\x0b\x1c\x85\u2028\ufeffaé😀") | characters, max_size=12)
labels = texts.filter(bool)
shares = st.floats(0.0, 1.0)
names = st.builds(str.__add__, st.sampled_from(ALPHANUMERIC), st.text(ALPHANUMERIC + "._-", max_size=63))
codes = st.sampled_from([code.value for code in ErrorCode])


@st.composite
def prediction_rows(draw: st.DrawFn) -> PredictionRow:
    """Any row that the contract allows."""
    row, ref = draw(st.integers(0, 10**9)), draw(texts)
    threshold, version, message = draw(shares), draw(names), draw(st.none() | labels)
    if draw(st.booleans()):
        return PredictionRow(
            row=row,
            source_ref=ref,
            label=draw(labels),
            confidence=draw(shares),
            score=draw(shares),
            threshold=threshold,
            model_version=version,
            error_message=message,
        )
    return PredictionRow(
        row=row,
        source_ref=ref,
        threshold=threshold,
        model_version=version,
        error_code=draw(codes),
        error_message=message,
    )


def _failed(row: int, source_ref: str) -> PredictionRow:
    return PredictionRow(row=row, source_ref=source_ref, threshold=0.5, model_version="v1", error_code="not_found")


def _scored(row: int, source_ref: str) -> PredictionRow:
    return Rule(labels=("cat", "dog"), threshold=0.5, model_version="v1").scored(row, source_ref, 0.75)


def _cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


@given(st.lists(prediction_rows(), max_size=8))
@example([_failed(0, "a\rb")])
@example([_failed(0, "'=1"), _failed(1, "''=1"), _failed(2, "'"), _failed(3, "")])
def test_rows_read_back_as_they_were_written(rows: list[PredictionRow]) -> None:
    """With any text (quotes, commas, line breaks, formulas, apostrophes, any script) and any number."""
    assert from_csv(to_csv(rows)) == rows


@given(st.lists(prediction_rows(), max_size=8))
@example([_failed(0, "a\rb"), _failed(1, "\r"), _scored(2, "\n\r\n")])
def test_the_file_has_one_record_for_every_row(rows: list[PredictionRow]) -> None:
    """As Python's csv module reads it. The header comes first."""
    assert [len(cells) for cells in _cells(to_csv(rows))] == [len(COLUMNS)] * (1 + len(rows))


@given(st.lists(prediction_rows(), max_size=8))
@example([_failed(0, "a\rb"), _scored(1, "c")])
def test_pandas_reads_every_row(rows: list[PredictionRow]) -> None:
    """``pandas.read_csv`` with its defaults finds every row, and NaN where an image is not scored, never 0."""
    frame = pd.read_csv(io.BytesIO(to_csv(rows)))
    assert len(frame) == len(rows)
    for column in ("score", "confidence"):
        blank = frame[column].isna().tolist()
        assert blank == [row.error_code is not None for row in rows]


@given(st.lists(prediction_rows(), max_size=8))
@example([PredictionRow(row=0, source_ref="a", threshold=-0.0, model_version="v1", error_code="empty")])
def test_no_cell_begins_like_a_formula(rows: list[PredictionRow]) -> None:
    """A spreadsheet shows every label, key and message as text."""
    cells = [cell for line in _cells(to_csv(rows)) for cell in line]
    assert [cell for cell in cells if cell.startswith(tuple(FORMULA))] == []


@pytest.mark.parametrize("start", FORMULA)
def test_a_formula_gets_a_leading_apostrophe(start: str) -> None:
    """Everything else is written as it is."""
    (cell,) = _cells(csv_bytes([[f"{start}cmd|' /C calc'!A0"]]))[0]
    assert cell == f"'{start}cmd|' /C calc'!A0"
    assert _cells(csv_bytes([["'quoted'", "a=b", " =b", "s3://b/k"]])) == [["'quoted'", "a=b", " =b", "s3://b/k"]]


def test_the_header_is_the_contract() -> None:
    """Nine columns with these names, in this order."""
    assert to_csv([]) == HEADER


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"source_ref\na\n", id="another header"),
        pytest.param(HEADER.replace(b"row,", b"row,row,"), id="a column twice"),
        pytest.param(HEADER + b"1,2\n", id="too few cells"),
        pytest.param(HEADER + b"x" * 200_000 + b"\n", id="one long cell"),
        pytest.param(HEADER + b"x,a,,,,0.5,v1,empty,\n", id="a row that is not a number"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
    ],
)
def test_another_file_is_refused(data: bytes) -> None:
    """With ValueError, so that the caller can add the file's name."""
    with pytest.raises(ValueError, match=r"."):
        from_csv(data)


def test_text_that_is_not_utf8_is_escaped() -> None:
    """A stray byte in a file name, which Python holds as a lone surrogate, costs only its own cell."""
    assert csv_bytes([["caf\udce9.jpg", "plain"]]).endswith(b",plain\n")


def test_a_failure_without_a_message_has_a_blank_one() -> None:
    """An empty message and None are written the same."""
    rule = Rule(labels=("cat", "dog"), threshold=0.5, model_version="v1")
    row = rule.failed(0, "s3://b/k", Reject(ErrorCode.DAMAGED, ""))
    assert from_csv(to_csv([row])) == [row]


@given(score=shares, threshold=shares)
@example(score=0.123456789, threshold=0.1234567891)
@example(score=0.4999999999, threshold=0.5)
@example(score=float(np.nextafter(0.5, 0)), threshold=0.5)
def test_the_label_agrees_with_the_score_and_the_threshold_as_written(score: float, threshold: float) -> None:
    """Applying score >= threshold to the file gives the label in the file."""
    rule = Rule(labels=("cat", "dog"), threshold=threshold, model_version="v1")
    cells = dict(zip(COLUMNS, _cells(to_csv([rule.scored(0, "s3://b/k", score)]))[1], strict=True))
    written = float(cells["score"])
    assert written == pytest.approx(score, rel=1e-8)
    assert float(cells["threshold"]) == pytest.approx(threshold, rel=1e-8)
    positive = written >= float(cells["threshold"])
    assert cells["label"] == ("dog" if positive else "cat")
    assert float(cells["confidence"]) == pytest.approx(written if positive else 1 - written, abs=1e-9)


@given(st.floats(0, 1, width=32))
def test_a_score_is_written_without_loss(score: float) -> None:
    """Nine digits are enough for any float32."""
    row = Rule(labels=("cat", "dog"), threshold=0.5, model_version="v1").scored(0, "s3://b/k", score)
    (read,) = from_csv(to_csv([row]))
    assert read.score is not None
    assert np.float32(read.score) == np.float32(score)


def _references(data: bytes) -> list[str]:
    ref = ManifestRef(uri="s3://shelter/errors/part-00000.csv")
    return [found.source_ref for found in references(ref, opener=lambda *_: [data], lister=lambda _: ())]


@given(
    st.lists(st.tuples(st.booleans(), texts), min_size=1, max_size=8).filter(lambda rows: not all(r[0] for r in rows))
)
def test_the_failed_rows_are_a_manifest(asked: list[tuple[bool, str]]) -> None:
    """Of the failed images, in order and whatever their references: submit it to try them again."""
    rows = [_scored(i, ref) if fine else _failed(i, ref) for i, (fine, ref) in enumerate(asked)]
    errors = only_failed(to_csv(rows))
    assert from_csv(errors) == [row for row in rows if row.error_code]
    refs = _references(errors)
    assert refs == [ref for fine, ref in asked if not fine]


@given(st.lists(st.tuples(st.booleans(), texts.map("s3://b/{}".format)), min_size=1, max_size=8))
def test_failed_images_in_storage_can_be_tried_again(asked: list[tuple[bool, str]]) -> None:
    """The same for references of a valid form."""
    rows = [_scored(i, ref) if fine else _failed(i, ref) for i, (fine, ref) in enumerate([*asked, (False, "s3://b/k")])]
    refs = _references(only_failed(to_csv(rows)))
    assert refs == [row.source_ref for row in rows if row.error_code]


@given(score=shares, low=shares, high=shares, threshold=shares)
@example(score=0.3, low=0.3, high=0.7, threshold=0.5)
@example(score=0.7, low=0.3, high=0.7, threshold=0.5)
@example(score=0.29999999999, low=0.3, high=0.7, threshold=0.5)
@example(score=0.5, low=0.5, high=0.5, threshold=0.5)
def test_the_decision_agrees_with_the_score_and_the_band_as_written(
    score: float, low: float, high: float, threshold: float
) -> None:
    """Unsure from the lower end of the band up to, but not including, the upper one; elsewhere it is the label."""
    low, threshold, high = sorted((low, threshold, high))
    rule = Rule(labels=("cat", "dog"), threshold=threshold, model_version="v1", unsure=(low, high))
    (row,) = from_csv(to_csv([rule.scored(0, "s3://b/k", score)], decided=True))
    assert row.score is not None
    assert row.decision == ("unsure" if low <= row.score < high else row.label)


@given(st.lists(prediction_rows(), max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_file_with_decisions_has_them_in_a_last_column(rows: list[PredictionRow], unsure: list[bool]) -> None:
    """It reads back as it was written, and all other columns are what they are without it."""
    decided = [
        row.model_copy(update={"decision": ("unsure" if is_unsure else row.label) if row.label else None})
        for row, is_unsure in zip(rows, unsure, strict=False)
    ]
    data = to_csv(decided, decided=True)
    assert data.startswith(HEADER.rstrip(b"\n") + b",decision\n")
    assert from_csv(data) == decided
    assert csv_bytes(line[:-1] for line in _cells(data))[: len(HEADER)] == HEADER
    assert from_csv(to_csv(decided)) == rows
    assert only_failed(data) == only_failed(to_csv(rows))


def test_a_file_with_decisions_is_a_manifest_too() -> None:
    """Its references are read without the guard against formulas."""
    rows = [_scored(0, "=1").model_copy(update={"decision": "unsure"}), _failed(1, "s3://b/k")]
    assert _references(to_csv(rows, decided=True)) == ["=1", "s3://b/k"]


def _manifest(**fields: object) -> ModelManifest:
    model = {"name": "pets", "version": "v1", "created_at": datetime.now(UTC), "labels": ("cat", "dog")}
    digests = {"decoder_fingerprint": "0" * 64, "dataset_digest": "0" * 64}
    nothing: dict[str, object] = {"files": {}, "training_config": {}, "libraries": {}, "metrics": {}}
    return ModelManifest.model_validate(model | digests | nothing | {"image_size": 96, "threshold": 0.5} | fields)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ({}, (0.5, (0.4, 0.6))),
        ({"threshold": 0.55}, (0.55, None)),
        ({"threshold": 0.5}, (0.5, None)),
        ({"unsure": (0.1, 0.9)}, (0.5, (0.1, 0.9))),
        ({"threshold": 0.8, "unsure": (0.7, 0.9)}, (0.8, (0.7, 0.9))),
    ],
)
def test_the_band_of_a_model_belongs_to_its_threshold(
    asked: dict[str, Any], used: tuple[float, tuple[float, float] | None]
) -> None:
    """A request with a threshold of its own has no band but its own."""
    rule = Rule.of(_manifest(unsure=(0.4, 0.6)), **asked)
    assert (rule.threshold, rule.unsure) == used


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"threshold": 0.95}, "'unsure' must hold the threshold"),
        ({"labels": ("cat", "UNSURE")}, "a class has that name"),
    ],
)
def test_a_band_that_does_not_fit_the_model_is_refused(model: dict[str, Any], reason: str) -> None:
    """The request goes to the dead-letter queue with the reason."""
    with pytest.raises(Reject, match=reason) as caught:
        Rule.of(_manifest(**model), unsure=(0.3, 0.7))
    assert caught.value.code is ErrorCode.BAD_REQUEST

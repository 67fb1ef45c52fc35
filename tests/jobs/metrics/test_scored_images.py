"""The test predictions of a bundle survive a round trip, whatever the files and classes are called."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics.scored_images import COLUMNS, ScoredImage, from_csv, scores, to_csv, truth
from worker import predictions
from worker.predictions import Rule

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def _image(*, ref: str = "a.jpg", labels: tuple[str, str] = ("cat", "dog"), score: float = 0.7) -> ScoredImage:
    rule = Rule(labels=labels, threshold=0.5, model_version="v1")
    return ScoredImage.of(rule.scored(0, ref, score), true_label=labels[0], sha256="0" * 64)


@given(ref=_TEXT, label=_TEXT, score=st.floats(0, 1))
def test_writing_and_reading_gives_equal_images(ref: str, label: str, score: float) -> None:
    """Even with formulas, quotes and line breaks."""
    images = [_image(ref=ref, labels=(label, f"{label}2"), score=score)] * 2
    assert from_csv(to_csv(images)) == images


@given(label=_TEXT, sign=st.sampled_from("=+-@\t\r\n＝＋－＠"))  # noqa: RUF001 - full-width signs are formulas, too
def test_no_cell_is_run_by_a_spreadsheet(label: str, sign: str) -> None:
    """Even if it is the name of a class."""
    data = to_csv([_image(labels=(f"{sign}{label}", "b"))])
    cells = list(csv.reader(io.StringIO(data.decode(), newline="")))[1]
    assert cells[COLUMNS.index("true_label")] == f"'{sign}{label}"


def test_its_first_columns_are_those_of_the_workers_csv() -> None:
    """The same code reads both."""
    assert (*predictions.COLUMNS, "true_label", "sha256") == COLUMNS


def test_true_classes_and_scores_are_arrays() -> None:
    """Class 0 is the first label."""
    images = [_image(score=0.25), _image(labels=("dog", "cat"))]
    assert truth(images, ("cat", "dog")).tolist() == [0, 1]
    assert scores(images).tolist() == [0.25, 0.7]
    assert scores(images).dtype == np.float64
    with pytest.raises(ValueError, match="'dog'"):
        truth(images, ("cat", "cow"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "header"),
        (b"a,b\n", "header"),
        (predictions.to_csv([]), "header"),  # the worker's CSV has no true labels
        (b"\xff", "decode"),
        (to_csv([_image()])[:-70] + b"\n", "cells"),
        (to_csv([_image()])[:-9] + b"\n", "sha256"),
        (to_csv([_image()]) + b"1\n", "cells"),
    ],
    ids=[
        "empty",
        "other columns",
        "worker's CSV",
        "not UTF-8",
        "cut before the digest",
        "cut in the digest",
        "extra line",
    ],
)
def test_any_other_file_is_rejected(data: bytes, reason: str) -> None:
    """With a ValueError, whatever it contains."""
    with pytest.raises(ValueError, match=reason):
        from_csv(data)


def test_a_test_image_without_a_score_is_rejected() -> None:
    """It belongs in the quarantine list."""
    failed = _image().model_dump() | {"label": None, "confidence": None, "score": None, "error_code": "damaged"}
    with pytest.raises(ValueError, match="must have a score"):
        ScoredImage.model_validate(failed)

"""The file of test predictions: what is written is read, whatever files and classes are called."""

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
def test_what_is_written_is_read(ref: str, label: str, score: float) -> None:
    """Formulas, quotes, line ends and all."""
    images = [_image(ref=ref, labels=(label, f"{label}2"), score=score)] * 2
    assert from_csv(to_csv(images)) == images


@given(label=_TEXT, sign=st.sampled_from("=+-@\t\r\n＝＋－＠"))  # noqa: RUF001 - full-width signs are formulas, too
def test_no_cell_is_run_by_a_spreadsheet(label: str, sign: str) -> None:
    """Whatever the classes are called."""
    data = to_csv([_image(labels=(f"{sign}{label}", "b"))])
    cells = list(csv.reader(io.StringIO(data.decode(), newline="")))[1]
    assert cells[COLUMNS.index("true_label")] == f"'{sign}{label}"


def test_its_first_columns_are_those_of_any_answer() -> None:
    """Who can read the one can read the other."""
    assert (*predictions.COLUMNS, "true_label", "sha256") == COLUMNS


def test_truth_and_scores_come_as_arrays() -> None:
    """Class 0 is the first of the labels."""
    images = [_image(score=0.25), _image(labels=("dog", "cat"))]
    assert truth(images, ("cat", "dog")).tolist() == [0, 1]
    assert scores(images).tolist() == [0.25, 0.7]
    assert scores(images).dtype == np.float64
    with pytest.raises(ValueError, match="'dog'"):
        truth(images, ("cat", "cow"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "header"),
        (b"a,b\n", "header"),
        (predictions.to_csv([]), "header"),  # an answer of a worker holds no truth
        (b"\xff", "decode"),
        (to_csv([_image()])[:-70] + b"\n", "cells"),
        (to_csv([_image()])[:-9] + b"\n", "sha256"),
        (to_csv([_image()]) + b"1\n", "cells"),
    ],
)
def test_another_file_is_refused(data: bytes, said: str) -> None:
    """By ValueError, whatever it is."""
    with pytest.raises(ValueError, match=said):
        from_csv(data)


def test_a_test_image_has_a_score() -> None:
    """One that has none is in the quarantine list instead."""
    failed = _image().model_dump() | {"label": None, "confidence": None, "score": None, "error_code": "damaged"}
    with pytest.raises(ValueError, match="has a score"):
        ScoredImage.model_validate(failed)

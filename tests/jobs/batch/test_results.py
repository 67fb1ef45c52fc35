"""The parts of a job to one table: a row for every image, in a file that every program can open."""

import csv
import hashlib
import io
import shutil
import subprocess
import uuid
from pathlib import Path
from xml.etree import ElementTree as ET

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.batch import results_file
from jobs.batch.results import Line, Results
from jobs.user_error import UserError
from tests.conftest import Bench
from tests.desk import Desk
from worker.batch.job_folder import as_metadata
from worker.contract import PredictionRow
from worker.errors import Reject
from worker.predictions import COLUMNS, unguarded

KINDS = ["good", "missing", "damaged", "empty", "no uri"]
#: Texts that a spreadsheet would run or change.
NASTY = [
    "=1+1",
    "+49 30 901820",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "0123",
    "1e5",
    "é😀",
    'a "b", c',
    "two\nlines",
    "'=x",
    "\uff1d1",
]


def _put_kinds(bench: Bench, digit_images: Path) -> dict[str, str]:
    good = next(digit_images.rglob("*.png")).read_bytes()
    return {
        "good": bench.put("in/good.png", good),
        "damaged": bench.put("in/damaged.png", good[:60]),
        "empty": bench.put("in/empty.png", b""),
        "missing": f"s3://{bench.bucket}/in/missing.png",
        "no uri": "=cmd|' /C calc'!A0",
    }


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=30), spread=st.integers(1, 60))
def test_every_image_has_one_row_whether_or_not_it_failed(
    desk: Desk, digit_images: Path, tmp_path: Path, kinds: list[str], spread: int
) -> None:
    """In the order of the manifest, over any number of parts. The counts agree with the rows."""
    uris = _put_kinds(desk.bench, digit_images)
    refs = [uris[kind] for kind in kinds] + ["no URI"] * (10 * spread)
    job = desk.plan(refs, job_id=f"j{uuid.uuid4().hex}")
    desk.planner.submit(job)
    for request in reversed(desk.sent[-job.parts :]):
        desk.handle(request)
    found = Results(desk.record(job.job_id))
    out = tmp_path / "out.csv"
    counts = results_file.write(found.chunks(), str(out), joined=(), advance=lambda _: None, force=True)
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))
    assert [unguarded(row["source_ref"]) for row in rows] == refs
    assert [row["row"] for row in rows] == [str(number) for number in range(len(refs))]
    assert counts.scored == kinds.count("good") == sum(bool(row["label"]) for row in rows)
    assert counts.rows == len(refs) == counts.scored + counts.failed


def test_a_part_that_is_missing_is_named(desk: Desk, tmp_path: Path) -> None:
    """Nothing is written. With --partial, the rows that are there are."""
    job = desk.plan(["no URI"] * 1200)
    desk.planner.submit(job)
    desk.handle(desk.sent[1])
    found = Results(desk.record("job"))
    out = tmp_path / "out.csv"
    out.write_text("older")
    with pytest.raises(UserError, match=r"700 of 1,200 images have no row yet: parts 0, 2 of 3 are missing") as caught:
        results_file.write(found.chunks(), str(out), joined=(), advance=lambda _: None)
    assert "--partial" in str(caught.value)
    assert out.read_text() == "older"
    partial = results_file.write(found.chunks(partial=True), str(out), joined=(), advance=lambda _: None, force=True)
    assert partial.rows == 500


def test_a_part_that_was_altered_is_named(desk: Desk) -> None:
    """Its digest is compared with the one in its metadata."""
    job = desk.plan(["no URI"] * 3)
    desk.planner.submit(job)
    desk.handle(desk.sent[0])
    key = "predictions/job/parts/part-00000.csv"
    metadata = desk.bench.s3.head_object(Bucket=desk.bench.bucket, Key=key)["Metadata"]
    body = desk.bench.get(f"s3://{desk.bench.bucket}/{key}").replace(b"0.5", b"0.6")
    desk.bench.s3.put_object(Bucket=desk.bench.bucket, Key=key, Body=body, Metadata=metadata)
    with pytest.raises(UserError, match="its digest differs"):
        list(Results(desk.record("job")).chunks())


def test_a_part_with_a_row_missing_is_named(desk: Desk) -> None:
    """Even if its digest is right, it needs a row for each image of the shard."""
    desk.planner.submit(desk.plan(["no URI"] * 3))
    desk.handle(desk.sent[0])
    uri, report = desk.folder("job").part(), desk.record("job").report()
    assert report
    body = b"".join(desk.bench.get(uri).splitlines(keepends=True)[:-1])
    metadata = as_metadata(report.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()}))
    key = uri.removeprefix(f"s3://{desk.bench.bucket}/")
    desk.bench.s3.put_object(Bucket=desk.bench.bucket, Key=key, Body=body, Metadata=metadata)
    with pytest.raises(UserError, match="holds 2 rows, but its shard has 3 images"):
        list(Results(desk.record("job")).chunks())


def test_a_part_of_another_job_is_named(desk: Desk) -> None:
    """Copied to this job, it is intact but does not answer its request."""
    for job_id in ("june", "july"):
        desk.planner.submit(desk.plan([f"no URI for {job_id}"], job_id=job_id))
        desk.handle(desk.sent[-1])
    part = "predictions/{}/parts/part-00000.csv".format
    source = {"Bucket": desk.bench.bucket, "Key": part("july")}
    desk.bench.s3.copy_object(Bucket=desk.bench.bucket, Key=part("june"), CopySource=source)
    with pytest.raises(Reject, match="answers another request"):
        list(Results(desk.record("june")).chunks())


def test_a_job_that_does_not_exist_is_an_error(desk: Desk) -> None:
    """The message says what to run next."""
    with pytest.raises(UserError, match=r"No job named gone in .* To see all jobs:\n  .*twofold batch status$"):
        Results(desk.record("gone"))


def _lines() -> list[Line]:
    def line(number: int, text: str) -> Line:
        if number % 2:
            row = PredictionRow(
                row=number, source_ref=text, threshold=0.5, model_version="v", error_code="empty", error_message=text
            )
        else:
            row = PredictionRow(
                row=number, source_ref=text, label="cat", confidence=0.75, score=0.25, threshold=0.5, model_version="v"
            )
        return Line(row, {"name": text, "label": "from the list"})

    return [line(number, text) for number, text in enumerate(NASTY)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A table with cells that programs tend to misread."""
    path = tmp_path / "out.csv"
    results_file.write([_lines()[:5], _lines()[5:]], str(path), joined=("name", "label"), advance=lambda _: None)
    return path


def _guarded() -> list[str]:
    """The cells in the file: a text that would be run has a quotation mark in front of it."""
    return [f"'{text}" if text.lstrip("'")[0] in "=+-@\t＝" else text for text in NASTY]  # noqa: RUF001


def test_pandas_opens_it(written: Path) -> None:
    """A blank score is NaN."""
    table = pd.read_csv(written, dtype={"name": str, "source_ref": str})
    assert list(table.columns) == [*COLUMNS, "name", "manifest_label"]
    assert table["name"].tolist() == _guarded()
    assert table["score"].isna().tolist() == [bool(number % 2) for number in range(len(NASTY))]
    assert table["manifest_label"].unique().tolist() == ["from the list"]


def test_duckdb_opens_it(written: Path) -> None:
    """It detects all types by itself."""
    table = duckdb.sql(f"select * from read_csv('{written}', all_varchar = false)")
    types = dict(zip(table.columns, map(str, table.types), strict=True))
    assert (types["row"], types["score"], types["label"]) == ("BIGINT", "DOUBLE", "VARCHAR")
    assert [row[0] for row in table.project("source_ref").fetchall()] == _guarded()
    assert table.filter("score is null").shape[0] == len(NASTY) // 2


def test_parquet_has_types_and_the_original_text(tmp_path: Path) -> None:
    """Without quotation marks: no spreadsheet runs a Parquet file."""
    path = tmp_path / "out.parquet"
    results_file.write([_lines()[:5], _lines()[5:]], str(path), joined=("name",), advance=lambda _: None)
    table = pd.read_parquet(path)
    assert table["source_ref"].tolist() == table["name"].tolist() == NASTY
    assert (str(table["row"].dtype), str(table["score"].dtype)) == ("int64", "float64")
    assert duckdb.sql(f"select count(*) from '{path}' where error_code is null").fetchall() == [(len(NASTY) // 2,)]


@pytest.mark.skipif(
    shutil.which("soffice") is None, reason="LibreOffice is not installed: apt-get install libreoffice-calc"
)
def test_a_spreadsheet_opens_it_and_runs_nothing(written: Path, tmp_path: Path) -> None:
    """LibreOffice Calc, with formulas allowed: each cell is text or a number, and not one is a formula."""
    evaluate = "CSV:44,34,76,1,,0,false,true,false,false,true"  # comma, quote, UTF-8; detect numbers, evaluate formulas
    subprocess.run(
        [
            "soffice",
            f"-env:UserInstallation=file://{tmp_path}/profile",
            "--headless",
            f"--infilter={evaluate}",
            "--convert-to",
            "fods",
            "--outdir",
            str(tmp_path),
            str(written),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    names = {
        "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
        "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    }
    document = ET.parse(written.with_suffix(".fods"))
    cells = document.findall(".//table:table-cell", names)
    assert [cell for cell in cells if any("formula" in name for name in cell.attrib)] == []
    rows = document.findall(".//table:table-row", names)
    shown = [
        "\n".join(p.text or "" for p in row.findall("table:table-cell", names)[1].findall("text:p", names))
        for row in rows[1 : len(NASTY) + 1]
    ]
    assert shown[:4] == ["'=1+1", "'+49 30 901820", "'-2", "'@SUM(A1)"]
    assert shown[7:10] == ["é😀", 'a "b", c', "two\nlines"]


def test_the_table_can_go_to_standard_output(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """As ``-o -``, for a pipe."""
    results_file.write([_lines()], results_file.STDOUT, joined=(), advance=lambda _: None)
    assert capsysbinary.readouterr().out.startswith(b"row,source_ref,label")


def test_a_column_of_the_list_with_a_name_of_the_results_gets_another_one(tmp_path: Path) -> None:
    """No two columns have one name, in capitals or not, and each holds its own cells."""
    columns = {"Label": "a", "manifest_label": "b", "file": "c", "row": "d"}
    lines = [Line(_lines()[0].row, columns)]
    for path in (tmp_path / "out.csv", tmp_path / "out.parquet"):
        results_file.write([lines], str(path), joined=tuple(columns), advance=lambda _: None)
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        added = table.iloc[0, len(COLUMNS) :]
        assert added.to_dict() == {
            "manifest_Label": "a",
            "manifest_manifest_label": "b",
            "file": "c",
            "manifest_row": "d",
        }


def test_with_excel_the_file_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Excel then takes it for UTF-8. Without the option there is none, for all other programs."""
    for excel, start in ((True, b"\xef\xbb\xbfrow,"), (False, b"row,")):
        path = tmp_path / f"{excel}.csv"
        results_file.write([_lines()], str(path), joined=(), advance=lambda _: None, excel=excel)
        assert path.read_bytes().startswith(start)
        assert "é😀" in path.read_text(encoding="utf-8-sig")

"""The results as a file: CSV, or Parquet if its name ends in .parquet."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from pydantic import BaseModel

from jobs import output_file
from jobs.batch.results import Line
from jobs.extras import require
from jobs.progress import Advance
from jobs.user_error import UserError
from worker.predictions import COLUMNS, DECISION, cells, csv_bytes

STDOUT: Final = "-"
_CSV: Final = ".csv"
_PARQUET: Final = ".parquet"
#: Without it, Excel reads a CSV file that is double-clicked in the code page of Windows, and shows Ã¼ for ü.
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

Write = Callable[[list[Line]], None]


class Counts(BaseModel):
    """The rows that were written: ``rows = scored + failed``."""

    rows: int = 0
    scored: int = 0
    failed: int = 0
    errors: dict[str, int] = {}  #: failed rows by error_code


def check(path: str, *, force: bool, excel: bool) -> None:
    """Raises UserError if ``write`` could not write the table: call it before the work that the rows take."""
    suffix = Path(path).suffix.lower()
    if path == STDOUT:
        return
    if suffix not in (_CSV, _PARQUET) and not Path(path).is_dir():
        given = f"not in {suffix}" if suffix else "and this one has no ending"
        raise UserError(
            f"{path}: the name of the file must end in .csv or .parquet, {given}. "
            f"Excel opens CSV files: -o {Path(path).with_suffix(_CSV)} --excel"
        )
    if suffix == _PARQUET:
        if excel:
            raise UserError(f"--excel is for CSV files, and {path} is not one.")
        require("parquet")
    output_file.check_free(Path(path), force=force, example="results.csv")


def write(  # noqa: PLR0913 - all that a table can differ in
    chunks: Iterable[list[Line]],
    path: str,
    *,
    joined: tuple[str, ...],
    decided: bool = False,
    advance: Advance,
    force: bool = False,
    excel: bool = False,
) -> Counts:
    """Writes all lines to ``path``, with the columns ``joined`` of the manifest after those of the results.

    With ``decided``, those of the results include the decision.

    The file appears when it is complete. After an error there is none, and an older one is unchanged. Only with
    ``force`` does it replace another. With ``excel`` a CSV file begins with a byte order mark.
    """
    columns = Columns.of(joined, decided=decided)
    counts, errors = Counts(), Counter[str]()
    with _open(path, columns, force=force, excel=excel) as put:
        for chunk in chunks:
            put(chunk)
            errors.update(line.row.error_code for line in chunk if line.row.error_code is not None)
            counts.rows += len(chunk)
            advance(len(chunk))
    counts.errors, counts.failed = dict(sorted(errors.items())), errors.total()
    counts.scored = counts.rows - counts.failed
    return counts


class Columns(NamedTuple):
    """The columns of the table: those of the rows, then those of the manifest by the names that they get."""

    own: tuple[str, ...]
    joined: dict[str, str]

    @classmethod
    def of(cls, joined: Iterable[str], *, decided: bool) -> "Columns":
        """Names the columns of the manifest: ``manifest_label`` for ``label``.

        No two columns of the table differ in capitals alone, since many programs take such names for the same one.
        """
        own = (*COLUMNS, DECISION) if decided else COLUMNS
        taken, names = {name.casefold() for name in own}, {}
        for column in joined:
            name = column
            while name.casefold() in taken:
                name = f"manifest_{name}"
            taken.add(name.casefold())
            names[name] = column
        return cls(own, names)

    @property
    def header(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return (*self.own, *self.joined)

    def values(self, line: Line) -> list[object]:
        """Returns the cells of a line."""
        return [*cells(line.row, self.own), *(line.columns.get(column) for column in self.joined.values())]


@contextmanager
def _open(path: str, columns: Columns, *, force: bool, excel: bool) -> Iterator[Write]:
    if path == STDOUT:
        yield _csv(sys.stdout.buffer, columns, excel=excel)
        return
    with output_file.writing(Path(path), force=force) as file:
        if Path(path).suffix.lower() == _PARQUET:
            with _parquet(file, columns) as put:
                yield put
        else:
            yield _csv(file, columns, excel=excel)


def _csv(file: IO[bytes], columns: Columns, *, excel: bool) -> Write:
    file.write((_BYTE_ORDER_MARK if excel else b"") + csv_bytes([columns.header]))

    def put(chunk: list[Line]) -> None:
        file.write(csv_bytes(columns.values(line) for line in chunk))

    return put


@contextmanager
def _parquet(file: IO[bytes], columns: Columns) -> Iterator[Write]:
    require("parquet")
    import pyarrow as pa  # noqa: PLC0415 - 50 MB that nothing else needs
    from pyarrow import parquet  # noqa: PLC0415

    kinds: dict[str, Any] = {"row": pa.int64(), "confidence": pa.float64(), "score": pa.float64()}
    kinds["threshold"] = pa.float64()
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns.header])
    with parquet.ParquetWriter(file, schema) as writer:

        def put(chunk: list[Line]) -> None:
            values = zip(*(columns.values(line) for line in chunk), strict=True)
            writer.write_batch(pa.record_batch([list(column) for column in values], schema=schema))

        yield put

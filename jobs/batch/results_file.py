"""The results as a file: CSV, or Parquet if its name ends in .parquet."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from pydantic import BaseModel

from jobs.batch.results import Line
from jobs.extras import require
from jobs.progress import Advance
from worker.predictions import COLUMNS, csv_bytes

STDOUT: Final = "-"
_PARQUET: Final = ".parquet"

Write = Callable[[list[Line]], None]


class Counts(BaseModel):
    """The rows that were written: ``rows = scored + failed``."""

    rows: int = 0
    scored: int = 0
    failed: int = 0


def write(chunks: Iterable[list[Line]], path: str, *, joined: tuple[str, ...], advance: Advance) -> Counts:
    """Writes all lines to ``path``, with the columns ``joined`` of the manifest after those of the results.

    The file appears when it is complete. After an error there is none, and an older one is unchanged.
    """
    names = [*COLUMNS, *(_free(name) for name in joined)]
    counts = Counts()
    with _open(path, names) as put:
        for chunk in chunks:
            put(chunk)
            failed = sum(line.row.error_code is not None for line in chunk)
            counts.rows += len(chunk)
            counts.failed += failed
            counts.scored += len(chunk) - failed
            advance(len(chunk))
    return counts


def _free(name: str) -> str:
    """Returns a name for a column of the manifest that no column of the results has."""
    return f"manifest_{name}" if name in COLUMNS else name


@contextmanager
def _open(path: str, names: list[str]) -> Iterator[Write]:
    if path == STDOUT:
        yield _csv(sys.stdout.buffer, names)
        return
    target = Path(path)
    handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if target.suffix == _PARQUET:
                with _parquet(file, names) as put:
                    yield put
            else:
                yield _csv(file, names)
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    finally:
        Path(draft).unlink(missing_ok=True)


def _csv(file: IO[bytes], names: list[str]) -> Write:
    file.write(csv_bytes([names]))
    others = names[len(COLUMNS) :]

    def put(chunk: list[Line]) -> None:
        file.write(csv_bytes(_values(line, others) for line in chunk))

    return put


@contextmanager
def _parquet(file: IO[bytes], names: list[str]) -> Iterator[Write]:
    require("parquet")
    import pyarrow as pa  # noqa: PLC0415 - 50 MB that nothing else needs
    from pyarrow import parquet  # noqa: PLC0415

    kinds: dict[str, Any] = {"row": pa.int64(), "confidence": pa.float64(), "score": pa.float64()}
    kinds["threshold"] = pa.float64()
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    others = names[len(COLUMNS) :]
    with parquet.ParquetWriter(file, schema) as writer:

        def put(chunk: list[Line]) -> None:
            columns = zip(*(_values(line, others) for line in chunk), strict=True)
            writer.write_batch(pa.record_batch([list(column) for column in columns], schema=schema))

        yield put


def _values(line: Line, others: list[str]) -> Iterator[object]:
    yield from line.row.model_dump().values()
    for name in others:
        yield line.columns.get(name, line.columns.get(name.removeprefix("manifest_")))

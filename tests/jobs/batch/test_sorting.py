"""Sorting on the file system alone: killed before every call, and with names from anywhere."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.batch.folder_placer import FolderPlacer
from jobs.batch.pile_folder import PileFolder
from jobs.batch.pile_list import Method, PileList
from jobs.batch.piles import Picture, Piles, pile_folders
from jobs.batch.results import Line
from jobs.batch.sorting import SortedPiles, sort_pictures
from jobs.batch.unsorting import undo
from jobs.progress import Reporter
from jobs.store import FolderStore
from jobs.user_error import UserError
from tests.jobs.batch.test_safe_names import names
from worker.aws.storage import Storage
from worker.contract import Job
from worker.predictions import Rule


class Killed(BaseException):
    """The process is gone: nothing that it would do from now on happens."""


@contextmanager
def _killed_before(call: int) -> Iterator[Callable[[], int]]:
    """Ends the process before its ``call``-th call that changes a file system; yields how many there were."""
    calls = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            if real is not os.open or (len(arguments) > 1 and arguments[1] & os.O_CREAT):
                calls += 1
                if calls >= call:
                    raise Killed
            return real(*arguments, **named)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in ("link", "unlink", "rename", "replace", "mkdir", "rmdir", "fsync", "open"):
            patch.setattr(os, name, counting(getattr(os, name)))
        yield lambda: calls


def _submitted(folder: Path, count: int = 4) -> list[bytes]:
    """Writes files as they were submitted."""
    bodies = [f"picture {number}".encode() for number in range(count)]
    (folder / "sub").mkdir(parents=True)
    for number, body in enumerate(bodies):
        (folder / ("sub" if number % 2 else "") / f"{number}.png").write_bytes(body)
    return bodies


def _pictures(folder: Path, bodies: list[bytes], piles: str) -> list[Picture]:
    """The pictures, each with its pile."""
    found = []
    for number, body in enumerate(bodies):
        name = f"{'sub/' if number % 2 else ''}{number}.png"
        sha256 = hashlib.sha256(body).hexdigest()
        found.append(
            Picture(
                source_ref=f"s3://a-bucket/out/_uploads/{sha256}/{number}.png",
                version_id=None,
                key=str(folder / name),
                label=None,
                pile=piles[number],
                name=name,
                original=str(folder / name),
                sha256=sha256,
            )
        )
    return found


def _sort(photos: Path, target: Path, pictures: list[Picture], how: Method) -> SortedPiles:
    found = SortedPiles(job_id="june", how=how, to=str(target), images=len(pictures))
    with PileFolder(target) as folder:
        known = PileList(FolderStore(target))
        placer = FolderPlacer(folder, cast("Storage", None), how=how, sources=[f"{photos}/"])
        placer.threads = 1
        sort_pictures(pictures, placer, known, found, lambda _: None)
    return found


def _files(*folders: Path) -> list[bytes]:
    """The contents of all pictures below some folders."""
    paths = (path for folder in folders for path in sorted(folder.rglob("*.png")))
    return sorted(path.read_bytes() for path in paths)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", [Method.COPY, Method.LINK, Method.MOVE])
def test_a_sort_that_is_killed_before_any_call_goes_on_with_other_piles_or_is_undone(
    tmp_path: Path, how: Method, step: int
) -> None:
    """One call after another: no picture is lost or in two piles, and a move is undone at any instant."""
    call, calls = 1, 10**6
    while call <= calls:
        photos, target = tmp_path / f"{call}-photos", tmp_path / f"{call}-piles"
        bodies = _submitted(photos)
        _sort(photos, target, _pictures(photos, bodies[:2], "ab"), how)
        with _killed_before(call) as counted:
            try:
                _sort(photos, target, _pictures(photos, bodies, "bbab"), how)
                calls = counted() - 1
            except Killed:
                pass
        assert set(_files(photos, target)) == set(bodies)
        if call % 2 or how is not Method.MOVE:
            again = _pictures(photos, bodies, "abba")
            found = _sort(photos, target, again, how)
            assert (found.unplaced, found.piles) == ([], {"a": 2, "b": 2})
            assert [(target / picture.file).read_bytes() for picture in again] == bodies
            assert _files(target) == bodies
            assert _files(photos) == ([] if how is Method.MOVE else bodies)
        if how is Method.MOVE:
            assert undo(target, cast("Any", None), Reporter(quiet=True)).unplaced == []
            assert (_files(photos), _files(target)) == (bodies, [])
        call += step
    assert calls > 50


def _body(uri: str, version_id: str | None) -> bytes:
    """What the bucket holds: the name of the object, or what was uploaded under that number."""
    return uri.rpartition("/")[2].encode() if "/_uploads/" in uri else f"{uri} {version_id}".encode()


class _Bucket:
    """A bucket with every object."""

    def stream(self, uri: str, *, version_id: str | None = None) -> Iterator[bytes]:
        yield _body(uri, version_id)


RESERVED = ["unsure", "failed", "replaced", "piles.csv", "_piles"]
#: As JSON and CSV can hold them: without halves of characters.
texts = names.map(lambda text: text.encode("utf-8", "replace").decode())
labels = texts.map(lambda text: text[:128]).filter(bool) | st.sampled_from(["Cat", "cat", "CAT", *RESERVED])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pair=st.tuples(labels, labels).filter(lambda pair: pair[0] != pair[1]),
    asked=st.lists(st.tuples(texts, st.booleans(), st.floats(0, 1), st.sampled_from([None, "v1"])), max_size=8),
)
@example(
    pair=("Cat", "cat"), asked=[("a.png", True, 0.1, None), ("A.png", True, 0.9, None), ("a.png", False, 0.9, None)]
)
@example(pair=("../x", "failed"), asked=[("../../x", True, 0.1, None), ("/etc/passwd", True, 0.9, None)])
def test_names_from_anywhere_stay_below_the_target_each_picture_under_its_own(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, str], asked: list[tuple[str, bool, float, str | None]]
) -> None:
    """Names of files, keys and classes: whatever they are, every picture is in its pile, and none outside of it."""
    above = tmp_path_factory.mktemp("above")
    target = above / "piles"
    job = Job(
        job_id="june",
        created_at=datetime.now(UTC),
        sources=("/nowhere/",),
        digest="0" * 64,
        images=max(1, len(asked)),
        output_uri="s3://a-bucket/out",
    )
    rule = Rule(labels=pair, threshold=0.5, model_version="v1")
    lines = []
    for number, (name, is_file, score, version_id) in enumerate(asked):
        uploaded = f"s3://a-bucket/out/_uploads/{hashlib.sha256(str(number).encode()).hexdigest()}/{number}"
        ref = uploaded if is_file else f"s3://a-bucket/{number % 2}/{name}"
        lines.append(Line(rule.scored(number, ref, score), {"file": name} if is_file else {}, version_id))
    piles = Piles(job, band=None)
    piles.add(lines)
    found = SortedPiles(job_id="june", how=Method.COPY, to="", images=piles.rows, listed_twice=piles.listed_twice)
    for _ in range(2):
        with PileFolder(target) as folder:
            known = PileList(FolderStore(target))
            piles.name_all(known)
            placer = FolderPlacer(folder, cast("Storage", _Bucket()), how=Method.COPY, sources=job.sources)
            run = found.model_copy(deep=True)
            sort_pictures(piles.pictures, placer, known, run, lambda _: None)
        assert run.unplaced == []
        assert sum(run.piles.values()) + run.listed_twice == len(asked)
        written = [path for path in above.rglob("*") if path.is_file() and path != target / "piles.csv"]
        assert len(written) == len(piles.pictures)
        for picture in piles.pictures:
            assert (target / picture.file).read_bytes() == _body(picture.source_ref, picture.version_id)
        assert {path.name for path in above.iterdir()} <= {"piles"}
    shown = [path.relative_to(target).as_posix().casefold() for path in written]
    assert len(set(shown)) == len(shown)


def test_two_classes_never_share_a_pile_and_none_has_that_of_something_else() -> None:
    """A digest makes the difference; ordinary names stay as they are."""
    assert pile_folders(["cats", "dogs"]) == {"cats": "cats", "dogs": "dogs"}
    for pair in (["Cat", "cat"], ["unsure", "x"], ["../x", "x"], ["a/b", "a_b"], ["failed", "FAILED"], ["con", "_con"]):
        folders = list(pile_folders(pair).values())
        assert len({folder.casefold() for folder in folders}) == 2
        assert not {folder.casefold() for folder in folders} & set(RESERVED)
        assert not [folder for folder in folders if "/" in folder]


def test_two_sorts_into_one_folder_do_not_run_at_once(tmp_path: Path) -> None:
    """The second one says so."""
    with PileFolder(tmp_path), pytest.raises(UserError, match="Another command is sorting into"), PileFolder(tmp_path):
        pass


@pytest.mark.parametrize("body", [b"", b"source_ref,pile\n", b"\xff", b"x" * 200_000])
def test_a_list_that_no_sort_wrote_is_refused(tmp_path: Path, body: bytes) -> None:
    """It is somebody's file."""
    (tmp_path / "piles.csv").write_bytes(body)
    with pytest.raises(UserError, match="is not a list that 'batch sort' wrote"):
        PileList(FolderStore(tmp_path))

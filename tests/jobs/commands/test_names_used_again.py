"""The name of a cancelled job in use again, while a worker of the cancelled one is in the middle of its work."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from jobs.batch.cancelling import NameUse
from tests.conftest import Bench
from tests.desk import ON_BOTH_EMULATORS, Desk
from tests.jobs.commands.conftest import Twofold, Work
from worker.contract import ClassifyRequest, Job, ManifestRef, Summary
from worker.dispatch import Done, Outcome
from worker.predictions import from_csv

#: More than anything takes here, on any machine.
_LONG_S = 60


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test is about what storage guarantees."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


class LateWorker:
    """A worker that stops right before it writes an object whose URI ends with ``name``: all that it asks is asked."""

    def __init__(self, desk: Desk, request: ClassifyRequest, name: str) -> None:
        self._outcome: Outcome | None = None
        self._name: str | None = name
        self._reached, self._goes_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(desk, request), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._reached.wait(_LONG_S)

    def _run(self, desk: Desk, request: ClassifyRequest) -> None:
        self._outcome = desk.outcome(request)

    def before_put(self, uri: str) -> None:
        if self._name is not None and uri.endswith(self._name):
            self._name = None
            self._reached.set()
            assert self._goes_on.wait(_LONG_S)

    def go_on(self) -> None:
        """Lets it write. Nothing is wrong with its request: it is done, and not refused."""
        self._goes_on.set()
        self._thread.join(_LONG_S)
        assert isinstance(self._outcome, Done), self._outcome


@dataclass
class Scene:
    """The commands, and workers over a storage of their own."""

    bench: Bench
    desk: Desk
    twofold: Twofold
    work: Work
    folder: Path
    late: list[LateWorker] = field(default_factory=list)

    def submit(self, name: str, count: int) -> tuple[int, str]:
        """Submits a list of ``count`` references as the job june."""
        path = self.folder / f"{name}.csv"
        path.write_text("source_ref\n" + "".join(f"{name} {number}\n" for number in range(count)))
        return self.twofold("submit", str(path), "--job-id", "june")

    def use_again(self, count: int) -> None:
        for status, output in (self.twofold("cancel", "june"), self.submit("new", count)):
            assert status == 0, output

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.twofold("status", "june", "--json")[1])
        return found

    def stop_worker_before(self, name: str, request: ClassifyRequest) -> LateWorker:
        self.late.append(LateWorker(self.desk, request, name))
        self.late[-1].start()
        return self.late[-1]

    def request(self, number: int = 0) -> ClassifyRequest:
        """A request of the job as it is now."""
        job = self.desk.record("june").job()
        assert job is not None
        return job.request(number, shard_uri=self.desk.folder("june").shard(number))

    def long_request(self) -> ClassifyRequest:
        """A request for the job june that a worker splits: its list has another column."""
        manifest = self.bench.put("old.csv", ("source_ref,name\n" + "old,x\n" * 600).encode())
        return ClassifyRequest(schema_version=1, job_id="june", manifest=ManifestRef(uri=manifest))

    def check_all_is_new(self, count: int) -> None:
        """Rows, failed rows, summary and state are those of the later job, and no request of either was refused."""
        folder, numbers = self.desk.folder("june"), range(-(-count // 500))
        refs = [f"new {number}" for number in range(count)]
        with TemporaryDirectory() as elsewhere:
            written = Path(elsewhere) / "june.csv"
            status, output = self.twofold("results", "june", "-o", str(written))
            assert (status, f"{count:,} rows = 0 scored" in output) == (1, True), output  # none of them is an image
            results = written.read_bytes()
        for table in (
            results,
            b"".join(self.bench.get(folder.part(number)) for number in numbers),
            b"".join(self.bench.get(folder.errors(number)) for number in numbers),
        ):
            header, rest = table.split(b"\n", 1)
            rows = from_csv(header + b"\n" + rest.replace(header + b"\n", b""))
            assert [row.source_ref for row in rows] == refs
        assert Summary.model_validate_json(self.bench.get(folder.summary)).rows == count
        found = self.status()
        assert (found["state"], found["done"], found["failed"]) == ("complete with failures", count, count)
        assert "is complete with failures: there is nothing to cancel" in self.twofold("cancel", "june")[1]
        assert self.bench.dead_letters() == []


@pytest.fixture
def scene(
    bench: Bench, desk: Desk, twofold: Twofold, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    made, put = Scene(bench, desk, twofold, work, tmp_path), desk.storage._put_if

    def put_late(uri: str, *arguments: Any, **conditions: Any) -> bool:
        for worker in made.late:
            worker.before_put(uri)
        return put(uri, *arguments, **conditions)

    monkeypatch.setattr(desk.storage, "_put_if", put_late)
    yield made
    for worker in made.late:
        worker._goes_on.set()
        worker._thread.join(_LONG_S)


def _slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@ON_BOTH_EMULATORS
@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("parts/part-00000.csv", False),
        _slow("errors/part-00000.csv", False),
        _slow("summary.json", False),
        ("_SUCCESS", False),
        _slow("parts/part-00000.csv", True),
        ("errors/part-00000.csv", True),
        _slow("summary.json", True),
        _slow("_SUCCESS", True),
    ],
)
def test_what_a_worker_of_a_cancelled_job_writes_late_harms_no_later_job_of_that_name(
    scene: Scene, name: str, *, answered: bool
) -> None:
    """Whatever it writes, and whether it does so before or after the workers of the later job."""
    assert scene.submit("old", 3)[0] == 0
    worker = scene.stop_worker_before(name, scene.request())
    scene.use_again(2)
    if answered:
        scene.work()
    worker.go_on()
    if not answered:
        found = scene.status()
        assert (found["state"], found["images"], found["done"], found["waiting"]) == ("waiting", 2, 0, 2)
        missing = "2 of 2 images have no row yet: part 0 of 1 is missing"
        assert missing in scene.twofold("results", "june", "-o", "-")[1]
        scene.work()
    scene.check_all_is_new(2)


def test_a_late_part_beyond_those_of_the_later_job_is_not_counted(scene: Scene) -> None:
    """It would be more than all."""
    assert scene.submit("old", 600)[0] == 0
    worker = scene.stop_worker_before("parts/part-00001.csv", scene.request(1))
    scene.use_again(2)
    worker.go_on()
    assert "parts/part-00001.csv" in scene.desk.names("june")
    found = scene.status()
    assert (found["state"], found["done"], found["parts_done"]) == ("waiting", 0, 0)
    scene.work()
    scene.check_all_is_new(2)


def _go_on_after(step: Callable[..., Any], worker: LateWorker, patch: pytest.MonkeyPatch) -> None:
    """Lets the worker go on while a command uses the name again, once it has taken this step."""

    def and_then(*arguments: Any) -> Any:
        done = step(*arguments)
        worker.go_on()
        return done

    patch.setattr(NameUse, step.__name__, and_then)


@pytest.mark.parametrize("name", ["parts/part-00000.csv", "submitted"])
def test_what_is_written_late_does_not_keep_requests_from_being_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A part, or the marker that all requests are sent, is that of the cancelled job."""
    if name == "submitted":
        worker = scene.stop_worker_before(name, scene.long_request())
    else:
        assert scene.submit("old", 3)[0] == 0
        worker = scene.stop_worker_before(name, scene.request())
    with monkeypatch.context() as patch:
        _go_on_after(NameUse.revive, worker, patch)
        scene.use_again(2)
    assert name in scene.desk.names("june")
    scene.work()
    scene.check_all_is_new(2)


@pytest.mark.parametrize("name", [_slow("shards/00000.jsonl"), "shards/00001.jsonl", _slow("job.json")])
def test_a_late_plan_is_not_taken_for_that_of_the_later_job(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A worker still splits the list of the cancelled job. The command says so, and works when it is typed again."""
    scene.bench.put("predictions/june/shards/00009.jsonl", b"")  # there is something to cancel
    worker = scene.stop_worker_before(name, scene.long_request())
    assert scene.twofold("cancel", "june")[0] == 0
    with monkeypatch.context() as patch:
        _go_on_after(NameUse.prepare, worker, patch)
        status, message = scene.submit("new", 600)
    assert (status, "is still being written: run the same command again" in message) == (1, True), message
    status, message = scene.submit("new", 600)
    assert status == 0, message
    scene.work()
    scene.check_all_is_new(600)


@pytest.mark.parametrize("name", ["shards/00001.jsonl", _slow("job.json"), _slow("submitted")])
def test_a_plan_that_is_later_still_changes_nothing(scene: Scene, name: str) -> None:
    """All of the later job is submitted in between."""
    worker = scene.stop_worker_before(name, scene.long_request())
    scene.use_again(600)
    worker.go_on()
    job = Job.model_validate_json(scene.bench.get(scene.desk.folder("june").job))
    assert [Path(source).name for source in job.sources] == ["new.csv"]
    scene.work()
    scene.check_all_is_new(600)

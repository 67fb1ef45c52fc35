"""A trial: entries of the catalogue are sent to a real worker, and what they become is read from its answers.

    room = Room.of(bench, models)
    with Trial(room) as trial:
        (became,) = trial.of([entry])

The entries name a fixed bucket and fixed jobs, so an entry is tried once in each emulator.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]

from jobs.local.emulator import create_queues
from jobs.user_error import UserError
from tests.bench.process import WorkerProcess
from tests.conftest import Bench
from tests.hostile.bodies import BUCKET, SOUND, Sent, manifest_request, request
from tests.hostile.catalogue import BOMB, IMAGE, MANIFEST, REFERENCE, Entry
from tests.hostile.files import encoded, noise
from tests.hostile.images import Stored
from worker import messages
from worker.contract import PredictionRow
from worker.predictions import from_csv

#: What a worker and its children may take together, in MB.
MEMORY_MB: Final = 600
#: A worker that takes this much is killed before it takes the machine with it.
_KILL_MB: Final = 4 * MEMORY_MB
#: Eight images that take 30 s each, on two cores, and a minute more.
_LIMIT_S: Final = 180
#: Characters of an error message, which must not grow with the input.
_MAX_MESSAGE: Final = 1000


@dataclass(frozen=True)
class Became:
    """What became of an entry."""

    steps: tuple[str, ...]  #: of each image, message or file, in the words of the catalogue
    seconds: float = 0.0  #: until everything was answered
    peak_mb: float = 0.0  #: of the worker and its children, as proportional set size


@dataclass(frozen=True)
class Room:
    """A bucket with two sound images and a model."""

    bench: Bench
    champion: str  #: the URI of the model

    @classmethod
    def of(cls, bench: Bench, models: Path) -> Self:
        """Puts the images and the folder ``models`` into the bucket that the entries name."""
        bench.s3.create_bucket(Bucket=BUCKET)
        own = replace(bench, bucket=BUCKET)
        for uri in SOUND:
            own.put(uri.removeprefix(f"s3://{BUCKET}/"), encoded(noise(), "PNG"))
        return cls(own, own.put_bundle(models))


class Trial(WorkerProcess):
    """A worker with a queue of its own, as a context manager."""

    def __init__(self, room: Room) -> None:
        # One receive: what would be tried again is seen as a dead letter, and not after minutes of backoff.
        queues = create_queues(room.bench.sqs, f"trial-{time.monotonic_ns()}", max_receives=1)
        self._bench = replace(room.bench, queues=queues)
        settings = {
            "TWOFOLD_QUEUE_URL": queues.requests_url,
            "TWOFOLD_OUTPUT_URI": self._bench.output_uri,
            "TWOFOLD_MODEL_URI": room.champion,
        }
        super().__init__("worker", room.bench.environment | settings)

    def __enter__(self) -> Self:
        """Returns when the worker has answered a request."""
        super().__enter__()
        self._bench.send(request(job_id=f"ready-{time.monotonic_ns()}"))
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.Error):
            for process in self.family():
                process.kill()
        super().__exit__()

    def of(self, entries: Sequence[Entry]) -> list[Became]:
        """Tries entries at the same time. All hostile images are in one request, with a sound one at its end."""
        made = {entry: entry.make() for entry in entries}
        images = {entry: self._refs(entry, product) for entry, product in made.items() if _is_image(entry, product)}
        sent = {entry: _as_sent(entry, product) for entry, product in made.items() if entry not in images}
        for key, body in (item for one in sent.values() for item in one.objects.items()):
            self._bench.put(key, body)
        started_s = time.monotonic()
        self.forget_peak()
        ids = {entry: [self._send(body) for body in one.bodies] for entry, one in sent.items()}
        job_id = self._send_images(images) if images else ""
        try:
            self._wait()
        except UserError as error:
            return [Became((str(error).partition(". ")[0],), time.monotonic() - started_s, self.peak_mb())] * len(made)
        seconds, peak_mb, letters = time.monotonic() - started_s, self.peak_mb(), self._letters()
        steps = {entry: self._steps(one.bodies, ids[entry], letters) for entry, one in sent.items()}
        steps |= self._steps_of_images(images, job_id) if images else {}
        return [Became(steps[entry], seconds, peak_mb) for entry in entries]

    def _send(self, body: str) -> str:
        answer = self._bench.sqs.send_message(QueueUrl=self._bench.queues.requests_url, MessageBody=body)
        return str(answer["MessageId"])

    def _send_images(self, images: dict[Entry, list[str]]) -> str:
        """Asks for all images and a sound one, and returns the id of the job."""
        job_id = f"images-{time.monotonic_ns()}"
        self._send(request(job_id=job_id, images=[*chain.from_iterable(images.values()), SOUND[0]]))
        return job_id

    def _refs(self, entry: Entry, product: Any) -> list[str]:
        """Stores the images of an entry, the same bytes once, and returns their URIs."""
        files = product if isinstance(product, list) else [product]
        folder = f"hostile/{entry.slug}"
        places = {file: self._store(f"{folder}/{number}", file) for number, file in enumerate(dict.fromkeys(files))}
        return [places[file] for file in files]

    def _store(self, key: str, file: bytes | str | Stored) -> str:
        if isinstance(file, str):
            return file
        if isinstance(file, bytes):
            return self._bench.put(key, file)
        self._bench.s3.put_object(Bucket=BUCKET, Key=key, Body=file.body, **file.options)
        return f"s3://{BUCKET}/{key}"

    def _wait(self) -> None:
        self.wait_until(self._is_done, what="an empty queue", limit_s=_LIMIT_S)

    def _is_done(self) -> bool:
        """Measures, and returns whether no message waits or is held. The worker deletes a message last."""
        if self.peak_mb() > _KILL_MB:
            raise UserError(f"killed at {self.peak_mb():,.0f} MB. It would have taken more.")
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        url = self._bench.queues.requests_url
        counts = self._bench.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return not any(map(int, counts.values()))

    def _letters(self) -> dict[str, str]:
        """Takes all dead letters, and returns their codes by the id of the message."""
        found: dict[str, str] = {}
        while letters := self._bench.dead_letters():
            for letter in letters:
                reason = {name: value["StringValue"] for name, value in letter.get("MessageAttributes", {}).items()}
                found[reason.get("message_id", letter["MessageId"])] = reason.get("error_code", "without a reason")
                url = self._bench.queues.dead_letter_url
                self._bench.sqs.delete_message(QueueUrl=url, ReceiptHandle=letter["ReceiptHandle"])
        return found

    def _steps(self, bodies: Sequence[str], ids: Sequence[str], letters: dict[str, str]) -> tuple[str, ...]:
        steps: list[str] = []
        for body, message_id in zip(bodies, ids, strict=True):
            if message_id in letters:
                steps.append(f"dead letter: {letters[message_id]}")
            elif jobs := [asked.job_id for asked in messages.read(body)]:
                steps += [_step(row) for job_id in jobs for row in self._rows(job_id)] or ["no answer"]
            else:
                steps.append("acknowledged")
        return tuple(steps)

    def _steps_of_images(self, images: dict[Entry, list[str]], job_id: str) -> dict[Entry, tuple[str, ...]]:
        rows = iter([_step(row) for row in self._rows(job_id)])
        steps = {entry: tuple(next(rows, "no row") for _ in refs) for entry, refs in images.items()}
        neighbour = next(rows, "no row")
        return steps if neighbour == "scored" else dict.fromkeys(images, (f"the sound image: {neighbour}",))

    def _rows(self, job_id: str) -> list[PredictionRow]:
        keys = self._bench.keys(f"predictions/{job_id}/parts/")
        return [row for key in keys for row in from_csv(self._bench.get(f"s3://{BUCKET}/{key}"))]


def _is_image(entry: Entry, product: Any) -> bool:
    return entry.kind in {REFERENCE, IMAGE, BOMB} and not isinstance(product, Sent)


def _as_sent(entry: Entry, product: Any) -> Sent:
    if entry.kind is not MANIFEST or isinstance(product, Sent):
        return Sent.of(product)
    key = f"lists/{entry.slug}"
    return Sent((manifest_request(entry.slug, key),), {key: product})


def _step(row: PredictionRow) -> str:
    if row.error_code is None:
        return "scored"
    size = len(row.error_message or "")
    return row.error_code if 0 < size <= _MAX_MESSAGE else f"{row.error_code} in {size:,} characters"

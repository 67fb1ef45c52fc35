"""The scenarios: what is done to workers while they answer requests. Each returns its count.

``tests/chaos/forms.py`` says how large each one is.
"""

import hashlib
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from tests.chaos.fault_proxy import Faults, Gate, Hold, NoBackoff, Slow
from tests.chaos.ground import LEASE_S, Ground
from tests.chaos.tally import Asked, Picture, Tally
from tests.chaos.workers import Template
from worker.batch.job_folder import UPLOADS
from worker.contract import SHARD_IMAGES

#: The memory of a worker may grow by this share between the first fifth of a soak and its end: caches fill up.
_GROWTH: Final = 0.2


@dataclass(frozen=True)
class Death:
    """A point at which a worker is killed: at a call that it makes while it answers a request of some kind."""

    request: str  #: short, planned or invalid
    call: str
    arrives: bool  #: whether the call is carried out before the worker dies


#: Every point. A request is received, scored, written, closed and deleted.
_CALLS: Final = {
    "short": (
        "ReceiveMessage",
        "GET image",
        "PUT part",
        "PUT errors",
        "PUT job.json",
        "PUT summary.json",
        "PUT _SUCCESS",
        "DeleteMessage",
    ),
    "planned": ("PUT shard", "PUT job.json", "SendMessageBatch", "PUT marker", "DeleteMessage"),
    "invalid": ("SendMessage", "DeleteMessage"),
}
EVERY_DEATH: Final = tuple(
    Death(request, call, arrives)
    for request, calls in _CALLS.items()
    for call in calls
    for arrives in (False, True)
    if arrives or call != "ReceiveMessage"  # before it arrives, there is nothing to lose
)
#: Those that another order of the steps would not survive.
TELLING_DEATHS: Final = (
    Death("short", "PUT part", arrives=True),
    Death("planned", "PUT job.json", arrives=True),
    Death("planned", "SendMessageBatch", arrives=False),
    Death("invalid", "SendMessage", arrives=False),
)


def kills(ground: Ground, luck: Random, *, requests: int, kills: int, messages: int) -> Tally:
    """Two workers, or children of theirs, are killed at random instants of one of their first ``messages``."""
    asked = ground.requests(luck, requests, images=(10, 40), invalid=0.1)
    ground.send(asked, luck, twice=0.2)
    _kill_two_workers(ground, luck, kills, messages=messages, message_s=0.1)
    ground.drain()
    return ground.tally(asked, harm=kills)


def plans(ground: Ground, luck: Random, *, lists: int, images: int, kills: int) -> Tally:
    """Long lists are planned and answered by two workers that are killed at random instants."""
    asked = [ground.listed(ground.pictures(luck, images), number) for number in range(lists)]
    ground.send(asked)
    _kill_two_workers(ground, luck, kills, messages=4, message_s=0.6)
    ground.drain()
    return ground.tally(asked, harm=kills)


def _kill_two_workers(ground: Ground, luck: Random, kills: int, *, messages: int, message_s: float) -> None:
    """``message_s`` is about what a message takes."""

    def kill_again_and_again(luck: Random) -> None:
        worker = ground.crew.start()
        for _ in range(kills // 2):
            if worker.status() is not None:
                worker = ground.crew.start()
            # Counted in messages, since some must be answered between two kills however slow the machine is.
            ground.wait_for_messages(worker, luck.randint(1, messages))
            time.sleep(luck.uniform(0.0, message_s))
            worker.kill_one(luck)
        worker.kill()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill_again_and_again, [Random(luck.random()), Random(luck.random())]))


def points(ground: Ground, luck: Random, *, deaths: Iterable[Death]) -> Tally:
    """A worker is killed at each named point of its work."""
    make = {"short": ground.request, "planned": ground.planned, "invalid": ground.invalid}
    asked = []
    for number, death in enumerate(deaths):
        request = make[death.request](luck, 8, number)
        about = "" if death.call == "GET image" else request.job_id
        with ground.proxy.using(Hold(death.call, about=about, arrives=death.arrives)) as hold:
            ground.send([request])
            worker = ground.crew.start(**ground.storage_through_proxy)
            hold.wait()
            worker.kill()
        asked.append(request)
    ground.drain()
    return ground.tally(asked, harm=len(asked))


def freezes(ground: Ground, luck: Random, *, freezes: int) -> Tally:
    """Workers are frozen past their lease, others answer, and then they continue."""
    asked = ground.requests(luck, 2 * freezes, images=(80, 120))
    ground.send(asked)
    frozen = []
    for _ in range(freezes):
        worker = ground.crew.start()
        worker.wait_for("scoring with")
        time.sleep(luck.uniform(0.0, 0.02))
        worker.send_to_all(signal.SIGSTOP)
        frozen.append(worker)
    ground.drain()
    for worker in frozen:
        worker.send(signal.SIGTERM)  # pending until it continues: it ends after the message that it holds
        worker.send_to_all(signal.SIGCONT)
    stuck = [worker for worker in frozen if worker.wait() != 0]
    tally = ground.tally(asked, harm=freezes)
    tally.wrong += sum(tally.note(f"{worker.log.name}: exit status {worker.status()}") for worker in stuck)
    return tally


def stops(ground: Ground, luck: Random, *, stops: int, image_s: float, stop_s: int) -> Tally:
    """A worker is stopped with SIGTERM at a random instant. It exits with 0 and leaves nothing in flight.

    An image takes ``image_s`` longer than it does, so that a request can take longer than the ``stop_s`` of a stop.
    """
    settings = ground.storage_through_proxy | {"TWOFOLD_FETCHERS": "1", "TWOFOLD_STOP_S": str(stop_s)}
    asked, stranded = [], []
    for number in range(stops):
        with ground.proxy.using(Slow("GET image", image_s)):
            worker = ground.crew.start(**settings)
            worker.wait_for("ready")
            requests = [ground.request(luck, luck.randint(20, 60), f"{number}-{twin}") for twin in range(2)]
            if number % 2:  # the messages arrive in the poll that is open when the signal comes
                worker.send(signal.SIGTERM)
            ground.send(requests)
            if number % 2 == 0:
                time.sleep(luck.uniform(0.0, 0.2))
                worker.send(signal.SIGTERM)
            if worker.wait() != 0 or ground.in_flight():
                stranded.append(f"{worker.log.name}: exit status {worker.status()}, {ground.in_flight()} in flight")
        asked += requests
    ground.drain()
    tally = ground.tally(asked, harm=stops)
    tally.wrong += sum(map(tally.note, stranded))
    return tally


def faults(ground: Ground, luck: Random, *, requests: int, workers: int, share: float = 0.2) -> Tally:
    """A share of all calls of S3 and SQS fail: cut connections, lost answers, 503, 500, cut bodies, delays."""
    asked = ground.requests(luck, requests, invalid=0.1)
    started = [ground.crew.start(**ground.storage_through_proxy) for _ in range(workers)]
    for worker in started:
        worker.wait_for("ready")
    # Without pauses between its receives, a request fails as often, and the scenario ends minutes earlier.
    with ground.proxy.using(NoBackoff(LEASE_S)), ground.proxy.using(Faults(share=share, luck=luck)) as faults:
        ground.send(asked, luck, twice=0.2)
        ground.wait_until_empty(started)
    return ground.tally(asked, harm=faults.done)


def races(ground: Ground, luck: Random, *, writers: int, rounds: int) -> Tally:
    """Workers write the same part at the same instant; in every fourth round, all parts of a job."""
    started = [ground.crew.start(**ground.storage_through_proxy) for _ in range(writers)]
    asked = []
    for number in range(rounds):
        one_part = number % 4 != 1
        request = (
            ground.request(luck, 8, number)
            if one_part
            else ground.listed([ground.cheap] * (SHARD_IMAGES * writers), number)
        )
        with ground.proxy.using(Gate("PUT part", about=request.job_id, count=writers)) as gate:
            ground.send([request] * (writers if one_part else 1))
            ground.wait_until_empty(started)
        assert gate.opened, f"{writers} workers did not write {request.job_id} at the same time"
        asked.append(request)
    return ground.tally(asked, harm=rounds)


def submit(ground: Ground, luck: Random, *, images: int, kills: int) -> Tally:
    """``twofold batch submit`` is killed at random instants, and then typed again."""
    asked = _job_of_files(ground, luck, images)
    arguments = ("batch", "submit", str(ground.folder / "photos"), str(ground.folder / "list.csv"), "--job-id", "june.")
    with Template("jobs.commands.app", "jobs.batch.submit") as commands:
        run = partial(commands.start, "jobs.cli", *arguments, environment=ground.environment, log=ground.folder / "log")
        for _ in range(kills):
            command = run()
            time.sleep(luck.uniform(0.0, 0.9))
            command.kill()
        command = run()
        assert command.wait() == 0, command.text()[-2000:]
    ground.drain()
    return ground.tally([asked], harm=kills)


def _job_of_files(ground: Ground, luck: Random, images: int) -> Asked:
    """Writes a folder with all good pictures, and a list of other ones."""
    photos = ground.folder / "photos"
    photos.mkdir()
    uploaded = []
    for number, picture in enumerate(ground.good):
        body = ground.bench.get(picture.ref)
        (photos / f"{number:02}.png").write_bytes(body)
        uri = f"{ground.bench.output_uri}{UPLOADS}/{hashlib.sha256(body).hexdigest()}/{number:02}.png"
        uploaded.append(Picture(uri, picture.expected))
    listed = ground.pictures(luck, images)
    (ground.folder / "list.csv").write_text("\n".join(["source_ref", *(picture.ref for picture in listed)]))
    return Asked("june.", "the job of a command", (*uploaded, *listed))


def soak(ground: Ground, luck: Random, *, images: int) -> Tally:
    """One worker answers one request after another. Its memory does not grow."""
    asked = ground.requests(luck, images // 100, images=(100, 100))
    worker = ground.crew.start()
    first = len(asked) // 5
    ground.send(asked[:first])
    ground.wait_until_empty([worker])
    before_mb = worker.rss_mb()
    ground.send(asked[first:])
    ground.wait_until_empty([worker])
    after_mb = worker.rss_mb()
    tally = ground.tally(asked)
    tally.remark = f"memory {before_mb:.0f} to {after_mb:.0f} MB, {after_mb / before_mb - 1:+.1%}"
    if after_mb > before_mb * (1 + _GROWTH):
        tally.wrong += tally.note(tally.remark)
    return tally

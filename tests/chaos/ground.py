"""The ground of a scenario: a bucket, queues, a model, pictures whose rows are known, and requests for them."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from botocore.exceptions import ClientError

from jobs.local.emulator import create_queues
from tests.chaos.evidence import collect, job_of, unclosed_jobs
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.tally import Asked, Picture, Tally, count
from tests.chaos.workers import Crew, Started, Template, wait_until
from tests.conftest import REPOSITORY, Bench
from worker.contract import SHARD_IMAGES, ModelManifest
from worker.errors import ErrorCode
from worker.predictions import Rule
from worker.scoring.decoder import decode
from worker.scoring.litert import Scorer
from worker.scoring.models import MANIFEST_FILE, MODEL_FILE

#: The shortest lease that a worker accepts.
LEASE_S: Final = 3
#: For everything that was asked for to be answered. No promise is about time, so only a hang reaches this.
DRAIN_S: Final = 600

_GOOD: Final = 12
#: Bodies of requests that can never succeed, and the code of each dead letter. JOB is the name of the job.
_INVALID: Final = (
    ("<html>JOB", "bad_request"),
    ('{"schema_version": 1, "job_id": "JOB", "images": ["a"], "colour": "red"}', "bad_request"),
    ('{"schema_version": 1, "job_id": "JOB", "images": ["a"], "job_id": "y"}', "bad_request"),
    ('{"schema_version": 1, "job_id": "JOB", "manifest": {"uri": "s3://BUCKET/none.csv"}}', "not_found"),
    ('{"schema_version": 1, "job_id": "JOB", "images": ["a"], "output_uri": "s3://another-bucket/"}', "not_allowed"),
)


def template_receives() -> int:
    """Returns how often the queue of infra/worker.yaml delivers a message before SQS moves it."""
    # Not with the parser of the tests of the templates, which takes a second to load.
    template = (REPOSITORY / "infra/worker.yaml").read_text(encoding="utf-8")
    (receives,) = re.findall(r"maxReceiveCount: (\d+)", template)
    return int(receives)


@dataclass(frozen=True)
class Ground:
    """Where a scenario takes place. Workers reach SQS through ``proxy``, and S3 too if they are started so."""

    bench: Bench
    rule: Rule
    good: tuple[Picture, ...]
    bad: tuple[Picture, ...]
    proxy: FaultProxy
    crew: Crew
    environment: dict[str, str]  #: of every worker
    folder: Path  #: for files of a scenario
    hurried: bool  #: whether leases end when their time would be waited for

    @property
    def cheap(self) -> Picture:
        """A picture that costs nothing: it fails before anything is read."""
        return self.bad[-1]

    @property
    def storage_through_proxy(self) -> dict[str, str]:
        """The setting of workers that reach S3 through the proxy too."""
        return {"AWS_ENDPOINT_URL": self.proxy.url}

    def requests(
        self, luck: Random, amount: int, *, images: tuple[int, int] = (4, 12), invalid: float = 0.0
    ) -> list[Asked]:
        """Makes requests: a share of them ``invalid``, the others with so many images, of which a fifth is bad."""
        return [
            (self.invalid if luck.random() < invalid else self.request)(luck, luck.randint(*images), number)
            for number in range(amount)
        ]

    def request(self, luck: Random, images: int, name: object) -> Asked:
        """Makes a request that names its images."""
        pictures = self.pictures(luck, images)
        job_id = f"job-{name}."
        body = {"schema_version": 1, "job_id": job_id, "images": [picture.ref for picture in pictures]}
        return Asked(job_id, json.dumps(body), pictures)

    def planned(self, luck: Random, images: int, name: object) -> Asked:
        """Makes a request for a list of two shards, so many of whose images cost something."""
        return self.listed([*self.pictures(luck, images), *[self.cheap] * SHARD_IMAGES], name)

    def listed(self, pictures: Sequence[Picture], name: object) -> Asked:
        """Makes a request for a list of these pictures. It is planned, however short it is: it has another column."""
        job_id = f"list-{name}."
        lines = [json.dumps({"source-ref": picture.ref, "name": "Rex"}) for picture in pictures]
        manifest = self.bench.put(f"lists/{job_id}jsonl", "\n".join(lines).encode())
        body = {"schema_version": 1, "job_id": job_id, "manifest": {"uri": manifest}}
        return Asked(job_id, json.dumps(body), tuple(pictures))

    def invalid(self, luck: Random, _: int, name: object) -> Asked:
        """Makes a request that can never succeed."""
        body, code = luck.choice(_INVALID)
        job_id = f"invalid-{name}."
        return Asked(job_id, body.replace("JOB", job_id).replace("BUCKET", self.bench.bucket), code=code)

    def pictures(self, luck: Random, amount: int) -> tuple[Picture, ...]:
        """Chooses pictures, one of five bad. One may be chosen again."""
        return tuple(luck.choice(self.bad if luck.random() < 0.2 else self.good) for _ in range(amount))

    def send(self, asked: Iterable[Asked], luck: Random | None = None, *, twice: float = 0.0) -> None:
        """Sends requests, a share of them ``twice``."""
        for one in asked:
            for _ in range(1 + (luck is not None and luck.random() < twice)):
                self.bench.send(one.body)

    def drain(self, workers: int = 2, **settings: str) -> None:
        """Lets workers of its own empty the queue. All others are dead or frozen."""
        if self.hurried:
            self._end_leases()
        started = [self.crew.start(**settings) for _ in range(workers)]
        self.wait_until_empty(started)
        for worker in started:  # between two messages, where a kill harms nothing
            worker.kill()

    def wait_until_empty(self, workers: Sequence[Started]) -> None:
        """Waits until no message is waiting or hidden. Raises AssertionError when one of the workers has ended."""

        def is_empty() -> bool:
            ended = [worker for worker in workers if worker.status() is not None]
            assert not ended, ended[0].text()[-2000:]
            return self._is_empty()

        wait_until(is_empty, what="empty queue", limit_s=DRAIN_S, look_s=0.05)

    def wait_for_messages(self, worker: Started, amount: int) -> None:
        """Waits until the worker has received so many more messages, or until there are none left."""
        last = worker.received() + amount
        while worker.received() < last and not self._is_empty():
            with suppress(TimeoutError):
                wait_until(lambda: worker.received() >= last, what="message", limit_s=1)

    def in_flight(self) -> int:
        """Returns how many messages are hidden."""
        return self._messages("NotVisible")

    def tally(self, asked: Iterable[Asked], *, harm: int = 0) -> Tally:
        """Counts what became of the requests after so much harm."""
        unclosed = self._close_jobs()
        tally = count(asked, collect(self.bench, list(self.proxy.receipts.values()), self.crew.logs()), self.rule)
        tally.harm, tally.unclosed = harm, unclosed
        return tally

    def _close_jobs(self) -> int:
        """Sends one more request of each job that is answered and not complete, as its next one would complete it.

        Returns how many there are: workers may leave a job so on the last receive of a message, and say so.
        """
        jobs = unclosed_jobs(self.bench)
        bodies = {job_of(receipt.body): receipt.body for receipt in list(self.proxy.receipts.values())}
        for job_id in jobs & bodies.keys():
            self.bench.send(bodies[job_id])
        if jobs:
            self.drain(1)
        return len(jobs)

    def _end_leases(self) -> None:
        """Makes what workers held visible now, as time would."""
        for receipt in list(self.proxy.receipts.values()):
            with suppress(ClientError):  # it was deleted
                self.bench.sqs.change_message_visibility(
                    QueueUrl=self.bench.queues.requests_url, ReceiptHandle=receipt.handle, VisibilityTimeout=0
                )

    def _is_empty(self) -> bool:
        return self._messages("", "NotVisible") == 0

    def _messages(self, *kinds: str) -> int:
        """Counts messages in one call: between two, a message could become visible."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds]
        answer = self.bench.sqs.get_queue_attributes(QueueUrl=self.bench.queues.requests_url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@dataclass(frozen=True)
class Sample:
    """What takes long to make, and serves all scenarios."""

    models: Path  #: a folder with one model and its champion pointer
    images: Path  #: a folder with pictures
    template: Template  #: a process that has loaded the worker


@contextmanager
def ground_on(
    bench: Bench, sample: Sample, folder: Path, *, receives: int | None = None, hurried: bool = False
) -> Iterator[Ground]:
    """Prepares the ground: a bucket with pictures and a model, and queues that deliver ``receives`` times.

    ``receives`` is by default that of infra/worker.yaml.
    """
    queues = create_queues(bench.sqs, f"{bench.bucket}-chaos", max_receives=receives or template_receives())
    bench = replace(bench, queues=queues)
    # From here on the bucket shows what was written twice.
    bench.s3.put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})
    bundle = next(sample.models.rglob(MANIFEST_FILE)).parent
    manifest = ModelManifest.model_validate_json((bundle / MANIFEST_FILE).read_bytes())
    scorer = Scorer((bundle / MODEL_FILE).read_bytes())
    with FaultProxy(bench.environment["AWS_ENDPOINT_URL"]) as proxy:
        environment = bench.environment | {
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "TWOFOLD_QUEUE_URL": queues.requests_url,
            "TWOFOLD_OUTPUT_URI": bench.output_uri,
            "TWOFOLD_MODEL_URI": bench.put_bundle(sample.models),
            "TWOFOLD_VISIBILITY_S": str(LEASE_S),
            "TWOFOLD_LOG_LEVEL": "DEBUG",
        }
        with Crew(sample.template, environment, folder) as crew:
            yield Ground(
                bench=bench,
                rule=Rule.of(manifest),
                good=tuple(_good(bench, sample.images, scorer, manifest.image_size)),
                bad=tuple(_bad(bench, sample.images)),
                proxy=proxy,
                crew=crew,
                environment=environment,
                folder=folder,
                hurried=hurried,
            )


def _good(bench: Bench, images: Path, scorer: Scorer, size_px: int) -> Iterator[Picture]:
    """Uploads pictures, and scores them here: without a queue, and without anything that could go wrong."""
    files = sorted(images.rglob("*.png"))
    for path in files[:: len(files) // _GOOD][:_GOOD]:
        data = path.read_bytes()
        yield Picture(bench.put(f"in/{path.name}", data), scorer.score(decode(data, size_px=size_px)))


def _bad(bench: Bench, images: Path) -> Iterator[Picture]:
    """Uploads files that are no pictures, and names some that are not there."""
    whole = next(images.rglob("*.png")).read_bytes()
    yield Picture(bench.put("in/empty.png", b""), ErrorCode.EMPTY)
    yield Picture(bench.put("in/page.jpg", b"<!DOCTYPE html><html>"), ErrorCode.NOT_AN_IMAGE)
    yield Picture(bench.put("in/cut.png", whole[: len(whole) // 2]), ErrorCode.DAMAGED)
    yield Picture(f"s3://{bench.bucket}/in/missing.png", ErrorCode.NOT_FOUND)
    yield Picture("s3://another-bucket/a.png", ErrorCode.NOT_ALLOWED)
    yield Picture("http://169.254.169.254/latest/meta-data/", ErrorCode.BAD_SOURCE_REF)

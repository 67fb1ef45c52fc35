"""The check-up of ``twofold doctor``: versions, settings, credentials, the queue, the output and the model.

    for check in examine():
        print(check.status, check.name, check.found, check.advice)

No message is received, since that would count towards its receives. One small object is written and removed again.
What an earlier failure makes impossible to try is a warning that says so.
"""

import json
import platform
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import ValidationError

from jobs.cloud.aws import Unidentified, caller, explained
from jobs.decoding import sandbox
from jobs.extras import EXTRAS
from jobs.models.bundle import read_bundle
from jobs.models.location import find, find_bundle, without_file
from jobs.progress import Reporter
from jobs.user_error import UserError
from jobs.wording import counted, program
from worker.aws.clients import open_session, open_sqs, open_storage
from worker.aws.storage import Storage, read_anywhere
from worker.bootstrap import check_settings, image_limits
from worker.errors import Broken, ErrorCode, Reject, TwofoldError
from worker.scoring.decoder import fingerprint
from worker.scoring.limits import MIB
from worker.scoring.models import CHAMPION_FILE, MANIFEST_FILE, MODEL_FILE, Models, pinned
from worker.scoring.sandbox import Sandbox
from worker.settings import EXAMPLES, PREFIX, WorkerSettings, available_cores, explain_settings, misspelt, unknown

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_sqs import SQSClient

Status = Literal["ok", "warn", "fail"]

_LIBRARIES: Final = ("ai-edge-litert", "boto3", "numpy", "obstore", "pillow", "pydantic")
#: Receives that killed workers, throttling and lost answers use up as well: see worker/README.md.
_RECEIVES: Final = 10
#: A job cannot have such a name, so no job is in its way.
_PROBE: Final = ".twofold-doctor-"
_SETTINGS_FROM: Final = f"Run '{program()} local' or '{program()} cloud deploy': both offer to write twofold.toml."
_SIGN_IN: Final = f"Is '{program()} local' running, if these are its settings? If not, correct the AWS_ variables."
_CORRECT: Final = "Correct it in twofold.toml or the environment."
_QUEUE_URL: Final = re.compile(r"https?://[^/\s]+(/[^/\s]+)*/[A-Za-z0-9_-]+(\.fifo)?")
#: An address of AWS itself, with its region.
_OF_AWS: Final = re.compile(r"(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.(?:queue\.)?amazonaws\.com(?:\.cn)?")
#: Names of this machine, as emulators write them into the address of a queue.
_HERE: Final = re.compile(r"localhost|127\.0\.0\.1|\[::1\]|.*\.localhost|.*\.localhost\.localstack\.cloud")
#: What to do about a failure of storage.
_STORAGE_STEPS: Final = {
    ErrorCode.NOT_FOUND: "Create the bucket, or correct TWOFOLD_OUTPUT_URI.",
    ErrorCode.ACCESS_DENIED: "Allow s3:PutObject there, and check TWOFOLD_EXPECTED_BUCKET_OWNER if it is set.",
}


@dataclass(frozen=True)
class Check:
    """What was tried, how it went, what was found, and what to do next if it is not ok."""

    name: str
    status: Status
    found: str
    advice: str | None = None
    is_unset: bool = False  #: nothing is wrong: a setting of queues, outputs or models is missing, or what needs it


def verdict(checks: list[Check]) -> Status:
    """Returns the worst status of all."""
    found = {check.status for check in checks}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"


def examine() -> Iterator[Check]:
    """Tries one thing after another, and yields each result as soon as it is there."""
    yield _versions()
    settings, check = _read_settings()
    yield check
    yield _cores(settings)
    session, check = _sign_in()
    yield check
    if session is None:
        yield from (_skipped(name, "AWS cannot be used") for name in ("queue", "redrive policy", "output"))
    else:
        yield from _queue(settings, session)
        yield _output(settings, session)
    if session is None and (settings.model_uri or "").startswith("s3://"):
        yield from (_skipped(name, "AWS cannot be used") for name in ("model", "score"))
    else:
        yield from _model(settings, session)


def _versions() -> Check:
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    extras = [extra.name for extra in EXTRAS if all(map(find_spec, extra.modules))]
    program_versions = f"twofold {metadata.version('twofold')}, Python {platform.python_version()}"
    return Check("versions", "ok", f"{program_versions}, {libraries}; extras: {', '.join(extras) or 'none'}")


def _read_settings() -> tuple[WorkerSettings, Check]:
    """Returns the settings, with defaults in place of what is missing or wrong."""
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors(include_url=False) if item["loc"]}
        fields = WorkerSettings.model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in wrong if name in fields}
        unset = all(item["type"] == "missing" for item in error.errors(include_url=False))
        settings = WorkerSettings(**defaults | ({"queue_url": ""} if "queue_url" in wrong else {}))
        found = "\n".join(filter(None, (_wrong_settings(error), _queue_problem(settings.queue_url))))
        return settings, Check("settings", "fail", found, _SETTINGS_FROM if unset else _CORRECT, is_unset=unset)
    try:
        check_settings(settings)
    except ValueError as error:
        return settings, Check("settings", "fail", str(error), _CORRECT)
    if problem := _queue_problem(settings.queue_url):
        return settings, Check("settings", "fail", problem, _CORRECT)
    given = ", ".join(f"{PREFIX}{name.upper()}" for name in sorted(settings.model_fields_set))
    if strange := unknown():
        hints = [f"{name}{f' (did you mean {near}?)' if near else ''}" for name, near in strange.items()]
        advice = "Correct the name, or unset it."
        return settings, Check("settings", "warn", f"{given}; not a setting: {', '.join(hints)}", advice)
    return settings, Check("settings", "ok", f"{given}; defaults for the others")


def _wrong_settings(error: ValidationError) -> str:
    """Describes what is wrong with each setting. One that is missing has an example of its form."""
    lines = []
    for item, line in zip(error.errors(include_url=False), explain_settings(error).split("\n"), strict=True):
        field = str(item["loc"][0]) if item["loc"] else ""
        name, example = f"{PREFIX}{field.upper()}", EXAMPLES.get(field)
        missing = item["type"] == "missing"
        form = f" It has the form {example}" if example else ""
        meaning = WorkerSettings.model_fields[field].description if missing else ""
        lines.append(f"{name} ({meaning}) is not set{misspelt(name)}.{form}" if missing else line)
    return "\n".join(lines)


def _queue_problem(url: str) -> str | None:
    """Returns what is wrong with the form of the queue's address, if it is set."""
    if not url or _QUEUE_URL.fullmatch(url):
        return None
    return f"TWOFOLD_QUEUE_URL (the request queue) must have the form {EXAMPLES['queue_url']}, not {url!r:.100}"


def _cores(settings: WorkerSettings) -> Check:
    cores = available_cores()
    found = f"{counted(cores, 'core')}, TWOFOLD_THREADS is {settings.threads}"
    if settings.threads > cores:
        return Check(
            "cores", "warn", found, f"More processes than cores take memory and gain nothing: set it to {cores}."
        )
    return Check("cores", "ok", found)


def _sign_in() -> "tuple[boto3.Session | None, Check]":
    """Returns a session, unless there are no credentials, or AWS refuses them, or nothing answers at its address."""
    try:
        session = open_session()
    except ValueError as error:
        unset = error.__cause__ is None  # or what is set cannot be used
        return None, Check("credentials", "fail", " ".join(str(error).split()), _SETTINGS_FROM, is_unset=unset)
    try:
        return session, Check("credentials", "ok", caller(session))
    except Unidentified as error:
        found = f"there are some; who they belong to cannot be asked. {error}"
        return session, Check("credentials", "warn", found, "Nothing to do if the checks below are ok: no worker asks.")
    except (UserError, ValueError) as error:  # a ValueError: AWS_ENDPOINT_URL is no address
        return None, Check("credentials", "fail", str(error), _SIGN_IN)


def _skipped(name: str, why: str) -> Check:
    advice = "Repair what failed above, and run this command again."
    return Check(name, "warn", f"not tried: {why}", advice, is_unset=True)


def _queue(settings: WorkerSettings, session: "boto3.Session") -> Iterator[Check]:
    if not settings.queue_url:
        yield from (_skipped(name, "TWOFOLD_QUEUE_URL is not set") for name in ("queue", "redrive policy"))
        return
    sqs = open_sqs(session)
    if _queue_problem(settings.queue_url):
        yield from (_skipped(name, "TWOFOLD_QUEUE_URL is wrong") for name in ("queue", "redrive policy"))
        return
    if elsewhere := _elsewhere(settings.queue_url, sqs):
        yield elsewhere
        yield _skipped("redrive policy", "the queue is not where requests are read")
        return
    try:
        found = _attributes(sqs, settings.queue_url)
    except UserError as error:
        advice = "Check TWOFOLD_QUEUE_URL and the region, and allow sqs:GetQueueAttributes."
        yield Check("queue", "fail", str(error), advice)
        yield _skipped("redrive policy", "the queue cannot be read")
        return
    waiting, held = (found[f"ApproximateNumberOfMessages{name}"] for name in ("", "NotVisible"))
    yield Check("queue", "ok", f"{settings.queue_url}: {waiting} waiting, {held} being answered")
    yield _redrive(json.loads(found.get("RedrivePolicy", "{}")), settings.dead_letter_url, sqs)


def _elsewhere(url: str, sqs: "SQSClient") -> Check | None:
    """Returns a failure if the queue is in another region, or with another server, than this machine asks.

    The SDK sends every call to its own endpoint, whatever the address of the queue says.
    """
    queue, asked = urlsplit(url), urlsplit(sqs.meta.endpoint_url)
    ours, theirs = (_OF_AWS.fullmatch(address.hostname or "") for address in (asked, queue))
    if ours and theirs and ours[1] != theirs[1]:
        found = f"TWOFOLD_QUEUE_URL is in {theirs[1]}, and the region set here is {ours[1]}"
        return Check("queue", "fail", found, "Correct TWOFOLD_QUEUE_URL or AWS_REGION.")
    if ours or _same_server(queue, asked):
        return None
    found = f"TWOFOLD_QUEUE_URL is at {queue.netloc}, and AWS_ENDPOINT_URL, which is asked, at {asked.netloc}"
    return Check("queue", "fail", found, "Correct TWOFOLD_QUEUE_URL or AWS_ENDPOINT_URL.")


def _same_server(one: SplitResult, other: SplitResult) -> bool:
    ports = {address.port or (443 if address.scheme == "https" else 80) for address in (one, other)}
    names = {"localhost" if _HERE.fullmatch(name := address.hostname or "") else name for address in (one, other)}
    return len(ports) == len(names) == 1


def _redrive(policy: dict[str, str], dead_letter_url: str | None, sqs: "SQSClient") -> Check:
    """Checks where requests go that can never succeed, and how often a request is tried before that."""
    name = "redrive policy"
    target = policy.get("deadLetterTargetArn")
    advice = f"Give the queue a redrive policy with maxReceiveCount {_RECEIVES}."
    if target is None and dead_letter_url is None:
        return Check(name, "fail", "none, and TWOFOLD_DEAD_LETTER_URL is not set: a worker does not start", advice)
    if target is None:
        return Check(name, "warn", f"none: SQS itself moves nothing to {dead_letter_url}", advice)
    receives = int(policy["maxReceiveCount"])
    account, queue = target.split(":")[-2:]
    found = f"after {receives} receives to {queue}"
    steps = []
    if receives < _RECEIVES:
        steps.append(f"Killed workers and throttling use up receives, too: set maxReceiveCount to {_RECEIVES}.")
    try:
        with explained("Reading the dead-letter queue"):
            url = dead_letter_url or sqs.get_queue_url(QueueName=queue, QueueOwnerAWSAccountId=account)["QueueUrl"]
        letters = int(_attributes(sqs, url)["ApproximateNumberOfMessages"])
    except UserError as error:
        steps.append("A worker needs to send to that queue: check that it exists.")
        return Check(name, "warn", f"{found}. {error}", " ".join(steps))
    if letters:
        steps.append(f"'{program()} batch status JOB' shows the reason of each.")
    held = f"has {counted(letters, 'message')}" if letters else "is empty"
    return Check(name, "warn" if steps else "ok", f"{found}, which {held}", " ".join(steps) or None)


def _attributes(sqs: "SQSClient", url: str) -> dict[str, str]:
    """Returns the attributes of a queue. Raises UserError."""
    with explained(f"Reading {url}"):
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return {str(name): value for name, value in answer["Attributes"].items()}


def _output(settings: WorkerSettings, session: "boto3.Session") -> Check:
    """Writes an object on the condition that it does not exist, twice, and removes it."""
    if settings.output_uri is None:
        advice = "Set TWOFOLD_OUTPUT_URI, or name an output_uri in every request."
        return Check("output", "warn", "TWOFOLD_OUTPUT_URI is not set", advice, is_unset=True)
    storage = open_storage(session, bucket_owner=settings.expected_bucket_owner)
    uri = f"{settings.output_uri.rstrip('/')}/{_PROBE}{uuid.uuid4().hex}"
    is_there = is_new = False
    failure: TwofoldError | None = None
    left: TwofoldError | None = None
    try:
        storage.write_once(uri, b"", content_type="text/plain", metadata={})
        is_there = True
        is_new = storage.write_once(uri, b"", content_type="text/plain", metadata={})
    except TwofoldError as error:
        failure = error
    finally:  # after Ctrl-C, too
        if is_there or not isinstance(failure, Reject):  # a write whose answer is lost may have been done
            left = _removed(storage, uri)
    if failure is not None:
        advice = _STORAGE_STEPS.get(failure.code, "Check TWOFOLD_OUTPUT_URI, the region and the network.")
        return Check("output", "fail", _said(failure), f"{advice} Delete {uri} if it is there." if left else advice)
    if is_new:
        found = f"{settings.output_uri} is overwritten in spite of If-None-Match: two workers could write the same part"
        return Check("output", "fail", found, "Use storage that honors conditional writes, as S3 does.")
    if left is not None:
        advice = f"Delete {uri} yourself. A worker needs no permission for that."
        return Check("output", "warn", f"written, but not removed. {_said(left)}", advice)
    return Check("output", "ok", f"{settings.output_uri}: an object was written once, refused once, and removed")


def _removed(storage: Storage, uri: str) -> TwofoldError | None:
    """Removes an object. Returns what prevents that."""
    try:
        storage.remove(uri)
    except TwofoldError as error:
        return error
    return None


def _model(settings: WorkerSettings, session: "boto3.Session | None") -> Iterator[Check]:
    """Finds and opens the model as a worker does. Without a session, it is on this machine."""
    uri = settings.model_uri
    if uri is None:
        advice = "Set TWOFOLD_MODEL_URI, or name a model_uri in every request."
        yield Check("model", "warn", "TWOFOLD_MODEL_URI is not set", advice, is_unset=True)
        yield _skipped("score", "there is no model")
        return
    storage = open_storage(session, bucket_owner=settings.expected_bucket_owner) if session else cast("Storage", None)
    try:
        where = pinned(uri, storage=storage)
        read_anywhere(f"{where}/{MANIFEST_FILE}", storage=storage, max_bytes=MIB)
    except TwofoldError as error:
        yield Check("model", "fail", _said(error), _right_name(uri))
        yield _skipped("score", "the model cannot be read")
        return
    whole = _whole(where)
    yield whole
    yield _scores(uri, storage, sandbox(image_limits(settings)), known=whole.found)


def _right_name(uri: str) -> str:
    """Returns the next step where no worker finds a model: commands know a model by other names, too."""
    try:
        found = find_bundle(uri)
    except (UserError, TwofoldError, OSError):
        return f"Train a model with '{program()} train run', or copy one there with '{program()} model copy'."
    model = f"{found.store.uri}/{found.name}"
    if without_file(uri).endswith(f"/{found.name}/{found.version}"):
        return f"A worker takes the name of the version as it is: {model}/{found.version}"
    return f"A worker does not look for the version itself. Name its {CHAMPION_FILE}: {model}/{CHAMPION_FILE}"


def _whole(where: str) -> Check:
    """Checks every file of the bundle, also those that a worker does not open."""
    try:
        location = find(where)
        bundle = read_bundle(location.store, location.name, location.bundle(), Reporter(quiet=True))
    except UserError as error:
        advice = f"A worker may use it all the same. Copy it with '{program()} model copy', so that all commands can."
        return Check("model", "warn", str(error), advice)
    except (TwofoldError, OSError) as error:
        return Check("model", "fail", _said(error), "Make every file of the bundle readable, or copy it again.")
    if bundle.findings:
        found = "; ".join(f"{finding.file}: {finding.problem}" for finding in bundle.findings)
        advice = "Copy the version again from where it is whole, or train it again."
        return Check("model", "fail", f"{bundle.uri}: {found}", advice)
    labels = " or ".join(bundle.manifest.labels)
    found = f"{bundle.uri}: {labels}, {counted(len(bundle.files), 'file')} as recorded"
    if bundle.manifest.decoder_fingerprint != fingerprint():
        advice = f"Scores may differ slightly: '{program()} model verify' measures by how much."
        return Check("model", "warn", f"{found}, trained with another image decoder", advice)
    return Check("model", "ok", found)


def _scores(uri: str, storage: Storage, box: Sandbox, *, known: str) -> Check:
    """Opens the model and scores a picture in a process of its own, as a worker does.

    ``known`` is what was said about the bundle already.
    """
    try:
        model = Models(storage=storage, sandbox=box).get(uri)
        scored = box.score(_picture(), model.graph)
    except (TwofoldError, Broken) as error:
        found = _said(error)
        if isinstance(error, TwofoldError) and MODEL_FILE in error.message and f"{MODEL_FILE}: " in known:
            found = "the model cannot be opened: see above"
        return Check("score", "fail", found, "No worker can use this model here. Train it again, or copy it again.")
    took = scored.decode_ms + scored.score_ms
    return Check("score", "ok", f"a test picture scores {scored.score:.3f}, in {took:.1f} ms")


def _said(error: Exception) -> str:
    """Returns the message of an error, with its code behind it, as the errors of a command have it."""
    return f"{error.message} ({error.code.value})" if isinstance(error, TwofoldError) else str(error)


def _picture(side_px: int = 64) -> bytes:
    """Returns a BMP file with a gradient: a header of 54 bytes, then blue, green and red for each pixel."""
    pixels = bytes(
        level * 255 // side_px for row in range(side_px) for column in range(side_px) for level in (row, column, 0)
    )
    size = 54 + len(pixels)
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", size, 0, 0, 54, 40, side_px, side_px, 1, 24, 0, 0, 0, 0, 0, 0)
    return header + pixels

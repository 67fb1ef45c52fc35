"""What has to work before anything is uploaded: the model, the queue and the output."""

from typing import TYPE_CHECKING, Final

from jobs.batch import queue_trouble
from jobs.unsure_band import Band
from jobs.user_error import UserError
from jobs.wording import program
from worker.aws.queue import Queue
from worker.aws.storage import Storage
from worker.batch.plan import ModelChoice
from worker.contract import ModelManifest
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.predictions import Rule
from worker.scoring.models import CHAMPION_FILE, MANIFEST_FILE, MODEL_FILE, pinned

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MAX_JSON_BYTES: Final = 1024 * 1024
#: What SQS answers to those who may send messages and no more.
_DENIED: Final = "AccessDenied"
_NOTHING: Final = "Nothing was uploaded."


def choose_model(
    uri: str, storage: Storage, *, threshold: float | None = None, unsure: Band | None = None
) -> ModelChoice:
    """Returns the champion of a model's folder, or the bundle that ``uri`` names in another way.

    Raises UserError when there is no bundle, or one that no worker could open, or that would refuse the band.
    """
    if not uri.startswith("s3://"):
        raise UserError(
            f"--model {uri} is not an s3:// URI, which workers on other machines need. "
            f"Run '{program()} model copy {uri} s3://BUCKET/models' to copy it to a bucket. {_NOTHING}"
        )
    asked = _asked(uri.rstrip("/"), storage)
    try:
        bundle = pinned(asked, storage=storage)
        manifest = _check_bundle(bundle, storage)
    except Reject as error:
        raise _no_model(uri, error.message) from error
    try:
        Rule.of(manifest, threshold=threshold, unsure=unsure)
    except Reject as error:
        raise UserError(f"{error.message}. Choose another --unsure or --threshold. {_NOTHING}") from error
    return ModelChoice(asked=asked, pinned=bundle)


def check_queue(sqs: "SQSClient", url: str) -> None:
    """Raises UserError when there is no such queue, or none that answers."""
    try:
        Queue.open(sqs=sqs, url=url, dead_letter_url="", visibility_s=0)
    except (Reject, Retry) as error:
        if _DENIED in error.message:  # those who may only send messages cannot ask about the queue
            return
        raise UserError(f"{queue_trouble.explain(error, url, queue_trouble.QUEUE)} {_NOTHING}") from error


def check_output(uri: str, storage: Storage) -> None:
    """Raises UserError when there is no such bucket, or one that cannot be read."""
    try:
        next(iter(storage.list(f"{uri.rstrip('/')}/")), None)
    except TwofoldError as error:
        raise UserError(
            f"The output cannot be used: {error.message}. Check TWOFOLD_OUTPUT_URI or --output. {_NOTHING}"
        ) from error


def _asked(uri: str, storage: Storage) -> str:
    """Returns the champion pointer of a model's folder; any other URI as it is."""
    if uri.endswith((f"/{MANIFEST_FILE}", f"/{CHAMPION_FILE}")):
        return uri
    try:
        names = {name for name in (MANIFEST_FILE, CHAMPION_FILE) if storage.metadata(f"{uri}/{name}") is not None}
    except Reject as error:
        raise _no_model(uri, error.message) from error
    if not names:
        raise _no_model(uri, f"it holds neither {MANIFEST_FILE} nor {CHAMPION_FILE}")
    return f"{uri}/{CHAMPION_FILE}" if names == {CHAMPION_FILE} else uri


def _check_bundle(bundle: str, storage: Storage) -> ModelManifest:
    """Returns the manifest of a bundle. Raises Reject unless the graph is there, of the size in the manifest.

    Only workers read all of it.
    """
    body = storage.read(f"{bundle}/{MANIFEST_FILE}", max_bytes=_MAX_JSON_BYTES)
    try:
        manifest = ModelManifest.parse(body)
    except ValueError as error:
        raise Reject(ErrorCode.BAD_MODEL, f"{bundle}/{MANIFEST_FILE}: {error}") from None
    expected, uri = manifest.files.get(MODEL_FILE), f"{bundle}/{MODEL_FILE}"
    found = next((item.size_bytes for item in storage.list(uri) if item.uri == uri), None)
    if found is None:
        raise Reject(ErrorCode.BAD_MODEL, f"{uri}: no such object")
    if expected is None or found != expected.size_bytes:
        raise Reject(ErrorCode.BAD_MODEL, f"{uri} is not the file that {MANIFEST_FILE} describes")
    return manifest


def _no_model(uri: str, reason: str) -> UserError:
    where = uri.rpartition("/")[0] if uri.count("/") > 3 else uri  # noqa: PLR2004 - s3://bucket/prefix
    return UserError(
        f"The model {uri} cannot be used: {reason}. Run '{program()} model list {where}' to see which there are. "
        f"{_NOTHING}"
    )

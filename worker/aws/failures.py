"""The one table from a storage's answer to a decision: Reject or Retry. Used by ``worker.aws.storage`` alone."""

import re
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from obstore import exceptions as obstore_errors

from worker.errors import PASSING_CODES, ErrorCode, Reject, Retry, TwofoldError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([\w.]+)</Code>")

_ARCHIVED: Final = "InvalidObjectState"
#: Precondition Failed: the object is no longer, or not yet, what the request expects.
CHANGED: Final = 412

#: What obstore raises: its own, and some of Python's that stand for a status.
OBSTORE_ERRORS: Final = (obstore_errors.BaseError, OSError)


def status_of(error: Exception) -> int | None:
    """The HTTP status that botocore was answered with."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None


def code_of(error: Exception) -> str:
    """The service's own code for the error, or nothing."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def from_botocore(error: ClientError | BotoCoreError, uri: str) -> TwofoldError:
    """An error of boto3, about the object ``uri``."""
    return decide(uri, status=status_of(error), code=code_of(error), detail=str(error))


def from_obstore(error: Exception, uri: str, key: str) -> TwofoldError:
    """An error of obstore, about the object ``uri``."""
    # Without the key: one that is called "status code: 503" must not decide anything.
    detail = str(error).replace(key, "")
    status, code = _STATUS.search(detail), _CODE.search(detail)
    kinds = (
        (FileNotFoundError, 404),
        (obstore_errors.PermissionDeniedError, 403),
        (obstore_errors.PreconditionError, CHANGED),
    )
    by_kind = next((number for kind, number in kinds if isinstance(error, kind)), None)
    return decide(
        uri,
        status=by_kind or (int(status[1]) if status else None),
        code=code[1] if code else "",
        detail=detail.partition("\n")[0],
    )


def decide(uri: str, *, status: int | None, code: str, detail: str) -> TwofoldError:
    """From status and code to a decision. No status means that no answer came."""
    if status is None or status >= 500 or status in (408, 409, 429) or code in PASSING_CODES:  # noqa: PLR2004
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: {detail[:300]}")
    if status == 404:  # noqa: PLR2004
        what = "no such bucket" if code == "NoSuchBucket" else "no such object"
        return Reject(ErrorCode.NOT_FOUND, f"{uri}: {what}")
    if status == CHANGED:
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: changed while it was read")
    if status in (301, 307):
        return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: the bucket is in another region than AWS_REGION")
    if code == _ARCHIVED:
        return Reject(ErrorCode.ARCHIVED, f"{uri}: in an archive class, restore it first")
    return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: storage answers {status} {code}".rstrip())

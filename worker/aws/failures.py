"""The failures of AWS services, as decisions. The first line that fits an error of botocore or obstore decides.

    any service   no answer, half of one, or 5xx        Retry   unavailable
                  a code in CLOCK_CODES                 Retry   unavailable, with the time of this machine
                  a code in PASSING_CODES               Retry   unavailable
    S3            408, 409, 429                         Retry   unavailable
                  412, the object changed               Retry   unavailable
                  404                                   Reject  not_found
                  301, 307, the bucket's region         Reject  access_denied
                  InvalidObjectState                    Reject  archived
                  any other answer                      Reject  access_denied
    SQS, SNS,     the receipt handle is out of date     LeaseLost, from calls that pass a receipt handle
    EventBridge   no such queue                         Reject  not_found
                  any other answer                      Reject  access_denied

The files next to this one catch what the two libraries raise, and ask here what it means.
"""

import re
from datetime import UTC, datetime
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from obstore import exceptions as obstore_errors
from urllib3.exceptions import HTTPError

from worker.errors import ErrorCode, Reject, Retry, TwofoldError

#: What a call of boto3 raises. botocore reads the body of an error outside its retries, and where the connection breaks
#: there, it raises what urllib3 does; ``ResponseParserError`` is an answer that is cut off where nothing shows its end.
BOTO_ERRORS: Final = (ClientError, BotoCoreError, HTTPError, ResponseParserError)

#: Codes of a signature that is too old, too new or does not match. Whichever it is, a clock that is wrong by more than
#: the 15 minutes that S3 allows (5 elsewhere) is the first thing to check.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
CLOCK_CODES: Final = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
#: Codes of failures that pass: throttling, a broken connection, and the worker's own credentials, which say nothing
#: about the object or the message. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
PASSING_CODES: Final = frozenset(
    {
        "BadDigest",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteBody",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "KMS.ThrottlingException",
        "KmsThrottled",
        "OperationAborted",
        "OverLimit",
        "RequestThrottled",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
#: Precondition Failed: the object has changed, or exists already.
CHANGED: Final = 412
#: Range Not Satisfiable: so S3 also answers a range of the first byte where an object has none.
NO_SUCH_RANGE: Final = 416
#: What obstore raises: its own errors, and Python's where one fits the status.
OBSTORE_ERRORS: Final = (obstore_errors.BaseError, OSError)

_SERVER_ERROR: Final = 500
#: Request Timeout, Conflict (two conditional writes at once) and Too Many Requests.
_S3_PASSING: Final = (408, 409, 429)
_NOT_FOUND: Final = 404
_REDIRECTS: Final = (301, 307)
_ARCHIVED: Final = "InvalidObjectState"

_NO_QUEUE: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
_LEASE_LOST: Final = frozenset(
    {
        "AWS.SimpleQueueService.MessageNotInflight",
        "InvalidParameterValue",
        "MessageNotInflight",
        "ReceiptHandleIsInvalid",
    }
)

#: How obstore writes a status and a code into its messages; it has no fields for them.
_STATUS_TEXT: Final = re.compile(r"status code: (\d{3})")
_CODE_TEXT: Final = re.compile(r"<Code>([\w.]+)</Code>")
#: How it writes S3's answer for a bucket of another region, which names no address.
_REDIRECT_TEXT: Final = "Received redirect without LOCATION"


class LeaseLost(Exception):
    """The message is visible again, or deleted: its receipt handle is no longer valid."""


def status_of(error: Exception) -> int | None:
    """Returns the HTTP status of an error of botocore, or None where no answer came."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(error, ClientError) else None


def code_of(error: Exception) -> str:
    """Returns the service's own code of an error of botocore, or an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def from_s3(error: Exception, uri: str) -> TwofoldError:
    """Returns the decision for one of ``BOTO_ERRORS`` about the object ``uri``."""
    return decide_s3(uri, status=status_of(error), code=code_of(error), detail=str(error))


def from_obstore(error: Exception, uri: str, key: str) -> TwofoldError:
    """Returns the decision for an error that obstore raised about the object ``uri``."""
    detail = str(error)
    # Without the key in front of the address: one that is called "status code: 503" must not decide anything.
    without_key = detail.replace(f"path {key}", "path", 1).replace(f"location {key}", "location", 1)
    status, code = _STATUS_TEXT.search(without_key), _CODE_TEXT.search(without_key)
    kinds = (
        (FileNotFoundError, _NOT_FOUND),
        (obstore_errors.PermissionDeniedError, 403),
        (obstore_errors.PreconditionError, CHANGED),
    )
    by_kind = next((number for kind, number in kinds if isinstance(error, kind)), None)
    redirect = _REDIRECTS[0] if _REDIRECT_TEXT in without_key else None
    return decide_s3(
        uri,
        status=by_kind or redirect or (int(status[1]) if status else None),
        code=code[1] if code else "",
        detail=detail.partition("\n")[0],
    )


def decide_s3(uri: str, *, status: int | None, code: str, detail: str) -> TwofoldError:
    """Returns the decision for an answer of S3; ``status`` is None where no answer came."""
    if _passes(status, code) or status in _S3_PASSING:
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: {_with_clock(code, detail[:300])}")
    if status == _NOT_FOUND:
        what = "no such bucket" if code == "NoSuchBucket" else "no such object"
        return Reject(ErrorCode.NOT_FOUND, f"{uri}: {what}")
    if status == CHANGED:
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: changed while it was read")
    if status in _REDIRECTS:
        return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: the bucket is not in the region that AWS_REGION names")
    if code == _ARCHIVED:
        return Reject(ErrorCode.ARCHIVED, f"{uri}: in an archive storage class: restore it first")
    return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: storage answers {status} {code}".rstrip())


def from_messaging(error: Exception, target: str) -> Reject | Retry:
    """Returns the decision for one of ``BOTO_ERRORS`` of SQS, SNS or EventBridge.

    ``target`` is the queue's URL or an ARN.
    """
    code = code_of(error)
    message = f"{target}: {_with_clock(code, str(error))}"
    if _passes(status_of(error), code):
        return Retry(ErrorCode.UNAVAILABLE, message)
    missing = code in _NO_QUEUE
    return Reject(ErrorCode.NOT_FOUND if missing else ErrorCode.ACCESS_DENIED, message)


def from_receipt(error: Exception, url: str) -> LeaseLost | Reject | Retry:
    """Returns the decision for one of ``BOTO_ERRORS`` of a call to SQS that passed a receipt handle."""
    return LeaseLost(str(error)) if code_of(error) in _LEASE_LOST else from_messaging(error, url)


def _passes(status: int | None, code: str) -> bool:
    return status is None or status >= _SERVER_ERROR or code in PASSING_CODES or code in CLOCK_CODES


def _with_clock(code: str, detail: str) -> str:
    """Returns what a service says; where it refuses a signature, with the time that this machine believes it is."""
    if code not in CLOCK_CODES:
        return detail
    return (
        f"the signature is refused ({code}): check that the clock of this machine, which shows "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, is right, and then the secret access key. {detail}"
    )

"""The errors of the worker: each one a decision about what happens next.

    TwofoldError
    ├── Reject   can never succeed: an image becomes a failed row, a request goes to the dead-letter queue
    └── Retry    may succeed later: the message goes back to the queue, with backoff
        └── Interrupted   the work was stopped, which says nothing about the request: it is never refused for that

An error of botocore, obstore, Pillow or LiteRT becomes one of the two where it is raised, and nowhere else. Each
carries a code for programs and a message for people. Both are written to the CSV or to the dead letter's attributes.
"""

import re
from enum import StrEnum
from typing import Final

#: A word may be an address. Quotes and brackets stand around one.
_WORD: Final = re.compile(r"[^\s\"'<>]+")
#: A parameter that gives access, of S3, CloudFront, Google or Azure; as it is, percent-encoded, or escaped in JSON.
_SECRET: Final = re.compile(
    r"(?:^|[?&;]|%3F|%26|\\u0026)"
    r"(?:X-(?:Amz|Goog)-[\w-]+|AWSAccessKeyId|GoogleAccessId|Key-Pair-Id|Policy|Signature|sig|(?:access_)?token)"
    r"(?:=|%3D)",
    re.IGNORECASE,
)
_QUERY: Final = re.compile(r"\?|%3F", re.IGNORECASE)
_USER: Final = re.compile(r"://[^/@\s]*@")


class ErrorCode(StrEnum):
    """Why an image was not scored or a request not answered. Part of the CSV format: codes are added, never renamed."""

    # An image: a failed row.
    BAD_SOURCE_REF = "bad_source_ref"  #: not of the form s3://bucket/key
    EMPTY = "empty"  #: zero bytes
    NOT_AN_IMAGE = "not_an_image"  #: not a JPEG, PNG, WebP, GIF, BMP or TIFF file
    DAMAGED = "damaged"  #: an image file that is truncated or corrupt
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    UNSUPPORTED_PIXELS = "unsupported_pixels"  #: 32-bit integer or float samples, which have no agreed black and white
    DECODER_CRASHED = "decoder_crashed"  #: the process that decoded the image died of it
    TOO_SLOW = "too_slow"  #: over the time that an image may take
    TOO_MUCH_MEMORY = "too_much_memory"  #: over the memory that an image may take
    ARCHIVED = "archived"  #: in a storage class that must be restored before it can be read

    # An image, a manifest or a model.
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "not_allowed"  #: outside the prefixes that the settings allow
    ACCESS_DENIED = "access_denied"  #: storage answered 403
    UNAVAILABLE = "unavailable"  #: storage failed on every try, the last receive included

    # A request: a dead letter.
    BAD_REQUEST = "bad_request"  #: not JSON, or not a ClassifyRequest
    BAD_MANIFEST = "bad_manifest"
    BAD_MODEL = "bad_model"  #: altered, incomplete, or not a two-class image model
    CONFLICT = "conflict"  #: the same job_id was used for another request
    INTERNAL = "internal"  #: a bug in Twofold, on the last try; the worker's log has the traceback


class TwofoldError(Exception):
    """A failure with a code for programs and a message for people, which says what to do next.

    A message often quotes what a producer wrote. The signature of a presigned address, or a password, is left out.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        self.message = without_secrets(message)
        super().__init__(f"{code.value}: {self.message}")


class Reject(TwofoldError):
    """Can never succeed, however often it is tried."""


class Retry(TwofoldError):
    """May succeed later: after ``delay_s`` seconds, or after the queue's backoff where ``delay_s`` is None."""

    def __init__(self, code: ErrorCode, message: str, *, delay_s: int | None = None) -> None:
        super().__init__(code, message)
        self.delay_s = delay_s


class Interrupted(Retry):
    """The work was stopped, by a stop signal or a deadline. It says nothing about the request."""


class Broken(Exception):
    """The worker cannot go on, whatever it is asked. Its process ends with the message, and another one takes over."""


def without_secrets(text: str) -> str:
    """Returns a text without the queries of presigned addresses, and without user names and passwords in addresses.

    Other queries stay: a key in S3 may contain a question mark.
    """
    return _WORD.sub(_without_query, _USER.sub("://…@", text))


def _without_query(word: "re.Match[str]") -> str:
    secret = _SECRET.search(word[0])
    if secret is None:
        return word[0]
    query = _QUERY.search(word[0], 0, secret.end())
    return f"{word[0][: query.end() if query else secret.start()]}…"

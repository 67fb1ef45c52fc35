"""s3:// bytes in and out. Errors of botocore and obstore become Reject or Retry here, and nowhere else.

Reading goes through obstore: an eighth of the processor time of boto3 an object. Conditional writes and
metadata are rare and go through boto3.
"""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore import exceptions as obstore_errors

from worker.errors import PASSING_CODES, ErrorCode, Reject, Retry, TwofoldError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store

#: obstore normalises such keys: it refuses some, and of "/a.jpg" it would silently read "a.jpg", another object.
_KEY_OBSTORE_CHANGES: Final = re.compile(r"^/|/$|//|(^|/)\.\.?(/|$)|[\x00-\x1f\x7f]")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([\w.]+)</Code>")

_ARCHIVED: Final = "InvalidObjectState"
#: Precondition Failed. Conditional writes look at it before ``_decide`` does.
_CHANGED: Final = 412


def split(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` -> ``("bucket", "key")``. Raises Reject for anything else."""
    scheme, _, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or not slash or not key:
        raise Reject(ErrorCode.BAD_SOURCE_REF, f"{uri[:200]!r} is not of the form s3://bucket/key")
    return bucket, key


@dataclass(frozen=True)
class Listed:
    """An object as a listing tells of it."""

    uri: str
    size_bytes: int
    etag: str | None


class Storage:
    """Objects of any bucket the credentials reach. Safe to share between threads."""

    def __init__(self, *, s3: "S3Client", open_bucket: Callable[[str], "S3Store"]) -> None:
        self._s3 = s3
        self._open_bucket = open_bucket
        self._buckets: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    def read(self, uri: str, *, max_bytes: int, etag: str | None = None) -> bytes:
        """The whole object, its length checked against the answer's header.

        Raises Reject ``too_many_bytes`` before the body is read, and what ``split`` and the storage's answer say; Retry
        where the object has another entity tag than ``etag`` by now.
        """
        bucket, key = split(uri)
        if _KEY_OBSTORE_CHANGES.search(key):
            return self._read_by_boto3(uri, max_bytes, etag)
        try:
            answer = obstore.get(self._bucket(bucket), key, options={"if_match": etag} if etag else None)
            size = answer.meta["size"]
            _check_size(uri, size, max_bytes)
            body = bytes(answer.bytes())
        except TwofoldError:
            raise
        except (obstore_errors.BaseError, OSError) as error:
            raise _from_obstore(error, uri) from error
        if len(body) != size:
            raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: {len(body):,} of {size:,} bytes arrived")
        return body

    def read_range(self, uri: str, *, start: int, end: int, etag: str | None) -> bytes:
        """The bytes from ``start`` up to but not including ``end``, of the object that has this entity tag.

        Raises Retry where it has another one by now.
        """
        bucket, key = split(uri)
        try:
            span = f"bytes={start}-{end - 1}"
            return self._s3.get_object(Bucket=bucket, Key=key, Range=span, **_if_match(etag))["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise _from_botocore(error, uri) from error

    def write_once(self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str]) -> bool:
        """One conditional PutObject: True when it was written, False when an object is already there.

        False can also mean that a first answer got lost and the SDK tried again: the caller compares metadata.
        """
        bucket, key = split(uri)
        try:
            self._s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                IfNoneMatch="*",
                ContentType=content_type,
                Metadata=metadata,
                ChecksumAlgorithm="SHA256",
            )
        except ClientError as error:
            if _status(error) == _CHANGED:
                return False
            raise _from_botocore(error, uri) from error
        except BotoCoreError as error:
            raise _from_botocore(error, uri) from error
        return True

    def write(self, uri: str, body: bytes, *, content_type: str) -> None:
        """One PutObject, over whatever is there."""
        bucket, key = split(uri)
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, ChecksumAlgorithm="SHA256")
        except (ClientError, BotoCoreError) as error:
            raise _from_botocore(error, uri) from error

    def replace(self, uri: str, body: bytes, *, seen: bytes, content_type: str) -> bool:
        """Writes over an object that still holds ``seen``; False where it does not, or changed in between."""
        bucket, key = split(uri)
        try:
            found = self._s3.get_object(Bucket=bucket, Key=key)
            if found["Body"].read() != seen:
                return False
            self._s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                IfMatch=found["ETag"],
                ContentType=content_type,
                ChecksumAlgorithm="SHA256",
            )
        except ClientError as error:
            if _status(error) in (404, 409, 412):
                return False
            raise _from_botocore(error, uri) from error
        except BotoCoreError as error:
            raise _from_botocore(error, uri) from error
        return True

    def remove(self, uri: str) -> None:
        """One DeleteObject; it is no error when there is nothing to remove."""
        bucket, key = split(uri)
        try:
            self._s3.delete_object(Bucket=bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            raise _from_botocore(error, uri) from error

    def list(self, prefix_uri: str) -> Iterator[Listed]:
        """The objects whose URI begins with ``s3://bucket/prefix``, a page at a time, in the order of their keys."""
        bucket, _, prefix = prefix_uri.removeprefix("s3://").partition("/")
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Listed(f"s3://{bucket}/{item['Key']}", item["Size"], item.get("ETag"))
        except (ClientError, BotoCoreError) as error:
            raise _from_botocore(error, prefix_uri) from error

    def metadata(self, uri: str) -> dict[str, str] | None:
        """The user metadata of an object, which is not empty, or None when there is none.

        A missing bucket is an error. To be told that an object is missing, the credentials need ``s3:ListBucket``.
        """
        bucket, key = split(uri)
        try:
            # One byte, and not HEAD: the answer to that has no body, so every 403 and 400 would look the same.
            answer = self._s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
            answer["Body"].close()
            return answer["Metadata"]
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == "NoSuchKey":
                return None
            raise _from_botocore(error, uri) from error

    def _bucket(self, name: str) -> "S3Store":
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = self._open_bucket(name)
            return self._buckets[name]

    def _read_by_boto3(self, uri: str, max_bytes: int, etag: str | None) -> bytes:
        bucket, key = split(uri)
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key, **_if_match(etag))
            _check_size(uri, answer["ContentLength"], max_bytes)
            return answer["Body"].read()  # botocore compares the length itself
        except (ClientError, BotoCoreError) as error:
            raise _from_botocore(error, uri) from error


def read_anywhere(uri: str, *, storage: Storage, max_bytes: int) -> bytes:
    """The bytes of an ``s3://`` object or of a file of this machine. For settings, never for what a request names."""
    if uri.startswith("s3://"):
        return storage.read(uri, max_bytes=max_bytes)
    try:
        return Path(uri).read_bytes()
    except FileNotFoundError:
        raise Reject(ErrorCode.NOT_FOUND, f"{uri}: no such file") from None
    except OSError as error:
        raise Reject(ErrorCode.ACCESS_DENIED, f"{uri}: {error.strerror}") from error


def _check_size(uri: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise Reject(ErrorCode.TOO_MANY_BYTES, f"{uri}: {size_bytes:,} bytes, over {max_bytes:,}")


def _if_match(etag: str | None) -> dict[str, Any]:
    return {"IfMatch": etag} if etag else {}


def _status(error: Exception) -> int | None:
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None


def _from_botocore(error: ClientError | BotoCoreError, uri: str) -> TwofoldError:
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    return _decide(uri, status=_status(error), code=code, detail=str(error))


def _from_obstore(error: Exception, uri: str) -> TwofoldError:
    # Without the key: one that is called "status code: 503" must not decide anything.
    detail = str(error).replace(split(uri)[1], "")
    status, code = _STATUS.search(detail), _CODE.search(detail)
    kinds = (
        (FileNotFoundError, 404),
        (obstore_errors.PermissionDeniedError, 403),
        (obstore_errors.PreconditionError, _CHANGED),
    )
    by_kind = next((number for kind, number in kinds if isinstance(error, kind)), None)
    return _decide(
        uri,
        status=by_kind or (int(status[1]) if status else None),
        code=code[1] if code else "",
        detail=detail.partition("\n")[0],
    )


def _decide(uri: str, *, status: int | None, code: str, detail: str) -> TwofoldError:
    """The one table from a storage's answer to a decision. No status means that no answer came."""
    if status is None or status >= 500 or status in (408, 409, 429) or code in PASSING_CODES:  # noqa: PLR2004
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: {detail[:300]}")
    if status == _CHANGED:
        return Retry(ErrorCode.UNAVAILABLE, f"{uri}: changed while it was read")
    if status == 404:  # noqa: PLR2004
        what = "no such bucket" if code == "NoSuchBucket" else "no such object"
        return Reject(ErrorCode.NOT_FOUND, f"{uri}: {what}")
    if status in (301, 307):
        return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: the bucket is in another region than AWS_REGION")
    if code == _ARCHIVED:
        return Reject(ErrorCode.ARCHIVED, f"{uri}: in an archive class, restore it first")
    return Reject(ErrorCode.ACCESS_DENIED, f"{uri}: storage answers {status} {code}".rstrip())

"""s3:// bytes in and out. Errors of botocore and obstore become Reject or Retry here (by ``worker.aws.failures``), and
nowhere else.

Reading goes through obstore: an eighth of the processor time of boto3 an object. Conditional writes, lists and
metadata are rare and go through boto3.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from botocore.exceptions import BotoCoreError, ClientError

from worker.aws.failures import CHANGED, OBSTORE_ERRORS, code_of, from_botocore, from_obstore, status_of
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store


#: obstore normalises such keys: it refuses some, and of "/a.jpg" it would silently read "a.jpg", another object.
_KEY_OBSTORE_CHANGES: Final = re.compile(r"^/|/$|//|(^|/)\.\.?(/|$)|[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Listed:
    """An object of a listing."""

    uri: str
    size_bytes: int
    modified_at: datetime
    etag: str | None


class Storage:
    """Objects of any bucket the credentials reach. Safe to share between threads."""

    def __init__(self, *, s3: "S3Client", open_bucket: Callable[[str], "S3Store"]) -> None:
        self._s3 = s3
        self._open_bucket = open_bucket
        self._buckets: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    def read(self, uri: str, *, max_bytes: int, version_id: str | None = None, etag: str | None = None) -> bytes:
        """The whole object, its length checked against the answer's header.

        Raises Reject ``too_many_bytes`` before the body is read, and what ``split`` and the storage's answer say; Retry
        where the object has another entity tag than ``etag`` by now.
        """
        bucket, key = split(uri)
        if _KEY_OBSTORE_CHANGES.search(key):
            return self._read_by_boto3(uri, max_bytes, VersionId=version_id, IfMatch=etag)
        options = {"version": version_id} if version_id else {"if_match": etag} if etag else None
        try:
            answer = obstore.get(self._bucket(bucket), key, options=options)  # type: ignore[arg-type]
            size = answer.meta["size"]
            _check_size(uri, size, max_bytes)
            body = bytes(answer.bytes())
        except TwofoldError:
            raise
        except OBSTORE_ERRORS as error:
            raise from_obstore(error, uri, key) from error
        if len(body) != size:
            raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: {len(body):,} of {size:,} bytes arrived")
        return body

    def read_range(self, uri: str, *, start: int, end: int, etag: str | None) -> bytes:
        """The bytes from ``start`` up to but not including ``end``, of the object that has this entity tag.

        Raises Retry where it has another one by now.
        """
        bucket, key = split(uri)
        request = _given(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=etag)
        with _deciding(uri):
            return self._s3.get_object(**request)["Body"].read()

    def write_once(
        self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str], tag: str | None = None
    ) -> bool:
        """One conditional PutObject: True when it was written, False when an object is already there.

        ``tag`` is ``key=value``, for the bucket's lifecycle.

        False can also mean that a first answer got lost and the SDK tried again: the caller compares metadata.
        """
        return self._put_if(uri, body, content_type, IfNoneMatch="*", Metadata=metadata, **_given(Tagging=tag))

    def write(self, uri: str, body: bytes, *, content_type: str) -> None:
        """One PutObject, over whatever is there."""
        self._put_if(uri, body, content_type)

    def replace(self, uri: str, body: bytes, *, seen: bytes, content_type: str) -> bool:
        """Writes over an object that still holds ``seen``; False where it does not, or changed in between."""
        bucket, key = split(uri)
        try:
            with _deciding(uri):
                found = self._s3.get_object(Bucket=bucket, Key=key)
                current = found["Body"].read()
        except Reject as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return current == seen and self._put_if(uri, body, content_type, IfMatch=found["ETag"])

    def remove(self, uri: str) -> None:
        """One DeleteObject; it is no error when there is nothing to remove."""
        bucket, key = split(uri)
        with _deciding(uri):
            self._s3.delete_object(Bucket=bucket, Key=key)

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
            if code_of(error) == "NoSuchKey":
                return None
            raise from_botocore(error, uri) from error

    def find(self, uri: str, *, max_bytes: int) -> bytes | None:
        """A small object that may not be there: None then. A missing bucket is an error, as for ``metadata``."""
        try:
            return self._read_by_boto3(uri, max_bytes)
        except Reject as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchKey":
                return None
            raise

    def stream(self, uri: str, *, version_id: str | None = None) -> Iterator[bytes]:
        """The object in pieces, however long it is. A connection that breaks goes on where it was.

        Raises Reject ``conflict`` when the object is written over in the meantime.
        """
        return pieces(self._s3, uri, *split(uri), version_id=version_id)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[Listed]:
        """Every object below ``s3://bucket/prefix``, in the order of the keys' bytes; ``start_after`` is a URI."""
        bucket, _, key_prefix = prefix.removeprefix("s3://").partition("/")
        after = {} if start_after is None else {"StartAfter": split(start_after)[1]}
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix, **after)  # type: ignore[arg-type]
        with _deciding(prefix):
            for page in pages:
                for item in page.get("Contents", ()):
                    uri = f"s3://{bucket}/{item['Key']}"
                    yield Listed(uri, item["Size"], item["LastModified"], item.get("ETag"))

    def folders(self, prefix: str) -> Iterator[str]:
        """The URIs of all that looks like a folder directly below ``s3://bucket/prefix/``, each with its slash."""
        bucket, _, key_prefix = prefix.removeprefix("s3://").partition("/")
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix, Delimiter="/")
        with _deciding(prefix):
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    yield f"s3://{bucket}/{item['Prefix']}"

    def _bucket(self, name: str) -> "S3Store":
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = self._open_bucket(name)
            return self._buckets[name]

    def _put_if(self, uri: str, body: bytes, content_type: str, **conditions: Any) -> bool:  # noqa: ANN401 - botocore's
        """One PutObject; False where its condition does not hold."""
        bucket, key = split(uri)
        request = {"Bucket": bucket, "Key": key, "Body": body, "ContentType": content_type, **conditions}
        try:
            self._s3.put_object(**request, ChecksumAlgorithm="SHA256")
        except (ClientError, BotoCoreError) as error:
            if status_of(error) == CHANGED:
                return False
            raise from_botocore(error, uri) from error
        return True

    def _read_by_boto3(self, uri: str, max_bytes: int, **which: str | None) -> bytes:
        bucket, key = split(uri)
        with _deciding(uri):
            answer = self._s3.get_object(**_given(Bucket=bucket, Key=key, **which))
            _check_size(uri, answer["ContentLength"], max_bytes)
            return answer["Body"].read()  # botocore compares the length itself


def _given(**request: str | None) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value}


@contextmanager
def _deciding(uri: str) -> Iterator[None]:
    """What boto3 raises within becomes Reject or Retry."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise from_botocore(error, uri) from error


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


_PIECE_BYTES: Final = 1024 * 1024
#: A connection that breaks is opened again where it was; so many breaks without a byte in between are too many.
_RESUMES: Final = 5


def pieces(s3: "S3Client", uri: str, bucket: str, key: str, *, version_id: str | None) -> Iterator[bytes]:
    """The object's bytes, all of one and the same object. ``uri`` is for messages."""
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if version_id is not None:
        request["VersionId"] = version_id
    done, size, breaks = 0, 1, 0
    while done < size:
        try:
            answer = s3.get_object(**request)
            size = done + answer["ContentLength"]
            for piece in answer["Body"].iter_chunks(_PIECE_BYTES):
                yield piece
                done, breaks = done + len(piece), 0
        except ClientError as error:
            if status_of(error) == CHANGED:
                raise Reject(ErrorCode.CONFLICT, f"{uri}: was written over while it was read") from error
            raise from_botocore(error, uri) from error
        except BotoCoreError as error:
            breaks += 1
            if done == 0 or breaks > _RESUMES:
                raise from_botocore(error, uri) from error
        request |= {"Range": f"bytes={done}-", "IfMatch": answer["ETag"]}

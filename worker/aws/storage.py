"""S3: objects read, written, listed and streamed. What goes wrong is a Reject or a Retry.

Whole objects are read with obstore, which takes an eighth of boto3's processor time per object. Everything else is
rarer and goes through boto3: conditional writes, metadata, listings, ranges, and keys that obstore would change.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import obstore
from botocore.exceptions import ClientError
from obstore.exceptions import NotModifiedError

from worker.aws.failures import (
    BOTO_ERRORS,
    CHANGED,
    NO_SUCH_RANGE,
    OBSTORE_ERRORS,
    code_of,
    from_obstore,
    from_s3,
    status_of,
)
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef
    from obstore.store import S3Store

#: obstore normalises such keys: it refuses some, and for "/a.jpg" it would silently read "a.jpg", another object.
_KEY_OBSTORE_CHANGES: Final = re.compile(r"^/|/$|//|(^|/)\.\.?(/|$)|[\x00-\x1f\x7f]")
#: How much of a long object is read at a time.
_PIECE_BYTES: Final = 1024 * 1024
#: How often a stream reconnects without receiving a byte in between before it gives up.
_RECONNECTS: Final = 5


#: The bytes of an object, in memory that belongs to Python or to obstore.
Buffer = bytes | memoryview


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    uri: str
    size_bytes: int
    modified_at: datetime
    etag: str | None


@dataclass(frozen=True)
class Seen:
    """What an object was when it was looked at."""

    metadata: dict[str, str]  #: the user metadata
    etag: str


class Storage:
    """The objects of every bucket that the credentials can reach. Safe to share between threads."""

    def __init__(self, *, s3: "S3Client", open_bucket: Callable[[str], "S3Store"]) -> None:
        self._s3 = s3
        self._open_bucket = open_bucket
        self._buckets: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    def read(self, uri: str, *, max_bytes: int, version_id: str | None = None, etag: str | None = None) -> bytes:
        """Reads a complete object, and checks its length against the answer's header.

        Raises Reject ``too_many_bytes`` before it reads the body, and ``bad_source_ref`` for a URI that is not of the
        form ``s3://bucket/key``; Retry where the object's entity tag is no longer ``etag``; and otherwise what
        ``worker.aws.failures`` decides.
        """
        data = self.fetch(uri, max_bytes=max_bytes, version_id=version_id, etag=etag)
        return bytes(data)  # no copy if it is bytes already

    @overload
    def fetch(self, uri: str, *, max_bytes: int, version_id: str | None = ..., etag: str | None = ...) -> Buffer: ...
    @overload
    def fetch(
        self, uri: str, *, max_bytes: int, take: Callable[[int], bool], version_id: str | None = ...
    ) -> Buffer | None: ...

    def fetch(
        self,
        uri: str,
        *,
        max_bytes: int,
        version_id: str | None = None,
        etag: str | None = None,
        take: Callable[[int], bool] = lambda _: True,
    ) -> Buffer | None:
        """Reads a complete object as ``read`` does, without a copy.

        ``take`` is called with the size before the body is read. Where it returns False, so does this: None.
        """
        bucket, key = split(uri)
        if _KEY_OBSTORE_CHANGES.search(key):
            return self._read_with_boto3(uri, max_bytes, take, VersionId=version_id, IfMatch=etag)
        options = {"version": version_id} if version_id else {"if_match": etag} if etag else None
        try:
            answer = obstore.get(self._bucket(bucket), key, options=options)  # type: ignore[arg-type]
            size = answer.meta["size"]
            _check_size(uri, size, max_bytes)
            if not take(size):
                return None
            body = memoryview(answer.bytes())
        except TwofoldError:
            raise
        except OBSTORE_ERRORS as error:
            raise from_obstore(error, uri, key) from error
        _check_length(uri, len(body), size)
        return body

    def read_if_changed(self, uri: str, *, max_bytes: int, known: str | None) -> tuple[bytes, str | None] | None:
        """Reads a complete object with its entity tag, or returns None where the tag is still ``known``.

        Takes one request, and the permission ``s3:GetObject`` alone. Raises what ``read`` does.
        """
        bucket, key = split(uri)
        if _KEY_OBSTORE_CHANGES.search(key):
            with _deciding(uri):
                answer = self._s3.get_object(Bucket=bucket, Key=key)
                with closing(answer["Body"]) as stream:
                    _check_size(uri, answer["ContentLength"], max_bytes)
                    return None if answer["ETag"] == known else (stream.read(), answer["ETag"])
        try:
            found = obstore.get(self._bucket(bucket), key, options={"if_none_match": known} if known else None)
            size = found.meta["size"]
            _check_size(uri, size, max_bytes)
            body = bytes(found.bytes())
        except NotModifiedError:
            return None
        except OBSTORE_ERRORS as error:
            raise from_obstore(error, uri, key) from error
        _check_length(uri, len(body), size)
        return body, found.meta["e_tag"]

    def find(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Reads a small object, or returns None where there is none. A missing bucket is an error."""
        try:
            return self._read_with_boto3(uri, max_bytes, lambda _: True)
        except Reject as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchKey":
                return None
            raise

    def read_range(self, uri: str, *, start: int, end: int, etag: str | None) -> bytes:
        """Reads the bytes from ``start`` up to but not including ``end``.

        Raises Retry where the object's entity tag is no longer ``etag``.
        """
        bucket, key = split(uri)
        request = _given(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=etag)
        with _deciding(uri):
            return self._s3.get_object(**request)["Body"].read()

    def stream(self, uri: str, *, version_id: str | None = None) -> Iterator[bytes]:
        """Yields an object of any length in pieces. After a broken connection it continues where it was.

        Raises Reject ``conflict`` when the object is overwritten in the meantime.
        """
        bucket, key = split(uri)
        return self._pieces(uri, _given(Bucket=bucket, Key=key, VersionId=version_id))

    def metadata(self, uri: str) -> dict[str, str] | None:
        """Returns the user metadata of an object, or None where there is no object.

        A missing bucket is an error. S3 says that an object is missing only to credentials with ``s3:ListBucket``;
        to others every missing object is forbidden.
        """
        seen = self.look(uri)
        return None if seen is None else seen.metadata

    def look(self, uri: str) -> Seen | None:
        """Returns the metadata of an object and its entity tag. The same holds as for ``metadata``."""
        bucket, key = split(uri)
        try:
            # One byte, and not HEAD: the answer to HEAD has no body, so every 403 and 400 would look the same.
            answer = self._first_byte(bucket, key)
            with closing(answer["Body"]) as body:
                body.read(1)  # if the connection broke within the headers, it is not there
            return Seen(answer["Metadata"], answer["ETag"])
        except BOTO_ERRORS as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise from_s3(error, uri) from error

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[Listed]:
        """Yields every object below ``s3://bucket/prefix``, in the byte order of the keys; ``start_after`` is a URI."""
        bucket, _, key_prefix = prefix.removeprefix("s3://").partition("/")
        after = {} if start_after is None else {"StartAfter": split(start_after)[1]}
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix, **after)  # type: ignore[arg-type]
        with _deciding(prefix):
            for page in pages:
                for item in page.get("Contents", ()):
                    uri = f"s3://{bucket}/{item['Key']}"
                    yield Listed(uri, item["Size"], item["LastModified"], item.get("ETag"))

    def folders(self, prefix: str) -> Iterator[str]:
        """Yields the URIs of the folders directly below ``s3://bucket/prefix/``, each with a trailing slash."""
        bucket, _, key_prefix = prefix.removeprefix("s3://").partition("/")
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key_prefix, Delimiter="/")
        with _deciding(prefix):
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    yield f"s3://{bucket}/{item['Prefix']}"

    def write(self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str] | None = None) -> None:
        """Writes an object with one PutObject, over whatever is there."""
        self._put_if(uri, body, content_type, Metadata=metadata or {})

    def write_once(
        self, uri: str, body: bytes, *, content_type: str, metadata: dict[str, str], tag: str | None = None
    ) -> bool:
        """Writes an object with one conditional PutObject; returns False where one is already there.

        ``tag`` is ``key=value``, for the bucket's lifecycle rules. False can also mean that a first answer got lost
        and the SDK tried again, so the caller compares the metadata.
        """
        return self._put_if(uri, body, content_type, IfNoneMatch="*", Metadata=metadata, **_given(Tagging=tag))

    def overwrite(
        self, uri: str, body: bytes, *, etag: str, content_type: str, metadata: dict[str, str] | None = None
    ) -> bool:
        """Overwrites the object with this entity tag; returns False where it is gone or has changed."""
        return self._put_if(uri, body, content_type, IfMatch=etag, Metadata=metadata or {})

    def replace(self, uri: str, body: bytes, *, seen: bytes, content_type: str) -> bool:
        """Overwrites an object that still holds ``seen``; returns False where it is gone or has changed."""
        bucket, key = split(uri)
        try:
            with _deciding(uri):
                found = self._s3.get_object(Bucket=bucket, Key=key)
                current = found["Body"].read()
        except Reject as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return current == seen and self.overwrite(uri, body, etag=found["ETag"], content_type=content_type)

    def remove(self, uri: str) -> None:
        """Deletes an object. A missing object is not an error."""
        bucket, key = split(uri)
        with _deciding(uri):
            self._s3.delete_object(Bucket=bucket, Key=key)

    def _bucket(self, name: str) -> "S3Store":
        with self._lock:
            if name not in self._buckets:
                self._buckets[name] = self._open_bucket(name)
            return self._buckets[name]

    def _first_byte(self, bucket: str, key: str) -> "GetObjectOutputTypeDef":
        """Asks for the first byte of an object; of one without bytes, where S3 refuses every range, for all of it."""
        try:
            return self._s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
        except ClientError as error:
            if status_of(error) != NO_SUCH_RANGE:
                raise
            return self._s3.get_object(Bucket=bucket, Key=key)

    def _read_with_boto3(
        self, uri: str, max_bytes: int, take: Callable[[int], bool], **which: str | None
    ) -> bytes | None:
        bucket, key = split(uri)
        with _deciding(uri):
            answer = self._s3.get_object(**_given(Bucket=bucket, Key=key, **which))
            _check_size(uri, answer["ContentLength"], max_bytes)
            if not take(answer["ContentLength"]):
                answer["Body"].close()
                return None
            return answer["Body"].read()  # botocore compares the length itself

    def _pieces(self, uri: str, request: dict[str, Any]) -> Iterator[bytes]:
        done, size, breaks = 0, 1, 0
        while done < size:
            try:
                answer = self._s3.get_object(**request)
                size = done + answer["ContentLength"]
                for piece in answer["Body"].iter_chunks(_PIECE_BYTES):
                    yield piece
                    done, breaks = done + len(piece), 0
            except ClientError as error:
                if status_of(error) == CHANGED:
                    raise Reject(ErrorCode.CONFLICT, f"{uri}: was overwritten while it was read") from error
                raise from_s3(error, uri) from error
            except BOTO_ERRORS as error:
                breaks += 1
                if done == 0 or breaks > _RECONNECTS:
                    raise from_s3(error, uri) from error
            request |= {"Range": f"bytes={done}-", "IfMatch": answer["ETag"]}

    def _put_if(self, uri: str, body: bytes, content_type: str, **conditions: Any) -> bool:  # noqa: ANN401 - botocore's
        """Writes an object with one PutObject; returns False where its condition does not hold."""
        bucket, key = split(uri)
        request = {"Bucket": bucket, "Key": key, "Body": body, "ContentType": content_type, **conditions}
        try:
            self._s3.put_object(**request, ChecksumAlgorithm="SHA256")
        except BOTO_ERRORS as error:
            # For a condition about an object that is gone: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
            if status_of(error) == CHANGED or code_of(error) == "NoSuchKey":
                return False
            raise from_s3(error, uri) from error
        return True


def read_anywhere(uri: str, *, storage: Storage, max_bytes: int) -> bytes:
    """Reads an ``s3://`` object or a local file. For settings, never for what a request names."""
    if uri.startswith("s3://"):
        return storage.read(uri, max_bytes=max_bytes)
    try:
        return Path(uri).read_bytes()
    except FileNotFoundError:
        raise Reject(ErrorCode.NOT_FOUND, f"{uri}: no such file") from None
    except OSError as error:
        raise Reject(ErrorCode.ACCESS_DENIED, f"{uri}: {error.strerror}") from error


@contextmanager
def _deciding(uri: str) -> Iterator[None]:
    """Turns what boto3 raises within the block into Reject or Retry."""
    try:
        yield
    except BOTO_ERRORS as error:
        raise from_s3(error, uri) from error


def _given(**request: str | None) -> dict[str, Any]:
    """Returns the arguments that have a value: botocore refuses None."""
    return {name: value for name, value in request.items() if value}


def _check_size(uri: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise Reject(ErrorCode.TOO_MANY_BYTES, f"{uri}: {size_bytes:,} bytes, over the limit of {max_bytes:,}")


def _check_length(uri: str, arrived: int, size_bytes: int) -> None:
    if arrived != size_bytes:
        raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: {arrived:,} of {size_bytes:,} bytes arrived")

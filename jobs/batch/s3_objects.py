"""Objects in S3 as one sorts them: copied by S3 itself, without replacing any, and tagged."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.aws.failures import BOTO_ERRORS, CHANGED, code_of, from_s3, status_of
from worker.errors import ErrorCode, Reject, Retry, TwofoldError
from worker.uris import split

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import TagTypeDef

#: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
MAX_COPY_BYTES: Final = 5 * 1024**3
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
MAX_TAGS: Final = 10

_NOT_FOUND: Final = 404


@dataclass(frozen=True)
class S3Object:
    """What S3 says of an object without its bytes."""

    size_bytes: int
    etag: str


class S3Objects:
    """The objects of all buckets. Safe to share between threads. What goes wrong is a Reject or a Retry."""

    def __init__(self, s3: "S3Client") -> None:
        self._s3 = s3

    def stat(self, uri: str, *, version_id: str | None = None) -> S3Object | None:
        """Returns what an object is like, or None where there is none."""
        try:
            found = self._s3.head_object(**_named(uri, version_id))
        except BOTO_ERRORS as error:
            if status_of(error) == _NOT_FOUND:
                return None
            raise from_s3(error, uri) from error
        return S3Object(found["ContentLength"], found["ETag"])

    def copy(self, uri: str, to: str, *, version_id: str | None, etag: str) -> str | None:
        """Copies an object whose entity tag is ``etag``, with its metadata and tags.

        Returns the entity tag of the copy, or None where there is an object of that name. Raises Retry where the
        source has changed.
        """
        source: dict[str, Any] = {name: value for name, value in _named(uri, version_id).items() if value}
        request = {**_named(to, None), "CopySource": source, "CopySourceIfMatch": etag, "IfNoneMatch": "*"}
        try:
            return self._s3.copy_object(**request)["CopyObjectResult"]["ETag"]
        except BOTO_ERRORS as error:
            if status_of(error) != CHANGED:
                raise from_s3(error, f"{uri} to {to}") from error
        if self.stat(to) is not None:
            return None
        raise Retry(ErrorCode.UNAVAILABLE, f"{uri}: changed while it was copied")

    def remove(self, uri: str) -> None:
        """Deletes an object. A missing object is not an error."""
        try:
            self._s3.delete_object(**_named(uri, None))
        except BOTO_ERRORS as error:
            raise from_s3(error, uri) from error

    def tags(self, uri: str, *, version_id: str | None = None) -> dict[str, str]:
        """Returns the tags of an object."""
        try:
            found = self._s3.get_object_tagging(**_named(uri, version_id))
        except BOTO_ERRORS as error:
            if code_of(error) in {"NoSuchKey", "NoSuchVersion"}:
                raise Reject(ErrorCode.NOT_FOUND, f"{uri}: no such object") from error
            raise from_s3(error, uri) from error
        return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}

    def set_tags(self, uri: str, tags: dict[str, str], *, version_id: str | None = None) -> None:
        """Replaces the tags of an object."""
        try:
            if tags:
                pairs: list[TagTypeDef] = [{"Key": name, "Value": value} for name, value in tags.items()]
                self._s3.put_object_tagging(**_named(uri, version_id), Tagging={"TagSet": pairs})
            else:
                self._s3.delete_object_tagging(**_named(uri, version_id))
        except BOTO_ERRORS as error:
            raise from_s3(error, uri) from error

    def size(self, uri: str, *, version_id: str | None = None) -> int:
        """Returns the size of an object; 0 where that cannot be said."""
        with suppress(TwofoldError):
            found = self.stat(uri, version_id=version_id)
            return found.size_bytes if found else 0
        return 0


def _named(uri: str, version_id: str | None) -> Any:  # noqa: ANN401 - the arguments of several calls of boto3
    bucket, key = split(uri)
    return {"Bucket": bucket, "Key": key, **({"VersionId": version_id} if version_id else {})}

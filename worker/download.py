"""A long object in pieces. Used by ``worker.storage`` alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from worker.decisions import CHANGED, from_botocore, status_of
from worker.errors import ErrorCode, Reject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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

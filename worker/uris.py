"""``s3://`` URIs: their form, the prefixes that requests may use, and addresses without secrets. Cheap to import."""

import re
from typing import Final
from urllib.parse import urlsplit

from worker.contract import S3Uri
from worker.errors import ErrorCode, Reject

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_bucket(name: str) -> bool:
    """Returns whether ``name`` is a valid bucket name."""
    return _BUCKET.fullmatch(name) is not None


def split(uri: str) -> tuple[str, str]:
    """Splits ``s3://bucket/key`` into ``("bucket", "key")``. Raises Reject ``bad_source_ref`` for anything else."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not is_bucket(bucket) or not key:
        raise Reject(ErrorCode.BAD_SOURCE_REF, f"{uri[:200]!r} is not of the form s3://bucket/key")
    return bucket, key


def check_allowed(uri: str, prefixes: tuple[S3Uri, ...], *, setting: str = "TWOFOLD_ALLOWED_PREFIXES") -> None:
    """Raises Reject ``not_allowed`` unless ``uri`` is below one of ``prefixes``, which come from ``setting``.

    No request reaches another bucket.
    """
    if ".." in uri.split("/"):  # an ordinary name in S3, but not for a server that maps keys to folders
        raise Reject(ErrorCode.NOT_ALLOWED, f"{uri[:200]} contains '..', which could leave its prefix")
    if not is_allowed(uri, prefixes):
        raise Reject(ErrorCode.NOT_ALLOWED, f"{uri[:200]} is outside {setting}")


def is_allowed(uri: str, prefixes: tuple[S3Uri, ...]) -> bool:
    """Returns whether ``uri`` is one of ``prefixes`` or below one. ``s3://a`` does not allow ``s3://a-other``."""
    return any(f"{uri.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/") for prefix in prefixes)


def overlap(one: str, other: str) -> bool:
    """Returns whether one of two prefixes is inside the other, or they are the same."""
    return is_allowed(one, (other,)) or is_allowed(other, (one,))


def masked(url: str) -> str:
    """Returns an address without what may be secret: user name, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url.partition("?")[0]
    return f"{parts.scheme}://{host}{parts.path}"

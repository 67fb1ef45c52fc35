"""The manifests of the catalogue, each the bytes of one object or what else must be sent."""

import gzip
import json
import re
import zlib
from typing import Any

from tests.hostile.bodies import BUCKET, SOUND, Sent, manifest_request, request
from tests.hostile.files import MIB


def csv(*lines: str, end: str = "\n", start: str = "") -> bytes:
    """Returns a CSV with the column ``source_ref``."""
    return (start + end.join(["source_ref", *lines, ""])).encode()


def gzipped(content: bytes, level: int = 9) -> bytes:
    """Returns a gzip file."""
    return gzip.compress(content, level, mtime=0)


def bomb(content: bytes, *, start: bytes = b"", level: int = 9) -> bytes:
    """Returns a gigabyte of ``content``, gzipped: several gzip files in a row are one.

    On level 9 it is packed a thousand times, and on level 1 just less than what is taken for a bomb.
    """
    return gzipped(start) + gzipped(content * (16 * MIB), level) * 64


def in_two_encodings() -> bytes:
    """Returns a line in UTF-8 and one in Latin-1."""
    return csv(SOUND[0]) + "s3://hostile/in/é.png\n".encode("latin-1")


def with_line_breaks() -> bytes:
    """Returns a key with a line break, quoted, and a bucket with one."""
    return csv(f'"s3://{BUCKET}/in/a\nb.png"', '"s3://hos\ntile/a.png"')


def named_by(uri: str) -> Sent:
    """Returns a request whose manifest is an object or a prefix anywhere."""
    job_id = re.sub(r"\W+", "-", uri).strip("-")
    return Sent((request(job_id=job_id, images=None, manifest={"uri": uri}),))


def listing_itself() -> Sent:
    """Returns a CSV that names itself as an image."""
    key = "lists/itself.csv"
    return Sent((manifest_request("itself", key),), {key: csv(SOUND[0], f"s3://{BUCKET}/{key}")})


def inventory(**changes: Any) -> Sent:
    """Returns an S3 Inventory of one file, whose manifest.json has other fields."""
    table = gzipped(f'"{BUCKET}","in/0.png","7"\n'.encode())
    document = {
        "destinationBucket": f"arn:aws:s3:::{BUCKET}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size",
        "files": [{"key": "lists/inventory.csv.gz"}],
    }
    name = f"inventory-{zlib.crc32(repr(changes).encode())}"
    body = json.dumps(document | changes).encode()
    objects = {f"lists/{name}.json": body, "lists/inventory.csv.gz": table}
    return Sent((manifest_request(name, f"lists/{name}.json"),), objects)

"""The sources of a dataset: whatever ``--data`` takes becomes local files.

    pets/                                   a folder
    pets.zip, pets.tar.gz, pets.tar         an archive
    https://host/pets.zip                   an archive on the web, cached and downloaded again only if it changed
    s3://bucket/pets/                       all objects under a prefix, cached one by one
    s3://bucket/pets.zip                    an archive in a bucket
    labels.csv, s3://…/labels.csv           a labelled list, in any of these places

``#sha256=<64 digits>`` after the address of an archive or a list has its digest checked.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from jobs.data import archive, bucket, download
from jobs.data.class_folders import Listing, SourceFile, is_ignored
from jobs.data.dataset import DatasetCode, Reason
from jobs.data.web import WebFile
from jobs.progress import Reporter
from jobs.store import check_bucket, open_buckets
from jobs.user_error import UserError
from worker.uris import masked

_ARCHIVE: Final = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
_LIST: Final = re.compile(r"\.(csv|json|jsonl|ndjson|manifest)$", re.IGNORECASE)
#: How a labelled list begins, whatever its name: a header, or the object of a line.
_LIST_START: Final = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|[^\r\n]*\bsource_ref\b)")
_MAX_LIST_BYTES: Final = 1024**3
_CHUNK_BYTES: Final = 1024**2


@dataclass(frozen=True)
class ListFile:
    """The bytes of a labelled list, and where it was."""

    where: str  #: as a message may show it
    folder: str | None  #: where its relative names begin: a folder, an s3:// prefix, or None for a list on the web
    body: bytes


def is_list(data: str) -> bool:
    """Whether a source is a labelled list: by its name, or a file on this machine by how it begins."""
    if "://" in data:
        address, _ = _split_digest(data)
        name = address if address.startswith("s3://") else urlsplit(address).path
        return _LIST.search(name) is not None
    path = Path(data)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _LIST.search(data) is not None or _LIST_START.match(file.read(_CHUNK_BYTES)) is not None


def open_list(data: str, cache: Path, reporter: Reporter, *, redirect_hosts: frozenset[str] = frozenset()) -> ListFile:
    """Reads a labelled list, downloaded to the folder ``cache`` if it is on the web.

    Raises UserError, or the storage's Reject or Retry, if it cannot be read.
    """
    address, wanted = _split_digest(data)
    if address.startswith("s3://"):
        check_bucket(address)
        where, folder = address, f"{address.rpartition('/')[0]}/"
        with reporter.step(f"Reading {where}"):
            body = open_buckets().read(address, max_bytes=_MAX_LIST_BYTES)
    elif "://" in address:
        remote = WebFile(address, redirect_hosts=redirect_hosts)
        where, folder = remote.where, None
        body = download.fetch(remote, _downloads(cache, address), reporter).read_bytes()
    else:
        where, folder, body = address, str(Path(address).parent), Path(address).read_bytes()
    if wanted and (digest := hashlib.sha256(body).hexdigest()) != wanted:
        raise _unexpected(where, digest, wanted)
    return ListFile(where, folder, body)


def open_source(data: str, cache: Path, reporter: Reporter, *, redirect_hosts: frozenset[str] = frozenset()) -> Listing:
    """Lists the files of a dataset, downloaded and unpacked to the folder ``cache`` where necessary.

    ``redirect_hosts`` are the hosts that an https:// address may redirect to, besides its own.
    Raises UserError, or the storage's Reject or Retry, if they cannot be read.
    """
    address, wanted = _split_digest(data)
    if re.match(r"https?://", address, re.IGNORECASE):
        remote = WebFile(address, redirect_hosts=redirect_hosts)
        return _from_remote(remote, address, wanted, cache, reporter)
    if address.startswith("s3://"):
        check_bucket(address)
        storage = open_buckets()
        if _ARCHIVE.search(address):
            return _from_remote(bucket.LargeObject(address, storage), address, wanted, cache, reporter)
        if wanted:
            raise UserError(f"#sha256= is for an archive, but {address} is a prefix. Remove #sha256= from it.")
        return bucket.read_prefix(f"{address.rstrip('/')}/", cache / "objects", storage, reporter)
    path = Path(data)
    if path.is_dir():
        with reporter.step(f"Listing {path}"):
            return _from_folder(path)
    if path.is_file():
        return archive.unpack(path, _unpacked(cache, _sha256(path, str(path), reporter)), str(path), reporter)
    if "://" not in data and not path.exists():
        raise UserError(f"{data} does not exist{'' if path.is_absolute() else f' in {Path.cwd()}'}.")
    raise UserError(
        f"{masked(data) if '://' in data else data} is not a folder or an archive, nor a labelled list. Use a folder "
        "with one folder of images for each of two classes, a .zip or .tar.gz archive of it, its https:// address, an "
        "s3:// prefix, or a CSV of source_ref,label."
    )


def _split_digest(data: str) -> tuple[str, str | None]:
    """Splits ``https://host/pets.zip#sha256=…`` into address and digest."""
    address, mark, digest = data.rpartition("#sha256=")
    if not mark or "://" not in address:
        return data, None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UserError(f"#sha256= takes 64 hexadecimal digits, not {digest[:80]!r}.")
    return address, digest.lower()


def _from_remote(
    remote: download.RemoteFile, address: str, wanted: str | None, cache: Path, reporter: Reporter
) -> Listing:
    if wanted and (known := archive.find_unpacked(_unpacked(cache, wanted), remote.where)):
        return known  # identified by its content, so there is nothing to download
    path = download.fetch(remote, _downloads(cache, address), reporter)
    digest = _sha256(path, remote.where, reporter)
    if wanted and digest != wanted:
        path.unlink()
        raise _unexpected(remote.where, digest, wanted)
    try:
        return archive.unpack(path, _unpacked(cache, digest), remote.where, reporter)
    except UserError:
        path.unlink()  # or every later run would fail on the same copy
        raise


def _unexpected(where: str, digest: str, wanted: str) -> UserError:
    return UserError(f"{where} is not the expected file: its SHA-256 is {digest}, not {wanted}.")


def _downloads(cache: Path, address: str) -> Path:
    return cache / "downloads" / hashlib.sha256(address.encode()).hexdigest()


def _unpacked(cache: Path, digest: str) -> Path:
    return cache / "unpacked" / digest


def _sha256(path: Path, where: str, reporter: Reporter) -> str:
    digest = hashlib.sha256()
    with (
        path.open("rb") as file,
        reporter.step(f"Hashing {where}", total=path.stat().st_size, in_bytes=True) as advance,
    ):
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


def _from_folder(root: Path) -> Listing:
    files, folders = [], []
    for ref, path in _walk(root, "", frozenset()):
        if path.is_dir():
            folders.append(ref)
        elif path.is_file():
            files.append(SourceFile(ref, path))
        else:
            what = "a broken link" if path.is_symlink() else "a device or a pipe"
            files.append(SourceFile(ref, path, Reason(DatasetCode.NOT_A_FILE, what)))
    return Listing.of(str(root), files, folders)


def _walk(folder: Path, ref: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    """Yields what is in a folder except ignored names. Follows links, but not to a folder that contains the link."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        name = f"{ref}/{path.name}" if ref else path.name
        yield name, path
        if path.is_dir():
            yield from _walk(path, name, above | {here})

"""Where a dataset can come from, and the way from each to files of this machine.

    pets/                                   a folder
    pets.zip, pets.tar.gz, pets.tar         an archive
    https://host/pets.zip                   an archive elsewhere, kept and asked for again only if it changed
    s3://bucket/pets/                       all objects below a prefix, kept one by one
    s3://bucket/pets.zip                    an archive in a bucket

Behind the address of an archive ``#sha256=<64 digits>`` says what it must be.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobs.data import archive, bucket, download
from jobs.data.class_folders import Listing, SourceFile, is_ignored
from jobs.data.dataset import DatasetCode, Reason
from jobs.data.web import WebFile
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.aws.clients import open_session, open_storage
from worker.uris import masked, split

_ARCHIVE: Final = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
_CHUNK_BYTES: Final = 1024**2


def open_source(data: str, cache: Path, reporter: Reporter) -> Listing:
    """The files of a dataset. ``cache`` is a folder for what is downloaded or unpacked.

    Raises UserError, or the storage's Reject or Retry, when they cannot be had.
    """
    address, wanted = _split_digest(data)
    if re.match(r"https?://", address, re.IGNORECASE):
        return _from_remote(WebFile(address), address, wanted, cache, reporter)
    if address.startswith("s3://"):
        split(f"{address.rstrip('/')}/any")  # says what is wrong with it, if anything is
        storage = open_storage(open_session())
        if _ARCHIVE.search(address):
            return _from_remote(bucket.LargeObject(address, storage), address, wanted, cache, reporter)
        if wanted:
            raise UserError(f"#sha256= is for an archive, and {address} is a prefix: leave it out.")
        return bucket.read_prefix(f"{address.rstrip('/')}/", cache / "objects", storage, reporter)
    path = Path(data)
    if path.is_dir():
        with reporter.step(f"Listing {path}"):
            return _from_folder(path)
    if path.is_file():
        return archive.unpack(path, _unpacked(cache, _sha256(path, str(path), reporter)), str(path), reporter)
    raise UserError(
        f"{masked(data) if '://' in data else data} is no folder and no archive. Give a folder with one folder of "
        "images for each of two classes, a .zip or .tar.gz of it, an https:// address of that, or an s3:// prefix."
    )


def _split_digest(data: str) -> tuple[str, str | None]:
    """``https://host/pets.zip#sha256=…`` to address and digest."""
    address, mark, digest = data.rpartition("#sha256=")
    if not mark or "://" not in address:
        return data, None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise UserError(f"#sha256= takes 64 hexadecimal digits, and {digest[:80]!r} is not that.")
    return address, digest.lower()


def _from_remote(remote: download.Remote, address: str, wanted: str | None, cache: Path, reporter: Reporter) -> Listing:
    if wanted and (known := archive.find_unpacked(_unpacked(cache, wanted), remote.where)):
        return known  # by its content: there is nothing to ask
    folder = cache / "downloads" / hashlib.sha256(address.encode()).hexdigest()
    path = download.fetch(remote, folder, reporter)
    digest = _sha256(path, remote.where, reporter)
    if wanted and digest != wanted:
        path.unlink()
        raise UserError(f"{remote.where} is not the file it should be: its SHA-256 is {digest}, not {wanted}.")
    try:
        return archive.unpack(path, _unpacked(cache, digest), remote.where, reporter)
    except UserError:
        path.unlink()  # what cannot be used is not kept
        raise


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
            what = "a link to nothing" if path.is_symlink() else "a device or a pipe"
            files.append(SourceFile(ref, path, Reason(DatasetCode.NOT_A_FILE, what)))
    return Listing.of(str(root), files, folders)


def _walk(folder: Path, ref: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    """Everything in a folder but the ignored; links are followed, though not to a folder that they lie in."""
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

"""The sources of a dataset: whatever ``--data`` takes becomes local files.

    pets/                                   a folder
    pets.zip, pets.tar.gz, pets.tar         an archive
    https://host/pets.zip                   an archive on the web, cached and downloaded again only if it changed
    s3://bucket/pets/                       all objects under a prefix, cached one by one
    s3://bucket/pets.zip                    an archive in a bucket

``#sha256=<64 digits>`` after the address of an archive has its digest checked.
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
from jobs.store import check_bucket, open_buckets
from jobs.user_error import UserError
from worker.uris import masked

_ARCHIVE: Final = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
_CHUNK_BYTES: Final = 1024**2


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
        f"{masked(data) if '://' in data else data} is not a folder or an archive. Use a folder with one folder of "
        "images for each of two classes, a .zip or .tar.gz archive of it, its https:// address, or an s3:// prefix."
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
    folder = cache / "downloads" / hashlib.sha256(address.encode()).hexdigest()
    path = download.fetch(remote, folder, reporter)
    digest = _sha256(path, remote.where, reporter)
    if wanted and digest != wanted:
        path.unlink()
        raise UserError(f"{remote.where} is not the expected file: its SHA-256 is {digest}, not {wanted}.")
    try:
        return archive.unpack(path, _unpacked(cache, digest), remote.where, reporter)
    except UserError:
        path.unlink()  # or every later run would fail on the same copy
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

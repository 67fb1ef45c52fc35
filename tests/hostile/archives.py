"""The datasets of the catalogue: a folder, as the contents of its files by name, or the bytes of an archive."""

import gzip
import io
import stat
import tarfile
import zipfile
from typing import Final

import numpy as np

from tests.hostile.files import MIB, encoded

#: Images in each class of a sound dataset.
_IMAGES: Final = 6
Folder = dict[str, bytes]
_Member = tuple[tarfile.TarInfo, bytes]


def image(number: int) -> bytes:
    """Returns a small PNG. Each number gives another one."""
    return encoded(np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8), "PNG")


def folder(**counts: int) -> Folder:
    """Returns class folders of so many images, all different; by default two sound ones."""
    names = counts or {"cats": _IMAGES, "dogs": _IMAGES}
    return {
        f"{name}/{number:03d}.png": image(1000 * place + number)
        for place, (name, count) in enumerate(names.items())
        for number in range(count)
    }


def with_files(**bodies: bytes) -> Folder:
    """Returns a sound dataset with further files among its cats."""
    return folder() | {f"cats/{name}.png": body for name, body in bodies.items()}


def in_two_splits() -> Folder:
    """Returns a training and a test set with an image in common."""
    split = {f"{part}/{name}": image(place) for place, (part, name) in enumerate(_split_names())}
    return split | {"test/cats/again.png": split["train/cats/0.png"]}


def in_both_classes() -> Folder:
    """Returns a dataset with an image that is a cat and a dog."""
    return folder() | {"cats/both.png": image(1), "dogs/both.png": image(1)}


def tar(name: str = "cats/x.png", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Returns a tar of a sound dataset and a member of any name and kind."""
    return _tar([*_sound_members(), _member(name, kind=kind, link=link)])


def tar_escaping_by_links() -> bytes:
    """Returns the tar of CVE-2025-4517: links whose resolved path is longer than any system allows."""
    long = "d" * 247
    members, step = [], "cats/"
    for letter in "abcdefghijklmnop":
        members.append(_member(f"{step}{long}", kind=tarfile.DIRTYPE))
        members.append(_member(f"{step}{letter}", kind=tarfile.SYMTYPE, link=long))
        step += f"{long}/"
    links = "cats/" + "/".join("abcdefghijklmnop")
    members.append(_member(f"{links}/{'l' * 254}", kind=tarfile.SYMTYPE, link="../" * 16))
    members.append(_member("cats/escape", kind=tarfile.SYMTYPE, link=f"{links}/{'l' * 254}/../../../../victim"))
    return _tar([*_sound_members(), *members])


def zipped(name: str, body: bytes = b"x", *, mode: int = stat.S_IFREG) -> bytes:
    """Returns a zip of a sound dataset with a member of any name and kind."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, (mode | 0o777) << 16, zipfile.ZIP_DEFLATED
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for member, content in folder().items():
            packed.writestr(member, content)
        packed.writestr(info, body)
    return stream.getvalue()


def tar_bomb() -> bytes:
    """Returns a tar with a member of a gigabyte of zeros, gzipped: several gzip files in a row are one."""
    info = tarfile.TarInfo("cats/bomb.png")
    info.size = 1024 * MIB
    return gzip.compress(info.tobuf()) + gzip.compress(bytes(MIB)) * 1024


def _split_names() -> list[tuple[str, str]]:
    return [(part, f"{name}/{n}.png") for part in ("train", "test") for name in ("cats", "dogs") for n in range(4)]


def _sound_members() -> list[_Member]:
    return [_member(name, body) for name, body in folder().items()]


def _member(name: str, body: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> _Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(body)
    return info, body


def _tar(members: list[_Member]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for info, body in members:
            packed.addfile(info, io.BytesIO(body))
    return stream.getvalue()

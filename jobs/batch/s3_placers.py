"""Pictures into the piles of a bucket: copies that S3 makes itself, or tags on the objects."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from jobs.batch.pile_list import Entry, Known, Method, State
from jobs.batch.piles import Picture
from jobs.batch.placing import TAKEN, UNREAD, Placement, entry_of, is_by_hand
from jobs.batch.s3_objects import MAX_COPY_BYTES, MAX_TAGS, S3Object, S3Objects
from worker.aws.storage import Storage
from worker.errors import TwofoldError

#: The tag that names the pile of an object.
TAG: Final = "twofold-pile"
#: What S3 does not allow in a tag: https://docs.aws.amazon.com/AmazonS3/latest/userguide/tagging-managing.html
_NO_TAG_SIGN: Final = re.compile(r"[^\w \-+=.:/@]")
_MAX_TAG: Final = 256


class CopyPlacer:
    """Copies objects. A picture of this machine is copied from where it was uploaded."""

    threads = 16

    def __init__(self, objects: S3Objects, storage: Storage, *, prefix: str) -> None:
        """Lists what is there. ``prefix`` is that of the piles, without a slash at its end."""
        self._objects = objects
        self._storage = storage
        self._prefix = prefix
        start = len(prefix) + 1
        self._there = {
            item.uri[start:]: S3Object(item.size_bytes, item.etag or "") for item in storage.list(f"{prefix}/")
        }

    def is_done(self, picture: Picture, known: Known) -> bool:
        """Compares the size and the entity tag with the list."""
        entry = known.entry
        if entry.state is not State.PLACED or not (entry.file == picture.file or is_by_hand(entry)):
            return False
        if entry.source_ref != picture.source_ref or self._there.get(entry.file) != _recorded(entry):
            return False
        picture.pile = entry.file.partition("/")[0]
        return True

    def intent(self, picture: Picture) -> Entry:
        """Names the copy."""
        return entry_of(picture, Method.COPY)

    def intended(self) -> None:
        """S3 has written it."""

    def place(self, picture: Picture, _: Entry, known: Known | None) -> Placement:
        """Copies an object into its pile."""
        try:
            return self._by_hand(picture, known) or self._place(picture, known)
        except TwofoldError as error:
            return Placement(problem=error.message)

    def finish(self, placements: Iterable[Placement]) -> None:
        """S3 has written the copies: the old ones can go."""
        for placement in placements:
            for file in placement.obsolete:
                self._objects.remove(self._uri(file))
                self._there.pop(file, None)

    def _place(self, picture: Picture, known: Known | None) -> Placement:
        if picture.unread:
            return Placement(problem=f"{picture.source_ref}: {UNREAD}")
        source = self._objects.stat(picture.source_ref, version_id=picture.version_id)
        if source is None:
            return Placement(problem=f"{picture.source_ref}: no such object")
        if source.size_bytes > MAX_COPY_BYTES:
            return Placement(problem=f"{picture.source_ref}: over 5 GiB, more than S3 copies at once")
        old = [file for file in (known.files if known else ()) if file != picture.file and file in self._there]
        for file in old:
            before = _recorded(known.entry) if known else None
            if self._there[file] != before and not self._is_copy(picture, source, file, self._there[file]):
                return Placement(problem=f"{file}: it was replaced since. Remove it, and run the command again")
        target, there = self._uri(picture.file), self._objects.stat(self._uri(picture.file))
        etag = None
        if there is None:
            etag = self._objects.copy(picture.source_ref, target, version_id=picture.version_id, etag=source.etag)
            there = self._objects.stat(target) if etag is None else S3Object(source.size_bytes, etag)
        if there is None or (etag is None and not self._is_copy(picture, source, picture.file, there)):
            return Placement(problem=f"{picture.file}: {TAKEN}")
        entry = _placed(picture, there)
        return Placement(entry=entry, new=etag is not None and not old, over=bool(old), obsolete=tuple(old))

    def _by_hand(self, picture: Picture, known: Known | None) -> Placement | None:
        """Returns where a person has put a copy since, if that is another pile."""
        if known is None or known.entry.state is not State.PLACED or known.entry.file in self._there:
            return None
        for pile in sorted({file.partition("/")[0] for file in self._there}):
            file = f"{pile}/{picture.name}"
            there = self._there.get(file) if pile != known.entry.pile else None
            if there is not None and there == _recorded(known.entry):
                picture.pile = pile
                entry = replace(_placed(picture, there), pile=known.entry.pile, file=file)
                return Placement(entry=entry, by_hand=True)
        return None

    def _is_copy(self, picture: Picture, source: S3Object, file: str, there: S3Object) -> bool:
        """Compares entity tags; where encryption or parts make them differ, the bytes."""
        if source.size_bytes != there.size_bytes or source.etag == there.etag:
            return source.size_bytes == there.size_bytes
        one = self._storage.stream(picture.source_ref, version_id=picture.version_id)
        return _digest(one) == _digest(self._storage.stream(self._uri(file)))

    def _uri(self, file: str) -> str:
        return f"{self._prefix}/{file}"


class TagPlacer:
    """Tags the objects themselves. Their other tags stay, and the list keeps what they had."""

    threads = 16

    def __init__(self, objects: S3Objects) -> None:
        self._objects = objects

    def is_done(self, _picture: Picture, _known: Known) -> bool:
        """Only the object itself knows."""
        return False

    def intent(self, picture: Picture) -> Entry:
        """Reads the tags that the object has, so that they can be restored."""
        entry = entry_of(picture, Method.TAG, file="")
        if picture.unread or picture.original is not None:
            return entry
        try:
            tags = self._objects.tags(picture.source_ref, version_id=picture.version_id)
        except TwofoldError:  # ``place`` says why
            return entry
        return replace(entry, tags=json.dumps(tags, sort_keys=True))

    def intended(self) -> None:
        """The list is a file of this machine, and complete."""

    def place(self, picture: Picture, intent: Entry, known: Known | None) -> Placement:
        """Adds the tag."""
        if picture.original is not None:
            return Placement(problem=f"{picture.original}: a file of this machine has no tags")
        if picture.unread:
            return Placement(problem=f"{picture.source_ref}: {UNREAD}")
        ref, version_id = picture.source_ref, picture.version_id
        try:
            tags = json.loads(intent.tags) if intent.tags else self._objects.tags(ref, version_id=version_id)
            wanted = tags | {TAG: tag_value(picture.pile)}
            if len(wanted) > MAX_TAGS:
                return Placement(problem=f"{ref}: it has {MAX_TAGS} tags already, the most that S3 allows")
            if wanted != tags:
                self._objects.set_tags(ref, wanted, version_id=version_id)
        except TwofoldError as error:
            return Placement(problem=error.message)
        before = known.entry.tags if known else None
        entry = replace(intent, tags=before or json.dumps(tags, sort_keys=True), state=State.PLACED)
        return Placement(entry=entry, new=TAG not in tags, over=tags.get(TAG) not in {None, wanted[TAG]})

    def finish(self, placements: Iterable[Placement]) -> None:
        """There is nothing to remove."""


def tag_value(pile: str) -> str:
    """Returns the name of a pile as S3 takes it in a tag."""
    return _NO_TAG_SIGN.sub("_", pile)[:_MAX_TAG]


def _placed(picture: Picture, there: S3Object) -> Entry:
    entry = entry_of(picture, Method.COPY)
    return replace(entry, size_bytes=there.size_bytes, etag=there.etag, state=State.PLACED)


def _recorded(entry: Entry) -> S3Object | None:
    return None if entry.size_bytes is None or entry.etag is None else S3Object(entry.size_bytes, entry.etag)


def _digest(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()

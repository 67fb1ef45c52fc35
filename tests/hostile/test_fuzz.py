"""Fuzzing: whatever bytes come, an image, a message and a list are read or refused, and nothing else happens.

The seeds are kept: every run tries the same inputs. What a longer search finds becomes an ``@example``, or an entry of
the catalogue.
"""

import json
import multiprocessing
import struct
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.hostile.bodies import SOUND, bridged, event, event_through_sns, manifest_request, request, s3_test_event
from tests.hostile.files import encoded, gif, noise, progressive_jpeg, rle8, tiff_of_a_tile, webp_of_one_colour
from tests.hostile.images import animations, broken_exif, odd_pixels
from tests.hostile.lists import csv, gzipped, inventory
from worker import messages
from worker.contract import ClassifyRequest, ManifestRef
from worker.errors import ErrorCode, Reject
from worker.manifest.references import references
from worker.scoring.decoder import FORMATS, decode

# Pillow warns about odd files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

SHORT: Final = settings(derandomize=True, max_examples=75)
LONG: Final = settings(derandomize=True, max_examples=3000)
#: A file of a few KB takes milliseconds.
_HANGS_S: Final = 60
#: A new process, because a copy of this one would have its threads' locks and not its threads.
_SPAWN: Final = multiprocessing.get_context("spawn")

#: Sound files: each format, each kind of pixels, and the parts that few files have.
IMAGES: Final = [
    *(encoded(noise(30, 40), kind) for kind in FORMATS),
    *odd_pixels(),
    *animations(),
    *broken_exif(),
    gif(frames=3, comments=b"!\xfe\x03abc\0"),
    progressive_jpeg(40, 30, empty_scans=3),
    rle8(20, 20, b"\x14\x05\0\0" * 20 + b"\0\1"),
    tiff_of_a_tile(16, tile_px=32),
    webp_of_one_colour(20, 20),
]
#: Sound messages.
BODIES: Final = [
    json.loads(request(threshold=0.5, model_uri="s3://hostile/models/m", output_uri="s3://hostile/out")),
    json.loads(manifest_request("june", "lists/a.csv", shard=3)),
    event("inbox/a b.csv"),
    event_through_sns("inbox/é.csv"),
    s3_test_event(),
    bridged("inbox/a.csv"),
]
#: Sound lists: one in each format.
LISTS: Final = [
    csv(*SOUND),
    b"Bucket,Key,VersionId,note\nhostile,in/a.png,v,x\n",
    b"hostile,in/a%20b.png,v\nhostile,in/b.png\n",
    b'{"source-ref": "s3://hostile/in/a.png", "label": 1}\n{"source-ref": "s3://hostile/in/b.png"}\n',
    b'[{"prefix": "s3://hostile/"}, "in/a.png", "in/b.png"]',
    next(iter(inventory().objects.values())),
    gzipped(csv(*SOUND)),
]
#: Numbers at which counters overflow, in either byte order.
_EDGES: Final = [struct.pack(code, number) for code in ("<I", ">I") for number in (0, 1, 0x7FFFFFFF, 2**31, 2**32 - 1)]


@st.composite
def altered(draw: st.DrawFn, sound: Sequence[bytes]) -> bytes:
    """Draws a sound file, and changes, cuts, repeats or replaces some of its bytes, in its head or anywhere."""
    data = draw(st.sampled_from(sound))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 1 << 16])))))
        end = start + draw(st.integers(0, 40))
        other = draw(st.sampled_from(sound))
        at = draw(st.integers(0, len(other)))
        piece = draw(
            st.binary(max_size=8)
            | st.sampled_from(_EDGES)
            | st.just(other[at : at + end - start])
            | st.just(data[start:end] * 3)
        )
        data = data[:start] + piece + data[draw(st.sampled_from([start, start + len(piece), end])) :]
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


def _decode(data: bytes) -> None:
    try:
        pixels = decode(data, size_px=32)
    except Reject as reject:
        if len(reject.message) > 1000:
            raise
    else:
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8


_BYTES: Final = st.binary(max_size=300)
_STARTS: Final = st.sampled_from([b"", *(data[:20] for data in IMAGES), b"II*\0", b"MM\0*", b"BM"])


@SHORT
@given(_BYTES, _STARTS)
def test_any_bytes_are_decoded_or_refused(data: bytes, start: bytes) -> None:
    """With and without the beginning of a real file."""
    _decode(start + data)


@SHORT
@given(altered(IMAGES))
def test_an_altered_image_is_decoded_or_refused(data: bytes) -> None:
    """In any of the six formats, and with pieces of another one."""
    _decode(data)


@SHORT
@given(kind=st.sampled_from(["JPEG", "WEBP", "BMP", "TIFF"]), kept=st.floats(0.0, 1.0, exclude_max=True))
def test_a_part_of_a_file_is_never_taken_for_the_file(kind: str, kept: float) -> None:
    """Wherever it is cut. (PNG and GIF end in 20 and 2 bytes without pixels, which Pillow does not need.)"""
    data = IMAGES[FORMATS.index(kind)]
    with pytest.raises(Reject):
        decode(data[: int(len(data) * kept)], size_px=32)


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(SOUND),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def replaced(draw: st.DrawFn, document: Any) -> Any:
    """Draws a copy of a JSON document with a value in it replaced, dropped or added, at any depth."""
    if isinstance(document, dict) and document and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(document)))
        change = draw(st.sampled_from(["inside", "inside", "drop", "add"]))
        if change == "inside":
            return document | {key: draw(replaced(document[key]))}
        rest = {name: value for name, value in document.items() if name != key}
        return rest if change == "drop" else document | {draw(st.text(max_size=10)): draw(_JSON)}
    if isinstance(document, list) and document and draw(st.integers(0, 3)):
        return [*document[1:], draw(replaced(document[0]))] * draw(st.integers(0, 2))
    return draw(_JSON)


def _read_message(body: str) -> None:
    try:
        requests = messages.read(body)
    except ValueError as error:
        if len(str(error).splitlines()) != 1 or len(str(error)) > 1000:
            raise AssertionError(f"not one line: {error!r}") from error
    else:
        for one in requests:
            assert ClassifyRequest.parse(one.model_dump_json()) == one


@SHORT
@given(st.sampled_from(BODIES).flatmap(replaced))
def test_any_json_in_place_of_a_field_is_read_or_refused(document: Any) -> None:
    """In a request and in each kind of event."""
    _read_message(json.dumps(document))


@SHORT
@given(altered([json.dumps(document).encode() for document in BODIES]))
def test_an_altered_message_is_read_or_refused(data: bytes) -> None:
    """Also one that is not UTF-8 any more."""
    _read_message(data.decode(errors="surrogateescape"))


def _read_list(data: bytes) -> None:
    table = csv(*SOUND)

    def opener(uri: str, _: str | None) -> list[bytes]:
        return [data[:7], data[7:]] if uri == "s3://hostile/list" else [table]

    try:
        found = list(references(ManifestRef(uri="s3://hostile/list"), opener=opener, lister=lambda _: ()))
    except Reject as reject:
        if reject.code is not ErrorCode.BAD_MANIFEST or len(reject.message) > 1000:
            raise
    else:
        for ref in found:
            assert len("".join(ref.source_ref).encode()) <= 4 * 2048


@SHORT
@given(altered(LISTS))
def test_an_altered_list_is_read_or_refused(data: bytes) -> None:
    """In each format. A line without a reference is a reference itself, which fails later."""
    _read_list(data)


@SHORT
@given(st.just(json.loads(LISTS[5])).flatmap(replaced))
@example({"destinationBucket": "a:hostile", "fileFormat": "CSV", "fileSchema": "", "files": [{"key": "a.csv"}]})
def test_an_inventory_with_any_json_in_it_is_read_or_refused(document: Any) -> None:
    """Its fields are read one by one."""
    _read_list(json.dumps(document).encode())


class Child:
    """A process that decodes one file after the other. Where a file ends it, the next one has another process."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_decode_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def decode(self, data: bytes) -> None:
        try:
            self._pipe.send_bytes(data)
            reason = self._pipe.recv() if self._pipe.poll(_HANGS_S) else "hangs"
        except (EOFError, OSError):
            self._process.join()
            reason = f"ends the process with {self._process.exitcode}"
        if reason:
            self.close()
            self._start()
        assert not reason, f"{reason}: {data.hex()}"

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _decode_all(pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    while True:
        try:
            _decode(pipe.recv_bytes())
            pipe.send("")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            pipe.send(repr(error))


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


@pytest.mark.slow
@LONG
@given(data=altered(IMAGES))
def test_no_altered_image_ends_the_process(child: Child, data: bytes) -> None:
    """The long form: thousands of files, in a process that one of them could crash."""
    child.decode(data)


@pytest.mark.slow
@LONG
@given(altered(LISTS), st.sampled_from(BODIES).flatmap(replaced))
def test_thousands_of_lists_and_messages_are_read_or_refused(data: bytes, document: Any) -> None:
    """The long form."""
    _read_list(data)
    _read_message(json.dumps(document))

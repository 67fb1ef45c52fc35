"""The catalogue of hostile inputs: a line for each, with what it becomes.

    Entry(name, kind, make, becomes, note)

``becomes`` is what happens to each image, message or file that ``make`` returns:

    scored                 a row with a score
    damaged                a row with this error code
    dead letter: conflict  the message is in the dead-letter queue, with this reason
    acknowledged           the message is deleted, and asks for nothing
    bad_model: model.json  the model is refused, and this file is named
    refused: bomb          the training job is refused, for a reason with these words
    left out: duplicate    an image is in quarantine.csv, with this reason
    kept                   all images are read

``a | b`` allows both: which limit ends a bomb depends on the machine. ``a, b`` is for the first and the second image or
message; without a comma, all become the same.

No entry costs its neighbours anything: each request for hostile images ends with a sound one, which must be scored.
"""

import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tests.hostile import bombs
from tests.hostile.archives import (
    folder,
    in_both_classes,
    in_two_splits,
    tar,
    tar_bomb,
    tar_escaping_by_links,
    with_files,
    zipped,
)
from tests.hostile.bodies import (
    BUCKET,
    SOUND,
    bridged,
    event_through_sns,
    raw,
    request,
    s3_test_event,
    through_sns,
    twice_with_other_images,
    uploaded,
)
from tests.hostile.bundles import (
    GRAPH,
    MODEL_JSON,
    answering_nan,
    cut,
    flipped,
    graph,
    keras_archive,
    manifest,
    threshold,
    without,
)
from tests.hostile.files import MIB, gif, png
from tests.hostile.images import (
    Stored,
    animations,
    as_kind,
    broken_exif,
    canvas_without_frames,
    circular_tiff,
    damaged_silently,
    encrypted,
    headers_claiming,
    millions_of_frames,
    odd_pixels,
    of_another_process,
    overlapping_exif,
    png_of_five_bytes,
    png_with,
    png_with_a_nameless_chunk,
    png_with_altered_pixels,
    riff_files,
    tiff_with_endless_text,
    tiny_and_long,
    truncated,
    two_in_one,
    upright_in_every_way,
    wider_than_its_screen,
)
from tests.hostile.lists import (
    bomb,
    csv,
    gzipped,
    in_two_encodings,
    inventory,
    listing_itself,
    named_by,
    with_line_breaks,
)
from worker.scoring.limits import MAX_BYTES


class Kind(StrEnum):
    """What an entry is. ``make`` returns one of these, or a list of them."""

    REQUEST = "request"  #: the body of a message, or ``Sent``
    MANIFEST = "manifest"  #: the bytes of a list, or ``Sent``
    REFERENCE = "reference"  #: the text of a reference, or ``Stored``, an object that cannot be read
    IMAGE = "image"  #: the bytes of an object
    BOMB = "bomb"  #: as IMAGE, or ``Sent``; takes seconds of processor time or hundreds of megabytes
    MODEL = "model"  #: a change to the files of a sound bundle
    DATASET = "dataset"  #: the files of a folder by name, or the bytes of an archive
    ELSEWHERE = "elsewhere"  #: nothing: no emulator can show it, and the note names the test that does


REQUEST, MANIFEST, REFERENCE, IMAGE, BOMB, MODEL, DATASET, ELSEWHERE = Kind
#: The kinds that go through a queue and take milliseconds.
QUICK: Final = (REQUEST, MANIFEST, REFERENCE, IMAGE)


@dataclass(frozen=True)
class Entry:
    """A hostile input."""

    name: str
    kind: Kind
    make: Callable[[], Any]
    becomes: str
    note: str  #: how it is made, or why it hurts

    @property
    def slug(self) -> str:
        """The name, as a part of keys and job ids."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-")

    def holds(self, steps: Sequence[str]) -> bool:
        """Returns whether what became of each image, message or file is what is promised."""
        promised = [step.split(" | ") for step in self.becomes.split(", ")]
        if len(promised) == 1:
            promised *= len(steps)
        return bool(steps) and len(promised) == len(steps) and all(map(_keeps, promised, steps))


def _keeps(promised: Sequence[str], step: str) -> bool:
    """Returns whether a step is one of those promised; of a refusal, only some words are promised."""
    words = [one.removeprefix("refused: ") for one in promised if one.startswith("refused: ")]
    return step in promised or (step.startswith("refused: ") and any(word in step for word in words))


def _nothing() -> None:
    """Stands for an input that another test makes."""


BAD_REQUEST: Final = "dead letter: bad_request"
BAD_MANIFEST: Final = "dead letter: bad_manifest"
NOT_ALLOWED: Final = "dead letter: not_allowed"
NO_MODEL: Final = f"dead letter: not_found | {NOT_ALLOWED}"
BAD_GRAPH: Final = f"bad_model: {GRAPH}"
BAD_FIELD: Final = f"bad_model: {MODEL_JSON}"
NO_FILE: Final = "left out: not_a_file"
HEAVY: Final = "scored | too_slow | too_much_memory"
_OTHER: Final = "s3://elsewhere/a.png"
_FAILURES: Final = "tests/worker/aws/test_failures.py::test_an_answer_of_s3_is_a_decision"
_BODIES: Final = "tests/worker/test_contract.py::test_a_body_that_is_not_a_request_is_refused"
_STREAM: Final = "tests/worker/aws/test_storage.py::test_a_stream_of_an_object_that_is_overwritten_is_refused"

CATALOGUE: Final = (
    # Requests: what is no request is a dead letter, at once and with its reason.
    Entry("white space", REQUEST, lambda: " \n\t ", BAD_REQUEST, "as good as an empty body, which SQS refuses"),
    Entry("HTML", REQUEST, lambda: "<html>\n502 Bad Gateway</html>", BAD_REQUEST, "the error page of a proxy"),
    Entry("byte order mark", REQUEST, lambda: "\ufeff" + request(), BAD_REQUEST, "written by an editor"),
    Entry("half a request", REQUEST, lambda: request()[:40], BAD_REQUEST, "cut off"),
    Entry("100,000 lists deep", REQUEST, lambda: "[" * 100_000, BAD_REQUEST, "exhausts a parser's stack"),
    Entry("40,000 objects deep", REQUEST, lambda: '{"a":' * 40_000, BAD_REQUEST, "the same, with keys"),
    Entry("a key twice", REQUEST, lambda: raw('"job_id": "other"'), BAD_REQUEST, "parsers take the last one, silently"),
    Entry("NaN", REQUEST, lambda: raw('"threshold": NaN'), BAD_REQUEST, "is not JSON"),
    Entry("Infinity", REQUEST, lambda: raw('"threshold": -Infinity'), BAD_REQUEST, "is not JSON"),
    Entry("5,000 digits", REQUEST, lambda: raw(f'"threshold": {"1" * 5000}'), BAD_REQUEST, "takes quadratic time"),
    Entry("text for a number", REQUEST, lambda: request(threshold="0.5"), BAD_REQUEST, "is not converted"),
    Entry("a number for text", REQUEST, lambda: request(job_id=7), BAD_REQUEST, "is not converted"),
    Entry("unknown field", REQUEST, lambda: request(priority=1), BAD_REQUEST, "its meaning could matter"),
    Entry("newer schema_version", REQUEST, lambda: request(schema_version=2), BAD_REQUEST, "from a later producer"),
    Entry("lone surrogate", REQUEST, lambda: request(images=["s3://\ud800"]), BAD_REQUEST, "no UTF-8 can hold it"),
    Entry("no images", REQUEST, lambda: request(images=[]), BAD_REQUEST, "an empty list"),
    Entry("images and a manifest", REQUEST, lambda: request(manifest={"uri": SOUND[0]}), BAD_REQUEST, "which one?"),
    Entry("100,000 images inline", REQUEST, lambda: request(images=["a"] * 100_000), BAD_REQUEST, "over 256 KiB"),
    Entry("job_id of dots", REQUEST, lambda: request(job_id=".."), BAD_REQUEST, "would leave the output prefix"),
    Entry("job_id with a slash", REQUEST, lambda: request(job_id="a/../b"), BAD_REQUEST, "the same"),
    Entry("../ in output_uri", REQUEST, lambda: request(output_uri=f"s3://{BUCKET}/a/../b"), BAD_REQUEST, "the same"),
    Entry("output_uri on the web", REQUEST, lambda: request(output_uri="http://[::1]/"), BAD_REQUEST, "is not s3://"),
    Entry("output elsewhere", REQUEST, lambda: request(output_uri="s3://elsewhere/"), NOT_ALLOWED, "not our bucket"),
    Entry("model elsewhere", REQUEST, lambda: request(model_uri="s3://elsewhere/m"), NOT_ALLOWED, "not our model"),
    Entry("model that is an image", REQUEST, lambda: request(model_uri=SOUND[0]), NO_MODEL, "no model.json below it"),
    Entry("the same image twice", REQUEST, lambda: request(job_id="same", images=[SOUND[0]] * 2), "scored", "two rows"),
    Entry("job_id used before", REQUEST, twice_with_other_images, "scored, dead letter: conflict", "two requests"),
    Entry("s3:TestEvent", REQUEST, s3_test_event, "acknowledged", "sent when notifications are set up"),
    Entry("s3:TestEvent in SNS", REQUEST, lambda: through_sns(s3_test_event()), "acknowledged", "the same"),
    Entry("object removed", REQUEST, lambda: uploaded("r", eventName="ObjectRemoved:Delete"), "acknowledged", "no job"),
    Entry("no records", REQUEST, lambda: '{"Records": []}', BAD_REQUEST, "an event of nothing"),
    Entry("event 3.0", REQUEST, lambda: uploaded("3.csv", eventVersion="3.0"), BAD_REQUEST, "its meaning is unknown"),
    Entry("event 2.1", REQUEST, lambda: uploaded("2.csv", eventVersion="2.1"), "scored", "a new manifest is a job"),
    Entry("event 2.6", REQUEST, lambda: uploaded("6.csv", eventVersion="2.6"), "scored", "minor versions add fields"),
    Entry("event 2.10", REQUEST, lambda: uploaded("10.csv", eventVersion="2.10"), "scored", "ten, not one"),
    Entry("event in SNS", REQUEST, lambda: uploaded("sns.csv", event_through_sns), "scored", "JSON as text in JSON"),
    Entry("event of EventBridge", REQUEST, lambda: uploaded("a+b %20.csv", bridged), "scored", "its key is as it is"),
    Entry("deletion", REQUEST, lambda: bridged("a", **{"detail-type": "Object Deleted"}), "acknowledged", "no job"),
    Entry("event for a + b%20é.csv", REQUEST, lambda: uploaded("a + b%20é.csv"), "scored", "its key is URL-encoded"),
    Entry("event for ../a.csv", REQUEST, lambda: uploaded("../a.csv"), BAD_REQUEST, "would leave the inbox"),
    # Manifests: a line that names no image is a row; a file that is not a list is a dead letter.
    Entry("missing list", MANIFEST, lambda: named_by(f"s3://{BUCKET}/lists/none"), "dead letter: not_found", "deleted"),
    Entry("list elsewhere", MANIFEST, lambda: named_by(_OTHER), NOT_ALLOWED, "in a bucket not allowed"),
    Entry("empty list", MANIFEST, lambda: b"", BAD_MANIFEST, "zero bytes"),
    Entry("only a header", MANIFEST, lambda: b"source_ref\n", BAD_MANIFEST, "and no images"),
    Entry("list that is an image", MANIFEST, lambda: as_kind("PNG"), BAD_MANIFEST, "put into the inbox by mistake"),
    Entry("UTF-16", MANIFEST, lambda: csv(SOUND[0]).decode().encode("utf-16"), BAD_MANIFEST, "by a spreadsheet"),
    Entry("semicolons", MANIFEST, lambda: b"source_ref;label\na;b\n", BAD_MANIFEST, "by a spreadsheet in Europe"),
    Entry("open quote", MANIFEST, lambda: csv(SOUND[0], f'"{SOUND[1]}'), BAD_MANIFEST, "would swallow the next lines"),
    Entry("BOM and CRLF", MANIFEST, lambda: csv(*SOUND, start="\ufeff", end="\r\n"), "scored", "by a spreadsheet"),
    Entry("cut last line", MANIFEST, lambda: csv(*SOUND)[:-3], "scored, not_found", "a wrong name like any other"),
    Entry("two encodings", MANIFEST, in_two_encodings, "scored, not_found", "a line of UTF-8 and one of Latin-1"),
    Entry("line breaks", MANIFEST, with_line_breaks, "not_found, bad_source_ref", "in a key and in a bucket, quoted"),
    Entry("lists itself", MANIFEST, listing_itself, "scored, not_an_image", "read as an image, once"),
    Entry("results", MANIFEST, lambda: named_by(f"s3://{BUCKET}/predictions/"), BAD_MANIFEST, "no images below it"),
    Entry("JSON without a prefix", MANIFEST, lambda: b'["a.png"]', BAD_MANIFEST, "not SageMaker's ManifestFile"),
    Entry("JSON cut off", MANIFEST, lambda: b'[{"prefix": "s3://b/"}, "a', BAD_MANIFEST, "a part of a list is no list"),
    Entry("JSON lines, deep", MANIFEST, lambda: b"[" * 5000, BAD_MANIFEST, "exhausts a parser's stack"),
    Entry("inventory", MANIFEST, inventory, "scored", "sound, to compare with the next ones"),
    Entry("inventory in ORC", MANIFEST, lambda: inventory(fileFormat="ORC"), BAD_MANIFEST, "is not read"),
    Entry("inventory without Key", MANIFEST, lambda: inventory(fileSchema="Bucket, Size"), BAD_MANIFEST, "no names"),
    Entry("inventory cut off", MANIFEST, lambda: inventory(fileSchema="A, B, Bucket, Key"), BAD_MANIFEST, "short rows"),
    Entry("inventory of ../", MANIFEST, lambda: inventory(files=[{"key": "../x"}]), NOT_ALLOWED, "leaves the prefix"),
    Entry("gzip cut off", MANIFEST, lambda: gzipped(csv(*SOUND))[:-9], BAD_MANIFEST, "a part of a list is no list"),
    Entry("gzip with junk", MANIFEST, lambda: gzipped(csv(*SOUND)) + b"junk", BAD_MANIFEST, "behind its end"),
    Entry("a line of 1 GB", MANIFEST, lambda: bomb(b"x"), BAD_MANIFEST, "1 MB of gzip"),
    Entry("1 GB of empty lines", MANIFEST, lambda: bomb(b"\n"), BAD_MANIFEST, "1 MB of gzip"),
    Entry("1 GB of no UTF-8", MANIFEST, lambda: bomb(b"\xff"), BAD_MANIFEST, "1 MB of gzip; four times as escapes"),
    # References: what must not be read, or cannot be.
    Entry("instance metadata", REFERENCE, lambda: "http://169.254.169.254/", "bad_source_ref", "leaks credentials"),
    Entry("local file", REFERENCE, lambda: "file:///etc/passwd", "bad_source_ref", "is not s3://bucket/key"),
    Entry("image elsewhere", REFERENCE, lambda: _OTHER, "not_allowed", "in a bucket not allowed"),
    Entry("../ in a key", REFERENCE, lambda: f"s3://{BUCKET}/in/../secret.png", "not_allowed", "may leave the prefix"),
    Entry("missing image", REFERENCE, lambda: f"s3://{BUCKET}/in/none.png", "not_found", "deleted"),
    Entry("archived", REFERENCE, lambda: Stored(as_kind("PNG"), {"StorageClass": "GLACIER"}), "archived", "in Glacier"),
    Entry("customer's key", REFERENCE, encrypted, "access_denied", "encrypted with SSE-C"),
    # Images that are too large or none, whatever they are called.
    Entry("33 MiB", IMAGE, lambda: bytes(MAX_BYTES + 1), "too_many_bytes", "refused by its length"),
    Entry("zero bytes", IMAGE, lambda: b"", "empty", "a failed upload"),
    Entry("one byte", IMAGE, lambda: b"\xff", "not_an_image", "how JPEG begins"),
    Entry("zeros", IMAGE, lambda: bytes(1000), "not_an_image", "a file that was never written"),
    Entry("HTML named .jpg", IMAGE, lambda: b"<!DOCTYPE html>404", "not_an_image", "an error page, saved as an image"),
    Entry("SVG", IMAGE, lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image", "could name other files"),
    Entry("PDF", IMAGE, lambda: as_kind("PDF"), "not_an_image", "a scan"),
    Entry("EPS", IMAGE, lambda: as_kind("EPS"), "not_an_image", "Pillow would start Ghostscript"),
    Entry("JPEG 2000", IMAGE, lambda: as_kind("JPEG2000"), "not_an_image", "not among the six formats"),
    Entry("AVIF", IMAGE, lambda: as_kind("AVIF"), "not_an_image", "the same"),
    Entry("PPM, TGA, ICO", IMAGE, lambda: [*map(as_kind, ("PPM", "TGA", "ICO", "ICNS"))], "not_an_image", "and ICNS"),
    Entry("PSD", IMAGE, lambda: b"8BPS\0\1" + bytes(40), "not_an_image", "the same"),
    Entry("FITS", IMAGE, lambda: b"SIMPLE  =                    T".ljust(2880), "not_an_image", "the same"),
    Entry("AVI and WAV", IMAGE, riff_files, "not_an_image", "begin like WebP"),
    Entry("zip and gzip", IMAGE, lambda: [b"PK\3\4" + bytes(40), gzipped(b"x")], "not_an_image", "archives"),
    # Damaged images.
    Entry("a tenth of a file", IMAGE, lambda: truncated(0.1), "damaged", "in each format"),
    Entry("half a file", IMAGE, lambda: truncated(0.5), "damaged", "the same"),
    Entry("nine tenths of a file", IMAGE, lambda: truncated(0.9), "damaged", "the same"),
    Entry("wrong pixels", IMAGE, damaged_silently, "scored", "in the middle of a JPEG and of PNGs: not detected"),
    Entry("altered zlib", IMAGE, png_with_altered_pixels, "damaged", "a PNG with another byte in its middle"),
    Entry("PNG, short header", IMAGE, png_of_five_bytes, "damaged", "five bytes instead of thirteen"),
    Entry("PNG, nameless chunk", IMAGE, png_with_a_nameless_chunk, "damaged", "not even ASCII"),
    Entry("PNG of 0 x 0", IMAGE, lambda: png(0, 0), "damaged", "no pixels"),
    Entry("PNG of 17 bits", IMAGE, lambda: png(4, 4, depth=17, packed=b""), "damaged", "a depth that does not exist"),
    Entry("PNG without pixels", IMAGE, lambda: png(4, 4, packed=zlib.compress(b"")), "damaged", "an empty zlib stream"),
    Entry("JPEG of a strange kind", IMAGE, of_another_process, "damaged", "lossless, and with 12 bits"),
    Entry("TIFF, endless text", IMAGE, tiff_with_endless_text, "damaged", "a tag of 4 GB in 26 bytes"),
    # Images that claim more than they may have. They have no pixels, so whoever decodes calls them damaged.
    Entry("50,000 x 50,000", IMAGE, lambda: headers_claiming(50_000, 50_000), "too_many_pixels", "in five formats"),
    Entry("9,000 x 9,000", IMAGE, lambda: headers_claiming(9_000, 9_000), "too_many_pixels", "the same"),
    Entry("6,000 x 5,001", IMAGE, lambda: headers_claiming(6_000, 5_001), "too_many_pixels", "just over the limit"),
    Entry("65,000 x 500", IMAGE, lambda: headers_claiming(65_000, 500), "too_many_pixels", "in five formats"),
    Entry("70,000 x 1", IMAGE, lambda: headers_claiming(70_000, 1), "too_many_pixels", "resizing needs large tables"),
    Entry("1 x 30,000,000", IMAGE, lambda: headers_claiming(1, 30_000_000), "too_many_pixels", "a gigabyte of tables"),
    Entry("81 megapixels", IMAGE, lambda: png(9_000, 9_000), "too_many_pixels", "with all its pixels, in 235 KiB"),
    Entry("frame outside", IMAGE, wider_than_its_screen, "too_many_pixels", "a GIF of 16 x 16 with a frame of 65,535"),
    Entry("empty canvas", IMAGE, canvas_without_frames, "too_many_pixels", "a WebP of 30 bytes and 268 megapixels"),
    Entry("80 MiB of text", IMAGE, lambda: png_with(b"zTXt", 80 * MIB), "damaged", "in 82 KiB of PNG"),
    Entry("80 MiB of colour profile", IMAGE, lambda: png_with(b"iCCP", 80 * MIB), "damaged", "in 82 KiB of PNG"),
    # Odd images that are good ones.
    Entry("odd pixels", IMAGE, odd_pixels, "scored", "CMYK, palette with alpha, 1 bit, 16 bit, grey with alpha, fax"),
    Entry("32-bit samples", IMAGE, lambda: [*map(as_kind, ["TIFF"] * 2, "IF")], "unsupported_pixels", "what is white?"),
    Entry("each orientation", IMAGE, upright_in_every_way, "scored", "EXIF 1 to 8, and three that do not exist"),
    Entry("broken EXIF", IMAGE, broken_exif, "scored", "empty, text, cut off, pointing out of itself and at itself"),
    Entry("EXIF over itself", IMAGE, overlapping_exif, "scored", "5,000 tags, each as large as the file"),
    Entry("1 x 1 and 1 x 60,000", IMAGE, tiny_and_long, "scored", "and 60,000 x 1"),
    Entry("three frames", IMAGE, animations, "scored", "GIF, PNG, WebP and TIFF: the first"),
    Entry("10,000 frames", IMAGE, lambda: gif(frames=10_000), "scored", "the first"),
    Entry("two billion frames", IMAGE, millions_of_frames, "scored", "claimed by an animated PNG"),
    Entry("circular TIFF", IMAGE, circular_tiff, "scored", "its second page is its first one"),
    Entry("JPEG and zip", IMAGE, two_in_one, "scored", "a file that is both"),
    # Bombs: each took seconds or hundreds of megabytes in a worker without limits.
    Entry("11,000 empty scans", BOMB, lambda: bombs.empty_scans(11_000), "too_slow | scored", "JPEG, 110 KB: 18 s"),
    Entry("100,000 empty scans", BOMB, lambda: bombs.empty_scans(100_000), "too_slow", "JPEG, 1 MB: three minutes"),
    Entry("ends of lines", BOMB, bombs.ends_of_lines, "scored | too_slow", "BMP with RLE8, 2.9 KB: 3 s"),
    Entry("runs of one pixel", BOMB, bombs.runs_of_one, "damaged | too_slow", "BMP with RLE8, 32 MiB: 7 s"),
    Entry("repeated EXIF", BOMB, lambda: bombs.repeated_exif(2 * MIB), "scored | too_slow", "JPEG, 2 MiB: 2 s"),
    Entry("more repeated EXIF", BOMB, lambda: bombs.repeated_exif(8 * MIB), "too_slow", "JPEG, 8 MiB: over a minute"),
    Entry("fill bytes", BOMB, bombs.fill_bytes, "scored | too_slow", "JPEG, 32 MiB of 0xFF: 18 s"),
    Entry("comments in a JPEG", BOMB, bombs.comments_in_a_jpeg, HEAVY, "eight million in 32 MiB: 600 MB"),
    Entry("private chunks", BOMB, bombs.private_chunks, HEAVY, "PNG, 2.8 million in 32 MiB: 6 s, 390 MB"),
    Entry("texts", BOMB, bombs.text_chunks, HEAVY, "PNG, a million in 18 MB: 3 s"),
    Entry("4 GIFs of comments", BOMB, bombs.comments_in_gifs, "too_much_memory | too_slow", "32 MiB each: 1.5 GB each"),
    Entry("8 WebPs of 28 bytes", BOMB, bombs.large_webps, HEAVY, "5,400 x 5,400: 450 MB each"),
    Entry("8 CMYK JPEGs of 165 bytes", BOMB, bombs.coefficients, HEAVY, "progressive, 30 megapixels: 240 MB each"),
    Entry("4 CMYK TIFFs", BOMB, bombs.cmyk_tiffs, HEAVY, "30 megapixels in 120 KB: 240 MB each"),
    Entry("a large tile", BOMB, bombs.large_tile, "too_much_memory | damaged", "TIFF of 8 x 8, 1.6 MB: 1.6 GB"),
    Entry("16-bit PNG", BOMB, lambda: png(6000, 5000, depth=16, colour=0), "scored", "30 megapixels: 260 MB"),
    Entry("4 PNGs of 16-bit RGBA", BOMB, bombs.deep_pngs, "scored", "30 megapixels: 230 MB each"),
    Entry("40 damaged objects", BOMB, bombs.damaged_objects, "damaged", "32 MiB each, all in flight"),
    Entry("500 MB", BOMB, lambda: bytes(500_000_000), "too_many_bytes", "refused by its length"),
    Entry("long column names", BOMB, bombs.long_column_names, "not_found", "CSV, 8 of 100,000 characters in each line"),
    Entry("1 GB of empty rows", BOMB, bombs.empty_rows, BAD_MANIFEST, "CSV, 1 MB of gzip: 12 s until it is refused"),
    # Models: a worker does not start with one that is not the one trained.
    Entry("no model.json", MODEL, lambda: without(MODEL_JSON), f"not_found: {MODEL_JSON}", "written last: incomplete"),
    Entry("no graph", MODEL, lambda: without(GRAPH), f"not_found: {GRAPH}", "half uploaded"),
    Entry("a flipped bit", MODEL, lambda: flipped(GRAPH), BAD_GRAPH, "another digest"),
    Entry("half a graph", MODEL, lambda: cut(GRAPH), BAD_GRAPH, "another size"),
    Entry("half a model.json", MODEL, lambda: cut(MODEL_JSON), BAD_FIELD, "not JSON"),
    Entry("newer model", MODEL, lambda: manifest(schema_version=2), BAD_FIELD, "from a later version"),
    Entry("one label", MODEL, lambda: manifest(labels=["cat"]), BAD_FIELD, "two classes"),
    Entry("three labels", MODEL, lambda: manifest(labels=["a", "b", "c"]), BAD_FIELD, "two classes"),
    Entry("equal labels", MODEL, lambda: manifest(labels=["a", "a"]), BAD_FIELD, "two classes"),
    Entry("no graph listed", MODEL, lambda: manifest(files={}), BAD_GRAPH, "nothing to compare with"),
    Entry("another input size", MODEL, lambda: manifest(image_size=128), BAD_GRAPH, "not what it takes"),
    Entry("threshold NaN", MODEL, lambda: threshold("NaN"), BAD_FIELD, "is not JSON"),
    Entry("threshold twice", MODEL, lambda: threshold('0.1, "threshold": 0.9'), BAD_FIELD, "which one?"),
    Entry("Keras archive", MODEL, lambda: graph(keras_archive()), BAD_GRAPH, "runs code: CVE-2025-1550"),
    Entry("HDF5 file", MODEL, lambda: graph(b"\x89HDF\r\n\x1a\n" + bytes(99)), BAD_GRAPH, "CVE-2025-9905"),
    Entry("pickle", MODEL, lambda: graph(b"cos\nsystem\n(S'true'\ntR."), BAD_GRAPH, "runs code"),
    Entry("empty graph", MODEL, lambda: graph(b""), BAD_GRAPH, "zero bytes, and a digest that matches"),
    Entry("NaN weights", MODEL, lambda: answering_nan, BAD_GRAPH, "a blank image scores NaN"),
    # Datasets: a training job does not start with a hostile one, and leaves out what is not an image.
    Entry("no image of a class", DATASET, lambda: folder(cats=0, dogs=5), "refused: exactly two class folders", "none"),
    Entry("one image of a class", DATASET, lambda: folder(cats=1, dogs=5), "refused: holds 1 file", "cannot be split"),
    Entry("one class", DATASET, lambda: folder(cats=5), "refused: found 1: cats", "nothing to tell apart"),
    Entry("three classes", DATASET, lambda: folder(cats=3, dogs=3, eels=3), "refused: found 3: cats", "one too many"),
    Entry("formula as a label", DATASET, lambda: folder(**{"=cmd|'C'!A0": 5, "dogs": 5}), "kept", "guarded in CSVs"),
    Entry("text among images", DATASET, lambda: with_files(x=b"hello"), "left out: not_an_image", "the same decoder"),
    Entry("empty among images", DATASET, lambda: with_files(x=b""), "left out: empty", "the same"),
    Entry("pixel bomb", DATASET, lambda: with_files(x=png(9000, 9000)), "left out: too_many_pixels", "the same"),
    Entry("image in two splits", DATASET, in_two_splits, "left out: duplicate", "it would be trained and tested with"),
    Entry("image in both classes", DATASET, in_both_classes, "left out: conflicting_label", "it has no right answer"),
    Entry("tar, ../", DATASET, lambda: tar("../evil"), "refused: leads outside", "no dataset has such a name"),
    Entry("tar, absolute name", DATASET, lambda: tar("/etc/evil"), "refused: leads outside", "the same"),
    Entry("tar, symbolic link", DATASET, lambda: tar(kind=tarfile.SYMTYPE, link="/etc/passwd"), NO_FILE, "never made"),
    Entry("tar, hard link", DATASET, lambda: tar(kind=tarfile.LNKTYPE, link="../../x"), NO_FILE, "never made"),
    Entry("tar, device", DATASET, lambda: tar(kind=tarfile.CHRTYPE), NO_FILE, "never made"),
    Entry("tar, pipe", DATASET, lambda: tar(kind=tarfile.FIFOTYPE), NO_FILE, "never made: reading would not end"),
    Entry("tar, CVE-2025-4517", DATASET, tar_escaping_by_links, "left out: not_a_file", "long folders and links"),
    Entry("zip, ../", DATASET, lambda: zipped("..\\..\\evil"), "refused: leads outside", "as Windows writes it"),
    Entry("zip, symbolic link", DATASET, lambda: zipped("cats/x.png", mode=stat.S_IFLNK), NO_FILE, "never made"),
    Entry("tar bomb", DATASET, tar_bomb, "refused: bomb", "1 GiB in 1 MB of gzip, stopped while it is unpacked"),
    Entry("half a zip", DATASET, lambda: zipped("cats/x.png")[:500], "refused: damaged", "a part is not the dataset"),
    Entry("HTML as an archive", DATASET, lambda: b"<html>Log in", "refused: neither a zip nor a tar", "a download"),
    # What no emulator can show.
    Entry("empty body", ELSEWHERE, _nothing, BAD_REQUEST, _BODIES),
    Entry("Latin-1 in a body", ELSEWHERE, _nothing, BAD_REQUEST, _BODIES),
    Entry("list, 403", ELSEWHERE, _nothing, "dead letter: access_denied", _FAILURES),
    Entry("image, KMS denied", ELSEWHERE, _nothing, "access_denied", _FAILURES),
    Entry("list overwritten while it is read", ELSEWHERE, _nothing, "dead letter: conflict", _STREAM),
)

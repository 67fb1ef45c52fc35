"""Model bundles, opened and checked.

    models.get("s3://shelter/models/pets/champion.json")  ->  Model

Only ``model.tflite`` is ever loaded, and only after its digest is checked: a LiteRT graph is data, while a Keras file
can contain code.
"""

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from worker.aws.storage import Storage, read_anywhere
from worker.contract import ChampionPointer, ModelManifest
from worker.errors import ErrorCode, Reject
from worker.scoring.sandbox import ModelGraph, Sandbox

log = logging.getLogger(__name__)
Parsed = TypeVar("Parsed", ModelManifest, ChampionPointer)

MODEL_FILE: Final = "model.tflite"
MANIFEST_FILE: Final = "model.json"
CHAMPION_FILE: Final = "champion.json"

_MAX_JSON_BYTES: Final = 1024 * 1024
_MAX_MODEL_BYTES: Final = 512 * 1024 * 1024
#: Lambda has 512 MB of /tmp: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MAX_CACHE_BYTES: Final = 256 * 1024 * 1024
#: Models in memory: the champion and one other.
_LOADED: Final = 2
#: Largest difference of a probe image's score: another processor or version of LiteRT adds up in another order.
_PROBE_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Model:
    """An open bundle: its manifest, and the graph that scores its images."""

    manifest: ModelManifest
    graph: ModelGraph


class ModelCache:
    """A folder of model files named by their SHA-256. A folder that cannot be read or written is slow, not an error.

    Lambda starts a process again after a crash or a timeout, and keeps its ``/tmp``. A cached file is never trusted:
    its digest is checked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> bytes | None:
        """Returns the file with that digest, or None where it is missing or altered."""
        try:
            body = (self._folder / sha256).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(body).hexdigest() != sha256:
            log.warning("model cache: %s is damaged and is downloaded again", sha256)
            return None
        return body

    def put(self, sha256: str, body: bytes) -> None:
        """Keeps a file, and deletes the oldest ones where there are too many bytes."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self._folder, prefix=".")
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            Path(draft).replace(self._folder / sha256)
            self._tidy()
        except OSError as error:
            log.warning("model cache: not kept, %s", error)

    def _tidy(self) -> None:
        kept = 0
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
            kept += path.stat().st_size
            if kept > _MAX_CACHE_BYTES:
                path.unlink()


class Models:
    """Models by the URI of their bundle, loaded once. A champion pointer is read every time, since it can change."""

    def __init__(self, *, storage: Storage, sandbox: Sandbox, cache: ModelCache | None = None) -> None:
        self._storage = storage
        self._sandbox = sandbox
        self._cache = cache
        self._loaded: OrderedDict[str, Model] = OrderedDict()

    def get(self, uri: str) -> Model:
        """Returns the model of a bundle prefix, a ``model.json`` or a ``champion.json``, checked and ready to score."""
        bundle, pointer = _resolve(uri, self._storage)
        if bundle not in self._loaded:
            self._loaded[bundle] = self._open(bundle)
            if len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(bundle)
        model = self._loaded[bundle]
        found = (model.manifest.name, model.manifest.version)
        if pointer is not None and found != (pointer.name, pointer.version):
            raise Reject(
                ErrorCode.BAD_MODEL,
                f"{uri} points at {pointer.name} {pointer.version}, but the bundle is {' '.join(found)}",
            )
        return model

    def _open(self, bundle: str) -> Model:
        def read(name: str, max_bytes: int) -> bytes:
            return _read(f"{bundle}/{name}", self._storage, max_bytes)

        return open_files(bundle, read, sandbox=self._sandbox, cache=self._cache)


def pinned(uri: str, *, storage: Storage) -> str:
    """Returns the bundle that ``uri`` points at now, so that one model scores all parts of a job."""
    return _resolve(uri, storage)[0]


def open_files(
    bundle: str, read: Callable[[str, int], bytes], *, sandbox: Sandbox, cache: ModelCache | None = None
) -> Model:
    """Opens ``model.json`` and the LiteRT graph whose digest it records, from ``cache`` where possible.

    ``read`` returns the file with a name and a maximum size; ``bundle`` is for messages. Raises what ``read`` raises,
    and Reject ``bad_model`` with the name of the file that is not as the manifest describes it.
    """
    manifest = _parse(ModelManifest, read(MANIFEST_FILE, _MAX_JSON_BYTES), f"{bundle}/{MANIFEST_FILE}")
    expected = manifest.files.get(MODEL_FILE)
    if expected is None:
        raise Reject(ErrorCode.BAD_MODEL, f"{bundle}/{MANIFEST_FILE} does not list {MODEL_FILE}")
    cached = cache.get(expected.sha256) if cache else None
    content = cached or read(MODEL_FILE, _MAX_MODEL_BYTES)
    if (len(content), hashlib.sha256(content).hexdigest()) != (expected.size_bytes, expected.sha256):
        raise Reject(ErrorCode.BAD_MODEL, f"{bundle}/{MODEL_FILE} is not the file that {MANIFEST_FILE} describes")
    if cache and not cached:
        cache.put(expected.sha256, content)
    graph = ModelGraph(expected.sha256, content, manifest.image_size)
    try:
        opened = sandbox.open(graph)
        _check_probes(opened.probe_scores, manifest.probe_scores)
    except Reject as error:
        raise Reject(error.code, f"{bundle}/{MODEL_FILE}: {error.message}") from error
    if manifest.decoder_fingerprint != opened.decoder_fingerprint:
        log.warning("%s was trained with another image decoder: scores may differ slightly", bundle)
    return Model(manifest, graph)


def _check_probes(scores: tuple[float, ...], recorded: tuple[float, ...]) -> None:
    """Raises Reject ``bad_model`` for scores of the probe images that are no probabilities, or not those on record."""
    if not all(0.0 <= score <= 1.0 for score in scores):  # false for NaN, too
        raise Reject(ErrorCode.BAD_MODEL, f"the probe images score {scores}, not within [0, 1]")
    if recorded and not all(
        abs(score - before) <= _PROBE_TOLERANCE for score, before in zip(scores, recorded, strict=False)
    ):
        raise Reject(ErrorCode.BAD_MODEL, f"the probe images score {scores}, but {recorded} in training")


def _resolve(uri: str, storage: Storage) -> tuple[str, ChampionPointer | None]:
    folder, _, file = uri.rpartition("/")
    if file == CHAMPION_FILE:
        pointer = _parse(ChampionPointer, _read(uri, storage, _MAX_JSON_BYTES), uri)
        return f"{folder}/{pointer.version}", pointer
    return folder if file == MANIFEST_FILE else uri.rstrip("/"), None


def _read(uri: str, storage: Storage, max_bytes: int) -> bytes:
    return read_anywhere(uri, storage=storage, max_bytes=max_bytes)


def _parse(kind: type[Parsed], data: bytes, uri: str) -> Parsed:
    try:
        return kind.parse(data)
    except ValueError as error:
        raise Reject(ErrorCode.BAD_MODEL, f"{uri}: {error}") from None

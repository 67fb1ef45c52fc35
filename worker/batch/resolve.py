"""A request, resolved: where its answer goes, which images it asks for, and which model scores them.

    RequestResolver.resolve(request, record)  ->  PartToWrite   one part answers it
                                                  JobToPlan     its manifest is split into shards first

Every URI that a request names is checked here, before anything is read from it. Images and manifests, models, and
output have prefixes of their own, so that no request can write where models are.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.batch.shards import MAX_SHARD_BYTES, read_shard
from worker.contract import ClassifyRequest, S3Uri, ShardLine
from worker.errors import ErrorCode, Reject
from worker.manifest.formats import ImageRef
from worker.manifest.references import references
from worker.uris import check_allowed, overlap

#: Longer lists are planned. This many images fit into the fifteen minutes of a Lambda; a plan costs more requests.
MAX_DIRECT: Final = 2_000


@dataclass(frozen=True)
class PartToWrite:
    """A request that one part answers: a short list of images, or a shard of a planned job."""

    request: ClassifyRequest
    record: JobRecord
    lines: list[ShardLine]  #: the images, each with its row
    model_uri: str
    started_s: float  #: ``time.monotonic()`` before the images were read


@dataclass(frozen=True)
class JobToPlan:
    """A request whose list is too long for one part, or holds more than the names of its images."""

    request: ClassifyRequest
    record: JobRecord
    images: Iterator[ImageRef]  #: a stream of any length, to be read once
    model_uri: str


class RequestResolver:
    """Resolves requests. ``default_model`` and ``default_output`` replace what a request leaves out.

    Requests may name images and manifests below ``allowed_prefixes``, models below ``model_prefixes``, and an output
    below ``default_output``; without that, an output below ``allowed_prefixes``, but not where models are.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        allowed_prefixes: tuple[S3Uri, ...],
        model_prefixes: tuple[S3Uri, ...],
        default_model: str | None = None,
        default_output: str | None = None,
    ) -> None:
        self._storage = storage
        self._allowed = allowed_prefixes
        self._models = model_prefixes
        self._default_model = default_model
        self._default_output = default_output

    def record(self, request: ClassifyRequest) -> JobRecord:
        """Returns the record of the request's job. Raises Reject when it has no folder, or one that is not allowed."""
        output = request.output_uri or self._default_output
        if output is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no output_uri: add it to the request, or set TWOFOLD_OUTPUT_URI")
        self._check_output(output)
        return JobRecord(JobFolder(output, request.job_id), self._storage)

    def resolve(self, request: ClassifyRequest, record: JobRecord, *, planned: bool = False) -> PartToWrite | JobToPlan:
        """Lists the images of ``request`` and decides how it is answered. Reads only the start of a list to plan.

        ``planned``: the request was planned before, so it is planned again, however short it is now. Raises Reject for
        a request that can never be answered, and Retry when storage does not answer.
        """
        started_s = time.monotonic()
        if planned and request.images is not None and len(request.images) <= MAX_DIRECT:
            raise Reject(ErrorCode.CONFLICT, f"job {request.job_id} already exists: choose another job_id")
        if request.manifest is not None and request.shard is not None:
            lines = self._shard(request.manifest.uri)
        else:
            images = self._images(request, record.folder)
            first = [] if planned else list(islice(images, MAX_DIRECT + 1))
            if planned or len(first) > MAX_DIRECT or any(ref.columns or ref.version_id for ref in first):
                return JobToPlan(request, record, chain(first, images), self._model_uri(request))
            lines = _numbered(first)
        return PartToWrite(request, record, lines, self._model_uri(request), started_s)

    def _check_output(self, uri: str) -> None:
        if self._default_output is None:
            check_allowed(uri, self._allowed)
        else:
            check_allowed(uri, (self._default_output,), setting="TWOFOLD_OUTPUT_URI")
        if any(overlap(uri, prefix) for prefix in self._models):
            raise Reject(ErrorCode.NOT_ALLOWED, f"{uri} would mix results with models: see TWOFOLD_MODEL_PREFIXES")

    def _model_uri(self, request: ClassifyRequest) -> str:
        if request.model_uri is not None:
            setting = "TWOFOLD_MODEL_PREFIXES, by default the folder of TWOFOLD_MODEL_URI"
            check_allowed(request.model_uri, self._models, setting=setting)
            return request.model_uri
        if self._default_model is None:
            raise Reject(ErrorCode.BAD_REQUEST, "no model_uri: add it to the request, or set TWOFOLD_MODEL_URI")
        return self._default_model

    def _shard(self, uri: str) -> list[ShardLine]:
        check_allowed(uri, self._allowed)
        return read_shard(self._storage.read(uri, max_bytes=MAX_SHARD_BYTES), uri)

    def _images(self, request: ClassifyRequest, folder: JobFolder) -> Iterator[ImageRef]:
        """Streams what a request asks for. The objects that its manifest names in turn must be allowed as well."""
        if request.manifest is None:
            return map(ImageRef, request.images or ())
        outputs = f"{folder.output_uri.rstrip('/')}/"

        def opener(uri: str, version_id: str | None) -> Iterator[bytes]:
            check_allowed(uri, self._allowed)
            return self._storage.stream(uri, version_id=version_id)

        def lister(uri: str) -> Iterator[str]:
            check_allowed(uri, self._allowed)
            # A prefix may include the jobs' own folder: what they wrote is not an image.
            return (item.uri for item in self._storage.list(uri) if not item.uri.startswith(outputs))

        return references(request.manifest, opener=opener, lister=lister)


def _numbered(refs: Iterable[ImageRef]) -> list[ShardLine]:
    return [ShardLine(row=row, source_ref=ref.source_ref) for row, ref in enumerate(refs)]

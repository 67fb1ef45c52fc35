"""What a request asks for, read from storage, and from no place that is not allowed."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder
from worker.batch.shards import read_shard
from worker.contract import ClassifyRequest, ManifestRef, S3Uri, ShardLine
from worker.manifest.formats import ImageRef
from worker.manifest.references import references
from worker.uris import check_allowed

#: Longer manifests are planned: so many images fit a Lambda's fifteen minutes, and a plan costs some requests.
MAX_DIRECT: Final = 2_000

_MAX_SHARD_BYTES: Final = 256 * 1024 * 1024


class Reader:
    """Reads requests."""

    def __init__(self, *, storage: Storage, allowed_prefixes: tuple[S3Uri, ...]) -> None:
        self._storage = storage
        self._allowed = allowed_prefixes

    def lines(self, request: ClassifyRequest, folder: JobFolder) -> list[ShardLine] | None:
        """The images with their rows. None where the request is to be planned: there are too many of them for one
        part, or there is more to keep of them than their names.
        """
        if request.manifest is not None and request.shard is not None:
            uri = request.manifest.uri
            check_allowed(uri, self._allowed)
            return read_shard(self._storage.read(uri, max_bytes=_MAX_SHARD_BYTES), uri)
        if request.manifest is None:
            refs = list(map(ImageRef, request.images or ()))
        else:
            refs = list(islice(self.references(request.manifest, folder), MAX_DIRECT + 1))
            if len(refs) > MAX_DIRECT or any(ref.columns or ref.version_id for ref in refs):
                return None
        return [ShardLine(row=row, source_ref=ref.source_ref) for row, ref in enumerate(refs)]

    def references(self, ref: ManifestRef, folder: JobFolder) -> Iterator[ImageRef]:
        """All that a manifest asks for, as a stream. It names objects of its own, which must be allowed as well.

        What jobs wrote beside ``folder`` is no picture that a prefix would mean.
        """
        own = f"{folder.output_uri.rstrip('/')}/"

        def opener(uri: str, version_id: str | None) -> Iterator[bytes]:
            check_allowed(uri, self._allowed)
            return self._storage.stream(uri, version_id=version_id)

        def lister(uri: str) -> Iterator[str]:
            check_allowed(uri, self._allowed)
            return (item.uri for item in self._storage.list(uri) if not item.uri.startswith(own))

        return references(ref, opener=opener, lister=lister)

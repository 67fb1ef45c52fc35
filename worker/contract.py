"""Every message and file that crosses a border, as frozen pydantic models. Start reading here.

    a producer sends         ClassifyRequest          JSON on the queue
    the worker answers with  PredictionRow            one CSV line for every image asked for
                             PartReport               what one request came to; metadata of its CSV
    a long manifest becomes  ShardLine                one image, a line of shards/00000.jsonl
                             Job                      job.json, what was asked for
    the last part brings     Summary                  summary.json, what it all came to
    training writes          ModelManifest            model.json, the last file of a bundle
                             ChampionPointer          champion.json, which version is in use

All are strict (a number is never taken from a string) and refuse fields they do not know.
"""

import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

#: Of a request, as sent. SQS itself takes 1 MiB; more than this is better told as a manifest.
MAX_REQUEST_BYTES: Final = 256 * 1024

#: Images of a shard, and so rows of a part: some seconds of work, well within a Lambda's fifteen minutes.
SHARD_IMAGES: Final = 500
#: Part numbers have five digits, so that names sort as numbers do: 50 million images in shards of 500.
MAX_SHARDS: Final = 100_000

#: Mistakes told of one message, the first ones.
_SHOWN: Final = 5
#: How much of a field's name is repeated in a message; a hostile one can be as long as the request.
_MAX_NAME: Final = 100

JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=128)]
#: Adding 0 makes -0.0, which is the same number, the same text too.
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), AfterValidator(lambda value: value + 0.0)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

#: Bucket names: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
S3Uri = Annotated[
    str,
    StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?$", max_length=1100),
]
#: Where an image lies, as the producer wrote it. Checked image by image, so that one bad line costs one row.
SourceRef = Annotated[str, StringConstraints(min_length=1, max_length=2048)]

#: ``csv``: a header with ``source_ref``, or with ``Bucket`` and ``Key``. ``s3-csv``: no header, bucket, URL-encoded key
#: and perhaps a version, as S3 Batch Operations and S3 Inventory have it. ``jsonl``: one ``{"source-ref": "s3://…"}`` a
#: line. ``manifest-file``: SageMaker's JSON array, a prefix first. ``inventory``: the manifest.json of S3 Inventory.
#: ``listing``: every object below the prefix ``uri``. Each but the last may be gzipped.
ManifestFormat = Literal["csv", "s3-csv", "jsonl", "manifest-file", "inventory", "listing"]


def _known(version: int) -> int:
    if version != 1:
        raise ValueError(f"version {version} is not known here, only 1: is the worker older than the producer?")
    return version


#: An int, and not a Literal, which would take true for 1.
SchemaVersion = Annotated[int, AfterValidator(_known)]


class Document(BaseModel):
    """Frozen, strict, and closed: what all models here share."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _refuse_climbing(uri: str | None) -> str | None:
    if uri is not None and {".", ".."} & set(uri.split("/")):
        raise ValueError("must not contain '.' or '..' segments")
    return uri


class ManifestRef(Document):
    """A list of images in storage."""

    uri: S3Uri
    #: None: told from the content, and ``listing`` where the URI ends in a slash.
    format: ManifestFormat | None = None
    #: The object as it was meant, where its bucket keeps versions; None: as it is now.
    version_id: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None

    _no_climbing = field_validator("uri")(_refuse_climbing)


class ClassifyRequest(Document):
    """Asks for one row for every image of ``images`` or ``manifest``, in order, the same image twice included.

    The answer is ``<output_uri>/<job_id>/predictions/part-00000.csv``. Sending the same request again changes
    nothing; another request under the same ``job_id`` is refused. A long manifest becomes shards, each asked for by a
    request with its number, and answered by the part of that number.
    """

    schema_version: SchemaVersion
    job_id: JobId
    #: Exactly one of ``images`` and ``manifest``.
    images: Annotated[tuple[SourceRef, ...], Field(min_length=1)] | None = None
    manifest: ManifestRef | None = None
    #: A bundle, its ``model.json``, or a ``champion.json``. None: the worker's ``TWOFOLD_MODEL_URI``.
    model_uri: S3Uri | None = None
    #: None: the worker's ``TWOFOLD_OUTPUT_URI``.
    output_uri: S3Uri | None = None
    #: score >= threshold is class 1. None: the model's own.
    threshold: Probability | None = None
    #: The number of the part, from 0, where ``manifest`` is a shard of a planned job. None: the request is the job.
    shard: Annotated[int, Field(ge=0, lt=MAX_SHARDS)] | None = None

    _no_climbing = field_validator("model_uri", "output_uri")(_refuse_climbing)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.images is None) == (self.manifest is None):
            raise ValueError("give exactly one of 'images' and 'manifest'")
        if self.shard is not None and self.manifest is None:
            raise ValueError("a shard is a manifest: give 'manifest' with 'shard'")
        return self

    @classmethod
    def parse(cls, body: str) -> Self:
        """Reads a message. ValueError says, in one line, what is wrong with it and where."""
        strict_json(body)
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(explain(error)) from None

    def digest(self) -> str:
        """SHA-256 of what is asked for: the identity of a request, whatever message brings it.

        Defaults are left out, so that a field added to the contract later does not change the digests of today.
        """
        asked = self.model_dump(mode="json", exclude_defaults=True) | {"schema_version": self.schema_version}
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class PredictionRow(Document):
    """One line of the CSV: ``label``, ``confidence`` and ``score``, or else an ``error_code`` that says why not."""

    row: NonNegativeInt  #: position in the request, from 0
    source_ref: str  #: as the producer wrote it
    label: Label | None = None
    confidence: Probability | None = None  #: of the label given
    score: Probability | None = None  #: P(class 1)
    threshold: Probability
    model_version: Name
    error_code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")] | None = None
    error_message: str | None = None

    @model_validator(mode="after")
    def _scored_or_failed(self) -> Self:
        blanks = {value is None for value in (self.label, self.confidence, self.score)}
        if len(blanks) != 1 or blanks == {self.error_code is None}:
            raise ValueError("a row has label, confidence and score, or else an error_code")
        return self


class PartReport(Document):
    """What one request came to: ``rows = scored + failed``, and the digest of the CSV."""

    schema_version: SchemaVersion = 1
    job_id: JobId
    request_digest: Sha256
    rows: NonNegativeInt
    scored: NonNegativeInt
    failed: NonNegativeInt
    errors: dict[str, PositiveInt]  #: failed rows by error_code
    positives: NonNegativeInt = 0  #: scored rows of class 1
    sha256: Sha256  #: of the CSV
    size_bytes: NonNegativeInt
    model_name: Name
    model_version: Name
    threshold: Probability
    seconds: NonNegativeFloat  #: from the request read to the CSV ready to write

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.rows != self.scored + self.failed or self.failed != sum(self.errors.values()):
            raise ValueError("rows = scored + failed, and failed = the sum of errors, must hold")
        return self


class ShardLine(Document):
    """One line of a shard: an image, and its row in the job's results."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    row: NonNegativeInt
    source_ref: Annotated[str, Field(alias="source-ref", max_length=2048)]
    version_id: str | None = None
    columns: dict[str, str] = {}  #: what else the manifest says of it


class Job(Document):
    """``job.json``: what was asked for. Written once, when all shards are there and before any message is sent."""

    schema_version: SchemaVersion = 1
    job_id: JobId
    created_at: AwareDatetime  #: UTC
    sources: tuple[str, ...]  #: as given: URIs, files, folders
    digest: Sha256  #: of all shards, one after the other; of the request, where there are none
    images: PositiveInt
    #: Parts to come, of ``shard_images`` rows each but the last. None: one, and no shards; the request was short.
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] | None = None
    shard_images: PositiveInt = SHARD_IMAGES
    columns: tuple[str, ...] = ()  #: what the manifest says beside the images
    model_uri: S3Uri | None = None  #: one bundle for all parts, wherever the champion moves meanwhile
    asked_model_uri: S3Uri | None = None  #: what was asked for: that bundle, or the ``champion.json`` that named it
    output_uri: S3Uri
    threshold: Probability | None = None
    parent: JobId | None = None  #: the job whose failed images this one asks for again; rows are numbered as there

    @property
    def parts(self) -> int:
        """How many parts there will be."""
        return self.shards or 1

    def rows_of(self, part: int) -> int:
        """How many rows a part has."""
        return min(self.shard_images, self.images - part * self.shard_images) if self.shards else self.images

    def request(self, shard: int, *, shard_uri: str) -> ClassifyRequest:
        """The message that asks for a shard."""
        return ClassifyRequest(
            schema_version=1,
            job_id=self.job_id,
            manifest=ManifestRef(uri=shard_uri),
            model_uri=self.model_uri,
            output_uri=self.output_uri,
            threshold=self.threshold,
            shard=shard,
        )


class PartSummary(Document):
    """A part, as its metadata tells."""

    rows: NonNegativeInt
    failed: NonNegativeInt
    sha256: Sha256
    size_bytes: NonNegativeInt


class Summary(Document):
    """``summary.json``: what a job came to. Written once, when its last part is in; ``_SUCCESS`` follows."""

    schema_version: SchemaVersion = 1
    job_id: JobId
    parent: JobId | None
    created_at: AwareDatetime  #: of the job, UTC
    completed_at: AwareDatetime
    rows: NonNegativeInt
    scored: NonNegativeInt
    failed: NonNegativeInt
    errors: dict[str, PositiveInt]  #: failed rows by error_code
    positives: NonNegativeInt  #: scored rows of class 1
    models: tuple[str, ...]  #: "name version", of all parts
    worker_s: NonNegativeFloat  #: what the parts took, added up
    cost_usd: NonNegativeFloat  #: an estimate, see worker/batch/cost.py
    parts: tuple[PartSummary, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.rows != self.scored + self.failed or self.rows != sum(part.rows for part in self.parts):
            raise ValueError("rows = scored + failed = the rows of all parts must hold")
        return self


class BundleFile(Document):
    """A file of a bundle, as it was when the bundle was written."""

    sha256: Sha256
    size_bytes: NonNegativeInt


class ModelManifest(Document):
    """``model.json``: what a bundle holds and where it came from. Written last; without it there is no bundle."""

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    created_at: AwareDatetime  #: UTC
    labels: tuple[Label, Label]  #: class 0, class 1
    image_size: Annotated[int, Field(ge=32, le=1024)]  #: width and height the model takes, pixels
    decoder_fingerprint: Sha256  #: of ``worker.scoring.decoder``, see there
    threshold: Probability  #: score >= threshold is class 1
    files: dict[str, BundleFile]  #: by name, all but ``model.json`` itself
    training_config: dict[str, Any]
    dataset_digest: Sha256
    libraries: dict[str, str]  #: versions, by distribution name
    metrics: dict[str, float]  #: headline figures on the test images

    @field_validator("labels")
    @classmethod
    def _two_labels(cls, labels: tuple[str, str]) -> tuple[str, str]:
        if labels[0] == labels[1]:
            raise ValueError("the two labels are the same")
        return labels


class ChampionPointer(Document):
    """``champion.json``: the version of a model in use."""

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    promoted_at: AwareDatetime  #: UTC


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: where, and what was expected there."""
    parts = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(step) for step in item["loc"])[:_MAX_NAME]
        what = item["msg"].removeprefix("Value error, ")
        parts.append(" ".join(f"{where}: {what}".split()) if where else what)
    return "; ".join(parts[:_SHOWN]) + ("; …" if len(parts) > _SHOWN else "")


def strict_json(body: str) -> Any:  # noqa: ANN401 - JSON may be anything
    """The document in a message. ValueError says what is wrong with it, in one line.

    Refuses what is too long, and what pydantic's parser lets pass: duplicate keys (it takes the last), NaN, Infinity.
    """
    size = len(body.encode("utf-8", "surrogatepass"))
    if size > MAX_REQUEST_BYTES:
        raise ValueError(f"{size:,} bytes, over {MAX_REQUEST_BYTES:,}: put the images into a manifest")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key[:_MAX_NAME]!r} is there twice")
            found[key] = value
        return found

    def no_constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")

    try:
        return json.loads(body, object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None

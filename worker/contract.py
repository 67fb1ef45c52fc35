"""The messages and files that Twofold exchanges, as frozen pydantic models. Start reading here.

    a producer sends       ClassifyRequest    JSON on the request queue: which images to classify
    the worker answers     PredictionRow      a CSV with one row for every image of the request
                           PartReport         the counts of one CSV, in its object's metadata
    a long manifest gets   Job                job.json: what was asked for
                           ShardLine          one image, a line of shards/00000.jsonl
    the last part adds     Summary            summary.json: the counts of the complete job
    training writes        ModelManifest      model.json, the last file of a bundle
                           ChampionPointer    champion.json: the version of a model that is in use

The smallest request, as a producer sends it:

    {"schema_version": 1, "job_id": "june", "images": ["s3://shelter/in/a.jpg"]}

Every model is strict (a number is not read from a string) and refuses unknown fields. In a request, a field that may
be left out may also be null. A new field always has a default, so older messages and files stay valid under the same
``schema_version``.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, get_args

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
    WithJsonSchema,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic_core import ErrorDetails

#: The size limit of a request. SQS accepts 1 MiB, but a longer list of images belongs in a manifest.
MAX_REQUEST_BYTES: Final = 256 * 1024

#: Images in a shard, and so rows in a part: some seconds of work, well within the 15 minutes of a Lambda call.
SHARD_IMAGES: Final = 500
#: Part numbers have five digits, so names sort like numbers. That is 50 million images in shards of 500.
MAX_SHARDS: Final = 100_000

#: How many mistakes are reported for one message.
_MAX_MISTAKES: Final = 5
#: Digits of an integer. No field needs more than twenty.
_MAX_DIGITS: Final = 1000
#: Characters of a field's name in an error message. A hostile name can be as long as the request.
_MAX_NAME: Final = 100
#: Characters and size of a value in an error message.
_MAX_VALUE: Final = 60
_MAX_INTEGER: Final = 10**18

_JOB_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_SHA256: Final = r"^[0-9a-f]{64}$"
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_S3_URI: Final = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?$"

#: What a message says of a text that does not match a pattern.
_SHAPES: Final = {
    _JOB_ID: "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit",
    _NAME: "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    _SHA256: "64 hexadecimal digits in lower case",
    _S3_URI: "s3://BUCKET or s3://BUCKET/KEY",
}
#: What a message says of the other errors of pydantic, by their type: what must be the case, or the whole sentence.
_EXPECTED: Final = {
    "string_type": "text",
    "string_unicode": "text",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "datetime_type": "a time such as 2026-11-24T14:05:09Z",
    "datetime_parsing": "a time such as 2026-11-24T14:05:09Z",
    "datetime_from_date_parsing": "a time such as 2026-11-24T14:05:09Z",
    "timezone_aware": "a time with its zone, such as 2026-11-24T14:05:09Z",
}
_WHOLE: Final = {
    "missing": "is missing",
    "frozen_instance": "cannot be changed",
    "too_short": "must have {min_length} or more entries, not {actual_length}",
    "too_long": "must have {max_length} or fewer entries, not {actual_length}",
}
_SORTS: Final[dict[type, str]] = {dict: "an object", list: "a list", tuple: "a list", int: "a number that long"}

#: Letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or a digit; at most 128 characters.
JobId = Annotated[str, StringConstraints(pattern=_JOB_ID)]
#: The name or version of a model: as ``JobId``, at most 64 characters.
Name = Annotated[str, StringConstraints(pattern=_NAME)]
#: The name of a class.
Label = Annotated[str, StringConstraints(min_length=1, max_length=128)]
#: A number in [0, 1]. Adding 0 turns -0.0 into 0.0, so that equal numbers are also written the same.
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), AfterValidator(lambda value: value + 0.0)]


def _ascending(band: tuple[float, float]) -> tuple[float, float]:
    if band[0] > band[1]:
        raise ValueError(f"must be two numbers, the lower one first, not {band[0]:g} and {band[1]:g}")
    return band


#: A band of scores whose answers are unsure: from the first number up to, but not including, the second. Both are the
#: same where no answer is unsure. The threshold is never outside of it.
UnsureBand = Annotated[tuple[Probability, Probability], AfterValidator(_ascending)]
#: What the column ``decision`` says of a score in the band. No class may have this name, in capitals or not.
UNSURE: Final = "unsure"

#: 64 lowercase hexadecimal digits.
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]

#: ``s3://bucket`` or ``s3://bucket/key``, at most 1,100 characters without control characters.
S3Uri = Annotated[str, StringConstraints(pattern=_S3_URI, max_length=1100)]
#: An image, as ``s3://bucket/key``. Checked image by image, so one bad reference costs one row and not the request.
SourceRef = Annotated[str, StringConstraints(min_length=1, max_length=2048)]

#: The formats of a manifest. Each file may be gzipped.
#:
#: ``csv``            a header with ``source_ref``, or with ``Bucket`` and ``Key`` and optionally ``VersionId``
#: ``s3-csv``         no header: bucket, URL-encoded key, optionally a version (S3 Batch Operations, S3 Inventory)
#: ``jsonl``          one ``{"source-ref": "s3://…"}`` per line, as SageMaker writes it
#: ``manifest-file``  SageMaker's JSON array, which begins with a prefix: ``[{"prefix": "s3://…/"}, "a.jpg", …]``
#: ``inventory``      the manifest.json of S3 Inventory, whose files must be CSV
#: ``listing``        not a file: every object below the folder ``uri``, with or without a slash at its end
ManifestFormat = Literal["csv", "s3-csv", "jsonl", "manifest-file", "inventory", "listing"]


def _known(version: int) -> int:
    if version != 1:
        raise ValueError(f"version {version} is not supported, only 1: is the worker older than the producer?")
    return version


#: The version of a message or file: 1. An int and not a Literal, which would accept true for 1.
SchemaVersion = Annotated[int, AfterValidator(_known), WithJsonSchema({"type": "integer", "const": 1})]

#: For a field that was added to a format later: it is written only where it is set. So whatever does not use it stays
#: byte for byte what it was, and an older Twofold, which refuses fields that it does not know, can read it.
_WHERE_SET: Final = Field(exclude_if=lambda value: value is None)

#: The rules below that are validators, once more for ``twofold schema``: JSON Schema cannot be derived from a function.
_NO_DOT_SEGMENTS: Final = Field(json_schema_extra={"not": {"type": "string", "pattern": r"(^|/)\.{1,2}(/|$)"}})
_WITH_IMAGES: "Final[JsonDict]" = {"required": ["images"], "properties": {"images": {"type": "array"}}}
_WITH_MANIFEST: "Final[JsonDict]" = {"required": ["manifest"], "properties": {"manifest": {"type": "object"}}}
_WITH_SHARD: "Final[JsonDict]" = {"required": ["shard"], "properties": {"shard": {"type": "integer"}}}
_ONE_SOURCE: "Final[JsonDict]" = {"oneOf": [_WITH_IMAGES, _WITH_MANIFEST], "if": _WITH_SHARD, "then": _WITH_MANIFEST}
_NULL: "Final[JsonDict]" = {"type": "null"}
_NO_SCORE: "Final[JsonDict]" = {"label": _NULL, "confidence": _NULL, "score": _NULL}
_SCORED: "Final[JsonDict]" = {
    "required": [*_NO_SCORE],
    "properties": {**{name: {"not": _NULL} for name in _NO_SCORE}, "error_code": _NULL},
}
_FAILED: "Final[JsonDict]" = {
    "required": ["error_code"],
    "properties": {**_NO_SCORE, "decision": _NULL, "error_code": {"type": "string"}},
}


class Document(BaseModel):
    """The base of every model here: frozen, strict, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @classmethod
    def parse(cls, body: str | bytes) -> Self:
        """Parses JSON as strictly as ``strict_json``. Raises ValueError, with what is wrong and where in one line."""
        strict_json(body)
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(explain(error)) from None


def _refuse_dot_segments(uri: str | None) -> str | None:
    if uri is not None and {".", ".."} & set(uri.split("/")):
        raise ValueError("must not contain '.' or '..' segments")
    return uri


class ManifestRef(Document):
    """A list of images in storage."""

    uri: Annotated[S3Uri, _NO_DOT_SEGMENTS]
    #: None: detected from the content; ``listing`` for a URI that ends in a slash.
    format: ManifestFormat | None = None
    #: The version of the object, in a bucket with versioning. None: the latest.
    version_id: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None

    _no_dot_segments = field_validator("uri")(_refuse_dot_segments)


class ClassifyRequest(Document):
    """Asks for the classification of images: of ``images`` or of ``manifest``, exactly one of the two.

    The answer is a CSV with one row for every image, in order and including duplicates. It is written to
    ``<output_uri>/<job_id>/parts/part-00000.csv``.

    A list of over 2,000 images, or a manifest with versions or other columns, is split into shards of 500 images first.
    Each shard becomes a request with its number in ``shard``, and is answered by the part of that number.

    Sending the same request again changes nothing. A different request with the same ``job_id`` is refused.
    """

    model_config = ConfigDict(json_schema_extra=_ONE_SOURCE)

    schema_version: SchemaVersion
    #: The name of the job, chosen by the producer: a folder below ``output_uri``.
    job_id: JobId
    #: The images themselves, for short lists.
    images: Annotated[tuple[SourceRef, ...], Field(min_length=1)] | None = None
    #: A list of images in storage, of any length.
    manifest: ManifestRef | None = None
    #: A bundle, its ``model.json``, or a ``champion.json``. None: the worker's ``TWOFOLD_MODEL_URI``.
    model_uri: Annotated[S3Uri | None, _NO_DOT_SEGMENTS] = None
    #: The prefix of all jobs. None: the worker's ``TWOFOLD_OUTPUT_URI``.
    output_uri: Annotated[S3Uri | None, _NO_DOT_SEGMENTS] = None
    #: A score of at least this is class 1. None: the model's own threshold.
    threshold: Probability | None = None
    #: Scores whose answers are ``unsure`` in the column ``decision``, which a part has only where there is such a band.
    #: None: the model's own, or none at all where ``threshold`` is given.
    unsure: Annotated[UnsureBand | None, _WHERE_SET] = None
    #: Set by Twofold, not by producers: the number of the shard that ``manifest`` is, from 0.
    shard: Annotated[int, Field(ge=0, lt=MAX_SHARDS)] | None = None
    #: Set by Twofold, too: tells a job from an earlier one of that name, which was cancelled. None: there was none.
    edition: Name | None = None

    _no_dot_segments = field_validator("model_uri", "output_uri")(_refuse_dot_segments)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.images is None) == (self.manifest is None):
            raise ValueError("give exactly one of 'images' and 'manifest'")
        if self.shard is not None and self.manifest is None:
            raise ValueError("'shard' needs a 'manifest'")
        return self

    @model_validator(mode="after")
    def _threshold_in_band(self) -> Self:
        check_band(self.unsure, self.threshold)
        return self

    @classmethod
    def parse(cls, body: str | bytes) -> Self:
        """Parses a message's body. Raises ValueError, with what is wrong and where in one line."""
        check_size(body)
        return super().parse(body)

    def digest(self) -> str:
        """Returns the SHA-256 of what is asked for: the identity of a request, whatever message carries it.

        Defaults are left out, so a field that is added to the contract later does not change today's digests.
        """
        asked = self.model_dump(mode="json", exclude_defaults=True) | {"schema_version": self.schema_version}
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class PredictionRow(Document):
    """One row of the CSV. It has ``label``, ``confidence`` and ``score``, or else an ``error_code``.

    The columns are the fields, in this order. None is a blank cell. The last one is there only where a band was set.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [_SCORED, _FAILED]})

    row: NonNegativeInt  #: the position in the request, from 0
    source_ref: str  #: as the producer wrote it
    label: Label | None = None
    confidence: Probability | None = None  #: the probability of ``label``
    score: Probability | None = None  #: P(class 1)
    threshold: Probability
    model_version: Name
    error_code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")] | None = None  #: see ``worker.errors``
    error_message: str | None = None
    decision: Annotated[Label | None, _WHERE_SET] = None  #: the label, or ``unsure`` for a score in the band

    @model_validator(mode="after")
    def _scored_or_failed(self) -> Self:
        blanks = {value is None for value in (self.label, self.confidence, self.score)}
        if len(blanks) != 1 or blanks == {self.error_code is None}:
            raise ValueError("a row has label, confidence and score, or else an error_code")
        if self.decision is not None and self.decision not in (self.label, UNSURE):
            raise ValueError(f"a decision is the label or {UNSURE!r}")
        if self.decision is not None and self.error_code is not None:
            raise ValueError("a row without a score has no decision")
        return self


class PartReport(Document):
    """The counts of one part, kept in the metadata of its CSV. Always ``rows = scored + failed``."""

    schema_version: SchemaVersion = 1
    job_id: JobId
    request_digest: Sha256  #: of the request that the part answers
    rows: NonNegativeInt
    scored: NonNegativeInt
    failed: NonNegativeInt
    errors: dict[str, PositiveInt]  #: failed rows by error_code
    positives: NonNegativeInt = 0  #: scored rows of class 1
    sha256: Sha256  #: of the CSV
    size_bytes: NonNegativeInt  #: of the CSV
    model_name: Name
    model_version: Name
    threshold: Probability
    unsure: Annotated[UnsureBand | None, _WHERE_SET] = None  #: the band in use
    unsure_rows: Annotated[NonNegativeInt | None, _WHERE_SET] = None  #: scored rows in it; None: there is no band
    seconds: NonNegativeFloat  #: from reading the request to the CSV that is ready to write

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.rows != self.scored + self.failed or self.failed != sum(self.errors.values()):
            raise ValueError("rows = scored + failed, and failed = the sum of errors, must hold")
        if (self.unsure is None) != (self.unsure_rows is None) or (self.unsure_rows or 0) > self.scored:
            raise ValueError("a number of unsure rows, at most that of the scored ones, must be there where a band is")
        return self


class ShardLine(Document):
    """One line of a shard: an image, and its row in the job's results."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    row: NonNegativeInt
    source_ref: Annotated[str, Field(alias="source-ref", max_length=2048)]
    version_id: str | None = None
    columns: dict[str, str] = {}  #: the other columns of the manifest, to be joined to the results


class NamedFiles(Document):
    """Files that were not submitted for one reason: how many, and the names of the first few."""

    files: PositiveInt
    names: tuple[str, ...]


class Job(Document):
    """``job.json``: what was asked for.

    Written once: for a planned job after its shards and before any message is sent, for a short one after its part.
    """

    schema_version: SchemaVersion = 1
    job_id: JobId
    created_at: AwareDatetime  #: UTC
    sources: tuple[str, ...]  #: as given: URIs, files, folders
    digest: Sha256  #: of all shards, concatenated; of the request, for a job without shards
    images: PositiveInt
    #: The number of parts, each of ``shard_images`` rows but the last. None: one part and no shards, a short request.
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] | None = None
    shard_images: PositiveInt = SHARD_IMAGES
    columns: tuple[str, ...] = ()  #: the names of the manifest's other columns
    model_uri: S3Uri | None = None  #: the one bundle that scores all parts, even if the champion changes meanwhile
    asked_model_uri: S3Uri | None = None  #: as requested: that bundle, or the ``champion.json`` that pointed at it
    output_uri: S3Uri
    threshold: Probability | None = None
    unsure: Annotated[UnsureBand | None, _WHERE_SET] = None  #: as requested, like the threshold
    skipped: dict[str, NamedFiles] = {}  #: files in the folders of ``sources`` that are no images, by reason
    parent: JobId | None = None  #: the job whose failed images this job tries again; rows keep the parent's numbers
    edition: Name | None = None  #: tells the job from an earlier one of that name, which was cancelled

    @property
    def parts(self) -> int:
        """The number of parts."""
        return self.shards or 1

    def rows_of(self, part: int) -> int:
        """Returns the number of rows in a part."""
        return min(self.shard_images, self.images - part * self.shard_images) if self.shards else self.images

    def request(self, shard: int, *, shard_uri: str) -> ClassifyRequest:
        """Returns the request for a shard."""
        return ClassifyRequest(
            schema_version=1,
            job_id=self.job_id,
            manifest=ManifestRef(uri=shard_uri),
            model_uri=self.model_uri,
            output_uri=self.output_uri,
            threshold=self.threshold,
            unsure=self.unsure,
            shard=shard,
            edition=self.edition,
        )


class PartSummary(Document):
    """A part in ``summary.json``."""

    rows: NonNegativeInt
    failed: NonNegativeInt
    sha256: Sha256  #: of the CSV
    size_bytes: NonNegativeInt  #: of the CSV


class Summary(Document):
    """``summary.json``: the counts of a complete job. Written once, after the last part; ``_SUCCESS`` follows."""

    schema_version: SchemaVersion = 1
    job_id: JobId
    parent: JobId | None
    created_at: AwareDatetime  #: of the job, UTC
    completed_at: AwareDatetime  #: UTC
    rows: NonNegativeInt
    scored: NonNegativeInt
    failed: NonNegativeInt
    errors: dict[str, PositiveInt]  #: failed rows by error_code
    positives: NonNegativeInt  #: scored rows of class 1
    unsure_rows: Annotated[NonNegativeInt | None, _WHERE_SET] = None  #: scored rows in the band; None: there is none
    models: tuple[str, ...]  #: "name version" of every model that scored a part
    worker_s: NonNegativeFloat  #: the seconds of all parts, added up
    cost_usd: NonNegativeFloat  #: an estimate, see worker/batch/cost.py
    parts: tuple[PartSummary, ...]  #: in order

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
    """``model.json``: what a bundle holds and where it came from.

    Written last, so a folder without it is not a bundle.
    """

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    created_at: AwareDatetime  #: UTC
    labels: tuple[Label, Label]  #: class 0, class 1
    image_size: Annotated[int, Field(ge=32, le=1024)]  #: the width and height of the model's input, in pixels
    decoder_fingerprint: Sha256  #: of the image decoder in training, see ``worker.scoring.decoder.fingerprint``
    threshold: Probability  #: score >= threshold is class 1
    files: dict[str, BundleFile]  #: by name, all but ``model.json`` itself
    training_config: dict[str, Any]
    dataset_digest: Sha256
    libraries: dict[str, str]  #: versions by distribution name
    metrics: dict[str, float]  #: headline figures on the test images
    probe_scores: tuple[float, ...] = ()  #: P(class 1) of the probe images, see ``worker.scoring.probes``
    #: Scores whose answers are ``unsure``. None: the model has no such band.
    unsure: Annotated[UnsureBand | None, _WHERE_SET] = None

    @field_validator("labels")
    @classmethod
    def _two_labels(cls, labels: tuple[str, str]) -> tuple[str, str]:
        if labels[0] == labels[1]:
            raise ValueError("the two labels are the same")
        return labels

    @model_validator(mode="after")
    def _threshold_in_band(self) -> Self:
        check_band(self.unsure, self.threshold, labels=self.labels)
        return self


def check_band(band: tuple[float, float] | None, threshold: float | None, *, labels: tuple[str, ...] = ()) -> None:
    """Raises ValueError for a band that does not fit the threshold, or labels of which one is called ``unsure``."""
    if band is None:
        return
    if threshold is not None and not band[0] <= threshold <= band[1]:
        raise ValueError(f"'unsure' must hold the threshold: {threshold:g} is not from {band[0]:g} to {band[1]:g}")
    if UNSURE in {label.casefold() for label in labels}:
        raise ValueError(f"'unsure' cannot be set: a class has that name, so {UNSURE!r} could mean two things")


class ChampionPointer(Document):
    """``champion.json``: the version of a model that is in use."""

    schema_version: SchemaVersion = 1
    name: Name
    version: Name
    promoted_at: AwareDatetime  #: UTC


def describe(item: "ErrorDetails", known: Iterable[str] = ()) -> str:
    """Describes one error of pydantic without its words: "must be a whole number, not 'many'".

    A field that is not among the ``known`` names gets the nearest of them as a suggestion.
    """
    kind, context, given = item["type"], item.get("ctx", {}), item["input"]
    if kind == "value_error":  # of a validator here, in plain words already
        return str(context["error"])
    if kind == "extra_forbidden":
        near = nearest(str(item["loc"][-1]), known)
        return f"unknown field; did you mean {near}?" if near else "unknown field"
    if kind == "json_invalid":
        place = re.search(r"line \d+ column \d+", str(context["error"]))
        return f"not JSON: see {place[0]}" if place else "not JSON"
    if kind in _WHOLE:
        return _WHOLE[kind].format_map(context)
    expected = _expected(kind, context)
    sort = "the text " if kind.endswith("_type") and isinstance(given, str) else ""
    return f"must be {expected}, not {sort}{_shown(given)}" if expected else f"cannot be {_shown(given)}"


def _expected(kind: str, context: dict[str, Any]) -> str:
    if "pattern" in context:
        return _SHAPES.get(context["pattern"], f"of the form {context['pattern']}")
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    return _EXPECTED.get(kind, "").format_map(context)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that ``name`` is probably a misspelling of, if there is one."""
    return next(iter(difflib.get_close_matches(name[:_MAX_NAME], list(known), n=1)), None)


def _documents(kind: type[Document] = Document) -> Iterator[type[Document]]:
    for child in kind.__subclasses__():
        yield child
        yield from _documents(child)


def _names(annotation: Any) -> set[str]:  # noqa: ANN401 - any annotation
    """Returns the names of the fields of a document, and of the documents in it."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        fields = annotation.model_fields
        return fields.keys() | {name for field in fields.values() for name in _names(field.annotation)}
    return {name for part in get_args(annotation) for name in _names(part)}


def _shown(value: object) -> str:
    """Returns a value as a message may repeat it: short, in one line, and without what may be a secret."""
    if isinstance(value, str):
        scheme, is_address, _ = value.partition("://")
        if is_address and scheme != "s3":  # it can hold a password or a signature
            return f"an address that begins with {scheme[:_MAX_NAME]!r}"
        return repr(value) if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]!r}…"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _MAX_INTEGER):
        return str(value)
    return _SORTS.get(type(value), "that")


def explain(error: ValidationError) -> str:
    """Describes a pydantic error in a line of plain words: each wrong field, what is allowed there, what was given."""
    known = _names(next((kind for kind in _documents() if kind.__name__ == error.title), Document))
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(step) for step in item["loc"])[:_MAX_NAME]
        parts.append(" ".join(f"{where}: {describe(item, known)}".removeprefix(": ").split()))
    return "; ".join(parts[:_MAX_MISTAKES]) + ("; …" if len(parts) > _MAX_MISTAKES else "")


def check_size(body: str | bytes) -> None:
    """Raises ValueError for a message that is too long."""
    size = len(body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"))
    if size > MAX_REQUEST_BYTES:
        raise ValueError(f"{size:,} bytes, over the limit of {MAX_REQUEST_BYTES:,}: put the images into a manifest")


def strict_json(body: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parses JSON, as text or in UTF-8. Raises ValueError, with what is wrong in one line.

    Refuses what pydantic's parser accepts: duplicate keys, NaN and Infinity.
    """
    try:
        text = body if isinstance(body, str) else body.decode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_no_giant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: the byte {error.object[error.start]:#04x} at {error.start:,}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:_MAX_NAME]!r} occurs twice")
        found[key] = value
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _no_giant(text: str) -> int:
    digits = len(text.removeprefix("-"))
    if digits > _MAX_DIGITS:  # Python refuses over 4,300, in words about its own settings
        raise ValueError(f"a number of {digits:,} digits, over the limit of {_MAX_DIGITS}")
    return int(text)

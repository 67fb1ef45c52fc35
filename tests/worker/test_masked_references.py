"""References that carry a secret, such as presigned addresses: no message of the worker repeats it."""

import json
import logging
from typing import Final

import pytest

from tests.desk import Desk
from worker import messages
from worker.contract import ClassifyRequest, ManifestRef
from worker.errors import ErrorCode, Reject, without_secrets
from worker.predictions import from_csv
from worker.uris import check_allowed, split

SIGNATURE: Final = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
PRESIGNED: Final = (
    "https://shelter.s3.amazonaws.com/in/a.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F20261124"
    f"&X-Amz-Date=20261124T140509Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature={SIGNATURE}"
)
SECRETS: Final = (SIGNATURE, SIGNATURE[:8], "AKIAEXAMPLE")


def _leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PRESIGNED, "https://shelter.s3.amazonaws.com/in/a.jpg?…"),
        (f"{PRESIGNED[:170]!r} is cut", "'https://shelter.s3.amazonaws.com/in/a.jpg?…' is cut"),
        (f"s3://shelter/a.jpg?x-amz-signature={SIGNATURE}", "s3://shelter/a.jpg?…"),
        (f"at http://s3/a.jpg%3FX-Amz-Signature%3D{SIGNATURE} in 3 ms", "at http://s3/a.jpg%3F… in 3 ms"),
        (f'{{"source-ref": "https://h/a?Expires=1\\u0026Signature={SIGNATURE}"}}', '{"source-ref": "https://h/a?…"}'),
        (f"https://h/a?Expires=1&AWSAccessKeyId=AKIAEXAMPLE&Signature={SIGNATURE}", "https://h/a?…"),
        (f"https://h/a?Policy=x&Signature={SIGNATURE}&Key-Pair-Id=AKIAEXAMPLE", "https://h/a?…"),
        (
            f"https://account.blob.core.windows.net/a?sv=2025&sig={SIGNATURE}",
            "https://account.blob.core.windows.net/a?…",
        ),
        (f"https://storage.googleapis.com/b/a?X-Goog-Signature={SIGNATURE}", "https://storage.googleapis.com/b/a?…"),
        (f"&X-Amz-Signature={SIGNATURE}", "…"),
        (f"https://shelter:{SIGNATURE}@host/a", "https://…@host/a"),
        ("s3://shelter/what?.jpg: no such object", "s3://shelter/what?.jpg: no such object"),
        ("s3://shelter/X-Amz-Signature.jpg", "s3://shelter/X-Amz-Signature.jpg"),
        ("s3://shelter/a@b.jpg?v=2", "s3://shelter/a@b.jpg?v=2"),
    ],
)
def test_only_what_gives_access_is_left_out(text: str, shown: str) -> None:
    """A query that says nothing of the kind is part of a key."""
    assert without_secrets(text) == shown
    assert _leaks(shown) == []


@pytest.mark.parametrize("length", range(0, len(PRESIGNED), 7))
def test_a_reference_that_is_cut_anywhere_gives_nothing_away(length: int) -> None:
    """Messages quote the beginning of what they are about."""
    assert _leaks(without_secrets(f"{PRESIGNED[:length]!r} is not a list")) == []


def test_a_refused_reference_is_shown_without_its_signature() -> None:
    """Where its form is wrong, and where its prefix is not allowed."""
    with pytest.raises(Reject, match=r"in/a\.jpg\?…' is not of the form") as formless:
        split(PRESIGNED)
    with pytest.raises(Reject, match=r"a\.jpg\?… is outside") as elsewhere:
        check_allowed(f"s3://shelter/a.jpg?X-Amz-Signature={SIGNATURE}", ("s3://intake/",))
    for caught in (formless, elsewhere):
        assert _leaks(f"{caught.value} {caught.value.message}") == []


@pytest.mark.parametrize("endpoint", ["ministack"], indirect=True)
def test_a_row_keeps_the_reference_as_it_was_written_and_its_message_is_masked(desk: Desk) -> None:
    """Rows are joined by ``source_ref``, so that column stays the producer's text."""
    missing = f"s3://{desk.bench.bucket}/in/a.jpg?X-Amz-Signature={SIGNATURE}"
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=(PRESIGNED, missing)))
    rows = from_csv(desk.bench.get(desk.folder().part()))
    assert [(row.source_ref, row.error_code) for row in rows] == [(PRESIGNED, "bad_source_ref"), (missing, "not_found")]
    assert [_leaks(row.error_message or "") for row in rows] == [[], []]


@pytest.mark.parametrize("endpoint", ["ministack"], indirect=True)
@pytest.mark.parametrize(
    "manifest",
    [
        f"{PRESIGNED}\n".encode(),
        json.dumps([PRESIGNED]).encode(),
        json.dumps([{"prefix": "s3://shelter/"}, PRESIGNED])[:-1].encode(),
        f'{{"fileSchema": "{PRESIGNED}", "fileFormat": "CSV", "files": []}}'.encode(),
    ],
    ids=["first-line", "array", "truncated", "inventory"],
)
def test_a_refused_manifest_is_described_without_signatures(
    desk: Desk, manifest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """In the reason of its dead letter, and in the log."""
    uri = desk.bench.put("list", manifest)
    with caplog.at_level(logging.DEBUG):
        refusal = desk.reject(ClassifyRequest(schema_version=1, job_id="job", manifest=ManifestRef(uri=uri)))
    assert refusal.code is ErrorCode.BAD_MANIFEST
    assert _leaks(f"{refusal} {refusal.message} {caplog.text}") == []


def test_a_refused_message_is_described_without_signatures() -> None:
    """A field's name, and a key that occurs twice, are quoted as well."""
    for body in (json.dumps({PRESIGNED: 1}), f'{{"{PRESIGNED}": 1, "{PRESIGNED}": 2}}'):
        with pytest.raises(ValueError, match=r".") as caught:
            messages.read(body)
        assert _leaks(Reject(ErrorCode.BAD_REQUEST, str(caught.value)).message) == []

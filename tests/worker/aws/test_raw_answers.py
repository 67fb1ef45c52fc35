"""Answers that no emulator gives: cut off, of a refused signature, of another region. A real server sends them."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.worker.aws.one_answer import http, serving
from worker.aws.clients import open_session, open_sqs, open_storage
from worker.aws.failures import BOTO_ERRORS, from_messaging
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.errors import ErrorCode, Reject, Retry

_BODY: Final = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
#: Every way to read. Listings are not here, because botocore itself tries them again, for seconds.
READS: Final[dict[str, Callable[[Storage], object]]] = {
    "find": lambda storage: storage.find("s3://shelter/a", max_bytes=999),
    "metadata": lambda storage: storage.metadata("s3://shelter/a"),
    "range": lambda storage: storage.read_range("s3://shelter/a", start=0, end=3, etag=None),
    "read": lambda storage: storage.read("s3://shelter/a", max_bytes=999),
    "read with boto3": lambda storage: storage.read("s3://shelter//a", max_bytes=999),
    "replace": lambda storage: storage.replace("s3://shelter/a", b"", seen=b"", content_type="text/plain"),
    "stream": lambda storage: list(storage.stream("s3://shelter/a")),
}
LISTS: Final[dict[str, Callable[[Storage], object]]] = {
    "list": lambda storage: list(storage.list("s3://shelter/")),
    "folders": lambda storage: list(storage.folders("s3://shelter/")),
}


def _decisions(calls: dict[str, Callable[[Storage], object]]) -> dict[str, str]:
    """What each call becomes. An error that is neither Reject nor Retry fails the test."""
    storage, found = open_storage(open_session()), {}
    for name, call in calls.items():
        try:
            found[name] = f"returned {call(storage)!r}"
        except (Reject, Retry) as error:
            found[name] = f"{type(error).__name__} {error.code.value}"
    return found


@pytest.mark.parametrize(
    ("status", "framing", "body"),
    [
        pytest.param(404, "Content-Length: 300", _BODY, id="404"),
        pytest.param(404, "Transfer-Encoding: chunked", b"ff\r\n" + _BODY, id="404 in chunks"),
        pytest.param(403, "Content-Length: 300", _BODY, id="403"),
        pytest.param(503, "Content-Length: 300", _BODY, id="503"),
    ],
)
def test_an_error_whose_body_is_cut_off_is_tried_again(
    status: int, framing: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read outside the retries of botocore. It is no defect of the worker, and says nothing about the object."""
    with serving(http(status, framing, body=body), monkeypatch):
        assert _decisions(READS) == dict.fromkeys(READS, "Retry unavailable")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(200)[:-2] + b"Last-Modi", id="before the length"),
        pytest.param(http(200, "Content-Length: 1", 'ETag: "0a"')[:-2] + b"x-amz-meta-requ", id="after the length"),
        pytest.param(http(404)[:-2] + b"Transfer-Enc", id="of an error"),
    ],
)
def test_an_answer_that_is_cut_off_within_its_headers_is_tried_again(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is taken for the end of the headers: a part without a report, or a missing object, would be a lie."""
    by_boto3 = {name: call for name, call in READS.items() if name != "read"}  # obstore tries again for a second
    with serving(answer, monkeypatch):
        assert _decisions(by_boto3) == dict.fromkeys(by_boto3, "Retry unavailable")
        record = JobRecord(JobFolder("s3://shelter/out", "june"), open_storage(open_session()))
        with pytest.raises(Retry):
            record.report(answering="0a")


def test_a_listing_that_is_cut_off_within_its_headers_is_not_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a prefix would be missing without a word."""
    with serving(http(200)[:-2] + b"Transfer-Enc", monkeypatch):
        assert _decisions(LISTS) == dict.fromkeys(LISTS, "Retry unavailable")


def test_a_queue_whose_answer_is_cut_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker goes on, because the queue is neither empty nor forbidden."""
    for answer in (http(200)[:-2] + b"Content-Le", http(400)[:-2] + b"x-amzn-Req"):
        with serving(answer, monkeypatch) as server:
            assert "cut off" in _decision_of_receive(server.url).message


def _decision_of_receive(url: str) -> Reject | Retry:
    with pytest.raises(BOTO_ERRORS) as caught:
        open_sqs(open_session()).receive_message(QueueUrl=f"{url}/1/requests")
    decision = from_messaging(caught.value, url)
    assert isinstance(decision, Retry)
    return decision


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "SignatureDoesNotMatch", "RequestExpired"])
def test_a_signature_that_storage_refuses_is_tried_again_and_the_reason_names_the_clock(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock drifts must not reject good requests. Whichever library reads."""
    body = f"<Error><Code>{code}</Code><Message>See the clock.</Message></Error>".encode()
    with serving(http(403, f"Content-Length: {len(body)}", body=body), monkeypatch):
        storage = open_storage(open_session())
        for name in ("metadata", "read", "read with boto3", "stream"):
            with pytest.raises(Retry, match=rf"\({code}\): check that the clock of this machine, which shows 20\d\d-"):
                READS[name](storage)


def test_a_signature_that_a_queue_refuses_is_tried_again_and_the_reason_names_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQS has another code for it."""
    body = b'{"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "Signature expired"}'
    answer = http(403, f"Content-Length: {len(body)}", body=body)
    with serving(answer, monkeypatch) as server:
        decision = _decision_of_receive(server.url)
    assert decision.code is ErrorCode.UNAVAILABLE
    assert "clock of this machine" in decision.message
    assert "Signature expired" in decision.message


def test_a_bucket_of_another_region_can_never_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 redirects without an address. Whichever library reads, the reason names the setting."""
    body = b"<Error><Code>PermanentRedirect</Code><Message>Use the specified endpoint.</Message></Error>"
    region = "x-amz-bucket-region: us-east-1"
    with serving(http(301, f"Content-Length: {len(body)}", region, body=body), monkeypatch):
        storage = open_storage(open_session())
        for name in ("read", "read with boto3"):
            with pytest.raises(Reject, match="not in the region that AWS_REGION names") as caught:
                READS[name](storage)
            assert caught.value.code is ErrorCode.ACCESS_DENIED

"""The table of failures: what an answer of AWS becomes."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from worker.aws.failures import LeaseLost, decide_s3, from_messaging, from_receipt

URL = "https://sqs.eu-central-1.amazonaws.com/1/requests"


def _error(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "ReceiveMessage",
    )


@pytest.mark.parametrize(
    ("status", "code", "decision"),
    [
        (None, "", "retry unavailable"),
        (500, "InternalError", "retry unavailable"),
        (503, "SlowDown", "retry unavailable"),
        (429, "", "retry unavailable"),
        (409, "ConditionalRequestConflict", "retry unavailable"),
        (400, "RequestTimeout", "retry unavailable"),
        (400, "ExpiredToken", "retry unavailable"),
        (400, "KMS.ThrottlingException", "retry unavailable"),
        (403, "RequestTimeTooSkewed", "retry unavailable"),
        (403, "InvalidAccessKeyId", "retry unavailable"),
        (404, "NoSuchKey", "reject not_found"),
        (403, "AccessDenied", "reject access_denied"),
        (403, "InvalidObjectState", "reject archived"),
        (301, "PermanentRedirect", "reject access_denied"),
        (412, "PreconditionFailed", "retry unavailable"),
        (400, "InvalidArgument", "reject access_denied"),
    ],
)
def test_an_answer_of_s3_is_a_decision(status: int | None, code: str, decision: str) -> None:
    """What passes is tried again. The worker's own credentials and clock say nothing about an object."""
    found = decide_s3("s3://a-bucket/k", status=status, code=code, detail="")
    assert f"{type(found).__name__.lower()} {found.code.value}" == decision


@pytest.mark.parametrize(
    ("status", "code", "decision"),
    [
        (500, "InternalFailure", "retry unavailable"),
        (503, "ServiceUnavailable", "retry unavailable"),
        (400, "RequestThrottled", "retry unavailable"),
        (403, "ExpiredToken", "retry unavailable"),
        (403, "SignatureDoesNotMatch", "retry unavailable"),
        (400, "QueueDoesNotExist", "reject not_found"),
        (400, "AWS.SimpleQueueService.NonExistentQueue", "reject not_found"),
        (403, "AccessDenied", "reject access_denied"),
        (404, "NotFound", "reject access_denied"),
        (400, "InvalidParameterValue", "reject access_denied"),
    ],
)
def test_an_answer_of_sqs_is_a_decision(status: int, code: str, decision: str) -> None:
    """SNS and EventBridge go by the same table."""
    found = from_messaging(_error(status, code), URL)
    assert f"{type(found).__name__.lower()} {found.code.value}" == decision
    assert found.message.startswith(URL)


def test_a_missing_answer_of_sqs_is_tried_again() -> None:
    """A queue that cannot be reached says nothing about the message."""
    found = from_messaging(EndpointConnectionError(endpoint_url=URL), URL)
    assert f"{type(found).__name__.lower()} {found.code.value}" == "retry unavailable"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ReceiptHandleIsInvalid", "LeaseLost"),
        ("MessageNotInflight", "LeaseLost"),
        ("AWS.SimpleQueueService.MessageNotInflight", "LeaseLost"),
        ("InvalidParameterValue", "LeaseLost"),
        ("RequestThrottled", "Retry"),
        ("QueueDoesNotExist", "Reject"),
    ],
)
def test_a_receipt_handle_that_is_out_of_date_is_a_lost_lease(code: str, kind: str) -> None:
    """Only in the calls that pass one: elsewhere the same codes are refusals."""
    assert type(from_receipt(_error(400, code), URL)).__name__ == kind
    assert not isinstance(from_messaging(_error(400, code), URL), LeaseLost)

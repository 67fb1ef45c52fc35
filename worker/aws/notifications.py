"""Notifications that a job is complete, sent to an SNS topic or an EventBridge bus by its ARN."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from worker.aws.clients import open_events, open_sns
from worker.aws.failures import BOTO_ERRORS, from_messaging
from worker.contract import Summary
from worker.errors import Reject

if TYPE_CHECKING:
    import boto3

log = logging.getLogger(__name__)

#: What an EventBridge rule or an SNS filter matches on.
SOURCE: Final = "twofold"
DETAIL_TYPE: Final = "Job Complete"


def open_notifier(session: "boto3.Session", arn: str) -> Callable[[Summary], None]:
    """Returns a function that publishes a summary: ``summary.json`` without its list of parts.

    The function raises Retry where the service does not answer. Where the target is missing or forbidden it logs an
    error and returns, and the job is complete all the same.
    """
    service = arn.split(":")[2]
    publish = _sns(session, arn) if service == "sns" else _eventbridge(session, arn)

    def notify(summary: Summary) -> None:
        try:
            publish(summary.job_id, summary.model_dump_json(exclude={"parts"}))
        except BOTO_ERRORS as error:
            decision = from_messaging(error, arn)
            if not isinstance(decision, Reject):
                raise decision from error
            log.error("no notification of job %s: %s", summary.job_id, decision)  # noqa: TRY400 - a setting, not a bug

    return notify


def _sns(session: "boto3.Session", arn: str) -> Callable[[str, str], None]:
    client = open_sns(session)

    def publish(job_id: str, body: str) -> None:
        attributes = {"source": SOURCE, "detail-type": DETAIL_TYPE, "job_id": job_id}
        client.publish(
            TopicArn=arn,
            Message=body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )

    return publish


def _eventbridge(session: "boto3.Session", arn: str) -> Callable[[str, str], None]:
    client = open_events(session)

    def publish(_: str, body: str) -> None:
        entry = {"EventBusName": arn, "Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": body}
        answer = client.put_events(Entries=[entry])  # type: ignore[list-item]
        for failed in answer["Entries"][: answer["FailedEntryCount"]]:
            log.error("%s refused the notification: %s", arn, failed.get("ErrorMessage"))

    return publish

"""Notifications of complete jobs, on two emulators."""

import json
from datetime import UTC, datetime

import boto3
import pytest

from tests.conftest import Bench
from worker.aws.clients import open_session
from worker.aws.notifications import open_notifier
from worker.contract import Summary

SUMMARY = Summary(
    job_id="june",
    parent=None,
    created_at=datetime(2026, 11, 24, tzinfo=UTC),
    completed_at=datetime(2026, 11, 24, tzinfo=UTC),
    rows=0,
    scored=0,
    failed=0,
    errors={},
    positives=0,
    models=(),
    worker_s=0.0,
    cost_usd=0.0,
    parts=(),
)


@pytest.fixture
def session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    return open_session()


def _queue_arn(bench: Bench) -> str:
    answer = bench.sqs.get_queue_attributes(QueueUrl=bench.queues.requests_url, AttributeNames=["QueueArn"])
    arn: str = answer["Attributes"]["QueueArn"]
    return arn


def _received(bench: Bench) -> dict[str, object]:
    (message,) = bench.sqs.receive_message(QueueUrl=bench.queues.requests_url, WaitTimeSeconds=5)["Messages"]
    found: dict[str, object] = json.loads(message["Body"])
    return found


def test_a_complete_job_is_published_to_a_topic(bench: Bench, session: boto3.Session) -> None:
    """Subscribers receive the summary."""
    sns = session.client("sns")
    arn = sns.create_topic(Name=bench.bucket)["TopicArn"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=_queue_arn(bench))
    open_notifier(session, arn)(SUMMARY)
    assert json.loads(str(_received(bench)["Message"]))["job_id"] == "june"


def test_a_complete_job_is_published_to_a_bus(bench: Bench, session: boto3.Session) -> None:
    """A rule matches it by source and detail type."""
    events = session.client("events")
    arn = events.create_event_bus(Name=bench.bucket)["EventBusArn"]
    pattern = json.dumps({"source": ["twofold"], "detail-type": ["Job Complete"]})
    events.put_rule(Name="done", EventBusName=bench.bucket, EventPattern=pattern)
    events.put_targets(Rule="done", EventBusName=bench.bucket, Targets=[{"Id": "q", "Arn": _queue_arn(bench)}])
    open_notifier(session, arn)(SUMMARY)
    detail = _received(bench)["detail"]
    assert isinstance(detail, dict)
    assert detail["job_id"] == "june"


def test_a_missing_topic_does_not_keep_a_job_from_being_complete(bench: Bench, session: boto3.Session) -> None:
    """It is logged."""
    arn = session.client("sns").create_topic(Name=bench.bucket)["TopicArn"]
    open_notifier(session, f"{arn}-gone")(SUMMARY)

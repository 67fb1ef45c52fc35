"""AWS clients with every choice pinned, so that an SDK upgrade cannot change how the worker retries or waits.

Only the entry points open clients, and pass them to everything else. Region, credentials and endpoint come from the
SDK's own settings: ``AWS_REGION``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, roles.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ResponseStreamingError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from worker.aws.storage import Storage

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.model import OperationModel
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

CONNECT_TIMEOUT_S: Final = 5
#: Above the longest SQS poll, 20 s, which is a read that waits.
READ_TIMEOUT_S: Final = 30
ATTEMPTS: Final = 5
POOL: Final = 32


def _config(*, path_style: bool) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=POOL,
        s3={"addressing_style": "path"} if path_style else {},
    )


def open_storage(session: boto3.Session, *, bucket_owner: str | None = None) -> Storage:
    """Opens storage with the session's credentials, region and endpoint.

    With ``bucket_owner``, an account of 12 digits, every call names it, and S3 refuses those to buckets of another one:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
    """
    s3 = open_s3(session, bucket_owner=bucket_owner)
    # Both libraries use the endpoint that boto3 chose: obstore would read the same variables in another way.
    endpoint = s3.meta.endpoint_url
    provider = Boto3CredentialProvider(session)
    region = session.region_name or "us-east-1"

    def open_bucket(name: str) -> S3Store:
        return S3Store(
            name,
            region=region,
            endpoint=endpoint,
            virtual_hosted_style_request=False,
            credential_provider=provider,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "default_headers": {} if bucket_owner is None else {"x-amz-expected-bucket-owner": bucket_owner},
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=READ_TIMEOUT_S),
            },
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=60)},
        )

    return Storage(s3=s3, open_bucket=open_bucket)


def open_s3(session: boto3.Session, *, bucket_owner: str | None = None) -> "S3Client":
    """Opens an S3 client, every call of which names the owner of the buckets, if there is one."""
    # Path style works everywhere: on AWS, emulators, MinIO and VPC endpoints.
    s3 = session.client("s3", config=_config(path_style=True))
    _refuse_cut_answers(s3)
    if bucket_owner is not None:
        s3.meta.events.register("before-parameter-build.s3", _expecting(bucket_owner))
    return s3


def open_sqs(session: boto3.Session) -> "SQSClient":
    """Opens an SQS client, whose read timeout is longer than the longest poll."""
    sqs = session.client("sqs", config=_config(path_style=False))
    _refuse_cut_answers(sqs)
    return sqs


def open_lease_sqs(session: boto3.Session, *, limit_s: float) -> "SQSClient":
    """Opens an SQS client for the heartbeat of a lease: one attempt of ``limit_s`` seconds, half of them to connect.

    A call that is never answered then costs no more than that. The caller tries again; the SDK does not.
    """
    short = Config(
        retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=limit_s / 2, read_timeout=limit_s / 2
    )
    return session.client("sqs", config=_config(path_style=False).merge(short))


def open_sns(session: boto3.Session) -> "SNSClient":
    """Opens an SNS client."""
    sns = session.client("sns", config=_config(path_style=False))
    _refuse_cut_answers(sns)
    return sns


def open_events(session: boto3.Session) -> "EventBridgeClient":
    """Opens an EventBridge client."""
    events = session.client("events", config=_config(path_style=False))
    _refuse_cut_answers(events)
    return events


def open_session() -> boto3.Session:
    """Opens the default session. Raises ValueError, with the next step, where there is no region or no credentials."""
    # boto3 alone among the SDKs reads AWS_DEFAULT_REGION but not AWS_REGION.
    try:
        session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        found = session.get_credentials()
    except BotoCoreError as error:
        raise ValueError(f"The AWS settings cannot be used: {error}") from error
    lacking = [] if session.region_name else ["No AWS region. Set AWS_REGION, or the region of your AWS profile."]
    if found is None:
        lacking.append("No AWS credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if lacking:
        raise ValueError("\n".join(lacking))
    return session


def _expecting(bucket_owner: str) -> Callable[..., None]:
    """Returns a handler that adds the owner to every operation that takes one."""

    def add(params: dict[str, Any], model: "OperationModel", **_: Any) -> None:  # noqa: ANN401 - botocore's
        shape = model.input_shape
        for name in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):  # the second one: of a copy
            if shape is not None and name in shape.members:
                params.setdefault(name, bucket_owner)

    return add


def _refuse_cut_answers(client: "BaseClient") -> None:
    """Makes an answer that is cut off within its headers an error, as it is within its body.

    ``http.client`` takes the end of the connection for the end of the headers. What is left would be a success without
    metadata, or a listing without objects.
    """
    client.meta.events.register("before-parse", _check_headers)


def _check_headers(
    operation_model: "OperationModel",
    response_dict: dict[str, Any],
    **_: Any,  # noqa: ANN401 - botocore's
) -> None:
    status, headers = response_dict["status_code"], response_dict["headers"]
    is_object = operation_model.has_streaming_output and status < 300  # noqa: PLR2004
    needed = ("Content-Length", "ETag") if is_object else ()
    framed = status == 204 or "Content-Length" in headers or "Transfer-Encoding" in headers  # noqa: PLR2004
    if not framed or any(name not in headers for name in needed):
        raise ResponseStreamingError(error="the answer is cut off within its headers")

"""AWS clients with every choice pinned, so that an SDK upgrade cannot change how the worker retries or waits.

Only the entry points open clients, and pass them to everything else. Region, credentials and endpoint come from the
SDK's own settings: ``AWS_REGION``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, roles.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from worker.aws.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
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


def open_storage(session: boto3.Session) -> Storage:
    """Opens storage with the session's credentials, region and endpoint."""
    # Path style works everywhere: on AWS, emulators, MinIO and VPC endpoints.
    s3 = session.client("s3", config=_config(path_style=True))
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
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=READ_TIMEOUT_S),
            },
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=60)},
        )

    return Storage(s3=s3, open_bucket=open_bucket)


def open_sqs(session: boto3.Session) -> "SQSClient":
    """Opens an SQS client, whose read timeout is longer than the longest poll."""
    return session.client("sqs", config=_config(path_style=False))


def open_sns(session: boto3.Session) -> "SNSClient":
    """Opens an SNS client."""
    return session.client("sns", config=_config(path_style=False))


def open_events(session: boto3.Session) -> "EventBridgeClient":
    """Opens an EventBridge client."""
    return session.client("events", config=_config(path_style=False))


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

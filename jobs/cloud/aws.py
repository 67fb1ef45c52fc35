"""AWS clients by service name, and AWS's errors as messages with a next step.

How the clients retry is configured in ``worker.aws.clients``.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - not the one of Python, of which only some of these are
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
)
from botocore.parsers import ResponseParserError

from jobs.cloud.names import PUSH_AND_DEPLOY
from jobs.user_error import UserError
from worker.aws.clients import open_session
from worker.aws.failures import BOTO_ERRORS, CLOCK_CODES

if TYPE_CHECKING:
    import boto3

#: The type stubs know services only by literal names, and only those that are installed.
Client: TypeAlias = Any
#: Returns a client for a service name, from a boto3 session or from the embedded cloud.
Connect = Callable[[str], Client]

_QUOTA: Final = (
    "Request an increase under Service Quotas in the console (EC2: 'All G and VT Spot Instance Requests' and 'Running "
    "On-Demand G and VT instances', in vCPUs; SageMaker: 'TYPE for training job usage')."
)

_SEE: Final = "See infra/README.md."

#: Codes that say something about the credentials, whichever service answers. With any other, the service has no such
#: call, or a policy of its endpoint forbids it.
_REFUSED: Final = CLOCK_CODES | {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "MissingAuthenticationToken",
    "UnrecognizedClientException",
}
#: What botocore raises if no service answers, or not as a service of AWS. Its other errors are about the credentials.
_NO_ANSWER: Final = (ConnectionError, HTTPClientError, ResponseParserError)

#: A pattern for an error's code and message or for a job's status reason, and the next step. The first match counts.
_NEXT_STEPS: Final = (
    (r"ExpiredToken|token.*expired|RequestExpired", "Sign in again with 'aws sso login', or create new keys."),
    (
        r"InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch",
        "AWS does not know these keys. Check AWS_PROFILE.",
    ),
    (r"ResourceLimitExceeded|LimitExceeded|VcpuLimit|InstanceLimit|MaxSpotInstanceCountExceeded", _QUOTA),
    (
        r"ReservedConcurrentExecutions|unreserved",
        "A new account's quota is 10. Add --parameter ReserveConcurrency=false.",
    ),
    (
        r"CannotPull|ImageNotFound|RepositoryNotFound|manifest.*(unknown|not found)|image.*not (exist|found)",
        PUSH_AND_DEPLOY,
    ),
    (r"(?i)job ?queue.*(not|exist|invalid)|job ?definition.*(not|exist|invalid)", PUSH_AND_DEPLOY),
    (r"(?i)stack.*does not exist", PUSH_AND_DEPLOY),
    (
        r"(?i)assume.*role|role.*(not|cannot|invalid|exist)|Unable to assume|PassRole",
        f"A role is missing. {PUSH_AND_DEPLOY}",
    ),
    (
        r"AccessDenied|UnauthorizedOperation|not authorized",
        "Your user or role lacks this permission. Ask the account's administrator to grant it.",
    ),
    (r"NoSuchBucket", "The bucket does not exist in this region. Check AWS_REGION."),
    (r"OutOfMemory|OOM|exit.*137", "The machine ran out of memory. Use a larger machine or a smaller --image-size."),
    (
        r"INSUFFICIENT_INSTANCE_CAPACITY|InsufficientInstanceCapacity|CapacityError",
        "AWS has no capacity right now. Try again later, or allow more instance types or zones.",
    ),
    (r"MISCONFIGURATION", "No machine of the stack is large enough, or MaximumVcpus is too small."),
    (r"Host EC2.*terminated", "Spot took the machine back too often. Use on-demand machines, or try again later."),
    (r"(?i)already exists|ResourceInUse", "The name is taken. Choose another --name."),
    (r"Throttl|TooManyRequests|Rate exceeded", "AWS is throttling requests. Try again in a minute."),
)


def open_aws() -> Connect:
    """Connects with the default session. Raises ValueError if the region or the credentials are missing."""
    make: Any = open_session().client
    return cast("Connect", make)


class Unidentified(UserError):
    """Nobody says who the credentials belong to, but nobody has refused them either."""


def caller(session: "boto3.Session") -> str:
    """Returns who the credentials belong to: an ARN.

    Raises UserError if there are none, if AWS refuses them, or if nothing answers at the address of all services, as
    when an emulator has ended; and Unidentified if only this service cannot be asked, as in a VPC without an endpoint
    for it, or does not exist, as with other servers that resemble S3 and SQS.

    Needs no permission: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
    """
    once = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
    sts: Client = session.client("sts", config=once)
    try:
        return str(sts.get_caller_identity()["Arn"])
    except BOTO_ERRORS as error:
        found = as_user_error(error, "Signing in to AWS")
        if isinstance(error, ClientError):
            is_refused = error.response.get("Error", {}).get("Code") in _REFUSED
        else:
            is_refused = not isinstance(error, _NO_ANSWER) or _share_an_address(session, sts)
        raise (found if is_refused else Unidentified(str(found))) from error


def _share_an_address(session: "boto3.Session", sts: Client) -> bool:
    return bool(session.client("sqs").meta.endpoint_url == sts.meta.endpoint_url)


def next_step(text: str) -> str | None:
    """Returns the next step for an error or a reason that AWS gave, if one is known."""
    return next((step for pattern, step in _NEXT_STEPS if re.search(pattern, text)), None)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns AWS errors within the block into UserErrors. ``doing`` says what was tried, as in "Submitting the job"."""
    try:
        yield
    except BOTO_ERRORS as error:
        raise as_user_error(error, doing) from error


def as_user_error(error: Exception, doing: str) -> UserError:
    """Returns one of ``BOTO_ERRORS`` as a message with a next step."""
    if isinstance(error, NoCredentialsError):
        return UserError(f"{doing} needs AWS credentials. Run 'aws configure sso', or set AWS_PROFILE. {_SEE}")
    if isinstance(error, NoRegionError):
        return UserError(f"{doing} needs a region. Set AWS_REGION. {_SEE}")
    if isinstance(error, EndpointConnectionError):
        return UserError(f"{doing} failed: no response. Check the region and the network. {error}")
    message = str(error)
    if isinstance(error, ClientError):
        detail = error.response.get("Error", {})
        message = f"{detail.get('Code', '')}: {detail.get('Message', '')}".strip(": ")
    step = next_step(message)
    return UserError(" ".join(filter(None, [f"{doing} failed. AWS says: {message.rstrip('.')}.", step])))

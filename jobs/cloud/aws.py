"""Clients of any AWS service, by name, and what AWS's errors mean to a person. Retries: ``worker.aws.clients``."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError

from jobs.user_error import UserError
from worker.aws.clients import open_session

#: The type stubs know services by their literal names alone, and only those that were asked for.
Client: TypeAlias = Any
#: A client by its service's name: of a boto3 session, or of the embedded cloud.
Connect = Callable[[str], Client]


def open_aws() -> Connect:
    """Of the default session. Raises ValueError where there is no region, or there are no credentials."""
    make: Any = open_session().client
    return cast("Connect", make)


_DEPLOY: Final = "Deploy first: twofold cloud push, then twofold cloud deploy."
_PUSH: Final = "Push it first: twofold cloud push, then twofold cloud deploy."
_QUOTA: Final = (
    "Ask for more under Service Quotas in the console (EC2: 'All G and VT Spot Instance Requests' and 'Running "
    "On-Demand G and VT instances', in processors; SageMaker: '<type> for training job usage')."
)

#: What is said, and the next step: the first that fits. Of an error's code and message, or of a job's own reason.
_NEXT_STEPS: Final = (
    (r"ExpiredToken|token.*expired|RequestExpired", "Sign in again: aws sso login, or new keys."),
    (
        r"InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch",
        "AWS does not know these keys: see AWS_PROFILE.",
    ),
    (r"ResourceLimitExceeded|LimitExceeded|VcpuLimit|InstanceLimit|MaxSpotInstanceCountExceeded", _QUOTA),
    (r"ReservedConcurrentExecutions|unreserved", "A new account's quota is 10: --parameter ReserveConcurrency=false."),
    (r"CannotPull|ImageNotFound|RepositoryNotFound|manifest.*(unknown|not found)|image.*not (exist|found)", _PUSH),
    (r"(?i)job ?queue.*(not|exist|invalid)|job ?definition.*(not|exist|invalid)", _DEPLOY),
    (r"(?i)stack.*does not exist", _DEPLOY),
    (r"(?i)assume.*role|role.*(not|cannot|invalid|exist)|Unable to assume|PassRole", f"A role is missing. {_DEPLOY}"),
    (
        r"AccessDenied|UnauthorizedOperation|not authorized",
        "Your own user or role lacks this right; ask who runs the account.",
    ),
    (r"NoSuchBucket", "There is no such bucket in this region: see AWS_REGION."),
    (r"OutOfMemory|OOM|exit.*137", "The machine's memory was used up: a larger one, or a smaller --image-size."),
    (
        r"INSUFFICIENT_INSTANCE_CAPACITY|InsufficientInstanceCapacity|CapacityError",
        "AWS has none to give: try later, or more --instance types or zones.",
    ),
    (r"MISCONFIGURATION", "No machine of the stack is large enough, or MaximumVcpus is too small."),
    (r"Host EC2.*terminated", "Spot took the machine back, more often than is tried: on demand, or later."),
    (r"(?i)already exists|ResourceInUse", "There is one of that name: choose another --name."),
    (r"Throttl|TooManyRequests|Rate exceeded", "AWS asks to slow down: try again in a minute."),
)


def next_step(text: str) -> str | None:
    """The next step for what AWS said, where one is known."""
    return next((step for pattern, step in _NEXT_STEPS if re.search(pattern, text)), None)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Errors of AWS within the block become UserErrors; ``doing`` is what was tried, as in "Submitting the job"."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise in_words(error, doing) from error


def in_words(error: ClientError | BotoCoreError, doing: str) -> UserError:
    """The error as one that a person can act on."""
    if isinstance(error, NoCredentialsError):
        return UserError(f"{doing} needs AWS credentials: aws configure sso, or set AWS_PROFILE.")
    if isinstance(error, NoRegionError):
        return UserError(f"{doing} needs a region: set AWS_REGION.")
    if isinstance(error, EndpointConnectionError):
        return UserError(f"{doing}: no answer. Is the region right, and the network there? {error}")
    said = str(error)
    if isinstance(error, ClientError):
        detail = error.response.get("Error", {})
        said = f"{detail.get('Code', '')}: {detail.get('Message', '')}".strip(": ")
    return UserError(" ".join(filter(None, [f"{doing} failed. AWS says: {said.rstrip('.')}.", next_step(said)])))

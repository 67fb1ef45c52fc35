"""Clients of any AWS service, by name. What is a decision about retries or time-outs stands in ``worker.aws.clients``."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from worker.aws.clients import open_session

#: The type stubs know services by their literal names alone, and only those that were asked for.
Client: TypeAlias = Any
#: A client by its service's name: of a boto3 session, or of the embedded cloud.
Connect = Callable[[str], Client]


def open_aws() -> Connect:
    """Of the default session. Raises ValueError where there is no region, or there are no credentials."""
    make: Any = open_session().client
    return cast("Connect", make)

"""The cost of a million images, from measurements and AWS's list prices.

Prices in us-east-1 in USD, without the free tier: https://aws.amazon.com/lambda/pricing/,
https://aws.amazon.com/fargate/pricing/, https://aws.amazon.com/s3/pricing/, https://aws.amazon.com/sqs/pricing/, as
published in 2025. Storage, logs and uploading the images are not included.
"""

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from worker.batch.cost import (
    LAMBDA_USD_PER_GB_S,
    LAMBDA_USD_PER_REQUEST,
    S3_USD_PER_GET,
    S3_USD_PER_PUT,
    SQS_USD_PER_REQUEST,
)

_MILLION: Final = 1_000_000
#: The memory that comes with one vCPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
_LAMBDA_GB: Final = 1.769
_LAMBDA_ARM_USD_PER_GB_S: Final = 0.0000133334
#: One vCPU and 2 GB of a Fargate task, per second.
_FARGATE_X86_USD_PER_S: Final = (0.04048 + 2 * 0.004445) / 3600
_FARGATE_ARM_USD_PER_S: Final = (0.03238 + 2 * 0.00356) / 3600
#: Images per request: a shard, as 'twofold batch submit' makes them.
_PART: Final = 500
#: Requests per part: its CSV and its report, the reads, and receive, delete and send of its message.
_PUTS, _GETS, _SQS = 3, 4, 3


@dataclass(frozen=True)
class Line:
    """One way to run the worker, and the cost of a million images."""

    name: str
    compute_usd: float

    @property
    def usd(self) -> float:
        """The total cost."""
        return self.compute_usd + requests_usd()


def requests_usd() -> float:
    """Returns the cost of reading a million objects and of the writes and messages, which is the same for all."""
    parts = _MILLION / _PART
    return (_MILLION + parts * _GETS) * S3_USD_PER_GET + parts * (_PUTS * S3_USD_PER_PUT + _SQS * SQS_USD_PER_REQUEST)


def lines(*, cpu_ms_per_image: float, peer_cpu_ms_per_image: float) -> list[Line]:
    """Returns the bill for processor time on one vCPU, without waiting times, if arm64 is as fast as this machine."""
    ours_s, peer_s = (ms * _MILLION / 1000 for ms in (cpu_ms_per_image, peer_cpu_ms_per_image))
    calls = _MILLION / _PART * LAMBDA_USD_PER_REQUEST
    return [
        Line("ours, Lambda arm64", ours_s * _LAMBDA_GB * _LAMBDA_ARM_USD_PER_GB_S + calls),
        Line("ours, Lambda x86", ours_s * _LAMBDA_GB * LAMBDA_USD_PER_GB_S + calls),
        Line("ours, Fargate arm64", ours_s * _FARGATE_ARM_USD_PER_S),
        Line("ours, Fargate x86", ours_s * _FARGATE_X86_USD_PER_S),
        Line("peer, Lambda x86", peer_s * _LAMBDA_GB * LAMBDA_USD_PER_GB_S + calls),
    ]


def show(bill: list[Line]) -> None:
    """Prints the table."""
    table = Table("a million images", title="USD, list prices of us-east-1")
    for title in ("compute", "reading, writing, messages", "together"):
        table.add_column(title, justify="right")
    for line in bill:
        table.add_row(line.name, f"{line.compute_usd:.3f}", f"{requests_usd():.3f}", f"{line.usd:.2f}")
    Console(highlight=False).print(table)

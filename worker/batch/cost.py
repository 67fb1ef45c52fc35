"""What classifying costs on AWS, estimated: the published prices of us-east-1, and a machine that is named.

In USD, as published in 2024 and written down on 2026-11-24; the pages have today's:
https://aws.amazon.com/lambda/pricing/ (x86), https://aws.amazon.com/s3/pricing/ (Standard),
https://aws.amazon.com/sqs/pricing/ (standard queues). No free tier, no discount, and no data transfer: within a region
there is none.
"""

from typing import Final

LAMBDA_USD_PER_GB_S: Final = 0.0000166667
LAMBDA_USD_PER_REQUEST: Final = 0.20 / 1e6
S3_USD_PER_GET: Final = 0.0004 / 1e3
S3_USD_PER_PUT: Final = 0.005 / 1e3
SQS_USD_PER_REQUEST: Final = 0.40 / 1e6

#: What two processors of a Lambda come with: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
WORKER_GB: Final = 3.538
#: Of a worker with two processors, from storage to the CSV: 406 photographs a second, as the README's table has it.
MS_PER_IMAGE: Final = 2.5
#: Of a part: its CSV, failed rows, shard, marker looked for, list of parts; receive, delete and send of its message.
_PUTS, _GETS, _SQS = 3, 4, 3

ASSUMES: Final = (
    f"AWS list prices of us-east-1 in 2024, workers on Lambda with {WORKER_GB} GB (two processors), "
    "storage and training left out"
)


def estimated_s(images: int) -> float:
    """Seconds of one worker with two processors."""
    return images * MS_PER_IMAGE / 1e3


def usd(*, images: int, parts: int, worker_s: float) -> float:
    """The price of so many worker seconds and all requests that go with them."""
    compute = worker_s * WORKER_GB * LAMBDA_USD_PER_GB_S + parts * LAMBDA_USD_PER_REQUEST
    requests = (images + parts * _GETS) * S3_USD_PER_GET + parts * (_PUTS * S3_USD_PER_PUT + _SQS * SQS_USD_PER_REQUEST)
    return compute + requests

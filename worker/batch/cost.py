"""An estimate of what classifying costs on AWS, in USD.

The list prices are those of us-east-1 as published in 2024, written down on 2026-11-24. For current ones see
https://aws.amazon.com/lambda/pricing/ (x86), https://aws.amazon.com/s3/pricing/ (Standard) and
https://aws.amazon.com/sqs/pricing/ (standard queues). They include no free tier and no discounts. Data transfer is
left out: within a region it is free.
"""

from typing import Final

LAMBDA_USD_PER_GB_S: Final = 0.0000166667
LAMBDA_USD_PER_REQUEST: Final = 0.20 / 1e6
S3_USD_PER_GET: Final = 0.0004 / 1e3
S3_USD_PER_PUT: Final = 0.005 / 1e3
SQS_USD_PER_REQUEST: Final = 0.40 / 1e6

#: The memory of a Lambda with two processors: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
WORKER_GB: Final = 3.538
#: From storage to the CSV, on a worker with two processors: 406 photographs a second on an Intel Xeon. The machine of
#: the table in worker/README.md is slower.
MS_PER_IMAGE: Final = 2.5
#: Requests for a part: write its CSV and failed rows, read its shard, check for it and, twice, for a marker, list the
#: parts; receive, delete and send its message.
_PUTS, _GETS, _SQS = 3, 5, 3

ASSUMES: Final = (
    f"AWS list prices of us-east-1 in 2024, workers on Lambda with {WORKER_GB} GB (two processors), "
    "storage and training left out"
)


def estimated_s(images: int) -> float:
    """Returns the seconds that one worker with two processors needs."""
    return images * MS_PER_IMAGE / 1e3


def usd(*, images: int, parts: int, worker_s: float) -> float:
    """Returns the price of the worker's seconds and of all requests for these images and parts."""
    compute = worker_s * WORKER_GB * LAMBDA_USD_PER_GB_S + parts * LAMBDA_USD_PER_REQUEST
    requests = (images + parts * _GETS) * S3_USD_PER_GET + parts * (_PUTS * S3_USD_PER_PUT + _SQS * SQS_USD_PER_REQUEST)
    return compute + requests

"""Metrics as log lines in CloudWatch's embedded metric format: of each Lambda call, and of each message of a loop.

CloudWatch finds them in any log group that they are sent to, and needs no other call:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Generation_PutLogEvents.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from worker.dispatch import Done, Outcome
from worker.errors import Reject
from worker.scoring.pipeline import Stages

NAMESPACE: Final = "Twofold"

_COUNTS: Final = ("Requests", "RejectedRequests", "RetriedRequests", "Images", "FailedImages")


class Meter:
    """The counts of a call, or of a message. ``cold`` marks the first one of a process, which includes its start."""

    def __init__(self, *, function: str, request_id: str, cold: bool) -> None:
        self._function = function
        self._request_id = request_id
        self._figures = Counter({"ColdStart": int(cold)} | dict.fromkeys(_COUNTS, 0))
        self._failed_images: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()

    def count(self, outcome: Outcome) -> None:
        """Counts the outcome of one message."""
        self._figures["Requests"] += 1
        if isinstance(outcome, Done):
            for report in outcome.reports:
                self._figures["Images"] += report.rows
                self._figures["FailedImages"] += report.failed
                self._failed_images.update(report.errors)
        elif isinstance(outcome, Reject):
            self._figures["RejectedRequests"] += 1
            self._rejected[outcome.code.value] += 1
        else:
            self._figures["RetriedRequests"] += 1

    def lines(self, *, now_ms: int, stages: Mapping[str, float], start_ms: float | None) -> Iterator[str]:
        """Yields a line for the call, and one for each error code.

        ``stages`` has milliseconds by stage; ``start_ms`` is the time of a cold start, or None for a warm call.
        """
        times = {f"{stage.capitalize()}Ms": round(spent, 3) for stage, spent in stages.items()}
        if start_ms is not None:
            times["ColdStartMs"] = round(start_ms, 3)
        units = dict.fromkeys(self._figures, "Count") | dict.fromkeys(times, "Milliseconds")
        yield self._line(now_ms, dict(self._figures) | times, units, {})
        for name, codes in (("FailedImages", self._failed_images), ("RejectedRequests", self._rejected)):
            for code, count in codes.items():
                yield self._line(now_ms, {name: count}, {name: "Count"}, {"ErrorCode": code})

    def _line(
        self, now_ms: int, figures: Mapping[str, float], units: Mapping[str, str], dimensions: Mapping[str, str]
    ) -> str:
        described = {
            "Namespace": NAMESPACE,
            "Dimensions": [["Function", *dimensions]],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
        }
        document: dict[str, Any] = {
            "_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [described]},
            "Function": self._function,
            "requestId": self._request_id,  # not a dimension, which would make a metric for every call
            **dimensions,
            **figures,
        }
        return json.dumps(document)


class LoopMeter:
    """Prints the metrics of each message of a loop, as a function prints those of each call.

    ``name`` stands in the place of the function's name, so that one dashboard shows both. The start took ``start_ms``,
    which is reported once.
    """

    def __init__(self, *, name: str, stages: Stages, start_ms: float) -> None:
        self._name = name
        self._stages = stages
        self._start_ms: float | None = start_ms
        stages.take()  # what the first score of the model took

    def count(self, message_id: str, outcome: Outcome) -> None:
        """Prints the lines of a message that has an outcome. Nothing that can happen to standard output is raised."""
        start_ms, self._start_ms = self._start_ms, None
        meter = Meter(function=self._name, request_id=message_id, cold=start_ms is not None)
        meter.count(outcome)
        for line in meter.lines(now_ms=time.time_ns() // 1_000_000, stages=self._stages.take(), start_ms=start_ms):
            with suppress(OSError):
                print(line, flush=True)  # a pipe is written in blocks otherwise, and a worker ends without a flush

"""The metrics of a Lambda call, as log lines in CloudWatch's embedded metric format. CloudWatch needs no API call.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.dispatch import Done, Outcome
from worker.errors import Reject

NAMESPACE: Final = "Twofold"

_COUNTS: Final = ("Requests", "RejectedRequests", "RetriedRequests", "Images", "FailedImages")


class Meter:
    """The counts of one call. ``cold`` marks the first call of a process, which includes its start."""

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

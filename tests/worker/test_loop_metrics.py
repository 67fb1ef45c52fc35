"""Metrics of a worker that is no Lambda: the same lines, under a name of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Bench
from tests.infra.templates import load
from tests.worker.test_serverless import FakeContext, RecordingQueue, build, event
from worker.cloudwatch import LoopMeter
from worker.dispatch import Done
from worker.scoring.pipeline import Stages


def _drain(bench: Bench, **settings: str) -> list[dict[str, Any]]:
    """What a worker, a process of its own, prints to standard output until the queue is empty."""
    own = {"TWOFOLD_QUEUE_URL": bench.queues.requests_url, "TWOFOLD_OUTPUT_URI": bench.output_uri}
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--drain"],
        env=os.environ | bench.environment | own | settings,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _names(line: dict[str, Any]) -> set[str]:
    (described,) = line["_aws"]["CloudWatchMetrics"]
    assert described["Namespace"] == "Twofold"
    return {metric["Name"] for metric in described["Metrics"]}


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """The metrics of the stack's dashboard."""
    body, _ = load("worker.yaml")["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return set(re.findall(r'\["Twofold", "(\w+)", "Function", "\$\{Worker\}"\]', body))


def test_a_loop_prints_what_the_dashboard_shows(
    ministack_bench: Bench, models: Path, digit_images: Path, shown: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """For each message a line with the metrics of a function's call, and one for each error code."""
    bench = ministack_bench
    image = bench.put("a.png", next(digit_images.rglob("*.png")).read_bytes())
    model_uri = bench.put_bundle(models)
    for job_id in ("one", "two"):
        bench.send({"schema_version": 1, "job_id": job_id, "images": [image, "no URI"]})
    lines = _drain(bench, TWOFOLD_METRICS="pets", TWOFOLD_MODEL_URI=model_uri)
    whole = [line for line in lines if "ErrorCode" not in line]
    by_code = [line for line in lines if "ErrorCode" in line]
    assert [(line["Images"], line["FailedImages"], line["ColdStart"]) for line in whole] == [(2, 1, 1), (2, 1, 0)]
    assert [(line["ErrorCode"], line["FailedImages"]) for line in by_code] == [("bad_source_ref", 1)] * 2
    assert {line["Function"] for line in lines} == {"pets"}
    assert len({line["requestId"] for line in whole}) == 2
    assert shown == {"Images", "FailedImages", "FetchMs", "DecodeMs", "ScoreMs", "WriteMs"}
    assert [shown - _names(line) for line in whole] == [set(), set()]
    serverless, _ = build(RecordingQueue())
    serverless.handle(event("done"), FakeContext())
    call = json.loads(capsys.readouterr().out)
    assert _names(call) - {"ColdStartMs"} <= _names(whole[1])
    assert "ColdStartMs" in _names(whole[0]) & _names(call)
    described, expected = (one["_aws"]["CloudWatchMetrics"][0]["Dimensions"] for one in (whole[0], call))
    assert described == expected == [["Function"]]


def test_without_a_name_a_loop_prints_nothing(ministack_bench: Bench) -> None:
    """Standard output stays empty."""
    ministack_bench.send("not a request")
    assert _drain(ministack_bench) == []


def test_a_closed_output_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are not worth a request."""

    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    LoopMeter(name="pets", stages=Stages(), start_ms=1.0).count("id", Done("done"))


def test_the_tasks_of_the_stack_file_their_metrics_where_its_dashboard_looks() -> None:
    """Under the name of the stack; a function's are under its own name."""
    resources = load("worker.yaml")["Resources"]
    (container,) = resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    (name,) = [entry["Value"] for entry in container["Environment"] if entry["Name"] == "TWOFOLD_METRICS"]
    _, names = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    assert names["Worker"] == {"Fn::If": ["OnLambda", {"Ref": "Function"}, name]}
    assert container["LogConfiguration"]["LogDriver"] == "awslogs"

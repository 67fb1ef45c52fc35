"""A dead-letter queue with requests of several jobs of one name: in another output, or cancelled since."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.batch.dead_letters import DeadLetters
from tests.conftest import Bench
from tests.desk import Desk
from tests.jobs.commands.conftest import Twofold
from worker.contract import ClassifyRequest


@pytest.fixture
def endpoint(ministack: str) -> str:
    """One emulator: no promise here is one of queues."""
    return ministack


def _refuse(bench: Bench, request: ClassifyRequest) -> None:
    reason: Any = {"error_code": {"DataType": "String", "StringValue": "bad_model"}}
    bench.sqs.send_message(
        QueueUrl=bench.queues.dead_letter_url,
        MessageBody=request.model_dump_json(exclude_none=True),
        MessageAttributes=reason,
    )


def _state(twofold: Twofold, *options: str) -> tuple[int, str]:
    status, output = twofold("status", "june", "--json", *options)
    return status, json.loads(output)["state"]


def _submit(twofold: Twofold, folder: Path, name: str) -> None:
    (folder / f"{name}.csv").write_text(f"source_ref\n{name}\n")
    status, output = twofold("submit", str(folder / f"{name}.csv"), "--job-id", "june")
    assert status == 0, output


def _request(desk: Desk) -> ClassifyRequest:
    job = desk.record("june").job()
    assert job is not None
    return job.request(0, shard_uri=desk.folder("june").shard(0))


def test_the_refused_request_of_another_output_is_neither_shown_nor_sent_again_nor_deleted(
    bench: Bench, desk: Desk, twofold: Twofold, tmp_path: Path
) -> None:
    """Two teams share the queues, and both have a job june. With another spelling of the prefix, it is the same one."""
    _submit(twofold, tmp_path, "new")
    ours = _request(desk)
    theirs = ours.model_copy(update={"output_uri": f"s3://{bench.bucket}/other/"})
    _refuse(bench, theirs)
    assert _state(twofold) == (0, "waiting")
    assert [job["state"] for job in json.loads(twofold("status", "--json")[1])] == ["waiting"]
    assert "june is not complete yet" in twofold("redrive", "june")[1]
    _refuse(bench, ours.model_copy(update={"output_uri": bench.output_uri.rstrip("/")}))
    assert _state(twofold) == (1, "stuck")
    assert twofold("cancel", "june")[0] == 0
    assert [letter["Body"] for letter in bench.dead_letters()] == [theirs.model_dump_json(exclude_none=True)]


def test_a_refused_request_that_names_no_output_is_of_the_default_one(
    bench: Bench, desk: Desk, twofold: Twofold, tmp_path: Path
) -> None:
    """As the workers read it."""
    _submit(twofold, tmp_path, "new")
    _refuse(bench, _request(desk).model_copy(update={"output_uri": None}))
    assert _state(twofold) == (1, "stuck")
    assert twofold("cancel", "june")[0] == 0
    assert bench.dead_letters() == []


def test_a_request_of_a_cancelled_job_that_is_refused_late_does_not_make_the_next_one_stuck(
    bench: Bench, desk: Desk, twofold: Twofold, tmp_path: Path
) -> None:
    """Or that was not among the letters that the cancelling read. It is sent again by nobody."""
    _submit(twofold, tmp_path, "old")
    request = _request(desk)
    assert twofold("cancel", "june")[0] == 0
    _submit(twofold, tmp_path, "new")
    _refuse(bench, request)
    assert _state(twofold) == (0, "waiting")
    assert [job["state"] for job in json.loads(twofold("status", "--json")[1])] == ["waiting"]
    assert "june is not complete yet" in twofold("redrive", "june")[1]
    _refuse(bench, _request(desk))
    assert _state(twofold) == (1, "stuck")


def test_the_letters_of_a_job_without_a_folder_are_found_whatever_their_edition(bench: Bench, desk: Desk) -> None:
    """Nothing says which one it was."""
    request = ClassifyRequest(schema_version=1, job_id="june", images=("a",), edition="0a")
    _refuse(bench, request)
    letters = DeadLetters(sqs=bench.sqs, url=bench.queues.dead_letter_url)
    assert [letter.requests for letter in letters.of(desk.folder("june"), None)] == [(request,)]

"""The owner of the buckets, named in every request that is sent. No emulator enforces it, so the requests are read."""

import hashlib
import hmac
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from jobs.batch.client import BatchClient
from jobs.data.sources import open_source
from jobs.progress import Reporter
from jobs.store import open_store
from tests.conftest import Bench
from tests.worker.aws.one_answer import SECRET_KEY, http, serving
from worker.aws.clients import open_session, open_storage
from worker.aws.storage import Storage
from worker.errors import Reject

OWNER: Final = "123456789012"
HEADER: Final = "x-amz-expected-bucket-owner"
DATE: Final = "Last-Modified: Tue, 24 Nov 2026 14:05:09 GMT"


def _calls(bench: Bench) -> dict[str, Callable[[Storage], object]]:
    """Every public method of a storage, by its name."""
    uri, folder = bench.put("a/b", b"x"), f"s3://{bench.bucket}/a/"
    bench.put("a//by-boto3", b"x")
    return {
        "fetch": lambda storage: storage.fetch(f"{folder}/by-boto3", max_bytes=9),
        "find": lambda storage: storage.find(uri, max_bytes=9),
        "folders": lambda storage: list(storage.folders(folder)),
        "list": lambda storage: list(storage.list(folder)),
        "look": lambda storage: storage.look(uri),
        "metadata": lambda storage: storage.metadata(uri),
        "overwrite": lambda storage: storage.overwrite(uri, b"x", etag="none", content_type="text/plain"),
        "read": lambda storage: storage.read(f"{folder}/by-boto3", max_bytes=9),
        "read_if_changed": lambda storage: storage.read_if_changed(f"{folder}/by-boto3", max_bytes=9, known=None),
        "read_range": lambda storage: storage.read_range(uri, start=0, end=1, etag=None),
        "remove": lambda storage: storage.remove(f"{folder}none"),
        "replace": lambda storage: storage.replace(uri, b"y", seen=b"x", content_type="text/plain"),
        "stream": lambda storage: list(storage.stream(uri)),
        "write": lambda storage: storage.write(uri, b"z", content_type="text/plain"),
        "write_once": lambda storage: storage.write_once(uri, b"z", content_type="text/plain", metadata={}),
    }


@pytest.fixture
def sent(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[Storage, list[Any]]:
    """A storage that names the owner, and the requests that it sends."""
    ministack_bench.storage(monkeypatch)  # sets the environment
    requests: list[Any] = []
    storage = open_storage(open_session(), bucket_owner=OWNER)
    storage._s3.meta.events.register("before-send.s3", lambda request, **_: requests.append(request))
    return storage, requests


def test_every_call_names_the_owner_of_the_bucket(ministack_bench: Bench, sent: tuple[Storage, list[Any]]) -> None:
    """In a header that is signed: S3 refuses one that is not. Here boto3 reads, too; obstore does below."""
    storage, requests = sent
    calls = _calls(ministack_bench)
    methods = {name for name, _ in inspect.getmembers(Storage, inspect.isfunction) if not name.startswith("_")}
    assert calls.keys() == methods
    for name, call in calls.items():
        requests.clear()
        call(storage)
        assert requests, name
        assert {request.headers.get(HEADER) for request in requests} in ({OWNER}, {OWNER.encode()}), name
        assert all(HEADER in str(request.headers["Authorization"]) for request in requests), name


def _is_signed(request: str, *, header: str) -> bool:
    """Whether a header is signed, and the signature is that of Signature Version 4, worked out here once more."""
    start, *lines = request.split("\r\n")
    method, target, _ = start.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = re.search(r"Credential=\w+/(.+?), SignedHeaders=(.+?), Signature=(\w+)", headers["authorization"])
    assert found
    scope, names, signature = found.groups()
    canonical = [f"{name}:{headers[name]}" for name in names.split(";")]
    path, _, query = target.partition("?")
    parts = [method, path, query, *canonical, "", names, headers["x-amz-content-sha256"]]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    key = f"AWS4{SECRET_KEY}".encode()
    for step in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{digest}"):
        key = hmac.digest(key, step.encode(), "sha256")
    return header in names.split(";") and key.hex() == signature


def test_a_read_through_obstore_names_the_owner_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a header that is signed as well. Its default headers would be of no use if they were added afterwards."""
    with serving(http(200, "Content-Length: 1", 'ETag: "a"', DATE, body=b"x"), monkeypatch) as server:
        assert open_storage(open_session(), bucket_owner=OWNER).read("s3://shelter/a.jpg", max_bytes=9) == b"x"
        (request,) = server.requests
    assert "user-agent: object_store" in request
    assert f"{HEADER}: {OWNER}" in request
    assert _is_signed(request, header=HEADER)
    assert not _is_signed(request.replace(OWNER, "210987654321"), header=HEADER)


def test_without_the_setting_no_call_names_an_owner(ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of any account can be read that the worker's role may read."""
    ministack_bench.storage(monkeypatch)
    requests: list[Any] = []
    storage = open_storage(open_session())
    storage._s3.meta.events.register("before-send.s3", lambda request, **_: requests.append(request))
    storage.metadata(ministack_bench.put("a", b"x"))
    assert [HEADER in request.headers for request in requests] == [False]


def test_a_worker_and_all_commands_take_the_owner_from_their_setting(
    ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that looks for its model, a command that looks for a job, and one that reads a store or photographs."""
    setting = {"TWOFOLD_EXPECTED_BUCKET_OWNER": OWNER}
    with serving(http(404, "Content-Length: 0"), monkeypatch) as server:
        s3 = {"AWS_ENDPOINT_URL_S3": server.url, "TWOFOLD_MODEL_URI": "s3://shelter/models/pets/v1"}
        worker = ministack_bench.start_worker("--drain", **s3, **setting)
        _, log = worker.communicate(timeout=60)
        assert worker.returncode == 1, log
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Reject):
            BatchClient.open(output_uri="s3://shelter/out/").record("june").job()
        assert open_store("s3://shelter/models").read("pets/champion.json") is None
        with pytest.raises(Reject):
            open_source("s3://shelter/photographs/", tmp_path, Reporter())
    named = [f"{HEADER}: {OWNER}" in request.lower() for request in server.requests]
    assert named == [True, True, True, True], server.requests

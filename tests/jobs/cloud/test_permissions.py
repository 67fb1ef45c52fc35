"""Least privilege, both ways: the roles of the stacks allow every call that is made, and nothing that is not needed.

The calls are recorded: those of a worker with the settings of infra/worker.yaml, and those of a training job.
"""

import ast
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
from botocore import xform_name

from jobs.data.bucket import LargeObject, read_prefix
from jobs.store import open_buckets
from tests.calls import Call, read_calls, recorded
from tests.conftest import REPOSITORY, Bench
from tests.infra.permissions import REGION, Stack, Statement, allows
from tests.jobs.conftest import ResumedJob
from tests.jobs.data.image_folders import QUIET
from tests.worker.aws.test_notifications import SUMMARY
from worker.aws.clients import open_session
from worker.aws.notifications import open_notifier
from worker.aws.storage import Storage
from worker.bootstrap import open_dispatch, open_queue
from worker.consumer import Consumer, Stop
from worker.settings import WorkerSettings

Grant = tuple[str, str]

#: What AWS itself does with a role: writes logs, pulls the image.
#: https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html and
#: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html#sagemaker-roles-createtrainingjob-perms
_LOG: Final = "arn:aws:of-this-stack:::FunctionLog.Arn"
_REPOSITORY: Final = "arn:aws:of-this-stack:::TrainRepository.Arn"
_ACCOUNT: Final = "123456789012"  # moto's
_TRAINING_LOG: Final = f"arn:aws:logs:{REGION}:{_ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs"
_AWS_ITSELF: Final[dict[str, list[Grant]]] = {
    "FunctionRole": [("logs:CreateLogStream", _LOG), ("logs:PutLogEvents", _LOG)],
    "TaskRole": [],
    "JobRole": [],
    "SageMakerRole": [
        *((f"ecr:{name}", _REPOSITORY) for name in ("BatchCheckLayerAvailability", "BatchGetImage")),
        ("ecr:GetDownloadUrlForLayer", _REPOSITORY),
        ("ecr:GetAuthorizationToken", "*"),
        *((f"logs:{name}", _TRAINING_LOG) for name in ("CreateLogGroup", "CreateLogStream", "DescribeLogStreams")),
        ("logs:PutLogEvents", _TRAINING_LOG),
    ],
}

#: What would do harm or is not needed: other data, other queues, and every way to delete or to change the stack.
_OF_OTHERS: Final[list[Grant]] = [
    ("s3:GetObject", "arn:aws:s3:::of-others/images/a.jpg"),
    ("s3:GetObjectVersion", "arn:aws:s3:::of-others/images/a.jpg"),
    ("s3:PutObject", "arn:aws:s3:::of-others/predictions/a.csv"),
    ("s3:PutObjectTagging", "arn:aws:s3:::of-others/predictions/a.csv"),
    ("s3:DeleteObject", "arn:aws:s3:::of-others/checkpoints/a"),
    ("s3:ListBucket", "arn:aws:s3:::of-others"),
    ("s3:CreateBucket", "arn:aws:s3:::of-others"),
    ("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{_ACCOUNT}:of-others"),
    ("sqs:ReceiveMessage", f"arn:aws:sqs:{REGION}:{_ACCOUNT}:of-others"),
    ("sns:Publish", f"arn:aws:sns:{REGION}:{_ACCOUNT}:of-others"),
    ("events:PutEvents", f"arn:aws:events:{REGION}:{_ACCOUNT}:event-bus/of-others"),
    ("logs:CreateLogGroup", f"arn:aws:logs:{REGION}:{_ACCOUNT}:log-group:of-others"),
    ("logs:CreateLogStream", f"arn:aws:logs:{REGION}:{_ACCOUNT}:log-group:of-others"),
    ("logs:PutLogEvents", f"arn:aws:logs:{REGION}:{_ACCOUNT}:log-group:of-others"),
    ("ecr:BatchGetImage", f"arn:aws:ecr:{REGION}:{_ACCOUNT}:repository/of-others"),
    ("iam:PassRole", f"arn:aws:iam::{_ACCOUNT}:role/admin"),
    ("sts:AssumeRole", f"arn:aws:iam::{_ACCOUNT}:role/admin"),
    ("kms:Decrypt", f"arn:aws:kms:{REGION}:{_ACCOUNT}:key/of-others"),
    ("lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{_ACCOUNT}:function:of-others"),
]
#: On the objects and queues of the stack itself, for every role.
_TO_HARM: Final = {
    "s3": ("DeleteObject", "DeleteObjectVersion", "PutObjectAcl", "BypassGovernanceRetention"),
    "bucket": ("DeleteBucket", "PutBucketPolicy", "PutLifecycleConfiguration", "PutBucketVersioning"),
    "sqs": ("DeleteQueue", "PurgeQueue", "SetQueueAttributes", "AddPermission"),
    "sns": ("DeleteTopic", "Subscribe", "SetTopicAttributes"),
    "logs": ("DeleteLogGroup", "DeleteLogStream", "GetLogEvents"),
    "ecr": ("PutImage", "BatchDeleteImage", "DeleteRepository", "SetRepositoryPolicy"),
}


@dataclass(frozen=True)
class Case:
    """A role: its statements, the grants that it needs, and those that it must not have."""

    statements: list[Statement]
    needed: set[Grant]
    forbidden: set[Grant]

    def missing(self, statements: list[Statement]) -> set[Grant]:
        return {grant for grant in self.needed if not allows(statements, *grant)}

    def excess(self, statements: list[Statement]) -> set[Grant]:
        return {grant for grant in self.forbidden if allows(statements, *grant)}


@dataclass(frozen=True)
class Worker:
    """A worker that has done everything it can do, with the settings of the stack."""

    stack: Stack
    bench: Bench
    calls: list[Call]
    topic: str


@pytest.fixture(scope="module")
def worker(moto: str, bench_on: Callable[[str], Bench], models: Path, digit_images: Path) -> Worker:
    bench = bench_on(moto)
    with recorded() as calls, pytest.MonkeyPatch.context() as patch:
        for name, value in bench.environment.items():
            patch.setenv(name, value)
        session = open_session()
        topic = session.client("sns").create_topic(Name=bench.bucket)["TopicArn"]
        stack = _worker_stack(bench, topic)
        for name, value in stack.properties("Function")["Environment"]["Variables"].items():
            patch.setenv(name, value)
        patch.delenv("TWOFOLD_CACHE")
        _fill(bench, models, next(digit_images.rglob("*.png")).read_bytes())
        calls.clear()
        _work(WorkerSettings(), bench, session)
        open_notifier(session, topic.replace(":sns:", ":events:").replace(bench.bucket, "event-bus/jobs"))(SUMMARY)
    return Worker(stack, bench, calls, topic)


def _worker_stack(bench: Bench, topic: str) -> Stack:
    urls = {"RequestQueue": bench.queues.requests_url, "DeadLetterQueue": bench.queues.dead_letter_url}
    arns = {f"{name}.Arn": f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{url.rsplit('/', 1)[1]}" for name, url in urls.items()}
    named = {"Bucket": bench.bucket, "Bucket.Arn": f"arn:aws:s3:::{bench.bucket}", **urls, **arns}
    parameters = {"Model": "digits", "NotifyArn": topic, "ImagePrefix": f"{bench.bucket}-photos/in/"}
    return Stack("worker.yaml", parameters, named, account=_ACCOUNT)


def _fill(bench: Bench, models: Path, image: bytes) -> None:
    """Uploads a model, images here and in another bucket, and a list; and asks for all that a request can ask for."""
    photos = f"{bench.bucket}-photos"
    bench.put_bundle(models)
    bench.s3.put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})
    bench.s3.create_bucket(Bucket=photos)
    bench.s3.put_object(Bucket=photos, Key="in/b.png", Body=image)
    images = [bench.put("images/a.png", image), bench.put("images//a.png", image), f"s3://{photos}/in/b.png"]
    bench.send({"schema_version": 1, "job_id": "short", "images": [*images, f"s3://{bench.bucket}/images/none.png"]})
    listing = f"source_ref,camera\n{images[0]},north gate\n".encode()
    uri = bench.put("manifests/a.csv", listing)
    bench.send({"schema_version": 1, "job_id": "planned", "manifest": {"uri": uri}})
    bench.send({"schema_version": 1, "job_id": "prefix", "manifest": {"uri": f"s3://{bench.bucket}/images/"}})
    version = bench.s3.put_object(Bucket=bench.bucket, Key="inbox/a.csv", Body=listing)["VersionId"]
    event = {"bucket": {"name": bench.bucket}, "object": {"key": "inbox/a.csv", "versionId": version}}
    bench.send({"Records": [{"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": event}]})
    bench.send("not a request")


def _work(settings: WorkerSettings, bench: Bench, session: Any) -> None:
    """Answers everything, then gives a message back and renews it, as a worker does that has no time left."""
    queue = open_queue(settings, session)
    with open_dispatch(settings, session) as dispatch:
        Consumer(queue=queue, dispatch=dispatch, stop=Stop(grace_s=20)).run(drain=True)
    assert {row.error_code for row in bench.rows("short")} == {None, "not_found"}
    assert [letter["Body"] for letter in bench.dead_letters()] == ["not a request"]
    bench.send({"schema_version": 1, "job_id": "late", "images": ["s3://a-bucket/a.png"]})
    message = queue.receive(wait_s=1)
    assert message
    queue.renew(message)
    queue.release(message, delay_s=0)


@pytest.fixture(scope="module")
def cases(worker: Worker, resumed_job: ResumedJob, ministack: str, bench_on: Callable[[str], Bench]) -> dict[str, Case]:
    """Each role of the two stacks that runs code of this project."""
    bucket = f"arn:aws:s3:::{worker.bench.bucket}"
    needed = {grant for call in worker.calls for grant in call.grants(region=REGION, account=_ACCOUNT)}
    bus = {grant for grant in needed if grant[0] == "events:PutEvents"}
    forbidden = {
        *_OF_OTHERS,
        *((f"s3:{name}", f"{bucket}/{place}/a") for name, places in _KEPT_FROM.items() for place in places),
        *_harm(bucket, [f"{bucket}/predictions/a", f"{bucket}/models/a"]),
        *((f"sqs:{name}", arn) for name in _TO_HARM["sqs"] for arn in _queues(worker)),
        *((f"sqs:{name}", _queues(worker)[1]) for name in ("ReceiveMessage", "DeleteMessage")),
        *((f"sns:{name}", worker.topic) for name in _TO_HARM["sns"]),
        *((f"logs:{name}", _LOG) for name in _TO_HARM["logs"]),
    }
    found = {
        role: Case(worker.stack.statements(role), needed - bus | set(_AWS_ITSELF[role]), forbidden)
        for role in ("FunctionRole", "TaskRole")
    }
    return found | _training_cases(resumed_job, bench_on(ministack))


#: Prefixes of the bucket that a worker only reads, and those that are none of its business.
_KEPT_FROM: Final = {
    **dict.fromkeys(("PutObject", "PutObjectTagging"), ("images", "inbox", "manifests", "models", "datasets")),
    **dict.fromkeys(("GetObject", "GetObjectVersion"), ("datasets", "checkpoints")),
}


def _queues(worker: Worker) -> list[str]:
    names = (url.rsplit("/", 1)[1] for url in (worker.bench.queues.requests_url, worker.bench.queues.dead_letter_url))
    return [f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{name}" for name in names]


def _harm(bucket: str, objects: list[str]) -> Iterator[Grant]:
    yield from ((f"s3:{name}", found) for name in _TO_HARM["s3"] for found in objects)
    yield from ((f"s3:{name}", bucket) for name in _TO_HARM["bucket"])


def _training_cases(job: ResumedJob, bench: Bench) -> dict[str, Case]:
    bucket = f"arn:aws:s3:::{job.facts['bucket']}"
    needed = {
        (action, resource.replace(bench.bucket, job.facts["bucket"]))
        for call in [*read_calls(job.folder / "calls"), *_reading_data(bench)]
        for action, resource in call.grants(region=REGION, account=_ACCOUNT)
    }
    stack = Stack(
        "training.yaml",
        {"Image": "train@sha256:0", "BucketName": job.facts["bucket"]},
        {"JobPolicy": "JobPolicy"},
        account=_ACCOUNT,
    )
    forbidden = {
        *_OF_OTHERS,
        *(("s3:PutObject", f"{bucket}/{place}/a") for place in ("datasets", "images", "predictions")),
        *(("s3:GetObject", f"{bucket}/{place}/a") for place in ("images", "inbox", "manifests", "predictions")),
        *_harm(bucket, [f"{bucket}/models/a", f"{bucket}/datasets/a"]),
        ("s3:DeleteObjectVersion", f"{bucket}/checkpoints/a"),
        ("s3:PutObjectAcl", f"{bucket}/checkpoints/a"),
        ("s3:GetObjectVersion", f"{bucket}/models/a"),
        *((f"ecr:{name}", _REPOSITORY) for name in _TO_HARM["ecr"]),
        *((f"logs:{name}", _TRAINING_LOG) for name in _TO_HARM["logs"]),
    }
    return {
        role: Case(stack.statements(role), needed | set(_AWS_ITSELF[role]), forbidden)
        for role in ("JobRole", "SageMakerRole")
    }


def _reading_data(bench: Bench) -> list[Call]:
    """The calls that read a dataset below a prefix, and one in an archive."""
    uri = bench.put("datasets/pets/cats/a.png", b"x")
    with recorded() as calls, pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name, value in bench.environment.items():
            patch.setenv(name, value)
        storage = open_buckets()
        read_prefix(f"s3://{bench.bucket}/datasets/pets/", Path(folder), storage, QUIET)
        with LargeObject(uri, storage).open(0, None) as stream:
            list(stream.chunks)
    return calls


ROLES: Final = tuple(_AWS_ITSELF)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_allows_every_call_that_is_made(role: str, cases: dict[str, Case]) -> None:
    """On the very objects, queues and topics that it is made on."""
    case = cases[role]
    assert case.missing(case.statements) == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_denies_what_would_do_harm_or_is_not_needed(role: str, cases: dict[str, Case]) -> None:
    """Other prefixes, other people's buckets and queues, deleting, and changing the stack."""
    case = cases[role]
    assert case.excess(case.statements) == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_statement_of_a_role_is_needed(role: str, cases: dict[str, Case]) -> None:
    """Without it, or without any of its actions or resources, a call that is made would be denied."""
    case = cases[role]
    for place, statement in enumerate(case.statements):
        others = [*case.statements[:place], *case.statements[place + 1 :]]
        assert case.missing(others), statement
        for action in set(statement.actions) - _OTHER_TARGET:
            fewer = replace(statement, actions=tuple(name for name in statement.actions if name != action))
            assert case.missing([*others, fewer]), (statement.policy, action)
        for resource in statement.resources:
            fewer = replace(statement, resources=tuple(name for name in statement.resources if name != resource))
            assert case.missing([*others, fewer]), (statement.policy, resource)


#: The notification goes to a topic in these tests, and to a bus in the last one.
_OTHER_TARGET: Final = {"events:PutEvents"}


@pytest.mark.parametrize("role", ROLES)
def test_no_statement_of_a_role_can_be_widened_unnoticed(role: str, cases: dict[str, Case]) -> None:
    """To all actions, to those of its services, or to all resources: something would be allowed that must not be."""
    case = cases[role]
    for place, statement in enumerate(case.statements):
        others = [*case.statements[:place], *case.statements[place + 1 :]]
        services = tuple({f"{action.partition(':')[0]}:*" for action in statement.actions})
        wider = [replace(statement, actions=("*",)), replace(statement, actions=services)]
        if statement.resources != ("*",):  # ecr:GetAuthorizationToken supports no resource
            wider.append(replace(statement, resources=("*",)))
        for one in wider:
            assert case.excess([*others, one]), one


def test_a_bus_may_be_notified_instead_of_a_topic(worker: Worker) -> None:
    """Whichever NotifyArn names; and without one, neither."""
    (bus,) = {
        grant
        for call in worker.calls
        for grant in call.grants(region=REGION, account=_ACCOUNT)
        if call.operation == "PutEvents"
    }
    for arn, expected in ((bus[1], True), ("", False)):
        stack = Stack("worker.yaml", {"NotifyArn": arn}, {}, account=_ACCOUNT)
        assert allows(stack.statements("TaskRole"), *bus) is expected


def test_every_call_that_the_worker_can_make_was_recorded(worker: Worker) -> None:
    """By its source: each method of a client that is named in ``worker/aws``."""
    session = botocore.session.get_session()
    services = ("s3", "sqs", "sns", "events")
    known = {xform_name(name) for one in services for name in session.get_service_model(one).operation_names}
    named = {
        word
        for path in (REPOSITORY / "worker/aws").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for word in [getattr(node, "attr", None) or getattr(node, "value", None)]
        if isinstance(word, str) and word in known
    }
    recorded_calls = {xform_name(call.operation) for call in worker.calls}
    # The first is for commands; the second is not needed where TWOFOLD_DEAD_LETTER_URL is set, as in the stack.
    assert named - recorded_calls == {"delete_object", "get_queue_url"}
    assert recorded_calls <= named


def test_every_call_that_training_can_make_was_recorded(resumed_job: ResumedJob, ministack_bench: Bench) -> None:
    """By its source: each method of storage that is named in what ``twofold train run`` loads."""
    methods = {
        node.attr
        for file in _loaded_for_training()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("storage")
    }
    assert {"read", "write_once", "remove"} <= methods <= {name for name in vars(Storage) if name[0] != "_"}
    calls = [*read_calls(resumed_job.folder / "calls"), *_reading_data(ministack_bench)]
    assert {xform_name(call.operation) for call in calls} == {one for name in methods for one in _operations(name)}


def _loaded_for_training() -> set[Path]:
    """The files of ``jobs`` that the command loads, now or in the course of a job."""
    found, waiting = set[Path](), [REPOSITORY / "jobs/commands/train_run.py"]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jobs"):
                module = REPOSITORY / node.module.replace(".", "/")
                names = [module, *(module / alias.name for alias in node.names)]
                waiting += [path for name in names if (path := name.with_suffix(".py")).is_file()]
    return found


def _operations(method: str) -> set[str]:
    """The calls of S3 that a method of storage makes, itself or through the private ones that it uses."""
    known = {xform_name(name) for name in botocore.session.get_session().get_service_model("s3").operation_names}
    tree = ast.parse((REPOSITORY / "worker/aws/storage.py").read_text(encoding="utf-8"))
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == method]
    text = "\n".join(map(ast.unparse, bodies))
    named = {*re.findall(r"self\._s3\.(\w+)", text), *re.findall(r"get_paginator\('(\w+)'\)", text)}
    own = set(re.findall(r"self\.(\w+)\(", text)) & vars(Storage).keys()
    through = {operation for name in own for operation in _operations(name)}
    return (named & known) | through | ({"get_object"} if "obstore.get(" in text else set())

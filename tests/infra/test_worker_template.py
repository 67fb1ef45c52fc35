"""infra/worker.yaml: the promises that linters do not check."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.cloud.stack import as_settings
from tests.infra.templates import as_list, load, resources, statements, variables, walk
from worker.batch import plan
from worker.cloudwatch import NAMESPACE
from worker.settings import WorkerSettings

WORKER = "worker.yaml"
TEMPLATE = load(WORKER)
SETTINGS = {f"TWOFOLD_{field.upper()}" for field in WorkerSettings.model_fields}
DAY_S = 24 * 3600
#: The longest that SQS keeps a message.
MAX_RETENTION_S = 14 * DAY_S


def _only(kind: str) -> dict[str, Any]:
    (properties,) = resources(WORKER, kind).values()
    return properties


def _queue(name: str) -> dict[str, Any]:
    return resources(WORKER, "AWS::SQS::Queue")[name]


@pytest.mark.parametrize("timeout_s", TEMPLATE["Parameters"]["TimeoutS"]["AllowedValues"])
def test_the_visibility_timeout_is_six_times_the_functions_timeout(timeout_s: str) -> None:
    """With less, a message reappears while the poller still retries: two answers, and a wasted receive."""
    hidden = TEMPLATE["Mappings"]["HiddenS"][timeout_s]["Visibility"]
    assert hidden >= 6 * int(timeout_s)
    assert hidden <= 12 * 3600  # the limit of SQS
    assert _queue("RequestQueue")["VisibilityTimeout"]["Fn::FindInMap"] == [
        "HiddenS",
        {"Ref": "TimeoutS"},
        "Visibility",
    ]
    assert _only("AWS::Lambda::Function")["Timeout"] == {"Ref": "TimeoutS"}


def test_a_message_is_received_at_least_ten_times() -> None:
    """Throttling, killed workers and lost answers use up receives as well."""
    assert _queue("RequestQueue")["RedrivePolicy"]["maxReceiveCount"] >= 10


def test_the_poller_starts_no_more_invocations_than_are_reserved() -> None:
    """Any more would be throttled and fill the dead-letter queue."""
    function, mapping = _only("AWS::Lambda::Function"), _only("AWS::Lambda::EventSourceMapping")
    limit = {"Ref": "MaximumConcurrency"}
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == limit
    assert function["ReservedConcurrentExecutions"] == {"Fn::If": ["Reserved", limit, {"Ref": "AWS::NoValue"}]}
    assert TEMPLATE["Parameters"]["ReserveConcurrency"]["Default"] == "true"


def test_one_bad_message_does_not_fail_its_batch() -> None:
    """Without the flag, Lambda ignores which messages the function reports as failed."""
    assert _only("AWS::Lambda::EventSourceMapping")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_no_filter_deletes_messages() -> None:
    """Messages that do not match FilterCriteria are deleted silently."""
    assert all("FilterCriteria" not in node for node in walk(TEMPLATE) if isinstance(node, dict))


def test_dead_letters_are_kept_longer_than_requests() -> None:
    """The age of a dead letter counts from when it was first sent: after 4 days in the queue, 10 remain."""
    requests, dead = _queue("RequestQueue"), _queue("DeadLetterQueue")
    assert requests["MessageRetentionPeriod"] <= 4 * DAY_S
    assert dead["MessageRetentionPeriod"] == MAX_RETENTION_S
    assert requests["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    assert "RedrivePolicy" not in dead


def test_the_bucket_and_the_dead_letters_survive_the_stack() -> None:
    """They hold images, results, and the reasons for failures. Only those of a deployment that fails do not."""
    for name in ("Bucket", "DeadLetterQueue"):
        assert (TEMPLATE["Resources"][name]["DeletionPolicy"], TEMPLATE["Resources"][name]["UpdateReplacePolicy"]) == (
            "RetainExceptOnCreate",
            "Retain",
        )


def test_the_bucket_is_private_and_encrypted() -> None:
    """Whatever the account's defaults are."""
    bucket = _only("AWS::S3::Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert all(queue["SqsManagedSseEnabled"] is True for queue in resources(WORKER, "AWS::SQS::Queue").values())


@pytest.mark.parametrize(
    ("policy", "guarded"),
    [("BucketPolicy", "Bucket"), ("RequestQueuePolicy", "RequestQueue"), ("DeadLetterQueuePolicy", "DeadLetterQueue")],
)
def test_requests_without_tls_are_denied(policy: str, guarded: str) -> None:
    """For the bucket, its objects and both queues, for every principal and every action."""
    denied = [statement for name, statement in statements(WORKER) if name == policy and statement["Effect"] == "Deny"]
    (tls,) = denied
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (tls["Principal"], tls["Action"]) == ("*", "s3:*" if policy == "BucketPolicy" else "sqs:*")
    covered = as_list(tls["Resource"])
    assert {"Fn::GetAtt": [guarded, "Arn"]} in covered
    assert policy != "BucketPolicy" or {"Fn::Sub": "${Bucket.Arn}/*"} in covered


def test_only_buckets_of_this_account_may_send_events() -> None:
    """A queue that only requires s3.amazonaws.com accepts events from anyone's bucket."""
    allowed = [statement for name, statement in statements(WORKER) if name == "RequestQueuePolicy"]
    (inbox,) = [statement for statement in allowed if statement["Effect"] == "Allow"]
    assert inbox["Principal"] == {"Service": "s3.amazonaws.com"}
    assert inbox["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_no_policy_has_wildcards() -> None:
    """Every action is named, and limited to a resource of the stack or to a prefix of it."""
    for name, statement in statements(WORKER):
        if statement["Effect"] == "Allow":
            assert all("*" not in action for action in as_list(statement["Action"])), name
            assert "*" not in as_list(statement.get("Resource", [])), name


def test_a_worker_writes_only_to_predictions_and_deletes_nothing() -> None:
    """No request can make it change a model, a manifest or an image."""
    granted = [s for name, s in statements(WORKER) if name == "WorkerPolicy"]
    written = [s for s in granted if any("s3:Put" in action for action in as_list(s["Action"]))]
    assert [s["Resource"] for s in written] == [{"Fn::Sub": "${Bucket.Arn}/predictions/*"}]
    actions = {action for s in granted for action in as_list(s["Action"])}
    assert not {action for action in actions if "Delete" in action} - {"sqs:DeleteMessage"}


def test_a_missing_image_is_not_reported_as_forbidden() -> None:
    """S3 answers 403 for a missing object unless the bucket may be listed without a condition."""
    (listing,) = [s for _, s in statements(WORKER) if as_list(s["Action"]) == ["s3:ListBucket"]]
    assert "Condition" not in listing


def test_requests_may_read_exactly_what_the_role_may_read() -> None:
    """Images and lists from the prefixes of one setting, and models from that of another."""
    (reading,) = [s for _, s in statements(WORKER) if s.get("Sid") == "Read"]
    readable = set(re.findall(r"\$\{Bucket\.Arn\}/(\w+)/\*", json.dumps(reading["Resource"])))
    assert len(list(_values("TWOFOLD_MODEL_PREFIXES"))) == 2
    assert all(_prefixes(value) == {"models"} for value in _values("TWOFOLD_MODEL_PREFIXES"))
    assert all(_prefixes(value) == readable - {"models"} for value in _values("TWOFOLD_ALLOWED_PREFIXES"))
    outputs = TEMPLATE["Outputs"]
    assert _prefixes(outputs["ModelPrefixes"]["Value"]) == {"models"}
    assert _prefixes(outputs["AllowedPrefixes"]["Value"]) == readable - {"models"}


def _values(variable: str) -> Iterator[Any]:
    """The values of a variable in the function and in the container."""
    for node in walk(TEMPLATE["Resources"]):
        if isinstance(node, dict) and variable in node:
            yield node[variable]
        if isinstance(node, dict) and node.get("Name") == variable:
            yield node["Value"]


def _prefixes(value: Any) -> set[str]:
    return set(re.findall(r"s3://\$\{Bucket\}/(\w+)/", json.dumps(value)))


def test_what_is_overwritten_can_be_brought_back_for_thirty_days() -> None:
    """The bucket keeps versions, for a while, and the worker may read them: events name the version of a list."""
    bucket = _only("AWS::S3::Bucket")
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    replaced = rules["replaced-versions"]
    assert not {"Prefix", "TagFilters"} & replaced.keys()  # all objects
    assert replaced["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert replaced["ExpiredObjectDeleteMarker"] is True
    # What expires leaves a delete marker and an old version, which would double its time in the bucket.
    expiring = [rule for rule in rules.values() if "ExpirationInDays" in rule]
    assert [rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in expiring] == [1, 1]
    (reading,) = [s for _, s in statements(WORKER) if s.get("Sid") == "Read"]
    assert set(as_list(reading["Action"])) == {"s3:GetObject", "s3:GetObjectVersion"}


def test_an_image_is_named_by_its_digest() -> None:
    """A tag could be moved to an image that was never tested."""
    pattern = re.compile(TEMPLATE["Parameters"]["ImageUri"]["AllowedPattern"])
    assert pattern.fullmatch("123456789012.dkr.ecr.eu-west-1.amazonaws.com/twofold@sha256:" + "0" * 64)
    assert not pattern.fullmatch("123456789012.dkr.ecr.eu-west-1.amazonaws.com/twofold:latest")
    images = [node["Image"] for node in walk(TEMPLATE) if isinstance(node, dict) and "Image" in node]
    assert {json.dumps(image) for image in images if image != "Zip"} <= {'{"Ref": "ImageUri"}'}


def test_the_inbox_is_the_only_prefix_that_sends_events() -> None:
    """Otherwise the worker would receive an event for each of its own results."""
    (events,) = _only("AWS::S3::Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    assert events["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "inbox/"}]
    assert TEMPLATE["Resources"]["Bucket"]["DependsOn"] == "RequestQueuePolicy"  # S3 checks that it may send


def test_shards_and_incomplete_uploads_expire() -> None:
    """Results and models do not."""
    rules = {rule["Id"]: rule for rule in _only("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]}
    (tag,) = rules["shards"]["TagFilters"]
    assert f"{tag['Key']}={tag['Value']}" == plan.TAG
    assert rules["broken-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] <= 7
    assert [name for name, rule in rules.items() if "ExpirationInDays" in rule] == ["shards", "checkpoints"]
    assert rules["checkpoints"]["Prefix"] == "checkpoints/"


def test_every_log_expires() -> None:
    """By default CloudWatch keeps logs forever."""
    logs = resources(WORKER, "AWS::Logs::LogGroup")
    assert logs
    assert all("RetentionInDays" in log for log in logs.values())
    assert _only("AWS::Lambda::Function")["LoggingConfig"]["LogGroup"] == {"Ref": "FunctionLog"}


def test_every_problem_raises_an_alarm() -> None:
    """Old messages, dead letters, errors and throttles are published to the topic."""
    alarms = resources(WORKER, "AWS::CloudWatch::Alarm")
    published = {name for name, alarm in alarms.items() if alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]}
    assert published == {"OldestMessageAlarm", "DeadLetterAlarm", "ErrorAlarm", "ThrottleAlarm"}
    assert all(alarm["TreatMissingData"] == "notBreaching" for alarm in alarms.values())
    # CloudWatch may not use the AWS managed key for SNS: its alarms would be lost silently.
    assert "KmsMasterKeyId" not in _only("AWS::SNS::Topic")


def test_a_service_scales_from_zero_and_back() -> None:
    """No task runs while the queue is empty, and the first message starts one."""
    assert _only("AWS::ECS::Service")["DesiredCount"] == 0
    assert _only("AWS::ApplicationAutoScaling::ScalableTarget")["MinCapacity"] == 0
    policies = resources(WORKER, "AWS::ApplicationAutoScaling::ScalingPolicy")
    alarms = resources(WORKER, "AWS::CloudWatch::Alarm")
    assert alarms["FirstTaskAlarm"]["AlarmActions"] == [{"Ref": "FirstTaskPolicy"}]
    metrics = policies["ServiceScalingPolicy"]["TargetTrackingScalingPolicyConfiguration"][
        "CustomizedMetricSpecification"
    ]["Metrics"]
    assert [metric["Id"] for metric in metrics if metric["ReturnData"]] == ["backlog"]


def test_a_container_has_a_read_only_root_and_time_to_stop() -> None:
    """It ends within 0.8 of the stop timeout, and can write only to /tmp."""
    (container,) = _only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp"]
    stop_s = next(int(pair["Value"]) for pair in container["Environment"] if pair["Name"] == "TWOFOLD_STOP_S")
    assert stop_s + 4 <= 0.8 * container["StopTimeout"]
    assert container["HealthCheck"]["Command"][:2] == ["CMD", "python"]  # no shell


def test_the_variables_of_the_template_are_the_settings() -> None:
    """A mistyped name would be ignored silently, and a forgotten setting could not be found."""
    named = {variable for _, variable in variables(WORKER)}
    assert named == SETTINGS


def test_the_function_gets_only_settings_that_apply_to_lambda() -> None:
    """Lambda uses the visibility timeout of the queue, and monitors the process itself."""
    own = {variable for name, variable in variables(WORKER) if name == "Function"}
    assert SETTINGS - own == {"TWOFOLD_VISIBILITY_S", "TWOFOLD_HEARTBEAT", "TWOFOLD_METRICS"}


def test_every_output_is_a_setting() -> None:
    """A stack's outputs are the environment of a worker and of the command line."""
    assert set(as_settings(dict.fromkeys(TEMPLATE["Outputs"], ""))) <= SETTINGS


def test_the_dashboard_shows_the_metrics_of_the_function() -> None:
    """It is valid JSON, and uses their namespace."""
    body, names = _only("AWS::CloudWatch::Dashboard")["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(re.sub(r"\$\{[\w.:]+\}", "x", body))["widgets"]
    shown = [metric for widget in widgets for metric in widget["properties"]["metrics"]]
    assert {metric[0] for metric in shown if isinstance(metric[0], str)} == {"AWS/SQS", NAMESPACE}
    assert set(names) == {"Worker"}
    ours = {metric[1] for metric in shown if metric[0] == NAMESPACE}
    stages = {f"{stage.capitalize()}Ms" for stage in ("fetch", "decode", "score", "write")}
    assert ours == {"Images", "FailedImages"} | stages


def test_every_conditional_parameter_is_checked_by_a_rule() -> None:
    """A stack that lacks one is rejected before anything is created."""
    asserted = json.dumps(TEMPLATE["Rules"])
    assert {"ImageUri", "VpcId", "CodeKey"} <= set(re.findall(r'"Ref": "(\w+)"', asserted))

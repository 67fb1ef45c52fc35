"""infra/worker.yaml: one promise a test, those that linters miss."""

import json
import re
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
#: SQS keeps nothing longer.
MAX_RETENTION_S = 14 * DAY_S


def _only(kind: str) -> dict[str, Any]:
    (properties,) = resources(WORKER, kind).values()
    return properties


def _queue(name: str) -> dict[str, Any]:
    return resources(WORKER, "AWS::SQS::Queue")[name]


@pytest.mark.parametrize("timeout_s", TEMPLATE["Parameters"]["TimeoutS"]["AllowedValues"])
def test_a_message_is_hidden_for_six_times_the_function_may_take(timeout_s: str) -> None:
    """G13. Less, and it comes back while the poller still tries: an answer twice, and a receive wasted."""
    hidden = TEMPLATE["Mappings"]["HiddenS"][timeout_s]["Visibility"]
    assert hidden >= 6 * int(timeout_s)
    assert hidden <= 12 * 3600  # SQS's own limit
    assert _queue("RequestQueue")["VisibilityTimeout"]["Fn::FindInMap"] == [
        "HiddenS",
        {"Ref": "TimeoutS"},
        "Visibility",
    ]
    assert _only("AWS::Lambda::Function")["Timeout"] == {"Ref": "TimeoutS"}


def test_a_message_is_received_five_times_before_it_is_given_up() -> None:
    """G13. Throttling uses up receives too."""
    assert _queue("RequestQueue")["RedrivePolicy"]["maxReceiveCount"] >= 5


def test_the_poller_asks_for_no_more_calls_than_are_reserved() -> None:
    """G13. What it asks for beyond that is throttled, and fills the dead-letter queue."""
    function, mapping = _only("AWS::Lambda::Function"), _only("AWS::Lambda::EventSourceMapping")
    limit = {"Ref": "MaximumConcurrency"}
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == limit
    assert function["ReservedConcurrentExecutions"] == {"Fn::If": ["Reserved", limit, {"Ref": "AWS::NoValue"}]}
    assert TEMPLATE["Parameters"]["ReserveConcurrency"]["Default"] == "true"


def test_one_bad_message_does_not_fail_its_batch() -> None:
    """G12. Without the flag Lambda would not read what the function reports."""
    assert _only("AWS::Lambda::EventSourceMapping")["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_no_filter_deletes_messages() -> None:
    """G16. What does not match FilterCriteria is deleted without a word."""
    assert all("FilterCriteria" not in node for node in walk(TEMPLATE) if isinstance(node, dict))


def test_dead_letters_outlive_requests() -> None:
    """G15. A dead letter's age counts from its first sending: 4 days there leave 10 to look at it."""
    requests, dead = _queue("RequestQueue"), _queue("DeadLetterQueue")
    assert requests["MessageRetentionPeriod"] <= 4 * DAY_S
    assert dead["MessageRetentionPeriod"] == MAX_RETENTION_S
    assert requests["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    assert "RedrivePolicy" not in dead


def test_deleting_the_stack_deletes_no_pictures_and_no_evidence() -> None:
    """A bucket with results, and a queue with reasons, are kept."""
    for name in ("Bucket", "DeadLetterQueue"):
        assert (TEMPLATE["Resources"][name]["DeletionPolicy"], TEMPLATE["Resources"][name]["UpdateReplacePolicy"]) == (
            "Retain",
            "Retain",
        )


def test_the_bucket_is_private_and_encrypted() -> None:
    """G30. Whatever an account's own defaults are."""
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
def test_what_is_not_encrypted_on_its_way_is_denied(policy: str, guarded: str) -> None:
    """G30. On the bucket, its objects, and both queues, to everybody and for everything."""
    denied = [statement for name, statement in statements(WORKER) if name == policy and statement["Effect"] == "Deny"]
    (tls,) = denied
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert (tls["Principal"], tls["Action"]) == ("*", "s3:*" if policy == "BucketPolicy" else "sqs:*")
    covered = as_list(tls["Resource"])
    assert {"Fn::GetAtt": [guarded, "Arn"]} in covered
    assert policy != "BucketPolicy" or {"Fn::Sub": "${Bucket.Arn}/*"} in covered


def test_only_s3_of_this_account_may_send_from_outside() -> None:
    """A queue open to s3.amazonaws.com alone is open to everybody's buckets."""
    allowed = [statement for name, statement in statements(WORKER) if name == "RequestQueuePolicy"]
    (inbox,) = [statement for statement in allowed if statement["Effect"] == "Allow"]
    assert inbox["Principal"] == {"Service": "s3.amazonaws.com"}
    assert inbox["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_no_role_has_a_wildcard_for_an_action_or_for_a_whole_service() -> None:
    """G30. Each action by its name, each on a resource of the stack or a prefix of it."""
    for name, statement in statements(WORKER):
        if statement["Effect"] == "Allow":
            assert all("*" not in action for action in as_list(statement["Action"])), name
            assert "*" not in as_list(statement.get("Resource", [])), name


def test_a_worker_writes_to_predictions_alone_and_deletes_nothing() -> None:
    """G30. A request cannot make it change a model, a manifest or an image."""
    granted = [s for name, s in statements(WORKER) if name == "WorkerPolicy"]
    written = [s for s in granted if any("s3:Put" in action for action in as_list(s["Action"]))]
    assert [s["Resource"] for s in written] == [{"Fn::Sub": "${Bucket.Arn}/predictions/*"}]
    actions = {action for s in granted for action in as_list(s["Action"])}
    assert not {action for action in actions if "Delete" in action} - {"sqs:DeleteMessage"}


def test_a_missing_image_is_told_from_a_forbidden_one() -> None:
    """S3 answers 403 for what is not there, unless the bucket may be listed, without a condition."""
    (listing,) = [s for _, s in statements(WORKER) if as_list(s["Action"]) == ["s3:ListBucket"]]
    assert "Condition" not in listing


def test_what_requests_may_read_is_what_the_role_may_read() -> None:
    """Two lists of prefixes, and no difference."""
    (reading,) = [s for _, s in statements(WORKER) if s.get("Sid") == "Read"]
    readable = set(re.findall(r"\$\{Bucket\.Arn\}/(\w+)/\*", json.dumps(reading["Resource"])))
    for node in walk(TEMPLATE["Resources"]):
        if isinstance(node, dict) and "TWOFOLD_ALLOWED_PREFIXES" in node:
            named = json.dumps(node["TWOFOLD_ALLOWED_PREFIXES"])
            assert set(re.findall(r"s3://\$\{Bucket\}/(\w+)/", named)) == readable


def test_an_image_is_named_by_its_digest() -> None:
    """G30. A tag can be moved to something that nobody tested."""
    pattern = re.compile(TEMPLATE["Parameters"]["ImageUri"]["AllowedPattern"])
    assert pattern.fullmatch("123456789012.dkr.ecr.eu-west-1.amazonaws.com/twofold@sha256:" + "0" * 64)
    assert not pattern.fullmatch("123456789012.dkr.ecr.eu-west-1.amazonaws.com/twofold:latest")
    images = [node["Image"] for node in walk(TEMPLATE) if isinstance(node, dict) and "Image" in node]
    assert {json.dumps(image) for image in images if image != "Zip"} <= {'{"Ref": "ImageUri"}'}


def test_the_inbox_is_the_only_prefix_that_sends_events() -> None:
    """Results that made events would make the worker classify its own answers."""
    (notice,) = _only("AWS::S3::Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    assert notice["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "inbox/"}]
    assert TEMPLATE["Resources"]["Bucket"]["DependsOn"] == "RequestQueuePolicy"  # S3 asks whether it may send


def test_shards_and_broken_uploads_do_not_stay_for_ever() -> None:
    """Results do, and models."""
    rules = {rule["Id"]: rule for rule in _only("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]}
    (tag,) = rules["shards"]["TagFilters"]
    assert f"{tag['Key']}={tag['Value']}" == plan.TAG
    assert rules["broken-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] <= 7
    assert [name for name, rule in rules.items() if "ExpirationInDays" in rule] == ["shards", "checkpoints"]
    assert rules["checkpoints"]["Prefix"] == "checkpoints/"


def test_every_log_ends_some_day() -> None:
    """CloudWatch keeps a log for ever unless told."""
    logs = resources(WORKER, "AWS::Logs::LogGroup")
    assert logs
    assert all("RetentionInDays" in log for log in logs.values())
    assert _only("AWS::Lambda::Function")["LoggingConfig"]["LogGroup"] == {"Ref": "FunctionLog"}


def test_nobody_has_to_look_for_trouble() -> None:
    """An alarm on old messages, dead letters, errors and throttles, each telling the topic."""
    alarms = resources(WORKER, "AWS::CloudWatch::Alarm")
    told = {name for name, alarm in alarms.items() if alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]}
    assert told == {"OldestMessageAlarm", "DeadLetterAlarm", "ErrorAlarm", "ThrottleAlarm"}
    assert all(alarm["TreatMissingData"] == "notBreaching" for alarm in alarms.values())
    # CloudWatch may not use the key that AWS manages for SNS: its alarms would be lost in silence.
    assert "KmsMasterKeyId" not in _only("AWS::SNS::Topic")


def test_a_service_starts_from_nothing_and_goes_back_to_it() -> None:
    """No task while the queue is empty, and the first message starts one."""
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
    """G10. Out in 0.8 of the stop time; and only /tmp can be written to."""
    (container,) = _only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp"]
    stop_s = next(int(pair["Value"]) for pair in container["Environment"] if pair["Name"] == "TWOFOLD_STOP_S")
    assert stop_s + 4 <= 0.8 * container["StopTimeout"]
    assert container["HealthCheck"]["Command"][:2] == ["CMD", "python"]  # no shell


def test_every_variable_in_the_template_is_a_setting_and_every_setting_is_there() -> None:
    """A name that was mistyped would be ignored, and a setting that was forgotten could not be seen."""
    named = {variable for _, variable in variables(WORKER)}
    assert named == SETTINGS


def test_the_function_gets_no_setting_that_lambda_has_no_use_for() -> None:
    """Lambda holds the lease by the queue's own time-out, and watches the process itself."""
    own = {variable for name, variable in variables(WORKER) if name == "Function"}
    assert SETTINGS - own == {"TWOFOLD_VISIBILITY_S", "TWOFOLD_HEARTBEAT"}


def test_every_output_is_a_setting() -> None:
    """So that a stack's outputs are the environment of a worker and of the command line."""
    assert set(as_settings(dict.fromkeys(TEMPLATE["Outputs"], ""))) <= SETTINGS


def test_the_dashboard_shows_what_the_function_tells() -> None:
    """Under the namespace of its metrics; and it is JSON."""
    body, names = _only("AWS::CloudWatch::Dashboard")["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(re.sub(r"\$\{[\w.:]+\}", "x", body))["widgets"]
    shown = [metric for widget in widgets for metric in widget["properties"]["metrics"]]
    assert {metric[0] for metric in shown if isinstance(metric[0], str)} == {"AWS/SQS", NAMESPACE}
    assert set(names) == {"Worker"}
    ours = {metric[1] for metric in shown if metric[0] == NAMESPACE}
    stages = {f"{stage.capitalize()}Ms" for stage in ("fetch", "decode", "score", "write")}
    assert ours == {"Images", "FailedImages"} | stages


def test_every_promise_for_a_condition_has_its_parameter() -> None:
    """A stack that lacks what it needs is refused before anything is made."""
    asserted = json.dumps(TEMPLATE["Rules"])
    assert {"ImageUri", "VpcId", "CodeKey"} <= set(re.findall(r'"Ref": "(\w+)"', asserted))

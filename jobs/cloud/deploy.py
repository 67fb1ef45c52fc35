"""The worker's stack: infra/worker.yaml with the code packed as a zip, on real AWS or on the embedded cloud."""

from typing import Final

from botocore.exceptions import ClientError

from jobs.cloud import lambda_zip, stack
from jobs.cloud.aws import Connect
from jobs.cloud.lambda_zip import Architecture
from jobs.cloud.stack import Stacks
from jobs.progress import Reporter
from jobs.user_error import UserError

WORKER_STACK: Final = "twofold"


def deploy_worker(
    connect: Connect,
    *,
    name: str = WORKER_STACK,
    libraries: Architecture | None,
    parameters: dict[str, str],
    reporter: Reporter,
    poll_s: float = 5.0,
) -> dict[str, str]:
    """Packs the worker, deploys its stack, and returns the settings of a worker of that queue.

    ``libraries`` None packs none: the embedded cloud runs the function with the interpreter it runs on itself. Where
    the stack runs the image, nothing is packed.
    """
    stacks = Stacks(connect("cloudformation"), poll_s=poll_s)
    told = stacks.parameters(name) | parameters
    runs_image = told.get("Form") == "image" or told.get("Compute") == "fargate"
    code = {} if runs_image else _upload_zip(connect, libraries, reporter)
    return stack.as_settings(stacks.deploy(name, lambda_zip.infra("worker.yaml"), code | parameters, reporter))


def _upload_zip(connect: Connect, libraries: Architecture | None, reporter: Reporter) -> dict[str, str]:
    """The parameters that name the code."""
    with reporter.step("Packing the worker"):
        packed = lambda_zip.build(libraries=libraries)
    bucket = code_bucket(connect)
    key = f"worker/{packed.sha256}.zip"
    with reporter.step(f"Uploading {len(packed.body) / 1e6:.1f} MB"):
        connect("s3").put_object(Bucket=bucket, Key=key, Body=packed.body)
    named = {"Form": "zip", "CodeBucket": bucket, "CodeKey": key, "PythonVersion": lambda_zip.python_version()}
    return named | ({"Architecture": libraries} if libraries else {})


def deploy_training(
    connect: Connect, *, name: str, image: str, bucket: str, parameters: dict[str, str], reporter: Reporter
) -> dict[str, str]:
    """Deploys AWS Batch and the roles around the image, in the account's default network unless told of another."""
    stacks = Stacks(connect("cloudformation"))
    chosen = {"Image": image, "BucketName": bucket, **parameters}
    if "VpcId" not in parameters and not stacks.parameters(training_stack(name)).get("Image"):
        chosen |= default_network(connect)  # only once: what a stack was told is kept
    return stacks.deploy(training_stack(name), lambda_zip.infra("training.yaml"), chosen, reporter)


def deploy_repositories(connect: Connect, *, name: str, reporter: Reporter) -> dict[str, str]:
    """The repositories for images, which must be there before anything is pushed. A stack that is there stays."""
    stacks = Stacks(connect("cloudformation"))
    there = stacks.outputs(training_stack(name))
    return there or stacks.deploy(training_stack(name), lambda_zip.infra("training.yaml"), {}, reporter)


def training_stack(name: str) -> str:
    """The stack of training that goes with a worker's."""
    return f"{name}-training"


def default_network(connect: Connect) -> dict[str, str]:
    """The account's default network and its subnets, as parameters. Raises UserError where it was deleted."""
    ec2 = connect("ec2")
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise UserError(
            "This region has no default network: give --parameter VpcId=vpc-… --parameter SubnetIds=subnet-…,subnet-…"
        )
    vpc = found[0]["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    return {"VpcId": vpc, "SubnetIds": ",".join(sorted(subnet["SubnetId"] for subnet in subnets))}


def code_bucket(connect: Connect) -> str:
    """The bucket for code in this account and region; made, private and encrypted as all are today, if need be."""
    s3 = connect("s3")
    account = connect("sts").get_caller_identity()["Account"]
    region = s3.meta.region_name
    name = f"twofold-code-{account}-{region}"
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004
            raise
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **place)
    return name

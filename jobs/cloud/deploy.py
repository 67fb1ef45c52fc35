"""Deployment of both stacks, the worker's and that of training, on AWS or on the embedded cloud."""

from botocore.exceptions import ClientError

from jobs.cloud import lambda_zip, stack
from jobs.cloud.aws import Connect
from jobs.cloud.lambda_zip import Architecture
from jobs.cloud.names import WORKER_STACK, training_stack_name
from jobs.cloud.stack import Stacks
from jobs.progress import Reporter
from jobs.user_error import UserError


def deploy_worker(
    connect: Connect,
    *,
    name: str = WORKER_STACK,
    libraries: Architecture | None,
    parameters: dict[str, str],
    reporter: Reporter,
    poll_s: float = 5.0,
) -> dict[str, str]:
    """Packs the worker, deploys its stack, and returns the settings of a worker for its queue.

    With ``libraries`` None, the zip holds no libraries: the embedded cloud runs the function with its own interpreter.
    Nothing is packed if the stack runs the container image.
    """
    stacks = Stacks(connect("cloudformation"), poll_s=poll_s)
    chosen = stacks.parameters(name) | parameters
    runs_image = chosen.get("Form") == "image" or chosen.get("Compute") == "fargate"
    code = {} if runs_image else _upload_zip(connect, libraries, reporter)
    return stack.as_settings(stacks.deploy(name, lambda_zip.infra("worker.yaml"), code | parameters, reporter))


def _upload_zip(connect: Connect, libraries: Architecture | None, reporter: Reporter) -> dict[str, str]:
    """Uploads the zip and returns the parameters that refer to it."""
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
    """Deploys AWS Batch and its roles for the image, in the account's default network unless another is given."""
    stacks = Stacks(connect("cloudformation"))
    chosen = {"Image": image, "BucketName": bucket, **parameters}
    if "VpcId" not in parameters and not stacks.parameters(training_stack_name(name)).get("Image"):
        chosen |= default_network(connect)  # only once: an update keeps the parameters of the stack
    return stacks.deploy(training_stack_name(name), lambda_zip.infra("training.yaml"), chosen, reporter)


def deploy_repositories(connect: Connect, *, name: str, reporter: Reporter) -> dict[str, str]:
    """Creates the image repositories, which a push needs, and returns the stack's outputs.

    A stack that already exists is left unchanged.
    """
    stacks = Stacks(connect("cloudformation"))
    existing = stacks.outputs(training_stack_name(name))
    return existing or stacks.deploy(training_stack_name(name), lambda_zip.infra("training.yaml"), {}, reporter)


def default_network(connect: Connect) -> dict[str, str]:
    """Returns the account's default VPC and its subnets as parameters. Raises UserError if it was deleted."""
    ec2 = connect("ec2")
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise UserError(
            "This region has no default VPC. Add --parameter VpcId=vpc-… --parameter SubnetIds=subnet-…,subnet-…"
        )
    vpc = found[0]["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    return {"VpcId": vpc, "SubnetIds": ",".join(sorted(subnet["SubnetId"] for subnet in subnets))}


def code_bucket(connect: Connect) -> str:
    """Returns the bucket for code in this account and region, and creates it if necessary.

    It needs no settings: new buckets are private and encrypted by default.
    """
    s3 = connect("s3")
    account = connect("sts").get_caller_identity()["Account"]
    region = s3.meta.region_name
    name = f"twofold-code-{account}-{region}"
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004
            raise
        location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **location)
    return name

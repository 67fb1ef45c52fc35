"""The removal of a deployment: both stacks, and on request the data that they leave behind."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from jobs.cloud.aws import Client, Connect
from jobs.cloud.names import training_stack_name
from jobs.cloud.stack import Stacks, as_settings
from jobs.progress import Reporter
from jobs.user_error import UserError
from worker.uris import split

#: How often a bucket is emptied that workers still write to. Deleting the bucket itself takes milliseconds.
_ROUNDS: Final = 10


@dataclass(frozen=True)
class Deployment:
    """What belongs to a deployment."""

    name: str
    stacks: tuple[str, ...]  #: that exist, in the order in which they can be deleted
    bucket: str | None
    dead_letter_url: str | None
    repositories: tuple[str, ...]
    code_bucket: str | None  #: with the worker's zip; all stacks of the account and region use it

    @classmethod
    def find(cls, connect: Connect, name: str) -> "Deployment":
        """Finds the stacks and what they leave behind. Raises UserError if there are none."""
        stacks = Stacks(connect("cloudformation"))
        names = (training_stack_name(name), name)
        training, worker = (stacks.outputs(one) for one in names)
        existing = tuple(one for one, found in zip(names, (training, worker), strict=True) if found is not None)
        if not existing:
            region = connect("cloudformation").meta.region_name
            raise UserError(f"There is no stack {name} in {region}, so there is nothing to delete.")
        settings = as_settings(worker or {})
        output = settings.get("TWOFOLD_OUTPUT_URI")
        code = stacks.parameters(name).get("CodeBucket")
        images = [uri for key, uri in (training or {}).items() if key.endswith("Repository")]
        return cls(
            name=name,
            stacks=existing,
            bucket=split(output)[0] if output else None,
            dead_letter_url=settings.get("TWOFOLD_DEAD_LETTER_URL"),
            repositories=tuple(uri.partition("/")[2] for uri in images) if training else _left(connect("ecr"), name),
            code_bucket=None if code in (None, "unset") else code,
        )

    def plan(self, *, with_data: bool) -> list[str]:
        """Returns what is going to be deleted and what stays, as a user reads it."""
        data = [f"the bucket {self.bucket} with all images, models and results"] if self.bucket else []
        data += ["the dead-letter queue with the refused requests"] if self.dead_letter_url else []
        kept = [] if with_data else data
        deleted = [f"the stack {name}" for name in self.stacks]
        deleted += [f"the container images in {name}" for name in self.repositories]
        lines = ["To be deleted:", *(f"  {what}" for what in deleted + (data if with_data else []))]
        if kept:
            lines += ["To be kept, unless --with-data is given:", *(f"  {what}" for what in kept)]
        if self.code_bucket:
            lines += [
                "To be kept, because other stacks of this account and region may use it:",
                f"  the bucket {self.code_bucket} with the worker's code, a few megabytes",
                f"  To delete it, if there are none: aws s3 rb --force s3://{self.code_bucket}",
            ]
        return lines


def destroy(connect: Connect, deployment: Deployment, *, with_data: bool, reporter: Reporter) -> None:
    """Deletes the stacks and the container images, and with ``with_data`` the bucket and the dead-letter queue too.

    The repositories go in any case: a stack cannot create them again while they exist, and ``twofold cloud push``
    builds the images anew.

    The stack of the worker goes last: only it knows the names of the rest, so a run that was interrupted can be
    followed by another one.
    """
    stacks = Stacks(connect("cloudformation"))
    for name in deployment.stacks:
        if name == deployment.name:  # the training jobs have ended with the other stack
            _delete_images(connect, deployment, reporter)
            if with_data:
                _delete_data(connect, deployment, reporter)
        stacks.delete(name, reporter)
    if deployment.name not in deployment.stacks:
        _delete_images(connect, deployment, reporter)


def _left(ecr: Client, name: str) -> tuple[str, ...]:
    """Returns the repositories of a training stack that is gone: an earlier run was interrupted after it."""
    try:
        found = ecr.describe_repositories()["repositories"]
    except ecr.exceptions.ClientError:  # it may not be asked; there are some only if this command made them
        return ()
    named = (repository["repositoryName"] for repository in found)
    return tuple(one for one in named if one.startswith(f"{training_stack_name(name)}/"))


def _delete_images(connect: Connect, deployment: Deployment, reporter: Reporter) -> None:
    for name in deployment.repositories:
        with reporter.step(f"Deleting the images in {name}"):
            ecr = connect("ecr")
            with suppress(ecr.exceptions.RepositoryNotFoundException):
                ecr.delete_repository(repositoryName=name, force=True)


def _delete_data(connect: Connect, deployment: Deployment, reporter: Reporter) -> None:
    if deployment.bucket:
        _delete_bucket(connect("s3"), deployment.bucket, reporter)
    if deployment.dead_letter_url:
        with reporter.step("Deleting the dead-letter queue"):
            sqs = connect("sqs")
            with suppress(sqs.exceptions.QueueDoesNotExist):
                sqs.delete_queue(QueueUrl=deployment.dead_letter_url)


def _delete_bucket(s3: Client, bucket: str, reporter: Reporter) -> None:
    """Deletes every version of every object, and then the bucket, which may be gone already.

    Workers still run. What they write between the last listing and the end is deleted in another round.
    """
    with reporter.step(f"Deleting the bucket {bucket}"), suppress(s3.exceptions.NoSuchBucket):
        for left in reversed(range(_ROUNDS)):
            _empty(s3, bucket)
            try:
                s3.delete_bucket(Bucket=bucket)
            except s3.exceptions.ClientError as error:
                if left and error.response["Error"]["Code"] == "BucketNotEmpty":
                    continue
                raise
            return


def _empty(s3: Client, bucket: str) -> None:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
        if objects:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for failed in answer.get("Errors", ()):
                raise UserError(f"{bucket}/{failed['Key']} cannot be deleted: {failed.get('Message', '?')}")

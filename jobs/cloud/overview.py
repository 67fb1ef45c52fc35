"""What Twofold has in an account: the state of the stacks, of the queues and of the model."""

from typing import cast

from pydantic import BaseModel, ConfigDict

from jobs.cloud.aws import Connect
from jobs.cloud.names import training_stack_name
from jobs.cloud.stack import Stacks, as_settings
from jobs.user_error import UserError
from jobs.wording import counted, program
from worker.uris import split


class CloudOverview(BaseModel):
    """The state of a deployment."""

    model_config = ConfigDict(frozen=True)

    stack: str
    state: str  #: of the worker's stack, in CloudFormation's words
    bucket: str
    waiting: int  #: requests in the queue
    in_work: int  #: requests that a worker has received
    dead_letters: int
    model_uri: str
    has_model: bool
    training_state: str | None  #: of the stack for training; None: there is none
    has_image: bool  #: whether jobs can be submitted

    def lines(self) -> list[str]:
        """Returns the state as a user reads it."""
        model = self.model_uri if self.has_model else f"none yet at {self.model_uri}"
        training = "no stack yet" if self.training_state is None else self.training_state
        if not self.has_image:
            training += f". To train on AWS, run '{program()} cloud push' and then '{program()} cloud deploy'"
        return [
            f"stack     {self.stack}: {self.state}",
            f"bucket    {self.bucket}",
            f"queue     {counted(self.waiting, 'request')} waiting, {self.in_work:,} in work",
            f"refused   {counted(self.dead_letters, 'request')} in the dead-letter queue",
            f"model     {model}",
            f"training  {training}",
        ]


def look(connect: Connect, name: str) -> CloudOverview:
    """Returns the state of a deployment. Raises UserError if there is no such stack."""
    stacks = Stacks(connect("cloudformation"))
    outputs = stacks.outputs(name)
    if not outputs:
        region = connect("cloudformation").meta.region_name
        raise UserError(f"There is no stack {name} in {region}. Create it with '{program()} cloud deploy'.")
    settings = as_settings(outputs)
    waiting, in_work = _messages(connect, settings["TWOFOLD_QUEUE_URL"])
    training = training_stack_name(name)
    return CloudOverview(
        stack=name,
        state=cast("str", stacks.state(name)),
        bucket=split(settings["TWOFOLD_OUTPUT_URI"])[0],
        waiting=waiting,
        in_work=in_work,
        dead_letters=sum(_messages(connect, settings["TWOFOLD_DEAD_LETTER_URL"])),
        model_uri=settings["TWOFOLD_MODEL_URI"],
        has_model=_exists(connect, settings["TWOFOLD_MODEL_URI"]),
        training_state=stacks.state(training),
        has_image="JobQueue" in (stacks.outputs(training) or {}),
    )


def _messages(connect: Connect, url: str) -> tuple[int, int]:
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    found = connect("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def _exists(connect: Connect, uri: str) -> bool:
    bucket, key = split(uri)
    found = connect("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", ())
    return [item["Key"] for item in found] == [key]

"""The names of the stacks, and how to create them. Apart from what deploys them, which loads the AWS SDK."""

from typing import Final

from jobs.wording import program

#: The next step where something of the stack for training is missing.
PUSH_AND_DEPLOY: Final = f"Run '{program()} cloud push' and then '{program()} cloud deploy' first."
WORKER_STACK: Final = "twofold"


def training_stack_name(worker_stack: str) -> str:
    """Returns the name of the training stack that belongs to a worker's stack."""
    return f"{worker_stack}-training"

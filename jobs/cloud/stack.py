"""CloudFormation stacks: deploying a template with parameters, and reading the outputs."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from jobs.cloud.aws import next_step
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.user_error import UserError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

_POLL_S: Final = 5.0
_LIMIT_S: Final = 1800
#: Limit for a template in a request: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_TEMPLATE_BYTES: Final = 51_200


class Stacks:
    """The stacks of an account and region. A running change is checked every ``poll_s`` seconds."""

    def __init__(self, cloudformation: "CloudFormationClient", *, poll_s: float = _POLL_S) -> None:
        self._cloudformation = cloudformation
        self._poll_s = poll_s

    def deploy(self, name: str, template: Path, parameters: dict[str, str], reporter: Reporter) -> dict[str, str]:
        """Creates or updates the stack, waits until it is done, and returns its outputs.

        Parameters that are not given keep their values. Raises UserError with CloudFormation's reasons if it fails.
        """
        exists = self.outputs(name) is not None
        request: dict[str, Any] = {
            "StackName": name,
            "TemplateBody": template.read_text(encoding="utf-8"),
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        with reporter.step(f"{'Updating' if exists else 'Creating'} the stack {name}"):
            identity = name
            try:
                if exists:
                    request["Parameters"] += self._previous(name, template, parameters)
                    identity = self._cloudformation.update_stack(**request)["StackId"]
                else:
                    identity = self._cloudformation.create_stack(**request, OnFailure="DELETE")["StackId"]
            except ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
            self._wait(name, identity)
        return self.outputs(name) or {}

    def delete(self, name: str, reporter: Reporter) -> None:
        """Deletes the stack, and waits until it is gone. Raises UserError with CloudFormation's reasons if it fails."""
        found = self._find(name)
        if found is None:
            return
        with reporter.step(f"Deleting the stack {name}"):
            self._cloudformation.delete_stack(StackName=found["StackId"])
            self._wait(name, found["StackId"], done=("DELETE_COMPLETE",))

    def state(self, name: str) -> str | None:
        """Returns CloudFormation's status of a stack, or None if the stack does not exist."""
        found = self._find(name)
        return found["StackStatus"] if found else None

    def outputs(self, name: str) -> dict[str, str] | None:
        """Returns the outputs of a stack by name, or None if the stack does not exist."""
        found = self._find(name)
        if found is None:
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def parameters(self, name: str) -> dict[str, str]:
        """Returns the parameters of a stack, defaults included; empty if the stack does not exist."""
        found = self._find(name)
        parameters = found.get("Parameters", ()) if found else ()
        return {item["ParameterKey"]: item.get("ParameterValue", "") for item in parameters}

    def _find(self, name: str) -> "StackTypeDef | None":
        try:
            return self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def _previous(self, name: str, template: Path, parameters: dict[str, str]) -> list[dict[str, object]]:
        """Returns the parameters that keep their values: those that the template still has and that are not given."""
        names = self.parameters(name).keys() & parameters_of(template) - parameters.keys()
        return [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(names)]

    def _wait(
        self, name: str, identity: str, *, done: tuple[str, ...] = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    ) -> None:
        """Waits for the stack with the ARN ``identity``. CloudFormation finds a deleted stack only by its ARN."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            found = self._find(identity)
            status = found["StackStatus"] if found else "DELETE_COMPLETE"  # emulators forget it at once
            if status in done:
                return
            if not status.endswith("_IN_PROGRESS"):
                raise UserError(f"The stack {name} is in {status}. {self._reasons(identity)}".strip())
            with if_stopped(f"AWS goes on with the stack {name}. Once it is done, run the same command again."):
                time.sleep(self._poll_s)
        raise UserError(
            f"The stack {name} is not complete after {_LIMIT_S // 60} minutes. Check it in the CloudFormation console."
        )

    def _reasons(self, identity: str) -> str:
        """Returns the first failures, in order, and the next step if one is known."""
        events = self._cloudformation.describe_stack_events(StackName=identity)["StackEvents"]
        failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
        text = " ".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '?')}." for e in failed[-5:][::-1])
        return " ".join(filter(None, [text, next_step(text)]))


def parameters_of(template: Path) -> set[str]:
    """Returns the names of a template's parameters."""
    block = template.read_text(encoding="utf-8").partition("\nParameters:\n")[2]
    block = re.split(r"^\S", block, maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^  (\w+):$", block, re.MULTILINE))


def as_settings(outputs: dict[str, str]) -> dict[str, str]:
    """Returns a stack's outputs as the environment of a worker: ``QueueUrl`` becomes ``TWOFOLD_QUEUE_URL``."""
    return {f"TWOFOLD_{re.sub(r'(?<!^)(?=[A-Z])', '_', name).upper()}": value for name, value in outputs.items()}

"""CloudFormation: a template and its parameters to a stack's outputs."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from jobs.errors import UserError
from jobs.progress import Reporter

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_POLL_S: Final = 5.0
_LIMIT_S: Final = 1800
#: Of a template in a call: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_TEMPLATE_BYTES: Final = 51_200


class Stacks:
    """Stacks of an account and region. ``poll_s`` is how often a change under way is looked at."""

    def __init__(self, cloudformation: "CloudFormationClient", *, poll_s: float = _POLL_S) -> None:
        self._cloudformation = cloudformation
        self._poll_s = poll_s

    def deploy(self, name: str, template: Path, parameters: dict[str, str], reporter: Reporter) -> dict[str, str]:
        """Makes the stack, or changes it, waits, and returns its outputs. What it is told stays as it was otherwise.

        Raises UserError with CloudFormation's own reasons when it fails.
        """
        there = self.outputs(name) is not None
        request: dict[str, Any] = {
            "StackName": name,
            "TemplateBody": template.read_text(encoding="utf-8"),
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        with reporter.step(f"{'Changing' if there else 'Making'} the stack {name}"):
            try:
                if there:
                    request["Parameters"] += self._kept(name, template, parameters)
                    self._cloudformation.update_stack(**request)
                else:
                    self._cloudformation.create_stack(**request, OnFailure="DELETE")
            except ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
            self._wait(name)
        return self.outputs(name) or {}

    def outputs(self, name: str) -> dict[str, str] | None:
        """The outputs of a stack by their names, or None where there is no such stack."""
        try:
            found = self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def _kept(self, name: str, template: Path, parameters: dict[str, str]) -> list[dict[str, object]]:
        """Parameters that the stack has, the template still knows, and nobody gives anew."""
        found = self._cloudformation.describe_stacks(StackName=name)["Stacks"][0].get("Parameters", ())
        names = {item["ParameterKey"] for item in found} & parameters_of(template) - parameters.keys()
        return [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(names)]

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            try:
                status = self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
            except ClientError as error:
                raise UserError(f"The stack {name} was not made. {self._reasons(name)}".strip()) from error
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                return
            if not status.endswith("_IN_PROGRESS") and status != "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS":
                raise UserError(f"The stack {name} is in {status}. {self._reasons(name)}".strip())
            time.sleep(self._poll_s)
        raise UserError(
            f"After {_LIMIT_S // 60} minutes the stack {name} is still under way: look at it in the console."
        )

    def _reasons(self, name: str) -> str:
        try:
            events = self._cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        except ClientError:
            return "CloudFormation keeps no events of it; the console shows deleted stacks too."
        failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
        return " ".join(
            f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '?')}." for e in reversed(failed[:5])
        )


def parameters_of(template: Path) -> set[str]:
    """The names of a template's parameters."""
    block = template.read_text(encoding="utf-8").partition("\nParameters:\n")[2]
    block = re.split(r"^\S", block, maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^  (\w+):$", block, re.MULTILINE))


def as_settings(outputs: dict[str, str]) -> dict[str, str]:
    """A stack's outputs as the environment of a worker: ``QueueUrl`` is ``TWOFOLD_QUEUE_URL``."""
    return {f"TWOFOLD_{re.sub(r'(?<!^)(?=[A-Z])', '_', name).upper()}": value for name, value in outputs.items()}

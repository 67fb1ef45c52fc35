"""CloudFormation: a template and its parameters to a stack's outputs."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from jobs.cloud.aws import next_step
from jobs.progress import Reporter
from jobs.user_error import UserError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

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
            identity = name
            try:
                if there:
                    request["Parameters"] += self._kept(name, template, parameters)
                    identity = self._cloudformation.update_stack(**request)["StackId"]
                else:
                    identity = self._cloudformation.create_stack(**request, OnFailure="DELETE")["StackId"]
            except ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
            self._wait(name, identity)
        return self.outputs(name) or {}

    def outputs(self, name: str) -> dict[str, str] | None:
        """The outputs of a stack by their names, or None where there is no such stack."""
        found = self._find(name)
        if found is None:
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def parameters(self, name: str) -> dict[str, str]:
        """What a stack was told, its defaults included; nothing where there is no such stack."""
        found = self._find(name)
        told = found.get("Parameters", ()) if found else ()
        return {item["ParameterKey"]: item.get("ParameterValue", "") for item in told}

    def _find(self, name: str) -> "StackTypeDef | None":
        try:
            return self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def _kept(self, name: str, template: Path, parameters: dict[str, str]) -> list[dict[str, object]]:
        """Parameters that the stack has, the template still knows, and nobody gives anew."""
        names = self.parameters(name).keys() & parameters_of(template) - parameters.keys()
        return [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(names)]

    def _wait(self, name: str, identity: str) -> None:
        """By its identity, under which CloudFormation still knows a stack that it has deleted."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            status = self._cloudformation.describe_stacks(StackName=identity)["Stacks"][0]["StackStatus"]
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                return
            if not status.endswith("_IN_PROGRESS"):
                raise UserError(f"The stack {name} is in {status}. {self._reasons(identity)}".strip())
            time.sleep(self._poll_s)
        raise UserError(
            f"After {_LIMIT_S // 60} minutes the stack {name} is still under way: look at it in the console."
        )

    def _reasons(self, identity: str) -> str:
        """The first failures, newest last, with the next step where one is known."""
        events = self._cloudformation.describe_stack_events(StackName=identity)["StackEvents"]
        failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
        said = " ".join(f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '?')}." for e in failed[-5:][::-1])
        return " ".join(filter(None, [said, next_step(said)]))


def parameters_of(template: Path) -> set[str]:
    """The names of a template's parameters."""
    block = template.read_text(encoding="utf-8").partition("\nParameters:\n")[2]
    block = re.split(r"^\S", block, maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^  (\w+):$", block, re.MULTILINE))


def as_settings(outputs: dict[str, str]) -> dict[str, str]:
    """A stack's outputs as the environment of a worker: ``QueueUrl`` is ``TWOFOLD_QUEUE_URL``."""
    return {f"TWOFOLD_{re.sub(r'(?<!^)(?=[A-Z])', '_', name).upper()}": value for name, value in outputs.items()}

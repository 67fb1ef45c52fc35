"""The roles of a template with their statements, and what IAM makes of them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.infra.templates import as_list, load

REGION: Final = "us-east-1"
_NOTHING: Final = object()


@dataclass(frozen=True)
class Statement:
    """A statement with its actions and resources written out."""

    policy: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]

    def covers(self, action: str, resource: str) -> bool:
        """Whether it speaks of this action on this resource."""
        return _matches(self.actions, action, re.IGNORECASE) and _matches(self.resources, resource)


def _matches(patterns: tuple[str, ...], text: str, flags: int = 0) -> bool:
    """``*`` stands for any characters, slashes included, and ``?`` for one."""
    written = (re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns)
    return any(re.fullmatch(pattern, text, flags | re.DOTALL) for pattern in written)


def allows(statements: list[Statement], action: str, resource: str) -> bool:
    """What IAM decides: some statement allows it, and none denies it."""
    effects = {statement.effect for statement in statements if statement.covers(action, resource)}
    return effects == {"Allow"}


class Stack:
    """A template as it is deployed: with parameters, and with what its resources are called then.

    ``named`` is ``{"Bucket": "shelter", "Bucket.Arn": "arn:aws:s3:::shelter"}``. Resources that are not named there get
    an ARN that is like no other.
    """

    def __init__(self, name: str, parameters: Mapping[str, str], named: Mapping[str, str], *, account: str) -> None:
        self._template = load(name)
        self._parameters = {key: value.get("Default") for key, value in self._template["Parameters"].items()}
        self._parameters |= parameters
        self._named = named
        self._pseudo = {"Region": REGION, "AccountId": account, "Partition": "aws", "NoValue": _NOTHING}

    def properties(self, logical: str) -> Any:
        """The properties of a resource, written out."""
        return self._written(self._template["Resources"][logical]["Properties"])

    def statements(self, role: str) -> list[Statement]:
        """The statements of a role's own policies, and of those of the template that it has. AWS's are not known."""
        properties = self.properties(role)
        documents = {inline["PolicyName"]: inline["PolicyDocument"] for inline in properties.get("Policies", ())}
        for managed in properties["ManagedPolicyArns"]:
            if managed in self._template["Resources"]:
                documents[managed] = self.properties(managed)["PolicyDocument"]
        return [
            _statement(policy, number, body)
            for policy, document in documents.items()
            for number, body in enumerate(document["Statement"])
        ]

    @cached_property
    def _functions(self) -> dict[str, Any]:
        return {
            "Ref": self._ref,
            "Condition": self._condition,
            "Fn::GetAtt": lambda value: self._attribute(".".join(value)),
            "Fn::Sub": self._sub,
            "Fn::If": lambda value: self._written(value[1 if self._condition(value[0]) else 2]),
            "Fn::Join": lambda value: value[0].join(self._written(value[1])),
            "Fn::Split": lambda value: self._written(value[1]).split(value[0]),
            "Fn::Select": lambda value: self._written(value[1])[int(value[0])],
            "Fn::FindInMap": lambda value: self._template["Mappings"][value[0]][self._written(value[1])][value[2]],
            "Fn::Equals": lambda value: str(self._written(value[0])) == str(self._written(value[1])),
            "Fn::Not": lambda value: not self._written(value[0]),
            "Fn::And": lambda value: all(map(self._written, value)),
        }

    def _written(self, node: Any) -> Any:
        if isinstance(node, list):
            return [item for item in map(self._written, node) if item is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1 and (name := next(iter(node))) in self._functions:
            return self._functions[name](node[name])
        found = {name: self._written(value) for name, value in node.items()}
        return {name: value for name, value in found.items() if value is not _NOTHING}

    def _ref(self, name: str) -> Any:
        if name.startswith("AWS::"):
            return self._pseudo.get(name.removeprefix("AWS::"), name)
        return self._parameters[name] if name in self._parameters else self._named.get(name, name)

    def _attribute(self, name: str) -> str:
        return self._named.get(name, f"arn:aws:of-this-stack:::{name}")

    def _condition(self, name: str) -> bool:
        return bool(self._written(self._template["Conditions"][name]))

    def _sub(self, value: Any) -> str:
        text, own = value if isinstance(value, list) else (value, {})
        given = {name: self._written(node) for name, node in own.items()}

        def put(found: "re.Match[str]") -> str:
            name = found[1]
            return str(given[name] if name in given else self._attribute(name) if "." in name else self._ref(name))

        return re.sub(r"\$\{([\w:.]+)\}", put, text)


def _statement(policy: str, number: int, body: dict[str, Any]) -> Statement:
    # What is not evaluated here must not be in a policy unnoticed.
    assert set(body) <= {"Sid", "Effect", "Action", "Resource"}, body
    actions, resources = as_list(body["Action"]), as_list(body["Resource"])
    return Statement(f"{policy}.{body.get('Sid', number)}", body["Effect"], tuple(actions), tuple(resources))

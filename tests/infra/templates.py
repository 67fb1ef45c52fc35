"""The templates as dictionaries with long-form functions, and queries for tests."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from cfnlint.decode import cfn_yaml

from tests.conftest import REPOSITORY


@cache
def load(name: str) -> dict[str, Any]:
    """Returns a template of ``infra/``, with ``!Ref X`` as ``{"Ref": "X"}``."""
    template: dict[str, Any] = cfn_yaml.load(str(REPOSITORY / "infra" / name))
    return template


def resources(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """Returns the properties of all resources of a type, by logical name."""
    found = load(name)["Resources"].items()
    return {logical: body.get("Properties", {}) for logical, body in found if body["Type"] == kind}


def walk(node: Any) -> Iterator[Any]:
    """Yields a node and every node below it."""
    yield node
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in below:
        yield from walk(child)


def statements(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every statement of every policy, with the resource that holds it."""
    for logical, body in load(name)["Resources"].items():
        for node in walk(body):
            if isinstance(node, dict) and "Effect" in node:
                yield logical, node


def as_list(value: Any) -> list[Any]:
    """Returns a list: IAM accepts one item or a list."""
    return value if isinstance(value, list) else [value]


def variables(name: str) -> Iterator[tuple[str, str]]:
    """Yields every environment variable that a template sets, with the resource that gets it."""
    for logical, body in load(name)["Resources"].items():
        for node in walk(body.get("Properties", {})):
            if not isinstance(node, dict) or "Environment" not in node:
                continue
            given = node["Environment"]
            names = given["Variables"] if isinstance(given, dict) else [pair["Name"] for pair in given]
            yield from ((logical, variable) for variable in names)

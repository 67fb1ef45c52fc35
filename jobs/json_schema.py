"""JSON Schemas of messages and files, made by pydantic from ``worker.contract``.

    schemas()["message"]    what a producer sends: worker.contract.ClassifyRequest

The wheel has them as files too, in ``jobs/schemas/``, for programs that are not written in Python.
"""

from typing import Any, Final

from worker.contract import ClassifyRequest, Document, Job, ModelManifest, PredictionRow, Summary

#: The ``schema_version`` that they describe. A new field has a default, so it belongs to the same version.
VERSION: Final = 1

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"  #: which pydantic writes
_KINDS: Final[dict[str, type[Document]]] = {
    "message": ClassifyRequest,
    "row": PredictionRow,
    "job": Job,
    "summary": Summary,
    "model": ModelManifest,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Returns all schemas by name. They accept what the code accepts, and also numbers that do not fit together."""
    return {
        name: {"$schema": _DIALECT, "$id": f"urn:twofold:{name}:{VERSION}", **_plain(kind.model_json_schema())}
        for name, kind in _KINDS.items()
    }


def _plain(found: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Writes descriptions, which pydantic takes from Python's documentation, in the words of JSON."""
    if isinstance(found, list):
        return [_plain(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {name: _words(value) if name == "description" else _plain(value) for name, value in found.items()}


def _words(description: Any) -> Any:  # noqa: ANN401 - a field may have that name, too
    if not isinstance(description, str):
        return _plain(description)
    return description.replace("``", "").replace("None", "null")

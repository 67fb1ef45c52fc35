"""The JSON Schemas, read by a library other than pydantic: they accept what the code accepts, and the pages show."""

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from jobs.commands.app import app
from jobs.json_schema import VERSION, schemas
from tests.conftest import REPOSITORY
from tests.desk import Desk
from tests.pages import BLOCKS, blocks
from worker import contract
from worker.contract import ClassifyRequest, Document, PredictionRow
from worker.predictions import from_csv

SCHEMAS = schemas()
FILES = REPOSITORY / "jobs/schemas" / f"v{VERSION}"


def _problems(name: str, document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[name]).iter_errors(document)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_command_prints_a_valid_schema_and_the_wheel_has_it_as_a_file(name: str) -> None:
    """To renew a file: ``uv run twofold schema NAME > jobs/schemas/v1/NAME.json``."""
    done = CliRunner().invoke(app, ["schema", name])
    Draft202012Validator.check_schema(json.loads(done.stdout))
    assert done.stdout == (FILES / f"{name}.json").read_text(encoding="utf-8")
    assert json.loads(done.stdout)["$id"] == f"urn:twofold:{name}:{VERSION}"


def test_without_a_name_it_prints_all_of_them() -> None:
    """By name; and there are no other files."""
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == SCHEMAS
    assert {path.stem for path in FILES.iterdir()} == SCHEMAS.keys()
    assert CliRunner().invoke(app, ["schema", "rows"]).exit_code == 2


def test_every_request_of_a_page_is_valid() -> None:
    """In blocks of JSON, in the Python of the walk-through, and in the docstring of the contract."""
    documents = [json.loads(block.text) for block in BLOCKS if block.language == "json"]
    requests = [document for document in documents if "job_id" in document]
    assert len(requests) == len(documents) - 2  # an S3 event, and a policy of IAM
    shown = re.findall(r'^ *(\{"schema_version".*\})$', str(contract.__doc__), re.MULTILINE)
    requests += [json.loads(text) for text in shown]
    requests += [
        _dictionary(block) for block in blocks("worker/README.md", "A request by hand", "python") if "job_id" in block
    ]
    assert len(requests) == 4
    assert [_problems("message", request) for request in requests] == [[]] * 4


def _dictionary(code: str) -> Any:
    """The value of ``request`` in a block of Python."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "request":
            return ast.literal_eval(node.value)
    raise AssertionError(code)


def test_the_descriptions_are_in_the_words_of_json() -> None:
    """Not in those of Python, from whose documentation they come."""
    text = json.dumps(schemas())
    assert "The columns are the fields, in this order. null is a blank cell." in text
    assert re.search("``|None|True|False", text) is None


@pytest.mark.parametrize("endpoint", ["ministack"], indirect=True)
def test_what_a_job_writes_is_valid(desk: Desk, digit_images: Path) -> None:
    """Its rows, scored and failed, ``job.json`` and ``summary.json``."""
    image = desk.bench.put("a.png", next(digit_images.rglob("*.png")).read_bytes())
    desk.handle(ClassifyRequest(schema_version=1, job_id="job", images=(image, "no URI")))
    folder = desk.folder()
    rows = [row.model_dump(mode="json") for row in from_csv(desk.bench.get(folder.part()))]
    assert [_problems("row", row) for row in rows] == [[], []]
    assert _problems("job", json.loads(desk.bench.get(folder.job))) == []
    assert _problems("summary", json.loads(desk.bench.get(folder.summary))) == []


def test_what_training_writes_is_valid(bundle: Path) -> None:
    """``model.json``."""
    assert _problems("model", json.loads((bundle / "model.json").read_bytes())) == []


_REQUEST: Final[dict[str, Any]] = {"schema_version": 1, "job_id": "june", "images": ["s3://shelter/in/a.jpg"]}
_LIST: Final[dict[str, Any]] = {"uri": "s3://shelter/june.csv"}
_ROW: Final[dict[str, Any]] = {
    "row": 0,
    "source_ref": "s3://shelter/in/a.jpg",
    "label": "cat",
    "confidence": 0.9,
    "score": 0.1,
    "threshold": 0.5,
    "model_version": "v1",
}
_BLANK: Final[dict[str, Any]] = {"label": None, "confidence": None, "score": None}


@pytest.mark.parametrize(
    ("name", "document", "valid"),
    [
        ("message", _REQUEST, True),
        ("message", _REQUEST | {"manifest": None, "threshold": None, "model_uri": None, "output_uri": None}, True),
        ("message", _REQUEST | {"images": None, "manifest": _LIST, "shard": 3}, True),
        ("message", _REQUEST | {"threshold": 1, "model_uri": "s3://shelter/models/pets/champion.json"}, True),
        ("message", _REQUEST | {"manifest": _LIST}, False),
        ("message", _REQUEST | {"images": None}, False),
        ("message", _REQUEST | {"shard": 3}, False),
        ("message", _REQUEST | {"images": []}, False),
        ("message", _REQUEST | {"images": [""]}, False),
        ("message", _REQUEST | {"schema_version": 2}, False),
        ("message", _REQUEST | {"schema_version": True}, False),
        ("message", _REQUEST | {"schema_version": "1"}, False),
        ("message", _REQUEST | {"job_id": ".june"}, False),
        ("message", _REQUEST | {"threshold": 1.5}, False),
        ("message", _REQUEST | {"threshold": "0.5"}, False),
        ("message", _REQUEST | {"model_uri": "https://shelter/models"}, False),
        ("message", _REQUEST | {"output_uri": "s3://shelter/a/../b/"}, False),
        ("message", _REQUEST | {"imgaes": []}, False),
        ("message", _REQUEST | {"images": None, "manifest": _LIST | {"format": "csv", "version_id": None}}, True),
        ("message", _REQUEST | {"images": None, "manifest": _LIST | {"format": "xml"}}, False),
        ("message", _REQUEST | {"images": None, "manifest": {"uri": "s3://shelter/./june.csv"}}, False),
        ("row", _ROW, True),
        ("row", _ROW | _BLANK | {"error_code": "damaged", "error_message": "cut off"}, True),
        ("row", _ROW | {"error_code": "damaged"}, False),
        ("row", _ROW | _BLANK, False),
        ("row", _ROW | {"label": None}, False),
        ("row", _ROW | {"row": -1}, False),
    ],
)
def test_the_schema_and_the_code_accept_the_same(name: str, document: dict[str, Any], *, valid: bool) -> None:
    """Also what pydantic cannot derive by itself: one source, no dots, a score or else an error."""
    kind = ClassifyRequest if name == "message" else PredictionRow
    assert (_problems(name, document) == [], _accepts(kind, document)) == (valid, valid)


def _accepts(kind: type[Document], document: dict[str, Any]) -> bool:
    try:
        kind.parse(json.dumps(document))
    except ValueError:
        return False
    return True

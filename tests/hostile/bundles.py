"""The models of the catalogue: each is a change to a sound bundle."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter

#: The files of a bundle, by name.
Files = dict[str, bytes]
Change = Callable[[Files], Files]

GRAPH: Final = "model.tflite"
MODEL_JSON: Final = "model.json"


def without(name: str) -> Change:
    """Drops a file."""
    return lambda files: {other: body for other, body in files.items() if other != name}


def flipped(name: str) -> Change:
    """Flips a bit in the middle of a file."""

    def change(files: Files) -> Files:
        body = bytearray(files[name])
        body[len(body) // 2] ^= 1
        return files | {name: bytes(body)}

    return change


def cut(name: str) -> Change:
    """Cuts the second half of a file off."""
    return lambda files: files | {name: files[name][: len(files[name]) // 2]}


def manifest(**fields: Any) -> Change:
    """Changes fields of ``model.json``."""
    return lambda files: files | {MODEL_JSON: json.dumps(json.loads(files[MODEL_JSON]) | fields).encode()}


def threshold(value: str) -> Change:
    """Writes the threshold into ``model.json`` as no library would."""
    pattern = rb'"threshold": *[^,}]+'
    return lambda files: files | {MODEL_JSON: re.sub(pattern, f'"threshold": {value}'.encode(), files[MODEL_JSON])}


def graph(content: bytes) -> Change:
    """Replaces the graph, with a digest and a size that match."""

    def change(files: Files) -> Files:
        record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        listed = json.loads(files[MODEL_JSON])["files"] | {GRAPH: record}
        return manifest(files=listed)(files | {GRAPH: content})

    return change


def keras_archive() -> bytes:
    """Returns a ``.keras`` file whose layer would run code when Keras loads it, as in CVE-2025-1550."""
    code = {"class_name": "function", "config": "system", "module": "os", "registered_name": "function"}
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": code}}))
    return stream.getvalue()


def answering_nan(files: Files) -> Files:
    """Replaces the weights of the last layer by NaN, with a digest that matches."""
    reader = Interpreter(model_content=files[GRAPH])
    reader.allocate_tensors()
    last = next(item for item in reader.get_tensor_details() if item["name"].endswith("probability_1/MatMul"))
    weights = reader.get_tensor(last["index"])
    return graph(files[GRAPH].replace(weights.tobytes(), np.full_like(weights, np.nan).tobytes()))(files)

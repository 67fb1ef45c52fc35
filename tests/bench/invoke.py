"""A Lambda runtime for one process: imports a handler and calls it once per file with an event.

    python -m tests.bench.invoke worker.serverless first.json second.json

It keeps running afterwards, so that its memory can be measured.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    """Runs the events. The first call includes the start, as in a new Lambda environment."""
    module, *events = sys.argv[1:]
    handler = importlib.import_module(module).handler
    context = SimpleNamespace(
        aws_request_id="bench", function_name="bench", get_remaining_time_in_millis=lambda: 900_000
    )
    for event in events:
        handler(json.loads(Path(event).read_text(encoding="utf-8")), context)
    time.sleep(3600)


if __name__ == "__main__":
    main()

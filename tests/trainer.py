"""A process that has TensorFlow loaded, and forks a child for each command: real processes, without 8 seconds each.

It reads a JSON line a request from standard input and answers each with one: ``{"start": …}`` with the child's
process id, ``{"wait": pid}`` with its exit status (negative: the signal that ended it).
"""

import json
import os
import sys
from typing import Any


def _start(request: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ.update(request["environment"])
    for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    status = 1
    try:
        from jobs import container  # noqa: PLC0415 - loaded by the parent
        from jobs.cli import main  # noqa: PLC0415 - loaded by the parent

        if request["in_container"]:
            status = container.run(main, request["arguments"], os.environ)
        else:
            status = main(request["arguments"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def serve() -> None:
    """Until standard input ends."""
    import jobs.train  # noqa: F401, PLC0415 - what takes the time

    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = _start(request["start"])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    serve()

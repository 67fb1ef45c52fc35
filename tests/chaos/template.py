"""A process that has loaded some modules and forks a copy of itself for each program that it is asked to run.

    python -m tests.chaos.template MODULE...

A copy runs ``python -m <module>`` from its first line. A worker is ready in 0.2 s instead of 0.9 s, so hundreds can be
killed. Requests and answers are lines of JSON on standard input and output: for ``{"start": ...}`` the process id of
the copy, for ``{"poll": pid}`` its exit status (negative: the signal that ended it) or null while it runs.

This file imports nothing of the tests, so that a worker has loaded what it loads by itself, and no more. Its copies end
with it.
"""

import json
import os
import runpy
import signal
import sys


def _fork(module: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
    """Returns the process id of a copy that runs the module."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), descriptor)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _serve(loaded: list[str]) -> None:
    """Answers requests on standard input, each a line of JSON, until it ends."""
    for module in loaded:
        __import__(module)
    statuses: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = _fork(**request["start"])
            statuses[pid] = None
            answer: int | None = pid
        else:
            pid = request["poll"]
            if statuses[pid] is None:
                statuses[pid] = _status(pid)
            answer = statuses[pid]
        print(json.dumps(answer), flush=True)
    for pid, status in statuses.items():
        if status is None and _status(pid) is None:
            os.killpg(pid, signal.SIGKILL)


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    _serve(sys.argv[1:])

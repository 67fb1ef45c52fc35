"""A process that has TensorFlow loaded and forks a child for each command: real processes, without 8 seconds each.

    python -m tests.trainer SOCKET PID

It listens on a Unix socket, so that all processes of one test run share it, and ends with the process PID. Requests and
answers are lines of JSON: for ``{"start": …}`` the child's process id, for ``{"poll": pid}`` its exit status (negative:
the signal that ended it) or null while it runs.
"""

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tests.calls import record_to


def _start(request: dict[str, Any], sockets: selectors.BaseSelector) -> int:
    child = os.fork()
    if child:
        return child
    for number in (signal.SIGINT, signal.SIGHUP):  # the tests themselves may run with nohup, or with &
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(request["environment"])
    for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    for key in list(sockets.get_map().values()):  # a child must not keep a client's connection open
        os.close(key.fd)
    status = 1
    try:
        from jobs import container  # noqa: PLC0415 - loaded by the parent
        from jobs.cli import main  # noqa: PLC0415 - loaded by the parent

        if path := request["environment"].get("RECORDED_CALLS"):
            record_to(path)
        if request["in_container"]:
            status = container.run(main, request["arguments"], os.environ)
        else:
            status = main(request["arguments"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def _answer(request: dict[str, Any], sockets: selectors.BaseSelector) -> int | None:
    if "start" in request:
        return _start(request["start"], sockets)
    pid, status = os.waitpid(request["poll"], os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def serve(path: str, owner: int) -> None:
    """Answers requests until the process ``owner`` has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen()
    Path(f"{path}.new").rename(path)  # once it is visible, clients can connect
    # What takes the time, so that no child has to load it; clients wait for their first answer.
    import jobs.commands.train_remote  # noqa: PLC0415
    import jobs.container  # noqa: PLC0415
    import jobs.data.prepare  # noqa: PLC0415
    import jobs.train  # noqa: F401, PLC0415

    sockets = selectors.DefaultSelector()
    sockets.register(listener, selectors.EVENT_READ)
    while _is_alive(owner):
        for key, _ in sockets.select(timeout=1.0):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                sockets.register(connection, selectors.EVENT_READ, connection.makefile("rw"))
            elif line := key.data.readline():
                key.data.write(json.dumps(_answer(json.loads(line), sockets)) + "\n")
                key.data.flush()
            else:
                sockets.unregister(key.fileobj)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    serve(sys.argv[1], int(sys.argv[2]))

"""The template process: a small process that has loaded the decoder and LiteRT, and forks the ones that use them.

    the worker ── control ── the template ── forks ── a child for each core
        └──────────────── a pipe each ──────────────────┘

A worker has threads, an SDK and credentials. A fork of it could deadlock, and would carry all of that along. So the
template is a new program, started before anything else: it inherits no descriptor but its control socket, and no
variable that is not named below. Its children are ready within milliseconds, and share its memory.

This file is both sides: ``Template`` is the worker's, and ``serve`` runs in the new program.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import Final

from worker.errors import Broken

#: The variables that the template gets. Credentials, and everything else, stay with the worker.
_KEPT: Final = ("DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TZ")
#: One thread each: there is a process for every core.
_ADDED: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

#: The new program. Its arguments are the control socket and the path of this process.
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from worker.scoring.template import serve; serve(int(sys.argv[1]))"
)

#: The template answers within milliseconds, once it has loaded its libraries.
_ANSWER_S: Final = 60
_STOP_S: Final = 5

#: A command and the process it is about; the answer is the new process, or the status of the ended one.
_COMMAND: Final = struct.Struct("=ci")
_ANSWER: Final = struct.Struct("=i")
_FORK: Final = b"f"
_KILL: Final = b"k"
_BURY: Final = b"b"


class Template:
    """The worker's side. Every method is safe to call from any thread. Raises Broken when the process has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_ANSWER_S)
        inherited = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with theirs:
            # -I and -S: neither variables nor files in site-packages run code here. The path is that of this process.
            flags = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *flags, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                    env=inherited | _ADDED,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Ctrl-C in a terminal is the worker's: it lets the current part finish.
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                raise Broken(f"the template of the scoring processes cannot be started: {error}") from error

    def close(self) -> None:
        """Ends the template and its children."""
        self._control.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)

    def fork(self) -> tuple[int, Connection]:
        """Starts a child, and returns its process number and the worker's end of its pipe."""
        ours, theirs = Pipe()
        with theirs:
            pid = self._command(_FORK, 0, theirs.fileno())
        if pid < 0:
            ours.close()
            raise Broken(f"no scoring process can be forked: {os.strerror(-pid)}")
        return pid, ours

    def kill(self, pid: int) -> None:
        """Kills a child, which may have ended already."""
        self._command(_KILL, pid)

    def bury(self, pid: int) -> int:
        """Kills a child if it is still there. Returns its exit status, or minus the signal that ended it.

        Until then the number of a dead child is not used again, so the wrong process is never killed.
        """
        return os.waitstatus_to_exitcode(self._command(_BURY, pid))

    def _command(self, command: bytes, pid: int, *descriptors: int) -> int:
        with self._lock:
            try:
                socket.send_fds(self._control, [_COMMAND.pack(command, pid)], descriptors)
                answer = self._control.recv(_ANSWER.size, socket.MSG_WAITALL)
                (number,) = _ANSWER.unpack(answer)
            except (OSError, struct.error) as error:
                self._control.close()  # an answer that comes later would be taken for that to another command
                status = self._process.poll()
                ended = "does not answer" if status is None else f"has ended with status {status}"
                raise Broken(f"the template of the scoring processes {ended}") from error
            return int(number)


def serve(descriptor: int) -> None:
    """Runs in the new program: carries out commands until the worker closes its end of the socket, or dies."""
    from worker.scoring import child  # noqa: PLC0415 - the worker imports this file without LiteRT and Pillow

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a service manager may signal every process: the worker decides
    child.load()
    control = socket.socket(fileno=descriptor)
    children: set[int] = set()
    while True:
        try:
            message, descriptors, *_ = socket.recv_fds(control, _COMMAND.size, 1)
        except OSError:
            message = b""
        if not message:
            break
        command, pid = _COMMAND.unpack(message)
        answer = _fork(control, descriptors[0], children) if command == _FORK else _end(command, pid, children)
        try:
            control.sendall(_ANSWER.pack(answer))
        except OSError:  # the worker died before it could read this
            break
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _end(command: bytes, pid: int, children: set[int]) -> int:
    if pid not in children:  # it is buried, and its number may belong to somebody else by now
        return 0
    os.kill(pid, signal.SIGKILL)
    if command != _BURY:
        return 0
    children.discard(pid)
    return os.waitpid(pid, 0)[1]


def _fork(control: socket.socket, descriptor: int, children: set[int]) -> int:
    """Returns the number of the new process, or minus the error."""
    from worker.scoring import child  # noqa: PLC0415 - loaded by ``serve``

    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        control.close()
        child.run(descriptor)
    os.close(descriptor)
    if pid > 0:
        children.add(pid)
    return pid

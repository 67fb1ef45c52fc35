"""The settings of a folder: ``twofold.toml``, so that nobody pastes them into every shell; and what is missing.

    TWOFOLD_QUEUE_URL = "http://127.0.0.1:4566/000000000000/requests"
    AWS_REGION = "us-east-1"

``twofold local`` and ``twofold cloud deploy`` offer to write the file. ``twofold batch``, ``twofold label``,
``twofold model``, ``twofold doctor`` and ``twofold train run`` read it in the folder where they are run. A variable of
the environment takes precedence.
"""

import json
import os
import shlex
import socket
import sys
import tempfile
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from jobs.question import confirm
from jobs.user_error import UserError
from jobs.wording import fitted, program, with_command

FILE: Final = "twofold.toml"
_TWOFOLD: Final = "TWOFOLD_"
_AWS: Final = "AWS_"
_ENDPOINT: Final = "AWS_ENDPOINT_URL"
_HERE: Final = {"127.0.0.1", "localhost", "::1"}
#: A port of this machine answers at once, or refuses at once.
_ANSWER_S: Final = 5


def apply(folder: Path, environment: MutableMapping[str, str] | None = None) -> None:
    """Adds the settings of the folder's file to the environment, where they are not set, and says so.

    Raises UserError if the file cannot be read, or has what is not a setting.
    """
    environment = os.environ if environment is None else environment
    found = read(folder)
    own = {name for name in found if environment.get(name)}
    other = sorted(name for name in own if environment[name] != found[name])
    if found.keys() - own:
        but = f", but {', '.join(other)} from the environment" if other else ""
        print(fitted(f"Settings: {FILE}{but}", sys.stderr), file=sys.stderr)
    environment.update({name: value for name, value in found.items() if name not in own})


def read(folder: Path) -> dict[str, str]:
    """Returns the settings of the folder's file; none if there is no file."""
    path = folder / FILE
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. Repair it, or delete it.") from error
    for name, value in found.items():
        _check(path, name, value)
    return {name: str(value) for name, value in found.items()}


def check_emulator(folder: Path | None = None, *, after: str = "") -> None:
    """Raises UserError if the settings are those of an emulator on this machine, and nothing listens on its port.

    The clients of the SDK would try five times, and then name an address that the user has never typed. ``after`` says
    what goes on once the emulator runs again.
    """
    endpoint = os.environ.get(_ENDPOINT, "")
    if not _is_refused(endpoint):
        return
    folder = folder or Path.cwd()
    is_of_file = read(folder).get(_ENDPOINT) == endpoint
    origin, remove = (FILE, f"remove {folder / FILE}") if is_of_file else (_ENDPOINT, f"unset {_ENDPOINT}")
    silent = f"The emulator of {origin} does not answer at {endpoint}."
    start = "Start it" if after else f"If you are done with it, {remove}. If not, start it"
    raise UserError(with_command(f"{silent} {start} in another terminal:", "local") + (f"\n{after}" if after else ""))


def _is_refused(endpoint: str) -> bool:
    try:
        address = urlsplit(endpoint)
        host, port = address.hostname, address.port or (443 if address.scheme == "https" else 80)
    except ValueError:  # no address, which the SDK says in its own words
        return False
    if host not in _HERE:
        return False
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # it may only be slow
        return False
    return False


def _check(path: Path, name: str, value: object) -> None:
    from worker.contract import nearest  # noqa: PLC0415 - takes a tenth of a second, and most folders have no file
    from worker.settings import WorkerSettings  # noqa: PLC0415

    known = {f"{_TWOFOLD}{field.upper()}" for field in WorkerSettings.model_fields}
    if not name.startswith(_AWS) and name not in known:
        near = nearest(name, known)
        question = f" Did you mean {near}?" if near else ""
        raise UserError(f"{path}: {name} is not a setting.{question}")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError(f'{path}: {name} must be a text in quotes, as in {name} = "…".')


def _above(folder: Path) -> Path | None:
    """Returns the nearest folder above one without the file, where there is one."""
    if (folder / FILE).exists():
        return None
    return next((parent for parent in folder.parents if (parent / FILE).is_file()), None)


def save(folder: Path, settings: Mapping[str, str], *, written_by: str) -> Path:
    """Writes the file, in place of an earlier one, and returns its path. Only the user can read it."""
    lines = [
        f"# Written by '{written_by}'. twofold batch, label, model, doctor and train run read it in this folder.",
        "# Variables of the environment take precedence.",
        *(f"{name} = {_quoted(value)}" for name, value in settings.items()),
    ]
    handle, draft = tempfile.mkstemp(dir=folder, prefix=f".{FILE}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return Path(draft).replace(folder / FILE)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _quoted(value: str) -> str:
    """Returns a text as TOML writes it: as JSON does, but for DEL, which only JSON allows."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")


def offer(settings: Mapping[str, str], *, written_by: str, folder: Path | None = None) -> bool:
    """Asks on a terminal whether to write the file, unless it has these settings. Returns whether it has them now.

    Without a terminal nothing is asked and nothing is written. A profile that is in use belongs to the settings.
    """
    settings = dict(settings) | {name: value for name, value in os.environ.items() if name == "AWS_PROFILE" and value}
    folder = folder or Path.cwd()
    path = folder / FILE
    try:
        if read(folder) == settings:
            return True
    except UserError:
        pass  # it can be replaced
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = f"Replace {FILE} with these settings?" if path.exists() else f"Write these settings to {FILE}?"
    print(fitted(f"With the settings in {FILE}, commands in this folder need no exports.", sys.stderr), file=sys.stderr)
    if not confirm(question, default=True):
        return False
    save(folder, settings, written_by=written_by)
    print(fitted(f"Written: {path}", sys.stderr), file=sys.stderr)
    return True


def missing(settings: Mapping[str, str], *, also: str = "") -> str:
    """Returns a message about settings that are not set: what each of them is, and where to get all of them at once.

    ``settings`` maps the names of WorkerSettings' fields to what they mean; ``also`` says what else is missing.
    """
    from worker.settings import EXAMPLES, misspelt  # noqa: PLC0415 - see above

    if above := _above(Path.cwd()):
        here = f"Settings are missing: there is no {FILE} in this folder, but there is one above it."
        return f"{here} Go there first:\n  cd {shlex.quote(str(above))}"
    variables = {name: f"{_TWOFOLD}{name.upper()}" for name in settings}
    width = max(map(len, variables.values()), default=0)
    lines = [f"{variables[name]:<{width}}  {meaning}{misspelt(variables[name])}" for name, meaning in settings.items()]
    lines += also.splitlines()
    exports = [f"export {variable}={EXAMPLES.get(name, 'VALUE')}" for name, variable in variables.items()]
    commands = {f"{program()} local": "on this machine, in another terminal", f"{program()} cloud deploy": "on AWS"}
    longest = max(map(len, commands))
    return "\n".join(
        [
            f"{'This setting is' if len(lines) == 1 else 'These settings are'} missing:\n",
            *(f"  {line}" for line in lines),
            f"\nRun one of these to have all of them. Both offer to write them to {FILE}, which is read here:\n",
            *(f"  {command:<{longest}}  {where}" for command, where in commands.items()),
            "\nOr paste this, with your own values:\n",
            *(f"  {line}" for line in exports),
        ]
    )

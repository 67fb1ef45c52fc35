"""A missing extra is reported with the command that installs it."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs import extras
from jobs.extras import EXTRAS, Extra, _install, explain_missing
from jobs.models.champion import Champions
from jobs.store import FolderStore
from tests.conftest import REPOSITORY
from tests.infra.test_requirements import PROJECT
from tests.jobs.models.versions import add_version

CLI = f"The command line needs typer, rich and jinja2; install it with: {_install('cli')}"
TRAIN = f"Training needs TensorFlow; install it with: {_install('train')}"
COMPARE = f"Promoting compares two models with scipy; install it with: {_install('train')}"
LOCAL = f"The local cloud needs ministack; install it with: {_install('local')}"
DEMO = f"Training needs TensorFlow and the local cloud needs ministack; install them with: {_install('train,local')}"

#: Hides the modules of an environment that lacks the extras, and runs ``python -m jobs.cli`` once per command.
SCRIPT = """
import json, runpy, sys
hidden, commands = map(json.loads, sys.argv[1:])
sys.modules.update(dict.fromkeys(hidden))
for sys.argv[1:] in commands:
    try:
        runpy.run_module("jobs.cli", run_name="__main__")
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
"""


def _run_without(extras: set[str], *commands: list[str], prints: bool = False) -> list[str]:
    """Returns what the commands print to standard error, and each exit status as one more line."""
    hidden = [module for extra in EXTRAS if extra.name in extras for module in extra.modules]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(hidden), json.dumps(commands)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "" or prints
    return done.stderr.splitlines()


def test_the_worker_alone_has_no_command_line_and_says_so() -> None:
    """``pip install twofold`` installs the command, but not its libraries."""
    printed = _run_without({"cli", "train", "local"}, [], ["train", "run", "--help"])
    assert printed == [f"Error: {CLI}", "1"] * 2


def test_a_command_without_its_extra_says_how_to_install_it(tmp_path: Path) -> None:
    """The demo names both of its extras at once."""
    folder = str(tmp_path)
    printed = _run_without(
        {"train", "local"},
        ["train", "run", "--data", folder, "--output", folder],
        ["local", "--keep", folder],
        ["demo", "--keep", folder],
    )
    expected = [line for message in (TRAIN, LOCAL, DEMO) for line in (f"Error: {message}", "1")]
    assert printed == expected


def test_the_command_line_alone_shows_and_rolls_back_models_and_says_what_promoting_needs(
    bundle: Path, tmp_path: Path
) -> None:
    """Only a comparison with the champion needs SciPy, which would also delay the other two by seconds."""
    store, model = FolderStore(tmp_path), str(tmp_path / "digits")
    for version in ("v1", "v2"):
        add_version(store, bundle, version)
    commands = [["promote", f"{model}/v1"], ["promote", f"{model}/v2"], ["show", model]]
    printed = _run_without({"train", "local"}, *(["model", *command] for command in commands), prints=True)
    assert [line for line in printed if "Reading" not in line] == ["0", f"Error: {COMPARE}", "1", "0"]
    champions = Champions(store, "digits")
    champions.set_champion("v2", expected=champions.current(), how="forced")
    assert _run_without({"train", "local"}, ["model", "rollback", model], prints=True)[-1] == "0"
    restored = champions.current()
    assert restored is not None
    assert restored.tenure.version == "v1"


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_the_table_lists_every_library_of_an_extra(extra: Extra) -> None:
    """Any of them may be the one that an environment lacks."""
    wanted = map(Requirement, PROJECT["optional-dependencies"][extra.name])
    distributions = packages_distributions()
    listed = {canonicalize_name(distributions[module][0]) for module in extra.modules}
    assert listed == {canonicalize_name(one.name) for one in wanted} - {"twofold"}


@pytest.mark.parametrize("kept", [True, False])
def test_an_extra_is_installed_from_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    """From this checkout, or from the wheel; never by a name, which is on no package index and anybody could take."""
    monkeypatch.setattr(extras, "which", lambda _: "/usr/bin/uv")
    assert _install("train") == "uv sync"
    monkeypatch.setattr(extras, "which", lambda _: None)
    assert _install("train") == f"pip install -e '{REPOSITORY}[train]'"
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages/jobs/extras.py"))
    wheel = tmp_path / "my dist" / "twofold-0.2.0-py3-none-any.whl"
    wheel.parent.mkdir()
    if kept:
        wheel.touch()
    recorded = SimpleNamespace(version="0.2.0", read_text=lambda _: json.dumps({"url": wheel.as_uri()}))
    monkeypatch.setattr(extras, "distribution", lambda _: recorded)
    assert _install("cli,train") == f"pip install '{wheel if kept else wheel.name}[cli,train]'"


def test_a_module_of_no_extra_is_not_explained() -> None:
    """A missing dependency of the worker, or a mistake of ours, stays a traceback."""
    assert explain_missing(ModuleNotFoundError(name="jinja2.ext")) == CLI
    assert explain_missing(ModuleNotFoundError(name="pydantic")) is None
    assert explain_missing(ModuleNotFoundError("no name")) is None

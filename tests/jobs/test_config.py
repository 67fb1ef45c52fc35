"""What starts a job again."""

import shlex

import typer.main

from jobs.commands.app import app
from jobs.config import TrainConfig


def test_the_command_of_a_job_starts_the_same_job() -> None:
    """Read by the command line itself; only the version is another, since bundles are not written over."""
    config = TrainConfig(
        data="my pets;rm",
        output="s3://shelter/models",
        name="pets",
        version="v1",
        image_size=224,
        weights="package",
        fine_tune=30,
        seed=5,
        threshold="recall>=0.99",
    )
    program, group, verb, *options = shlex.split(config.command())
    assert (program, group, verb) == ("twofold", "train", "run")
    run = typer.main.get_command(app).commands[group].commands[verb]  # type: ignore[attr-defined]
    values = run.make_context(verb, options).params
    again = TrainConfig(
        **{name: value for name, value in values.items() if name in TrainConfig.model_fields and name != "cache"}
    )
    assert again == config.model_copy(update={"version": None})


def test_what_is_the_default_is_left_out_of_the_command() -> None:
    """A person can see what was chosen."""
    config = TrainConfig(data="pets", output="models")
    assert config.command() == "twofold train run --data pets --output models"

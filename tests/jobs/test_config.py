"""The options of a training job: the same in the model, on the command line, and in the command that repeats it."""

import shlex
from typing import Any

import pytest
import typer.main
from pydantic import ValidationError

from jobs.commands.app import app
from jobs.config import OptionHelp, TrainConfig, explain_options


def _train_run() -> Any:
    """The command of the command line, as typer made it."""
    return typer.main.get_command(app).commands["train"].commands["run"]  # type: ignore[attr-defined]


def test_every_field_is_an_option_and_every_option_a_field() -> None:
    """``train run`` takes the fields of TrainConfig, and two more."""
    options = {option.name: option.opts for option in _train_run().params}
    assert options.pop("as_json") == ["--json"]
    assert options.pop("any_classes") == ["--any-classes"]  # hidden: for ``twofold local``
    assert options == {name: [f"--{name.replace('_', '-')}"] for name in TrainConfig.model_fields}


def test_an_option_has_the_default_and_the_description_of_its_field() -> None:
    """Where the default depends on the machine or the time, ``--help`` describes it and the option is unset."""
    options = {option.name: option for option in _train_run().params}
    for name, field in TrainConfig.model_fields.items():
        described = next((item.default for item in field.metadata if isinstance(item, OptionHelp)), None)
        assert options[name].help == field.description, name
        assert options[name].required == field.is_required(), name
        assert options[name].show_default == (described or True), name
        if not field.is_required():
            assert options[name].default == (None if described else field.default), name


def test_the_command_of_a_job_repeats_the_job() -> None:
    """As the command line itself reads it. Only the version differs, since a bundle is never overwritten."""
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
        redirect_hosts="cdn.example.com,10.0.0.7",
    )
    program, group, verb, *options = shlex.split(config.command())
    assert (program, group, verb) == ("twofold", "train", "run")
    values = _train_run().make_context(verb, options).params
    again = TrainConfig(
        **{name: value for name, value in values.items() if name in TrainConfig.model_fields and name != "cache"}
    )
    assert again == config.model_copy(update={"version": None})


@pytest.mark.parametrize("rule", ["precision", "recall", "1.5", "precision>=2"])
def test_a_wrong_threshold_is_answered_with_the_rules_in_quotes(rule: str) -> None:
    """Whoever forgot them typed precision>=0.99, and the shell made a file called =0.99 of the rest."""
    with pytest.raises(ValidationError) as caught:
        TrainConfig(data="x", output="y", threshold=rule)
    said = explain_options(caught.value)
    assert "use a number from 0 to 1, max-f1, 'precision>=0.95' or 'recall>=0.99'." in said
    bare = f"Put it in quotes, because a shell takes > for itself: '{rule}>=0.95'."
    assert (bare in said) is (rule in {"precision", "recall"})


def test_a_number_out_of_its_limits_is_repeated_as_it_was_typed() -> None:
    """1 and not 1.0."""
    with pytest.raises(ValidationError) as caught:
        TrainConfig(data="x", output="y", validation_split=1)
    assert explain_options(caught.value) == "--validation-split must be a number above 0 and below 1, not 1"


def test_the_hosts_of_redirects_are_names_or_ip_addresses() -> None:
    """Not addresses of files, and without a port: the message says how to write them."""
    config = TrainConfig(data="x", output="y", redirect_hosts=" CDN.example.com, my_host,::1 ,")
    assert config.redirect_hosts == "cdn.example.com,my_host,::1"
    assert config.allowed_redirects == {"cdn.example.com", "my_host", "::1"}
    assert TrainConfig(data="x", output="y").allowed_redirects == frozenset()
    for wrong in ("https://cdn.example.com", "cdn.example.com:8080", "*.example.com", "a b"):
        with pytest.raises(ValidationError, match="is not the name of a host"):
            TrainConfig(data="x", output="y", redirect_hosts=wrong)


def test_the_command_leaves_out_defaults() -> None:
    """So that it shows what was chosen."""
    config = TrainConfig(data="pets", output="models")
    assert config.command() == "twofold train run --data pets --output models"

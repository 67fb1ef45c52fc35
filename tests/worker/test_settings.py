"""The worker's settings, and what they say when one is wrong."""

import pytest
from pydantic import ValidationError

from worker.bootstrap import check_settings
from worker.settings import WorkerSettings, available_cores, explain_settings

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/requests"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a queue is set, whatever the machine has set."""
    for field in WorkerSettings.model_fields:
        monkeypatch.delenv(f"TWOFOLD_{field.upper()}", raising=False)
    monkeypatch.setenv("TWOFOLD_QUEUE_URL", QUEUE)


def _set(monkeypatch: pytest.MonkeyPatch, **settings: str) -> WorkerSettings:
    for name, value in settings.items():
        monkeypatch.setenv(f"TWOFOLD_{name.upper()}", value)
    return WorkerSettings()


def _refusal(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    with pytest.raises(ValidationError) as caught:
        _set(monkeypatch, **settings)
    return explain_settings(caught.value)


def test_only_the_queue_must_be_set() -> None:
    """The other settings have defaults."""
    assert WorkerSettings().model_dump() == {
        "queue_url": QUEUE,
        "dead_letter_url": None,
        "model_uri": None,
        "output_uri": None,
        "allowed_prefixes": (),
        "model_prefixes": (),
        "expected_bucket_owner": None,
        "threads": available_cores(),
        "fetchers": 16,
        "in_flight_mib": 128,
        "image_cpu_s": 10.0,
        "image_wall_s": 30.0,
        "image_memory_mib": 384,
        "request_s": 600.0,
        "visibility_s": 60,
        "stop_s": 20,
        "cache": None,
        "heartbeat": None,
        "notify_arn": None,
        "metrics": None,
        "log_level": "INFO",
    }


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is ``TWOFOLD_`` and the field's name."""
    values = {
        "dead_letter_url": QUEUE + "-dead",
        "model_uri": "models/pets/champion.json",
        "output_uri": "s3://shelter/predictions/",
        "allowed_prefixes": "s3://shelter/,s3://intake/2026",
        "model_prefixes": "s3://shelter/models/",
        "expected_bucket_owner": "123456789012",
        "threads": "3",
        "fetchers": "5",
        "in_flight_mib": "64",
        "image_cpu_s": "2.5",
        "image_wall_s": "7.5",
        "image_memory_mib": "256",
        "request_s": "90.0",
        "visibility_s": "30",
        "stop_s": "7",
        "cache": "kept/models",
        "heartbeat": "kept/heartbeat",
        "notify_arn": "arn:aws:sns:eu-west-1:123456789012:done",
        "metrics": "pets-eu.1",
        "log_level": "DEBUG",
    }
    read = _set(monkeypatch, **values).model_dump()
    assert read.pop("queue_url") == QUEUE
    assert read.pop("allowed_prefixes") == ("s3://shelter/", "s3://intake/2026")
    assert read.pop("model_prefixes") == ("s3://shelter/models/",)
    del values["allowed_prefixes"], values["model_prefixes"]
    assert {name: str(value) for name, value in read.items()} == values


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates leave unset variables empty."""
    empty = dict.fromkeys((field for field in WorkerSettings.model_fields if field != "queue_url"), "")
    assert _set(monkeypatch, **empty) == WorkerSettings(queue_url=QUEUE)


def test_prefixes_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces and a trailing comma do not matter."""
    settings = _set(
        monkeypatch, allowed_prefixes=" s3://shelter/in , s3://intake,, ", model_prefixes="s3://one/a, s3://two"
    )
    assert settings.prefixes() == ("s3://shelter/in", "s3://intake")
    assert settings.model_folders() == ("s3://one/a", "s3://two")


@pytest.mark.parametrize(
    ("model_uri", "output_uri", "prefixes"),
    [
        ("s3://models/pets/champion.json", "s3://shelter/out/", ("s3://models/", "s3://shelter/")),
        ("s3://shelter/models/pets", "s3://shelter/out/", ("s3://shelter/",)),
        ("s3://shelter/models/pets", "", ("s3://shelter/",)),
        ("", "s3://shelter", ("s3://shelter/",)),
        ("models/pets", "s3://shelter/out", ("s3://shelter/",)),
        ("models/pets", "", ()),
        ("", "", ()),
    ],
)
def test_without_prefixes_the_buckets_of_model_and_output_are_allowed(
    monkeypatch: pytest.MonkeyPatch, model_uri: str, output_uri: str, prefixes: tuple[str, ...]
) -> None:
    """Where there are no buckets, nothing is allowed."""
    assert _set(monkeypatch, model_uri=model_uri, output_uri=output_uri).prefixes() == prefixes


def test_only_the_given_prefixes_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets of model and output are not added to them."""
    settings = _set(monkeypatch, allowed_prefixes="s3://intake/", output_uri="s3://shelter/out")
    assert settings.prefixes() == ("s3://intake/",)


@pytest.mark.parametrize(
    ("model_uri", "folders"),
    [
        ("s3://shelter/models/pets/champion.json", ("s3://shelter/models/pets/",)),
        ("s3://shelter/models/pets/v1", ("s3://shelter/models/pets/",)),
        ("s3://shelter/models/pets/v1/", ("s3://shelter/models/pets/",)),
        ("s3://shelter/models/pets/v1/model.json", ("s3://shelter/models/pets/",)),
        ("s3://shelter/v1/model.json", ("s3://shelter/v1/",)),
        ("s3://shelter/v1", ("s3://shelter/v1/",)),
        ("s3://shelter/champion.json", ("s3://shelter/",)),
        ("models/pets/champion.json", ()),
        ("", ()),
    ],
)
def test_without_prefixes_of_models_a_request_may_name_all_versions_of_the_default_model(
    monkeypatch: pytest.MonkeyPatch, model_uri: str, folders: tuple[str, ...]
) -> None:
    """And no other model. Where the default model is on the worker's own disk, it may name none."""
    settings = _set(monkeypatch, model_uri=model_uri, output_uri="s3://shelter/out/")
    assert settings.model_folders() == folders


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_uri": "s3://b-1/pets/v1", "output_uri": "s3://b-1/pets/out"}, "a job could overwrite a model"),
        ({"model_uri": "s3://b-1/m/pets/v1", "output_uri": "s3://b-1"}, "a job could overwrite a model"),
        ({"model_uri": "s3://b-1/champion.json", "output_uri": "s3://b-1/out"}, "a job could overwrite a model"),
        ({"model_prefixes": "s3://b-1/m", "output_uri": "s3://b-1/m/"}, "models are in s3://b-1/m"),
        ({"model_prefixes": "s3://b-2/m", "model_uri": "s3://b-1/m/v1"}, "TWOFOLD_MODEL_URI is outside"),
        ({"output_uri": "s3://b-1/out", "allowed_prefixes": "s3://b-1/in"}, "TWOFOLD_OUTPUT_URI is outside"),
        (
            {"output_uri": "s3://b-1/a/", "allowed_prefixes": "s3://b-1/a,s3://b-1/a/inbox/"},
            "write among the images: .* has s3://b-1/a/inbox/ inside it",
        ),
        ({}, "set TWOFOLD_OUTPUT_URI"),
    ],
)
def test_prefixes_that_do_not_fit_together_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], reason: str
) -> None:
    """In a sentence that names the settings: results never end up among models, nor models among results."""
    with pytest.raises(ValueError, match=reason):
        check_settings(_set(monkeypatch, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"model_uri": "s3://b-1/models/pets/champion.json", "output_uri": "s3://b-1/predictions/"},
        {"model_uri": "s3://b-1/v1", "output_uri": "s3://b-1/predictions/"},
        {"model_uri": "s3://b-1/models", "output_uri": "s3://b-1/models-out"},
        {"model_uri": "models/pets", "output_uri": "s3://b-1"},
        {"model_uri": "s3://b-1/m/pets/v1", "model_prefixes": "s3://b-1/m", "output_uri": "s3://b-1/out"},
    ],
)
def test_prefixes_next_to_each_other_fit_together(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """In one bucket, too."""
    check_settings(_set(monkeypatch, **settings))


def test_a_missing_queue_is_reported_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it is for, and the line to paste."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    assert _refusal(monkeypatch) == (
        "TWOFOLD_QUEUE_URL (the request queue) is not set. "
        "Set it with: export TWOFOLD_QUEUE_URL=https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE"
    )


def test_a_misspelt_variable_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set, but nothing reads it."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    misspelt = "TWOFOLD_" + "QUEU_URL"
    monkeypatch.setenv(misspelt, QUEUE)
    assert f"({misspelt} is set: is that a misspelling?)" in _refusal(monkeypatch)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("threads", "many", "must be a whole number, not 'many'"),
        ("visibility_s", "2", "must be at least 3, not '2'"),
        ("output_uri", "predictions/", "must be s3://BUCKET or s3://BUCKET/KEY, not 'predictions/'"),
        ("log_level", "LOUD", "must be DEBUG, INFO, WARNING or ERROR, not 'LOUD'"),
        ("metrics", "my pets", "must be 1 to 255 letters, digits, '.', '_' or '-', not 'my pets'"),
        ("notify_arn", "done", "must be the ARN of an SNS topic or of an EventBridge bus, not 'done'"),
    ],
)
def test_a_wrong_setting_is_described_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """What is allowed, and what was given."""
    assert _refusal(monkeypatch, **{name: value}).endswith(f") {words}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_prefixes", "s3://shelter,https://example.com/"),
        ("allowed_prefixes", "shelter"),
        ("allowed_prefixes", "s3://"),
        ("allowed_prefixes", "s3://*"),
        ("model_prefixes", "s3://shelter/models,models/"),
        ("expected_bucket_owner", "12345678901"),
        ("expected_bucket_owner", "1234567890123"),
        ("expected_bucket_owner", "١٢٣٤٥٦٧٨٩٠١٢"),
        ("output_uri", "predictions/"),
        ("threads", "0"),
        ("threads", "many"),
        ("fetchers", "-1"),
        ("in_flight_mib", "31"),
        ("image_cpu_s", "0"),
        ("image_wall_s", "nan"),
        ("image_memory_mib", "0"),
        ("request_s", "-1"),
        ("visibility_s", "2"),
        ("visibility_s", "43201"),
        ("stop_s", "0"),
        ("log_level", "LOUD"),
    ],
)
def test_a_wrong_setting_is_reported_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """One line for it, and no line for the others."""
    (line,) = _refusal(monkeypatch, **{name: value}).splitlines()
    assert line.startswith(f"TWOFOLD_{name.upper()} (")


def test_all_wrong_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that you do not fix one only to find the next."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    lines = _refusal(monkeypatch, threads="0", log_level="LOUD").splitlines()
    assert [line.split()[0] for line in lines] == ["TWOFOLD_QUEUE_URL", "TWOFOLD_THREADS", "TWOFOLD_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set TWOFOLD_OUTPUT_URI, or TWOFOLD_ALLOWED_PREFIXES"),
        ({"output_uri": "s3://shelter/out/", "allowed_prefixes": "s3://intake/"}, "TWOFOLD_OUTPUT_URI is outside"),
        (
            {"output_uri": "s3://shelter/out/", "visibility_s": "43200", "stop_s": "20"},
            r"TWOFOLD_STOP_S \(20\) and TWOFOLD_VISIBILITY_S \(43,200\) together are longer than the 43,200 s",
        ),
        ({"output_uri": "s3://shelter/out/", "stop_s": "50000"}, "TWOFOLD_STOP_S"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    """Each of them is valid by itself. The message names what to change."""
    with pytest.raises(ValueError, match=message):
        check_settings(_set(monkeypatch, **settings))

"""The worker's settings, and the prefixes that requests must stay under."""

import pytest
from pydantic import ValidationError

from worker.errors import ErrorCode, Reject
from worker.settings import WorkerSettings, available_cores, explain_settings
from worker.uris import check_allowed, split

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/requests"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a queue, whatever the machine has set."""
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


def test_a_queue_is_all_that_must_be_set() -> None:
    """The rest has defaults, those that the design gives."""
    assert WorkerSettings().model_dump() == {
        "queue_url": QUEUE,
        "dead_letter_url": None,
        "model_uri": None,
        "output_uri": None,
        "allowed_prefixes": (),
        "threads": available_cores(),
        "fetchers": 16,
        "visibility_s": 60,
        "stop_s": 20,
        "cache": None,
        "heartbeat": None,
        "notify_arn": None,
        "log_level": "INFO",
    }


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """``TWOFOLD_`` and the field's name."""
    values = {
        "dead_letter_url": QUEUE + "-dead",
        "model_uri": "models/pets/champion.json",
        "output_uri": "s3://shelter/predictions/",
        "allowed_prefixes": "s3://shelter/,s3://intake/2026",
        "threads": "3",
        "fetchers": "5",
        "visibility_s": "30",
        "stop_s": "7",
        "cache": "kept/models",
        "heartbeat": "kept/heartbeat",
        "notify_arn": "arn:aws:sns:eu-west-1:123456789012:done",
        "log_level": "DEBUG",
    }
    read = _set(monkeypatch, **values).model_dump()
    assert read.pop("queue_url") == QUEUE
    assert read.pop("allowed_prefixes") == ("s3://shelter/", "s3://intake/2026")
    del values["allowed_prefixes"]
    assert {name: str(value) for name, value in read.items()} == values


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As templates leave behind what nobody filled in."""
    empty = dict.fromkeys((field for field in WorkerSettings.model_fields if field != "queue_url"), "")
    assert _set(monkeypatch, **empty) == WorkerSettings(queue_url=QUEUE)


def test_allowed_prefixes_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces and a last comma do not matter."""
    settings = _set(monkeypatch, allowed_prefixes=" s3://shelter/in , s3://intake,, ")
    assert settings.prefixes() == ("s3://shelter/in", "s3://intake")


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
    """And where there are none, nothing is."""
    assert _set(monkeypatch, model_uri=model_uri, output_uri=output_uri).prefixes() == prefixes


def test_prefixes_that_are_given_are_the_only_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets of model and output are not added to them."""
    settings = _set(monkeypatch, allowed_prefixes="s3://intake/", output_uri="s3://shelter/out")
    assert settings.prefixes() == ("s3://intake/",)


def test_a_missing_queue_is_named_as_a_person_would_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, what it is for, and what is wrong."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    assert _refusal(monkeypatch) == "TWOFOLD_QUEUE_URL (the request queue): Field required"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_prefixes", "s3://shelter,https://example.com/"),
        ("allowed_prefixes", "shelter"),
        ("allowed_prefixes", "s3://"),
        ("allowed_prefixes", "s3://*"),
        ("output_uri", "predictions/"),
        ("threads", "0"),
        ("threads", "many"),
        ("fetchers", "-1"),
        ("visibility_s", "2"),
        ("visibility_s", "43201"),
        ("stop_s", "0"),
        ("log_level", "LOUD"),
    ],
)
def test_a_wrong_setting_is_named_as_a_person_would_type_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """One line for it, and none for the others."""
    (line,) = _refusal(monkeypatch, **{name: value}).splitlines()
    assert line.startswith(f"TWOFOLD_{name.upper()} (")


def test_every_wrong_setting_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody mends one only to hear of the next."""
    monkeypatch.delenv("TWOFOLD_QUEUE_URL")
    lines = _refusal(monkeypatch, threads="0", log_level="LOUD").splitlines()
    assert [line.split()[0] for line in lines] == ["TWOFOLD_QUEUE_URL", "TWOFOLD_THREADS", "TWOFOLD_LOG_LEVEL"]


def _check(uri: str, prefixes: tuple[str, ...]) -> None:
    """As a reference of a request is checked before storage is asked: its form, then its place."""
    split(uri)
    check_allowed(uri, prefixes)


def _refused(uri: str, prefixes: tuple[str, ...]) -> Reject:
    with pytest.raises(Reject) as caught:
        _check(uri, prefixes)
    return caught.value


@pytest.mark.parametrize("prefix", ["s3://shelter", "s3://shelter/", "s3://shelter/in", "s3://shelter/in/"])
def test_what_lies_under_a_prefix_is_allowed(prefix: str) -> None:
    """With and without a slash at its end."""
    for uri in ("s3://shelter/in/a.jpg", "s3://shelter/in/deep/er/a b+c%20é.jpg"):
        _check(uri, (prefix,))


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://shelter", "s3://shelter-evil/a.jpg"),
        ("s3://shelter", "s3://shelter.evil/a.jpg"),
        ("s3://shelter/", "s3://shelter-evil/a.jpg"),
        ("s3://shelter/in", "s3://shelter/inside/a.jpg"),
        ("s3://shelter/in/", "s3://shelter/in-evil/a.jpg"),
        ("s3://shelter/in", "s3://shelter/a.jpg"),
        ("s3://shelter/in", "s3://shelter/IN/a.jpg"),
        ("s3://shelter/in", "s3://shelter//in/a.jpg"),
        ("s3://shelter/in", "s3://evil/s3://shelter/in/a.jpg"),
        ("s3://shelter/in", "s3://shelter/out?x=s3://shelter/in/a.jpg"),
    ],
)
def test_what_only_looks_like_a_prefix_is_not_allowed(prefix: str, uri: str) -> None:
    """A prefix ends where a segment ends."""
    assert _refused(uri, (prefix,)).code is ErrorCode.NOT_ALLOWED


@pytest.mark.parametrize(
    "uri",
    [
        "s3://shelter/in/../secret/a.jpg",
        "s3://shelter/in/..",
        "s3://shelter/in/./../../evil/a.jpg",
        "s3://shelter/in/x/../../../evil/a.jpg",
    ],
)
def test_a_reference_that_climbs_out_of_its_prefix_is_not_allowed(uri: str) -> None:
    """S3 takes the dots to the letter, but a proxy or another S3-compatible server may walk them."""
    assert _refused(uri, ("s3://shelter/in",)).code is ErrorCode.NOT_ALLOWED


#: What names no object of any bucket: addresses of cloud metadata, in every spelling; this machine; files; user
#: names, ports and hosts in place of a bucket; other schemes; characters that end a line.
FORMLESS = [
    "",
    " ",
    "a.jpg",
    "/etc/passwd",
    "../../etc/passwd",
    "C:\\Windows\\win.ini",
    "\\\\evil\\share\\a.jpg",
    "//evil/a.jpg",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://169.254.169.254/",
    "http://2852039166/latest/meta-data/",
    "http://0xA9FEA9FE/latest/meta-data/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://169.254.169.254.nip.io/",
    "http://metadata.google.internal/",
    "http://169.254.170.2/v2/credentials",
    "http://localhost:4566/shelter/a.jpg",
    "http://127.1/",
    "http://0/",
    "http://[::1]/",
    "http://shelter.s3.amazonaws.com/in/a.jpg",
    "https://s3://shelter/in/a.jpg",
    "file:///etc/passwd",
    "file://shelter/in/a.jpg",
    "ftp://shelter/in/a.jpg",
    "gopher://127.0.0.1:6379/_INFO",
    "data:image/png;base64,iVBORw0KGgo=",
    "jar:s3://shelter/in/a.jpg",
    "gs://shelter/in/a.jpg",
    "s3a://shelter/in/a.jpg",
    "s3:shelter/in/a.jpg",
    "s3:/shelter/in/a.jpg",
    "s3:///shelter/in/a.jpg",
    "s3://",
    "s3://shelter",
    "s3://shelter/",
    "S3://shelter/in/a.jpg",
    " s3://shelter/in/a.jpg",
    "s3://SHELTER/in/a.jpg",
    "s3://user@shelter/in/a.jpg",
    "s3://user:password@shelter/in/a.jpg",
    "s3://shelter@evil/in/a.jpg",
    "s3://shelter:80/in/a.jpg",
    "s3://shelter#@evil/in/a.jpg",
    "s3://shelter?@evil/in/a.jpg",
    "s3://shelter\\@evil/in/a.jpg",
    "s3://shelter%2f@evil/in/a.jpg",
    "s3://shelter%00/in/a.jpg",
    "s3://shelter\n/in/a.jpg",
    "s3://shelter\r\nHost: evil/in/a.jpg",
    "s3://shelter\x00.evil/in/a.jpg",
    "s3://[::1]/in/a.jpg",
    "s3://../in/a.jpg",
    "s3://./in/a.jpg",
    "s3://\u0455helter/in/a.jpg",
    "s3://\uff53helter/in/a.jpg",
    "s3://shelter\u2044in/a.jpg",
    "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/evil/in/a.jpg",
]
#: What could be the name of a bucket, but of none that is allowed.
ELSEWHERE = [
    "s3://169.254.169.254/latest/meta-data/",
    "s3://127.0.0.1/in/a.jpg",
    "s3://2852039166/latest/meta-data/",
    "s3://0xa9fea9fe/latest/meta-data/",
    "s3://localhost/in/a.jpg",
    "s3://evil/in/a.jpg",
    "s3://169.254.170.2/in/a.jpg",
    "s3://xn--helter-6of/in/a.jpg",
]


@pytest.mark.parametrize("uri", FORMLESS)
def test_what_is_not_of_the_form_bucket_and_key_is_refused(uri: str) -> None:
    """Whatever is allowed, and before any packet."""
    refusal = _refused(uri, ("s3://shelter/in/", "s3://shelter/models", uri))
    assert refusal.code is ErrorCode.BAD_SOURCE_REF
    assert len(refusal.message) < 400


@pytest.mark.parametrize("uri", ELSEWHERE)
def test_what_lies_elsewhere_is_not_allowed(uri: str) -> None:
    """Before any packet."""
    assert _refused(uri, ("s3://shelter/in/", "s3://shelter/models")).code is ErrorCode.NOT_ALLOWED


def test_without_prefixes_nothing_is_allowed() -> None:
    """Not everything."""
    assert _refused("s3://shelter/in/a.jpg", ()).code is ErrorCode.NOT_ALLOWED

"""The options of a training job. ``twofold train run`` and its ``--help`` are made from these fields."""

import ipaddress
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from pydantic.fields import FieldInfo

from jobs.unsure_band import Band, parse_band
from worker.contract import Name, check_band, describe, nearest
from worker.uris import masked

#: https://www.rfc-editor.org/rfc/rfc1123#section-2, and underscores, which many names have.
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_RULE: Final = re.compile(r"(precision|recall)>=(0?\.\d+|1(?:\.0*)?)")
_BAND_RULE: Final = re.compile(r"precision>=(0?\.\d+|1(?:\.0*)?) for both")


@dataclass(frozen=True)
class OptionHelp:
    """How ``--help`` shows the option of a field, where that is not the usual way."""

    panel: str | None = None
    default: str | None = None  #: words shown for the default; the option is then unset unless it is given
    repeated: bool = False  #: whether the option can be given several times


#: The limits of a number, by pydantic's names for them, and how they are worded, in this order.
_WORDS: Final = {"multiple_of": "", "ge": "from {:g}", "gt": "above {:g}", "le": "to {:g}", "lt": "and below {:g}"}
_OF_LIMITS: Final = ("multiple_of", "greater_than_equal", "greater_than", "less_than_equal", "less_than")

_ADVANCED: Final = OptionHelp(panel="Advanced options")


def check_rule(rule: str) -> str:
    """Returns a threshold rule unchanged. Raises ValueError, with the forms that exist, if it is not one."""
    if rule != "max-f1" and not _RULE.fullmatch(rule) and fixed_threshold(rule) is None:
        quoted = f" Put it in quotes, because a shell takes > for itself: '{rule}>=0.95'."
        raise ValueError(
            f"{rule!r} is not a threshold rule: use a number from 0 to 1, max-f1, 'precision>=0.95' or 'recall>=0.99'."
            f"{quoted if rule in {'precision', 'recall'} else ''}"
        )
    return rule


def fixed_threshold(rule: str) -> float | None:
    """Returns the number, 0 to 1, if the rule is one. Returns None for a rule that chooses a number."""
    try:
        value = float(rule)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


def check_unsure(rule: str | None) -> str | None:
    """Returns a rule for the band unchanged. Raises ValueError, with the forms that exist, if it is not one."""
    if rule is not None and not _BAND_RULE.fullmatch(rule) and fixed_band(rule) is None:
        raise ValueError(f"{rule!r} is not a band of unsure scores: use 0.3:0.7, or 'precision>=0.99 for both'")
    return rule


def fixed_band(rule: str) -> Band | None:
    """Returns the band, if the rule is one. Returns None for a rule that chooses a band."""
    try:
        return parse_band(rule)
    except ValueError:
        return None


def asked_of_both(rule: str) -> float:
    """Returns the precision that ``precision>=0.99 for both`` asks for."""
    return float(rule.removeprefix("precision>=").removesuffix(" for both"))


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _HOST.fullmatch(name) is not None
    return True


class TrainConfig(BaseModel):
    """One training job. Frozen; an unknown field is an error. The defaults are those of the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # All that this can be: jobs/data/sources.py and jobs/data/class_folders.py.
    # Several are a tuple; one is a string, as it always was in the files of a bundle.
    data: Annotated[str | tuple[str, ...], OptionHelp(repeated=True)] = Field(
        description="Folder or archive of two class folders, https:// address of an archive, s3:// prefix, or labelled "
        "list. Repeat it for several: a later one wins."
    )
    output: str = Field(description="s3://bucket/prefix or folder. The bundle is written to NAME/VERSION/ in it.")
    name: Name = Field("model", description="Name of the model.")
    # None is the time of the start, UTC, as in 20261123T140509Z.
    version: Annotated[Name | None, OptionHelp(default="the current time")] = Field(
        None, description="Version of the bundle."
    )
    # MobileNetV2 halves the image five times, hence the multiple of 32.
    image_size: int = Field(
        160,
        ge=32,
        le=512,
        multiple_of=32,
        description="Width and height of the images that the model sees, in pixels: a multiple of 32, from 32 to 512.",
    )
    weights: str = Field(
        "auto", description="Weights of the backbone: auto, imagenet, package, a file or an s3:// URI."
    )
    # The head that is kept is fitted to the validation images too, once they have served their purpose.
    validation_split: Annotated[float, _ADVANCED] = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Share of the training images set aside to validate with: they set temperature and threshold.",
    )
    test_split: Annotated[float, _ADVANCED] = Field(
        0.2, gt=0.0, lt=1.0, description="Share of all images set aside for the test, if there is no test set."
    )
    seed: Annotated[int, _ADVANCED] = Field(123, ge=0, description="Seed of the splits and of the order of batches.")
    batch_size: Annotated[int, _ADVANCED] = Field(32, ge=1, description="Images per step of fine-tuning.")
    # 1,280 weights are fitted to few images. Without a penalty, the model would memorise them.
    l2: Annotated[float, _ADVANCED] = Field(
        0.01, ge=0.0, description="Weight decay of the head: the factor of the squared weights in the loss."
    )
    augment: int = Field(
        1,
        ge=1,
        le=32,
        description="Variants of each image to train on, 1 to 32: 2 adds its mirror image, more add crops. "
        "Each variant takes as long as reading the images once.",
    )
    fine_tune: int = Field(
        0,
        ge=0,
        le=100,
        description="Layers at the top of the backbone to train too, 0 to 100; kept only if that is better.",
    )
    fine_tune_epochs: Annotated[int, _ADVANCED] = Field(10, ge=1, description="Maximum epochs of fine-tuning.")
    # Low, because the backbone already knows much that a large step would destroy.
    fine_tune_rate: Annotated[float, _ADVANCED] = Field(
        1e-5, gt=0.0, description="Learning rate of fine-tuning, for RMSprop."
    )
    # The exported model is always float32.
    precision: Annotated[Literal["auto", "float32", "mixed_float16"], _ADVANCED] = Field(
        "auto", description="float32, mixed_float16 or auto, which is mixed_float16 on a GPU."
    )
    threshold: Annotated[str, AfterValidator(check_rule)] = Field(
        "0.5",
        description="A number, or a rule for the validation images: max-f1, or in quotes 'precision>=0.95' or "
        "'recall>=0.99'.",
    )
    # A job without a band is recorded as it was before there were bands.
    unsure: Annotated[str | None, AfterValidator(check_unsure), OptionHelp(default="none")] = Field(
        None,
        exclude_if=lambda rule: rule is None,
        description="Scores whose answers are 'unsure': 0.3:0.7, or a rule for the validation images, "
        "'precision>=0.99 for both'.",
    )
    max_quarantined: float = Field(
        0.05, ge=0.0, le=1.0, description="Share of a class's files that may be left out before the job stops."
    )
    # The last three change no result, so a bundle does not record them.
    redirect_hosts: Annotated[str, _ADVANCED] = Field(
        "",
        exclude=True,
        repr=False,
        description="Other hosts that the https:// address of --data may redirect to, separated by commas.",
    )
    cache: Annotated[Path, OptionHelp(default="$XDG_CACHE_HOME/twofold or ~/.cache/twofold")] = Field(
        Path("~/.cache/twofold"),
        exclude=True,
        repr=False,
        description="Folder for everything that is downloaded or computed only once.",
    )
    checkpoint: Annotated[str | None, OptionHelp(default="the cache")] = Field(
        None,
        exclude=True,
        repr=False,
        description="Folder or s3:// prefix for features and unfinished work. "
        "After an interruption, run the same command again to resume from there.",
    )

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_several(cls, data: object) -> object:
        several = data if isinstance(data, list | tuple) else [data]
        if not several or not all(isinstance(source, str) for source in several):
            raise ValueError("must name a source of images, or a list of several")
        return several[0] if len(several) == 1 else tuple(several)

    @field_validator("cache")
    @classmethod
    def _at_home(cls, cache: Path) -> Path:
        return cache.expanduser()

    @field_validator("redirect_hosts")
    @classmethod
    def _of_hosts(cls, hosts: str) -> str:
        names = [name.strip().lower() for name in hosts.split(",") if name.strip()]
        for name in names:
            if not _is_host(name):
                raise ValueError(f"{name!r} is not the name of a host: use cdn.example.com, without https:// and port")
        return ",".join(names)

    @field_validator("unsure")
    @classmethod
    def _around_the_threshold(cls, rule: str | None, info: ValidationInfo) -> str | None:
        """Raises ValueError where both are numbers that do not fit; what a rule chooses is not known yet."""
        if rule is not None:
            check_band(fixed_band(rule), fixed_threshold(info.data.get("threshold", "")))
        return rule

    @property
    def allowed_redirects(self) -> frozenset[str]:
        """The names in ``redirect_hosts``."""
        return frozenset(filter(None, self.redirect_hosts.split(",")))

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the images, in their order."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @field_serializer("data")
    def _without_secrets(self, data: str | tuple[str, ...]) -> str | list[str]:
        """Keeps the signature of a presigned URL out of the bundle."""
        return _masked(data) if isinstance(data, str) else [_masked(source) for source in data]

    def options(self, *, exclude: set[str] | None = None) -> list[str]:
        """Returns the options of ``train run`` that differ from the defaults, as they are typed."""
        given = self.model_dump(mode="json", exclude=exclude, exclude_defaults=True)
        given |= {"redirect_hosts": self.redirect_hosts} if self.redirect_hosts else {}
        return [
            part
            for name, value in given.items()
            for one in (value if isinstance(value, list) else [value])
            for part in (f"--{name.replace('_', '-')}", str(one))
        ]

    def command(self) -> str:
        """Returns the command that runs this job again, as a new version. Defaults are left out."""
        return shlex.join(["twofold", "train", "run", *self.options(exclude={"version"})])


def _masked(source: str) -> str:
    address, mark, digest = source.partition("#sha256=")
    return f"{masked(address)}{mark}{digest}" if source.lower().startswith(("http://", "https://")) else source


def explain_options(error: ValidationError, *, dashes: str = "--") -> str:
    """Describes what is wrong with the options of a training job, one to a line, as they are typed."""
    lines = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        option, field = _option(name, dashes), TrainConfig.model_fields.get(name)
        if field is None:
            near = nearest(name, TrainConfig.model_fields)
            question = f" Did you mean {_option(near, dashes)}?" if near else ""
            lines.append(f"{option} is not an option of training.{question}")
        elif item["type"] in _OF_LIMITS:
            given = float(item["input"])
            lines.append(f"{option} must be {_allowed(field)}, not {given:.15g}{_instead(field, given)}")
        else:
            lines.append(f"{option}{':' if item['type'] == 'value_error' else ''} {describe(item)}")
    return "\n".join(lines)


def _option(name: str, dashes: str) -> str:
    return f"{dashes}{name.replace('_', '-')}"


def _limits(field: FieldInfo) -> dict[str, float]:
    """Returns the limits of a number by pydantic's names: ge, gt, le, lt and multiple_of."""
    found = {name: getattr(item, name, None) for item in field.metadata for name in _WORDS if hasattr(item, name)}
    return {name: value for name, value in found.items() if value is not None}


def _allowed(field: FieldInfo) -> str:
    """Describes the numbers that a field may have: "a multiple of 32, from 32 to 512"."""
    limits = _limits(field)
    kind = "a whole number" if field.annotation is int else "a number"
    if "multiple_of" in limits:
        kind = f"a multiple of {limits['multiple_of']:g},"
    if not limits.keys() & {"le", "lt"} and "ge" in limits:
        return f"{kind} of at least {limits['ge']:g}"
    return " ".join([kind, *(words.format(limits[name]) for name, words in _WORDS.items() if words and name in limits)])


def _instead(field: FieldInfo, given: float) -> str:
    """Returns the nearest values of a field that takes only multiples, to append to a message."""
    limits = _limits(field)
    step = limits.get("multiple_of")
    if step is None:
        return ""
    nearby = {given // step * step, -(-given // step) * step}
    within = {min(max(value, limits.get("ge", value)), limits.get("le", value)) for value in nearby}
    return f"; use {' or '.join(f'{value:g}' for value in sorted(within))}"

"""What a training job is told."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_serializer, field_validator

from worker.contract import Name
from worker.uris import masked

_RULE: Final = re.compile(r"(precision|recall)>=(0?\.\d+|1(?:\.0*)?)")


def check_rule(rule: str) -> str:
    """The rule as it is, if it is one. Raises ValueError that names the forms there are."""
    if rule != "max-f1" and not _RULE.fullmatch(rule) and fixed_threshold(rule) is None:
        raise ValueError(f"{rule!r} is no threshold rule: give 0.5, max-f1, precision>=0.95 or recall>=0.99")
    return rule


def fixed_threshold(rule: str) -> float | None:
    """The number that a rule is, or None where it is a rule for choosing one."""
    try:
        value = float(rule)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None


class TrainConfig(BaseModel):
    """One training job. Frozen; a field it does not know is an error. The defaults are the seed's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    #: A folder of two class folders, or of ``train/`` with them and ``validation/`` and/or ``test/``; an archive of
    #: one, its ``https://`` address, or an ``s3://`` prefix; see ``jobs.data.sources``.
    data: str
    #: ``s3://bucket/prefix`` or a folder; the bundle goes to ``<output>/<name>/<version>/``.
    output: str
    name: Name = "model"
    #: None: the time of the start, UTC, as 20261123T140509Z.
    version: Name | None = None
    #: Width and height given to the backbone, pixels. MobileNetV2 halves it five times, hence the multiple of 32.
    image_size: Annotated[int, Field(ge=32, le=512, multiple_of=32)] = 160
    #: ``auto``, ``imagenet``, ``package``, a file or an ``s3://`` URI; see ``jobs.training.backbone``.
    weights: str = "auto"
    #: Share of the training images that a first fit does not see, to tell how well it does. The head that is kept is
    #: then fitted on all of them.
    validation_split: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    #: Share of all images kept out of training and choosing where the folder has no test set of its own.
    test_split: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    #: Of the splits, of the head's first weights, and of the order of batches.
    seed: Annotated[int, Field(ge=0)] = 123
    #: Images a gradient step of fine-tuning.
    batch_size: Annotated[int, Field(ge=1)] = 32
    #: Weight of the squared weights in the loss: 1,280 weights learn from few images, and would learn these by heart.
    l2: Annotated[float, Field(ge=0.0)] = 0.01
    #: Views of each training image that are learned from: 1 the image, 2 its mirror image too, more: crops as well.
    #: Each costs as much time as reading the images and computing their features once more.
    augment: Annotated[int, Field(ge=1, le=32)] = 1
    #: Layers at the top of the backbone that learn too, after the head, 0: none. Kept only where it helps.
    fine_tune: Annotated[int, Field(ge=0, le=100)] = 0
    #: Passes over the training images, at the most.
    fine_tune_epochs: Annotated[int, Field(ge=1)] = 10
    #: Of RMSprop. Low: the backbone has something to lose.
    fine_tune_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    #: What the backbone computes in: ``auto`` is mixed_float16 on a GPU. The exported model is float32 always.
    precision: Literal["auto", "float32", "mixed_float16"] = "auto"
    #: How it is chosen on the validation images: a number, ``max-f1``, ``precision>=0.95`` or ``recall>=0.99``.
    threshold: Annotated[str, AfterValidator(check_rule)] = "0.5"
    #: Share of a class's files that may be left out. More of them stop the job: see ``jobs.data.dataset``.
    max_quarantined: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    #: What is downloaded, unpacked or computed once is kept here. It changes no result, so no bundle tells of it.
    cache: Annotated[Path, Field(exclude=True, repr=False)] = Path("~/.cache/twofold")
    #: A folder or ``s3://`` prefix for features and unfinished work; None: the cache. Changes no result either.
    checkpoint: Annotated[str | None, Field(exclude=True, repr=False)] = None

    @field_validator("cache")
    @classmethod
    def _at_home(cls, cache: Path) -> Path:
        return cache.expanduser()

    @field_serializer("data")
    def _without_secrets(self, data: str) -> str:
        """The signature of a presigned address does not go into a bundle."""
        address, mark, digest = data.partition("#sha256=")
        return f"{masked(address)}{mark}{digest}" if data.startswith(("http://", "https://")) else data

    def command(self) -> str:
        """What starts this job again, as a new version; options that say what is the default are left out."""
        given = self.model_dump(mode="json", exclude={"version"}, exclude_defaults=True)
        options = [part for name, value in given.items() for part in _option(name.replace("_", "-"), value)]
        return shlex.join(["twofold", "train", "run", *options])


def _option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]

"""``--data`` of the commands: several sources, and labelled lists among them, from training to promotion."""

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs import container
from jobs.cli import main
from jobs.cloud.training_request import TrainingJob, build_request
from jobs.commands import local as local_commands
from jobs.commands.app import app
from jobs.config import TrainConfig
from jobs.data.dataset import LabelledImage, describe_sources
from jobs.local import demo
from jobs.models.bundle import trained_from
from tests.conftest import Bench, Once, Trainer
from tests.jobs.cloud.test_training_request import OPTIONS, STACK
from tests.jobs.data.lists import write_list
from tests.jobs.report.strict_html import Page
from worker.contract import ModelManifest


@dataclass(frozen=True)
class Trained:
    """A job on a folder, and on a list that corrects it."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def bundle(self) -> Path:
        return self.folder / "models/model/v1"

    @property
    def evaluation(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "evaluation.json").read_text())
        return found


@pytest.fixture(scope="session")
def trained(trainer: Trainer, few_digits: Path, once: Once) -> Trained:
    """Trained once: on 80 images, with 10 labels that somebody has reviewed, an undecided one and a missing file."""

    def train(folder: Path) -> None:
        shutil.copytree(few_digits, folder / "pets")
        shutil.copytree(few_digits, folder / "copies")
        named = {
            path.relative_to(folder).as_posix(): path.parent.name for path in sorted((folder / "copies").rglob("*.png"))
        }
        images = list(named.items())
        images = [*images[:5], *images[-5:]]
        undecided = {"copies/undecided.png": None, "copies/gone.png": "three"}
        write_list(folder / "reviewed.csv", {**dict(images), **undecided}, reviewed=True)
        data = ("--data", str(folder / "pets"), "--data", str(folder / "reviewed.csv"))
        places = ("--output", str(folder / "models"), "--cache", str(folder / "cache"))
        done = trainer.run("train", "run", *data, *places, "--image-size=32", "--version=v1", COLUMNS="80")
        (folder / "printed.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

    folder = once.make("trained-on-a-list", train)
    status, stdout, stderr = json.loads((folder / "printed.json").read_text())
    assert status == 0, stderr
    return Trained(folder, stdout, stderr)


@pytest.mark.slow
def test_a_job_on_a_folder_and_a_reviewed_list_counts_both(trained: Trained) -> None:
    """In evaluation.json, which adds up to the images that were used, and in quarantine.csv."""
    found = trained.evaluation
    pets, reviewed = found["sources"]
    assert pets == {"data": str(trained.folder / "pets"), "images": 70, "reviewed": 0, "undecided": 0, "replaced": 10}
    assert reviewed == {
        "data": str(trained.folder / "reviewed.csv"),
        "images": 10,
        "reviewed": 10,
        "undecided": 1,
        "replaced": 0,
    }
    assert sum(found["images"][split] for split in ("train", "validation", "test")) == 80
    assert (
        "copies/gone.png,train,three,not_found,there is no such file" in (trained.bundle / "quarantine.csv").read_text()
    )
    assert "reviewed.csv: 1 line without a label, not used" in trained.stderr


@pytest.mark.slow
def test_model_and_report_say_how_many_reviewed_pictures_went_in(trained: Trained) -> None:
    """The end of the training, ``model show``, the report, and the model card, without this machine's folders."""
    said = describe_sources(trained.evaluation)
    assert said == (f"The images: 70 from {trained.folder}/pets, 10 from {trained.folder}/reviewed.csv (all reviewed).")
    shown = CliRunner().invoke(app, ["model", "show", str(trained.bundle)], env={"COLUMNS": "80"}).output
    assert said in trained.stdout
    assert said in shown
    assert said in Page((trained.bundle / "report.html").read_text()).text
    assert r"70 from pets, 10 from reviewed.csv \(all reviewed\)." in (trained.bundle / "README.md").read_text()


@pytest.mark.slow
def test_the_command_of_a_job_with_several_sources_repeats_it(trained: Trained) -> None:
    """Each source is an option of its own. model.json holds a list, and of a single source the string as ever."""
    recorded = json.loads((trained.bundle / "model.json").read_text())["training_config"]["data"]
    assert recorded == [str(trained.folder / "pets"), str(trained.folder / "reviewed.csv")]
    one, two = map(shlex.quote, recorded)
    assert f"twofold train run --data {one} --data {two}" in Page((trained.bundle / "report.html").read_text()).text
    config = TrainConfig(data=("pets", "https://host/l.csv?X-Amz-Signature=5ec7e7"), output="out")
    assert config.model_dump(mode="json")["data"] == ["pets", "https://host/l.csv"]
    assert TrainConfig(data=("pets",), output="out") == TrainConfig(data="pets", output="out")


@pytest.mark.slow
def test_the_test_images_of_all_sources_are_found_again(trained: Trained) -> None:
    """Without ``--data`` where they were, by name; with it by content, in sources of every kind."""
    manifest = ModelManifest.model_validate_json((trained.bundle / "model.json").read_bytes())
    places = trained_from(manifest)
    assert places is not None
    assert places.folders == (trained.folder / "pets", trained.folder)

    def verify(*options: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["model", "verify", str(trained.bundle), "--json", *options])
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    both = ("--data", str(trained.folder / "pets"), "--data", str(trained.folder / "reviewed.csv"))
    for found in (verify(), verify(*both)):
        assert (found["scored"], found["images"], found["findings"]) == (16, 16, [])
    some = verify("--data", str(trained.folder / "reviewed.csv"))
    named = {line.split(",")[0] for line in (trained.folder / "reviewed.csv").read_text().splitlines()[1:]}
    tests = (trained.bundle / "test_predictions.csv").read_text()
    assert some["scored"] == sum(f",{name}," in tests for name in named)


def test_a_job_elsewhere_gets_all_sources() -> None:
    """On AWS Batch as options. On SageMaker as a parameter, which the container reads: a channel holds one prefix."""
    more = ("s3://shelter/datasets/reviewed.csv",)
    both = [OPTIONS["data"], *more]
    job = {"name": "twofold-1", "options": OPTIONS, "more_data": more, "stack": STACK}
    command = build_request(TrainingJob.model_validate(job | {"target": "batch"}))["containerOverrides"]["command"]
    assert [command[place + 1] for place, part in enumerate(command) if part == "--data"] == both
    sagemaker = build_request(TrainingJob.model_validate(job | {"target": "sagemaker"}))
    assert "InputDataConfig" not in sagemaker
    assert json.loads(sagemaker["HyperParameters"]["data"]) == both
    options = container.options({"SM_HPS": json.dumps(sagemaker["HyperParameters"])})
    assert [option for option in options if option.startswith("--data")] == [f"--data={source}" for source in both]
    for alone in ("s3://shelter/datasets/reviewed.csv", "s3://shelter/datasets/pets.zip"):
        job = {"target": "sagemaker", "name": "twofold-1", "options": OPTIONS | {"data": alone}, "stack": STACK}
        request = build_request(TrainingJob.model_validate(job))
        assert (request["HyperParameters"]["data"], "InputDataConfig" in request) == (alone, False)


def test_submit_and_local_take_several_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And submit refuses the one that is on this machine."""
    common = ["train", "submit", "--output", "s3://shelter/models", "--dry-run"]
    printed = CliRunner().invoke(app, [*common, "--data", "s3://shelter/pets/", "--data", "s3://shelter/l.csv"]).stdout
    assert json.loads(printed)["containerOverrides"]["command"].count("--data") == 2
    assert main([*common, "--data", "s3://shelter/pets/", "--data", "labels.csv"]) == 1
    assert "a job in the cloud cannot read folders on this machine" in capsys.readouterr().err
    seen: list[TrainConfig] = []
    monkeypatch.setattr("jobs.local.sample.train_on", lambda config, **_: seen.append(config))
    monkeypatch.setattr("jobs.local.playground.bundle_at", lambda uri, _: uri)
    serving = local_commands._serving(
        None,
        ["pets", "l.csv"],
        given=set(),
        options={},
        keep=tmp_path,
        reporter=None,  # type: ignore[arg-type]
    )
    assert serving.bundle is not None
    serving.bundle()
    assert [config.sources for config in seen] == [("pets", "l.csv")]


def test_the_demo_takes_lists_whose_names_are_no_keys() -> None:
    """Each image gets an object of its own, below the prefix of the images."""
    refs = ["cats/1.png", "../1.png", "/1.png", "s3://shelter/1.png"]
    images = [LabelledImage(Path(), ref, 0, f"{number}" * 64) for number, ref in enumerate(refs)]
    uris = [demo.uri_of(image) for image in images]
    assert uris[0] == "s3://twofold-demo/images/cats/1.png"
    assert len(set(uris)) == len(refs)
    assert all(uri.startswith("s3://twofold-demo/images/") and ".." not in uri and "//" not in uri[5:] for uri in uris)


@pytest.mark.slow
def test_a_second_version_trained_on_reviewed_objects_replaces_the_first(
    trainer: Trainer, few_digits: Path, tmp_path: Path, ministack_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on a list of a bucket, then on that and reviewed objects. The champion is scored on them to compare."""
    for name, value in ministack_bench.environment.items():
        monkeypatch.setenv(name, value)
    names = {}
    for path in sorted(few_digits.rglob("*.png")):
        uri = ministack_bench.put(f"in/{path.relative_to(few_digits).as_posix()}", path.read_bytes())
        names[uri] = path.parent.name
    first = dict(list(names.items())[::2])
    labels = ministack_bench.put("labels.csv", write_list(tmp_path / "first.csv", first).read_bytes())
    rest = {uri: label for uri, label in names.items() if uri not in first}
    reviewed = write_list(tmp_path / "reviewed.csv", rest, reviewed=True)
    models, cache = str(tmp_path / "models"), str(tmp_path / "cache")
    common = ("--output", models, "--image-size", "32", "--cache", cache)
    environment = ministack_bench.environment
    one = trainer.run("train", "run", "--data", labels, *common, "--version", "v1", **environment)
    assert one.returncode == 0, one.stderr
    both = ("--data", labels, "--data", str(reviewed))
    two = trainer.run("train", "run", *both, *common, "--version", "v2", **environment)
    assert two.returncode == 0, two.stderr
    assert f"The images: 40 from {labels}, 40 from {reviewed} (all reviewed)." in two.stdout
    promoted = CliRunner().invoke(
        app, ["model", "promote", f"{models}/model/v2", *both, "--margin", "1", "--json"], env={"XDG_CACHE_HOME": cache}
    )
    assert json.loads(promoted.stdout)["comparison"]["champion_scores"] == "scored again", promoted.output
    kept = {line.split(",")[1] for line in (tmp_path / "models/model/v1/test_predictions.csv").read_text().splitlines()}
    now = {line.split(",")[1] for line in (tmp_path / "models/model/v2/test_predictions.csv").read_text().splitlines()}
    assert kept < now  # the test images of the first version are still test images

"""How ``twofold model`` shows what it found on a terminal, and as JSON.

Labels and file names come from whoever made a bundle: nothing in them is taken for markup, or reaches the terminal
as a control character.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from worker.contract import ModelManifest

if TYPE_CHECKING:  # they bring scipy, LiteRT and the AWS SDK, for which --help need not wait
    from jobs.models.champion import ChampionRecord
    from jobs.models.promotion import Change
    from jobs.models.registry import Version
    from jobs.models.verification import Verification

_HEADLINE: Final = ("accuracy", "log_loss")  #: what fits into 80 columns


def version_json(version: "Version") -> dict[str, Any]:
    """One version of a list."""
    manifest = version.manifest
    return {
        "name": version.name,
        "version": version.version,
        "champion": version.champion,
        "created_at": manifest.created_at.isoformat() if manifest else None,
        "labels": manifest.labels if manifest else None,
        "image_size": manifest.image_size if manifest else None,
        "metrics": manifest.metrics if manifest else None,
        "problem": version.problem,
    }


def models(found: "list[Version]") -> Iterator[Table]:
    """A table a model, a line a version, the champion marked."""
    for name, versions in groupby(found, key=lambda version: version.name):
        table = _table("", "version", "created, UTC", "pixels", *map(_words, _HEADLINE))
        table.title = _text(name)
        for version in versions:
            start = ("★" if version.champion else "", version.version)
            told = version.manifest
            if told is None:
                _row(table, *start, version.problem)
                continue
            figures = [f"{told.metrics[name]:.4f}" if name in told.metrics else "" for name in _HEADLINE]
            _row(table, *start, f"{told.created_at:%Y-%m-%d %H:%M}", told.image_size, *figures)
        table.caption = "★ the champion"
        yield table


def manifest(told: ModelManifest) -> Table:
    """All of model.json."""
    table = _table("", "")
    for field in ("name", "version"):
        _row(table, field, getattr(told, field))
    _row(table, "created", f"{told.created_at:%Y-%m-%d %H:%M:%S} UTC")
    _row(table, "classes", f"0 {told.labels[0]}, 1 {told.labels[1]}")
    _row(table, "image size", f"{told.image_size} pixels")
    _row(table, "threshold", f"{told.threshold:g}")
    for field in ("decoder_fingerprint", "dataset_digest"):
        _row(table, _words(field), getattr(told, field))
    for title, values in (("trained with", told.training_config), ("libraries", told.libraries)):
        _row(table, title, "\n".join(f"{key}: {value}" for key, value in values.items()))
    files = (f"{name}: {file.size_bytes:,} bytes, SHA-256 {file.sha256}" for name, file in told.files.items())
    _row(table, "files", "\n".join(files))
    return table


def evaluation(told: dict[str, Any], labels: tuple[str, str]) -> Table:
    """The figures on the test images, with their intervals."""
    table = _table(f"on {told.get('n', 0):,} test images", "", "95 % interval")
    figures = told.get("binary_classification_metrics", {})
    for name, figure in figures.items():
        if "value" in figure:
            _row(table, _words(name), f"{figure['value']:.4f}", _interval(figure.get("interval_95")))
    for true, given in figures.get("confusion_matrix", {}).items():
        counts = (f"{count:,} taken for {labels[int(label)]}" for label, count in given.items())
        _row(table, f"of {labels[int(true)]}", ", ".join(counts))
    return table


def history(records: "list[ChampionRecord]") -> Table:
    """The champions, the current one first."""
    table = _table("champion", "since, UTC", "how", "against the one before")
    for record in records:
        when = f"{record.promoted_at:%Y-%m-%d %H:%M:%S}"
        _row(table, record.version, when, record.how, _difference(record.comparison) if record.comparison else "")
    return table


def comparison(told: dict[str, Any]) -> Table:
    """Challenger against champion."""
    table = _table(f"on the same {told['n']:,} test images", "challenger", "champion", "difference", "95 % interval")
    for figure in ("accuracy", "log_loss"):
        both = (told[f"{model}_{figure}"] for model in ("challenger", "champion"))
        difference = told[f"{figure}_difference"]
        figures = (*(f"{value:.4f}" for value in both), f"{difference['value']:+.4f}")
        _row(table, _words(figure), *figures, _interval(difference["interval_95"]))
    _row(table, "right where the other is wrong", told["only_challenger_right"], told["only_champion_right"])
    _row(table, "McNemar's exact test", f"p = {told['mcnemar_p']:.3g}")
    if told["champion_scores"] != "recorded":
        table.caption = (
            "The champion was scored on these pictures just now. It may have learned from some of them, which flatters "
            "it."
        )
    return table


def changed(change: "Change") -> Text:
    """One line on what became of a promotion or a rollback."""
    if not change.moved:
        return _text(f"{change.version} is the champion of {change.name} already.")
    instead = f", instead of {change.replaced}" if change.replaced else ""
    forced = " It was forced." if change.how == "forced" else ""
    tried = "" if change.picture_scored else " No test picture was at hand: it was tried on a blank one alone."
    return _text(f"{change.version} is the champion of {change.name}{instead}.{forced}{tried}")


def findings(verification: "Verification") -> Table:
    """What is wrong, a line each."""
    table = _table("file", "finding")
    for finding in verification.findings:
        _row(table, finding.file, finding.problem)
    return table


def verdict(verification: "Verification") -> Text:
    """One line on what was checked."""
    found = len(verification.findings)
    count = f"{found:,} findings" if found != 1 else "1 finding"
    files = f"{verification.uri}: {verification.files:,} files, {count}."
    if verification.max_difference is None:
        return _text(f"{files} Only digests were checked and a blank picture scored: give the test pictures by --data.")
    return _text(
        f"{files} {verification.scored:,} of {verification.images:,} test pictures scored again: the largest "
        f"difference is {verification.max_difference:.2g}, allowed is {verification.tolerance:g}"
        f"{'' if verification.same_decoder else ', as image decoder or LiteRT are not those of the training'}."
    )


def _difference(told: dict[str, Any]) -> str:
    accuracy = told["accuracy_difference"]
    return f"accuracy {accuracy['value']:+.4f} ({_interval(accuracy['interval_95'])}), p = {told['mcnemar_p']:.3g}"


def _interval(ends: list[float] | None) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(_text(column), overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(_text("" if cell is None else str(cell)) for cell in cells))


def _text(value: str) -> Text:
    return Text("".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in value))

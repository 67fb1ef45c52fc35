"""The tables and the JSON that ``twofold model`` prints.

Labels and file names come from whoever made the bundle. They are never interpreted as markup, and no control character
in them reaches the terminal.
"""

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from jobs.data.dataset import describe_sources
from jobs.metrics import threshold_rule, unsure_rule
from jobs.metrics.titles import title_of
from jobs.unsure_band import described
from jobs.wording import counted, program
from worker.contract import ModelManifest

if TYPE_CHECKING:  # they import SciPy, LiteRT and the AWS SDK, which would delay --help
    from jobs.models.champion import ChampionRecord
    from jobs.models.copying import BundleCopy
    from jobs.models.promotion import Change
    from jobs.models.registry import ModelVersion
    from jobs.models.verification import Verification

_HEADLINE: Final = ("accuracy", "log_loss")  #: as many as fit into 80 columns


def version_json(version: "ModelVersion") -> dict[str, Any]:
    """Returns one entry of ``list --json``."""
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


def models(listed: "list[ModelVersion]") -> Iterator[Table]:
    """Yields a table per model, with a line per version and the champion marked."""
    for name, versions in groupby(listed, key=lambda version: version.name):
        table = _table("", "version", "created, UTC", "pixels", *map(_spaced, _HEADLINE))
        table.title = _text(name)
        for version in versions:
            start = ("★" if version.champion else "", version.version)
            found = version.manifest
            if found is None:
                _row(table, *start, version.problem)
                continue
            figures = [f"{found.metrics[name]:.4f}" if name in found.metrics else "" for name in _HEADLINE]
            _row(table, *start, f"{found.created_at:%Y-%m-%d %H:%M}", found.image_size, *figures)
        table.caption = "★ the champion"
        yield table


def headline(manifest: ModelManifest, evaluation: dict[str, Any]) -> Text:
    """Returns the answer to the first question: how often is this version right?"""
    name = f"{manifest.name} {manifest.version}"
    accuracy = evaluation.get("binary_classification_metrics", {}).get("accuracy", {})
    if "value" not in accuracy:
        return _text(f"{name}: no accuracy is recorded.")
    share, images = f"{100 * accuracy['value']:.1f} %", f"{evaluation.get('n', 0):,} test images"
    ends = [f"{100 * end:.1f}" for end in accuracy.get("interval_95") or []]
    interval = f" (95 % interval {ends[0]} to {ends[1]} %)" if ends else ""
    return _text(f"{name}: {share} of {images} are classified correctly{interval}.")


def sources(found: dict[str, Any]) -> Text | None:
    """Returns where the images come from and how many of them were reviewed, if that was recorded."""
    try:
        text = describe_sources(found)
    except (KeyError, TypeError, ValueError):  # the bundle is not one of ours
        return None
    return _text(text) if text else None


def manifest(found: ModelManifest, *, digests: bool) -> Table:
    """Returns what is in model.json as a table, with its digests or without."""
    table = Table(show_header=False)
    for field in ("name", "version"):
        _row(table, field, getattr(found, field))
    _row(table, "created", f"{found.created_at:%Y-%m-%d %H:%M:%S} UTC")
    _row(table, "classes", f"0 {found.labels[0]}, 1 {found.labels[1]}")
    _row(table, "image size", f"{found.image_size} pixels")
    _row(table, "threshold", f"{found.threshold:g}")
    if found.unsure:
        _row(table, "unsure", described(found.unsure))
    if digests:
        for field in ("decoder_fingerprint", "dataset_digest"):
            _row(table, _spaced(field), getattr(found, field))
    _row(table, "trained with", "\n".join(_options(found.training_config)))
    _row(table, "libraries", "\n".join(f"{name} {version}" for name, version in found.libraries.items()))
    files = (
        f"{name}: {file.size_bytes:,} bytes" + (f", SHA-256 {file.sha256}" if digests else "")
        for name, file in found.files.items()
    )
    _row(table, "files", "\n".join(files))
    return table


def evaluation(found: dict[str, Any], labels: tuple[str, str]) -> Table:
    """Returns the figures on the test images with their intervals."""
    table = _table(f"on {found.get('n', 0):,} test images", "value", "95 % interval")
    figures = found.get("binary_classification_metrics", {})
    for name, figure in figures.items():
        if "value" in figure:
            _row(table, title_of(name), f"{figure['value']:.4f}", _interval(figure.get("interval_95")))
    for title, share in _of_band(found):
        _row(table, title, f"{share.value or 0.0:.4f}", _interval([*share.interval_95]))
    for true, given in figures.get("confusion_matrix", {}).items():
        counts = (f"{count:,} as {labels[int(label)]}" for label, count in given.items())
        _row(table, f"classified {labels[int(true)]}", ", ".join(counts))
    return table


def _of_band(found: dict[str, Any]) -> Iterator[tuple[str, unsure_rule.Proportion]]:
    """Yields what the band of unsure scores does, if the model has one."""
    try:
        band = unsure_rule.of_evaluation(found)
    except (KeyError, TypeError, ValueError):  # the bundle is not one of ours
        return
    if band:
        yield "unsure", band.unsure
        yield "right where not unsure", band.right


def unmet(found: dict[str, Any], labels: tuple[str, str]) -> Text | None:
    """Returns what the test images say about the rules of the threshold and the band, if they do not bear them out."""
    try:
        rule, band = threshold_rule.outcome(found), unsure_rule.of_evaluation(found)
        lines = [] if rule is None or rule.borne_out else [f"The test images do not bear out the threshold: {rule}."]
        missed = band.unmet(labels) if band else None
    except (KeyError, TypeError, ValueError):  # the bundle is not one of ours
        return None
    lines += [f"The test images do not bear out the band of unsure scores: {missed}."] if missed else []
    return _text("\n".join(lines)) if lines else None


def history(records: "list[ChampionRecord]") -> Table:
    """Returns the champions, the current one first."""
    table = _table("champion", "since, UTC", "how", "against the previous one")
    for record in records:
        when = f"{record.promoted_at:%Y-%m-%d %H:%M:%S}"
        _row(table, record.version, when, record.how, _difference(record.comparison) if record.comparison else "")
    return table


def comparison(recorded: dict[str, Any]) -> Table:
    """Returns the figures of the challenger and the champion."""
    table = _table(
        f"on the same {recorded['n']:,} test images", "challenger", "champion", "difference", "95 % interval"
    )
    for figure in ("accuracy", "log_loss"):
        both = (recorded[f"{model}_{figure}"] for model in ("challenger", "champion"))
        difference = recorded[f"{figure}_difference"]
        figures = (*(f"{value:.4f}" for value in both), f"{difference['value']:+.4f}")
        _row(table, _spaced(figure), *figures, _interval(difference["interval_95"], signed=True))
    _row(table, "right where the other is wrong", recorded["only_challenger_right"], recorded["only_champion_right"])
    _row(table, "McNemar's exact test", f"p = {recorded['mcnemar_p']:.3g}")
    if recorded["champion_scores"] != "recorded":
        table.caption = (
            "The champion was scored on these images just now. If it was trained on some of them, it looks better than "
            "it is."
        )
    return table


def changed(change: "Change") -> Text:
    """Returns the result of a promotion or a rollback in one line."""
    if not change.moved:
        return _text(f"{change.version} is already the champion of {change.name}.")
    instead = f", instead of {change.replaced}" if change.replaced else ""
    forced = " It was forced." if change.how == "forced" else ""
    tried = "" if change.picture_scored else " No test image was available, so it was only tried on a blank one."
    return _text(f"{change.version} is the champion of {change.name}{instead}.{forced}{tried}")


def copied(copy: "BundleCopy", champion: str | None) -> Text:
    """Returns where a copy is, what was already there, and which version is the champion there."""
    there = copy.files - copy.new_files
    already = f" {there} of them {'was' if there == 1 else 'were'} already there." if there else ""
    text = f"{copy.uri}: {copy.files} files, {copy.size_bytes / 1e6:,.1f} MB, every digest checked.{already}"
    if champion == copy.version:
        return _text(f"{text} It is the champion.")
    return _text(f"{text} The champion is still {champion}. Run '{program()} model promote {copy.uri}' to change that.")


def findings(verification: "Verification") -> Table:
    """Returns the findings, one per line."""
    table = _table("file", "finding")
    for finding in verification.findings:
        _row(table, finding.file, finding.problem)
    return table


def verdict(verification: "Verification", *, searched: bool) -> Text:
    """Returns what was checked in one line. ``searched``: whether the user said where the test images are."""
    found = len(verification.findings)
    whole = f"{verification.intact:,} of its files are as recorded" if found else f"{verification.files:,} files"
    files = f"{verification.uri}: {counted(found, 'finding')}, {whole}."
    if not verification.opened:
        return _text(f"{files} No image was scored, because the model cannot be opened.")
    if verification.max_difference is None and searched:
        return _text(f"{files} No test image was scored: --data takes the folder that the model was trained from.")
    if verification.max_difference is None:
        return _text(
            f"{files} Only the digests were checked and a blank image scored. Add --data to score the test images."
        )
    return _text(
        f"{files} {verification.scored:,} of {verification.images:,} test images scored again. The largest "
        f"difference is {_short(verification.max_difference)}, and {_short(verification.tolerance)} is allowed"
        f"{'' if verification.same_decoder else ' because the decoder or LiteRT differs from that of the training'}."
    )


def _difference(recorded: dict[str, Any]) -> str:
    accuracy = recorded["accuracy_difference"]
    interval = _interval(accuracy["interval_95"], signed=True)
    return f"accuracy {accuracy['value']:+.4f} ({interval}), p = {recorded['mcnemar_p']:.3g}"


def _interval(ends: list[float] | None, *, signed: bool = False) -> str:
    """Returns two ends; ``signed``, as differences are written."""
    if not ends:
        return ""
    low, high = (f"{end:+.4f}" if signed else f"{end:.4f}" for end in ends)
    return f"{low} to {high}"


def _options(config: dict[str, Any]) -> Iterator[str]:
    """Yields the configuration as the options that are typed. What was left open is left out."""
    for name, value in config.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                shown = _short(one) if isinstance(one, float) else shlex.quote(str(one))
                yield f"--{name.replace('_', '-')} {shown}"


def _short(number: float) -> str:
    """Returns 1e-6 and 0.05."""
    return re.sub(r"e-0*", "e-", f"{number:.2g}")


def _spaced(name: str) -> str:
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

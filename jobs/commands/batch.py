"""``twofold batch``: images in, a table out."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from jobs.commands.options import Json
from jobs.progress import Reporter

if TYPE_CHECKING:  # boto3 takes half a second that --help need not wait
    from jobs.batch.client import Counter
    from jobs.batch.status import Standing

app = typer.Typer(help="Classify images: a list, a prefix or a folder in, one table out.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's name, as submit and status tell it.")]
Output = Annotated[
    str | None, typer.Option("--output", help="s3:// prefix where jobs lie.", show_default="TWOFOLD_OUTPUT_URI")
]


@app.command("submit", epilog="Example: twofold batch submit photos/ s3://shelter/lists/june.csv --wait")
def submit(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="A list (CSV, JSON, S3 Inventory), an s3://…/prefix/, files, folders."),
    ],
    job_id: Annotated[
        str | None, typer.Option(help="The job's name.", show_default="from the first source and all it asks for")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="s3:// URI of a bundle or champion.json.", show_default="TWOFOLD_MODEL_URI")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Score of class 1 and above.", show_default="the model's")
    ] = None,
    output: Output = None,
    include: Annotated[list[str] | None, typer.Option(help="Of a prefix or folder: names such as '*.jpg'.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Of a prefix or folder: not these names.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the job is complete; exit 1 when it cannot be.")] = False,
    as_json: Json = False,
) -> None:
    """Ask for a row for every image of all sources. Typed again after an interruption, it goes on."""
    from jobs.batch import submit as submission  # noqa: PLC0415 - LiteRT takes a moment that --help need not wait
    from jobs.batch.inputs import Patterns, Sources  # noqa: PLC0415
    from worker.batch.shards import Draft  # noqa: PLC0415

    reporter = Reporter()
    counter = _open(output)
    output_uri = counter.settings.needed_output()
    if not dry_run:
        counter.settings.needed_queue()
    options = submission.SubmitOptions(
        output_uri=output_uri, job_id=job_id, model_uri=model or counter.model_uri(), threshold=threshold
    )
    patterns = Patterns(tuple(include or ()), tuple(exclude or ()))
    read = Sources(storage=counter.storage, output_uri=output_uri, patterns=patterns)
    with Draft() as draft:
        submission.read_sources(sources, read, draft, reporter)
        job = submission.plan_job(sources, draft, options, counter.storage)
        estimate = submission.estimate(job)
        reporter.say(
            f"Job {job.job_id}: {job.images:,} images in {job.parts:,} parts, about {estimate.worker_s:,.0f} s of one "
            f"worker with two processors, about {estimate.cost_usd:,.2f} USD ({estimate.assumes})."
        )
        if dry_run:
            text = f"Nothing was sent. {len(read.files):,} files would be uploaded."
            _print(estimate, text, job_id=job.job_id, as_json=as_json)
            return
        job, sent = submission.submit_job(draft, job, read, counter.planner(), reporter)
    said = f"{sent:,} requests sent." if sent else "All requests were sent before."
    if not wait:
        text = f"{said} How far it is: twofold batch status {job.job_id}"
        _print(estimate, text, job_id=job.job_id, as_json=as_json)
        return
    reporter.say(said)
    _wait(counter, job.job_id, reporter, as_json=as_json)


@app.command("status", epilog="Example: twofold batch status june-3f2a9c01 --watch")
def status(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="The job; without one, all jobs.")] = None,
    follow: Annotated[
        bool, typer.Option("--watch", help="Until the job is complete; exit 1 when it cannot be.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Tell how far a job is: done, failed, waiting, rate, time left, refused requests and why."""
    counter = _open(output)
    if job_id is None:
        _list(counter, as_json=as_json)
    elif follow:
        _wait(counter, job_id, Reporter(), as_json=as_json)
    else:
        standing = counter.watcher(job_id).look()
        _show(standing, as_json=as_json)


@app.command("results", epilog="Example: twofold batch results june-3f2a9c01 --join -o june.parquet")
def results(
    job_id: JobId,
    file: Annotated[
        str | None,
        typer.Option("-o", "--out", help=".csv or .parquet; - is standard output.", show_default="JOB.csv"),
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="With the manifest's own columns.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="What is there, where parts are missing.")] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write one table with a row for every image, in the order of the manifest, redriven ones in their place."""
    from jobs.batch import results_file  # noqa: PLC0415
    from jobs.batch.results import Results  # noqa: PLC0415

    counter = _open(output)
    path = file or f"{job_id}.csv"
    found = Results(folder=counter.folder(job_id), storage=counter.storage)
    joined = found.job.columns if join else ()
    with Reporter().step(escape(f"Writing {path}"), total=found.job.images) as advance:
        counts = results_file.write(found.chunks(join=join, partial=partial), path, joined=joined, advance=advance)
    text = f"{counts.rows:,} rows = {counts.scored:,} scored + {counts.failed:,} with an error code: {path}"
    if path == results_file.STDOUT:
        print(text, file=sys.stderr)
    else:
        print(json.dumps(counts.model_dump() | {"file": path}) if as_json else text)


@app.command("report", epilog="Example: twofold batch report june-3f2a9c01 -o june.html")
def report(
    job_id: JobId,
    file: Annotated[Path | None, typer.Option("-o", "--out", help="HTML file.", show_default="JOB.html")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="What is there, where parts are missing.")] = False,
    output: Output = None,
) -> None:
    """Write one HTML page: counts, how the scores lie and whether they have shifted, images worth a look, errors."""
    from jobs.batch.results import Results  # noqa: PLC0415
    from jobs.report import batch_page  # noqa: PLC0415
    from jobs.report.batch_page import RowSummary  # noqa: PLC0415

    counter = _open(output)
    reporter = Reporter()
    found = Results(folder=counter.folder(job_id), storage=counter.storage)
    rows = RowSummary()
    with reporter.step("Reading the rows", total=found.job.images) as advance:
        for chunk in found.chunks(partial=partial):
            rows.add(chunk)
            advance(len(chunk))
    with reporter.step("Drawing the page"):
        complete = counter.storage.metadata(counter.folder(job_id).success) is not None
        model_uri = counter.pinned_model_uri()
        facts = batch_page.gather(found, rows, counter.storage, model_uri=model_uri, complete=complete)
    path = file or Path(f"{job_id}.html")
    path.write_text(batch_page.render(facts), encoding="utf-8")
    print(path)


@app.command("redrive", epilog="Example: twofold batch redrive june-3f2a9c01 --only unavailable --only not_found")
def redrive(
    job_id: JobId,
    only: Annotated[list[str] | None, typer.Option(metavar="CODE", help="Only rows with this error_code.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is complete; exit 1 when it cannot be.")] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Ask again for what failed: refused requests, or else the images without a score. ``results`` merges them."""
    from jobs.batch.inputs import Sources  # noqa: PLC0415
    from jobs.batch.redrive import Redrive  # noqa: PLC0415

    reporter = Reporter()
    counter = _open(output)
    counter.settings.needed_queue()
    sources = Sources(storage=counter.storage, output_uri=counter.settings.needed_output())
    again = Redrive(folder=counter.folder(job_id), sources=sources, planner=counter.planner(), send=counter.send).run(
        only or (), counter.dead_letters(), reporter
    )
    if again.requests:
        text = f"{again.requests:,} refused requests of {job_id} were sent again."
    elif again.images:
        text = f"{again.images:,} failed images are asked for again, as {again.redrive_id}."
    else:
        text = f"Nothing of {job_id} has failed{' so' if only else ''}."
    if not wait or not (again.requests or again.images):
        print(again.model_dump_json() if as_json else text)
        return
    reporter.say(text)
    _wait(counter, again.redrive_id or job_id, reporter, as_json=as_json)


@app.command("cancel", epilog="Example: twofold batch cancel june-3f2a9c01")
def cancel(job_id: JobId, output: Output = None, as_json: Json = False) -> None:
    """Call a job off: workers drop its requests. What is written stays; ``results --partial`` reads it."""
    from jobs.batch.results import needed_job  # noqa: PLC0415

    counter = _open(output)
    folder = counter.folder(job_id)
    needed_job(folder, counter.storage)
    counter.storage.write(folder.cancelled, b"no more of this\n", content_type="text/plain")
    standing = counter.watcher(job_id).look()
    text = f"{job_id} is cancelled: {standing.done:,} of {standing.images:,} images had a row."
    if standing.state == "complete":
        text = f"{job_id} was complete before it could be cancelled."
    print(standing.model_dump_json() if as_json else text)


def _open(output: str | None) -> "Counter":
    from jobs.batch.client import Counter  # noqa: PLC0415

    return Counter.open(output_uri=output)


def _list(counter: "Counter", *, as_json: bool) -> None:
    from jobs.batch.status import jobs_below  # noqa: PLC0415
    from jobs.commands.batch_view import table_of_all  # noqa: PLC0415

    found = jobs_below(counter.settings.needed_output(), counter.storage)
    if as_json:
        print(json.dumps([job.model_dump(mode="json") | {"complete": complete} for job, complete in found]))
    else:
        Console(highlight=False).print(table_of_all(found) if found else "No jobs yet: twofold batch submit --help")


def _wait(counter: "Counter", job_id: str, reporter: Reporter, *, as_json: bool) -> None:
    """Until nothing more will happen by itself: exit 1 where the job is not complete."""
    from jobs.commands.batch_view import watch  # noqa: PLC0415

    standing = watch(counter.watcher(job_id), reporter.console)
    _show(standing, as_json=as_json)
    if standing.state != "complete":
        raise typer.Exit(1)


def _show(standing: "Standing", *, as_json: bool) -> None:
    from jobs.commands.batch_view import table_of  # noqa: PLC0415

    if as_json:
        print(standing.model_dump_json())
    else:
        Console(highlight=False).print(table_of(standing))


def _print(figures: BaseModel, text: str, *, job_id: str, as_json: bool) -> None:
    print(json.dumps(figures.model_dump() | {"job_id": job_id}) if as_json else text)

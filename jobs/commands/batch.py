"""``twofold batch``: images in, one table out."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

from jobs.commands.options import Json, Yes
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.wording import counted, program

if TYPE_CHECKING:  # boto3 takes half a second to load, and --help does not need it
    from jobs.batch.client import BatchClient
    from jobs.batch.status import JobStatus

app = typer.Typer()

Partial = Annotated[bool, typer.Option("--partial", help="Take the rows that are there if parts are missing.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as printed by submit and status.")]
Output = Annotated[
    str | None, typer.Option("--output", help="s3:// prefix of all jobs.", show_default="TWOFOLD_OUTPUT_URI")
]


@app.command("submit", epilog="Example: twofold batch submit photos/ s3://shelter/lists/june.csv --wait")
def submit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…", help="A list (CSV, JSON, S3 Inventory), an s3://…/prefix/, a folder or an image."
        ),
    ],
    job_id: Annotated[
        str | None, typer.Option(help="Name of the job.", show_default="from the first source and all options")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="s3:// URI of a model (its champion) or of one version.", show_default="TWOFOLD_MODEL_URI"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Lowest score of class 1.", show_default="the model's")
    ] = None,
    output: Output = None,
    include: Annotated[list[str] | None, typer.Option(help="Only these names in prefixes or folders: '*.jpg'.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Skip these names in prefixes or folders.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job; exit 1 if it cannot be completed.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Submit a job with one row for every image. Run the command again to resume it after an interruption."""
    from jobs.batch.inputs import Inputs, Patterns  # noqa: PLC0415 - LiteRT takes a moment to load
    from jobs.batch.submit import SubmitOptions, estimate, plan_job, read_sources, submit_job  # noqa: PLC0415
    from jobs.commands import submit_view  # noqa: PLC0415
    from worker.batch.shards import Shards  # noqa: PLC0415

    reporter = Reporter()
    client = _open(output)
    output_uri = client.settings.needed_output()
    patterns = Patterns(tuple(include or ()), tuple(exclude or ()))
    inputs = Inputs(storage=client.storage, output_uri=output_uri, patterns=patterns)
    with Shards() as shards:
        with if_stopped("Stopped. Nothing was uploaded, and nothing was sent. Run the same command again."):
            if not dry_run:
                client.check()
            choice = client.choose_model(model)
            read_sources(sources, inputs, shards, reporter)
            options = SubmitOptions(output_uri=output_uri, job_id=job_id, model=choice, threshold=threshold)
            job = plan_job(sources, shards, options, inputs)
            expected = estimate(job, inputs, emulated=client.is_emulated())
            reporter.say("\n".join(submit_view.lines(job.job_id, expected)))
            if dry_run:
                text = submit_view.dry_run(expected, files=len(inputs.files))
                _print(expected, text, job_id=job.job_id, as_json=as_json)
                return
            submit_view.confirm(expected, yes=yes)
        job, sent = submit_job(shards, job, inputs, client.planner(), reporter)
    done = f"{counted(sent, 'request')} sent." if sent else "All requests had already been sent."
    if not wait:
        text = f"{done} Run '{program()} batch status {job.job_id}' to see its progress."
        _print(expected, text, job_id=job.job_id, as_json=as_json)
        return
    reporter.say(done)
    _wait(client, job.job_id, reporter, as_json=as_json)


@app.command("status", epilog="Example: twofold batch status june-3f2a9c01 --watch")
def status(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Name of the job; without it, all jobs.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--watch", help="Wait for the job; exit 1 if it cannot be completed.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Print the status of a job: done, failed, waiting, rate, time left, and refused requests with their reasons."""
    client = _open(output)
    if job_id is None:
        _list(client, as_json=as_json)
    elif follow:
        _wait(client, job_id, Reporter(), as_json=as_json)
    else:
        job_status = client.status_reader(job_id).read()
        _show(job_status, as_json=as_json)


@app.command("results", epilog="Example: twofold batch results june-3f2a9c01 --join -o june.parquet")
def results(
    job_id: JobArgument,
    file: Annotated[
        str | None,
        typer.Option("-o", "--out", help="A .csv or .parquet file; - is standard output.", show_default="JOB.csv"),
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Add the manifest's own columns.")] = False,
    partial: Partial = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write one table with a row for every image, in the order of the manifest. Redriven images are in their place."""
    from jobs.batch import results_file  # noqa: PLC0415
    from jobs.batch.results import Results  # noqa: PLC0415

    client = _open(output)
    path = file or f"{job_id}.csv"
    closing = client.close(job_id)
    if closing is not None:
        print(f"{job_id}: {closing.message}", file=sys.stderr)
    found = Results(client.record(job_id))
    joined = found.job.columns if join else ()
    with Reporter().step(f"Writing {path}", total=found.job.images) as advance:
        counts = results_file.write(found.chunks(join=join, partial=partial), path, joined=joined, advance=advance)
    text = f"{counts.rows:,} rows = {counts.scored:,} scored + {counts.failed:,} with an error code: {path}"
    if path == results_file.STDOUT:
        print(text, file=sys.stderr)
    else:
        print(json.dumps(counts.model_dump() | {"file": path}) if as_json else text)


@app.command("report", epilog="Example: twofold batch report june-3f2a9c01 -o june.html")
def report(
    job_id: JobArgument,
    file: Annotated[Path | None, typer.Option("-o", "--out", help="An HTML file.", show_default="JOB.html")] = None,
    partial: Partial = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    output: Output = None,
) -> None:
    """Write an HTML page: counts, the scores and whether they have drifted, images worth checking, and errors."""
    from jobs.batch.results import Results  # noqa: PLC0415
    from jobs.report import batch_page, page_file  # noqa: PLC0415
    from jobs.report.batch_page import RowSummary  # noqa: PLC0415

    path = file or Path(f"{job_id}.html")
    page_file.check_free(path, force=force)
    client = _open(output)
    reporter = Reporter()
    found = Results(client.record(job_id))
    rows = RowSummary()
    with reporter.step("Reading the rows", total=found.job.images) as advance:
        for chunk in found.chunks(partial=partial):
            rows.add(chunk)
            advance(len(chunk))
    with reporter.step("Drawing the page"):
        complete = found.record.is_complete()
        model_uri = client.pinned_model_uri()
        facts = batch_page.gather(found, rows, client.storage, model_uri=model_uri, complete=complete)
    page_file.save(path, batch_page.render(facts), force=force)
    print(path)


@app.command("redrive", epilog="Example: twofold batch redrive june-3f2a9c01 --only unavailable --only not_found")
def redrive(
    job_id: JobArgument,
    only: Annotated[list[str] | None, typer.Option(metavar="CODE", help="Take only rows with this error_code.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for it; exit 1 if it cannot be completed.")] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Resubmit what failed: refused requests, or else images without a score. The results merge the answers."""
    from jobs.batch.inputs import Inputs  # noqa: PLC0415
    from jobs.batch.redrive import Redrive  # noqa: PLC0415

    reporter = Reporter()
    client = _open(output)
    client.settings.needed_queue()
    inputs = Inputs(storage=client.storage, output_uri=client.settings.needed_output())
    again = Redrive(client.record(job_id), inputs=inputs, planner=client.planner(), send=client.send).run(
        only or (), client.dead_letters(), reporter
    )
    if again.requests:
        text = f"{again.requests:,} refused requests of {job_id} were sent again."
    elif again.images:
        text = f"{again.images:,} failed images were submitted again, as {again.redrive_id}."
    else:
        text = f"No image of {job_id} has failed{' with these codes' if only else ''}."
    if not wait or not (again.requests or again.images):
        print(again.model_dump_json() if as_json else text)
        return
    reporter.say(text)
    _wait(client, again.redrive_id or job_id, reporter, as_json=as_json)


@app.command("cancel", epilog="Example: twofold batch cancel june-3f2a9c01")
def cancel(job_id: JobArgument, output: Output = None, as_json: Json = False) -> None:
    """Cancel a job: workers drop its requests. The parts that are written stay; 'results --partial' reads them."""
    from jobs.batch.cancelling import cancel as cancel_job  # noqa: PLC0415 - LiteRT takes a moment to load

    client = _open(output)
    if not cancel_job(client.record(job_id), client.dead_letters()):
        text = f"{job_id} is complete: there is nothing to cancel. Run '{program()} batch results {job_id}'."
        print(client.status_reader(job_id).read().model_dump_json() if as_json else text)
        return
    job_status = client.status_reader(job_id).read()
    text = (
        f"{job_id} is cancelled: {job_status.done:,} of {counted(job_status.images, 'image')} "
        f"{'has' if job_status.images == 1 else 'have'} a row. The name can be used again."
    )
    print(job_status.model_dump_json() if as_json else text)


def _open(output: str | None) -> "BatchClient":
    from jobs.batch.client import BatchClient  # noqa: PLC0415

    return BatchClient.open(output_uri=output)


def _list(client: "BatchClient", *, as_json: bool) -> None:
    from jobs.batch.status import jobs_below  # noqa: PLC0415
    from jobs.commands.batch_view import table_of_all  # noqa: PLC0415

    found = jobs_below(client.settings.needed_output(), client.storage)
    if as_json:
        print(json.dumps([job.model_dump(mode="json") | {"complete": complete} for job, complete in found]))
    elif found:
        Console(highlight=False).print(table_of_all(found))
    else:
        print("No jobs yet. Run 'twofold batch submit --help' to see how to submit one.")


def _wait(client: "BatchClient", job_id: str, reporter: Reporter, *, as_json: bool) -> None:
    """Waits until the job makes no further progress by itself. Exits with 1 if it is not complete."""
    from jobs.commands.batch_view import watch  # noqa: PLC0415

    with if_stopped(f"The job goes on. Run '{program()} batch status {job_id} --watch' to wait for it again."):
        job_status = watch(client.status_reader(job_id), reporter.console)
    _show(job_status, as_json=as_json)
    if job_status.state != "complete":
        raise typer.Exit(1)


def _show(job_status: "JobStatus", *, as_json: bool) -> None:
    from jobs.commands.batch_view import table_of  # noqa: PLC0415

    if as_json:
        print(job_status.model_dump_json())
    else:
        Console(highlight=False).print(table_of(job_status))


def _print(figures: BaseModel, text: str, *, job_id: str, as_json: bool) -> None:
    print(json.dumps(figures.model_dump() | {"job_id": job_id}) if as_json else text)

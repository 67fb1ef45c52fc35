"""``twofold batch``: images in, one table out."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import BaseModel

from jobs.commands.options import Json, Yes, band_of
from jobs.folder_settings import check_emulator
from jobs.progress import Reporter
from jobs.signals import if_stopped
from jobs.wording import counted, fitted, program, width_of, with_command
from worker.errors import Retry

if TYPE_CHECKING:  # boto3 takes half a second to load, and --help does not need it
    from jobs.batch.client import BatchClient
    from jobs.batch.results_file import Counts
    from jobs.batch.status import JobStatus
    from jobs.unsure_band import Band
    from worker.contract import Job

app = typer.Typer()

Partial = Annotated[bool, typer.Option("--partial", help="Take the rows that are there if parts are missing.")]
JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Name of the job, as printed by submit and status, or of its file in inbox/."),
]
Output = Annotated[
    str | None, typer.Option("--output", help="s3:// prefix of all jobs.", show_default="TWOFOLD_OUTPUT_URI")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
#: After a failure: the reason is in the job's status.
_FAILED: Final = 1


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
    unsure: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Scores whose answers are 'unsure'.", show_default="the model's, if any"),
    ] = None,
    output: Output = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only these names in prefixes or folders: '*.jpg'; can be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Skip these names in prefixes or folders; can be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job; exit 1 if it cannot be completed.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Submit a job with one row for every image. Run the command again to resume it after an interruption."""
    from jobs.batch.inputs import Inputs, Patterns  # noqa: PLC0415 - LiteRT takes a moment to load
    from jobs.batch.submit import SubmitOptions, check_name, estimate, plan_job, read_sources, submit_job  # noqa: PLC0415
    from jobs.commands import submit_view  # noqa: PLC0415
    from worker.batch.shards import Shards  # noqa: PLC0415
    from worker.contract import JobId  # noqa: PLC0415

    _check_option("--job-id", JobId, job_id)
    band = _band(unsure, threshold)
    reporter = Reporter()
    client = open_client(output)
    output_uri = client.settings.needed_output()
    patterns = Patterns(tuple(include or ()), tuple(exclude or ()))
    inputs = Inputs(storage=client.storage, output_uri=output_uri, patterns=patterns)
    with Shards() as shards:
        with if_stopped("Stopped. Nothing was uploaded, and nothing was sent. Run the same command again."):
            if not dry_run:
                client.check()
            choice = client.choose_model(model, threshold=threshold, unsure=band)
            read_sources(sources, inputs, shards, reporter)
            options = SubmitOptions(
                output_uri=output_uri, job_id=job_id, model=choice, threshold=threshold, unsure=band
            )
            job = plan_job(sources, shards, options, inputs)
            found = check_name(job, inputs).words(job)
            expected = estimate(job, inputs, emulated=client.is_emulated())
            reporter.say("\n".join([*submit_view.lines(job.job_id, expected), *([found] if found else [])]))
            if dry_run:
                text = submit_view.dry_run(expected, files=len(inputs.files))
                _print(expected, text, job_id=job.job_id, as_json=as_json)
                return
            submit_view.confirm(expected, yes=yes)
        job, sent = submit_job(shards, job, inputs, client.planner(), reporter)
    done = f"{counted(sent, 'request')} sent." if sent else "All requests had already been sent."
    if not wait:
        text = with_command(f"{done} To see its progress:", f"batch status {job.job_id} --watch")
        _print(expected, text, job_id=job.job_id, as_json=as_json)
        return
    with _as_waiting(job.job_id):  # from the moment at which the job goes on by itself
        reporter.say(done)
        _wait(client, job.job_id, reporter, as_json=as_json)


@app.command("status", epilog="Example: twofold batch status june-3f2a9c01 --watch")
def status(
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="Name of the job, or of its file in inbox/; without it, all jobs."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--watch", help="Wait for the job; exit 1 if it cannot be completed.")
    ] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Print the status of a job: done, failed, waiting, rate, time left, and refused requests with their reasons.

    Exit 1 if the job is stuck, or if none of its images could be scored.
    """
    if follow and job_id is None:
        raise typer.BadParameter("name the job to wait for", param_hint="--watch")
    client = open_client(output)
    if job_id is None:
        _list(client, as_json=as_json)
        return
    job_id = job_name(client, job_id)
    if follow:
        _wait(client, job_id, Reporter(), as_json=as_json)
        return
    job_status = client.status_reader(job_id).read()
    _show(job_status, as_json=as_json)
    if job_status.state == "stuck" or job_status.without_answers:
        raise typer.Exit(_FAILED)


@app.command("results", epilog="Example: twofold batch results june-3f2a9c01 --join -o june.parquet")
def results(
    job_id: JobArgument,
    file: Annotated[
        str | None,
        typer.Option("-o", "--file", help="A .csv or .parquet file; - is standard output.", show_default="JOB.csv"),
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Add the other columns of the list.")] = False,
    excel: Annotated[bool, typer.Option("--excel", help="Write a CSV in which Excel shows umlauts.")] = False,
    partial: Partial = False,
    force: Force = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write one table with a row for every image, in the order of the list. Redriven images are in their place.

    Images that were files on this machine are named in the column file.
    """
    from jobs.batch import results_file  # noqa: PLC0415
    from jobs.batch.file_names import FILE  # noqa: PLC0415
    from jobs.batch.results import Results  # noqa: PLC0415

    _refuse_file(output)
    if file or "/" not in job_id:  # the address of a list is not yet the name of its job
        results_file.check(file or f"{job_id}.csv", force=force, excel=excel)
    client = open_client(output)
    job_id, typed = job_name(client, job_id), job_id
    path = file or f"{job_id}.csv"
    if job_id != typed:
        results_file.check(path, force=force, excel=excel)
    closing = client.close(job_id)
    if closing is not None:
        print(fitted(f"{job_id}: {closing.message}", sys.stderr), file=sys.stderr)
    found = Results(client.record(job_id))
    joined = found.job.columns if join else tuple(name for name in found.job.columns if name == FILE)
    # The rows and a bar would be on the same terminal.
    is_shown = path == results_file.STDOUT and sys.stdout.isatty()
    title = "Writing the table" if path == results_file.STDOUT else f"Writing {path}"
    with Reporter(quiet=is_shown).step(title, total=found.job.images) as advance:
        chunks = found.chunks(join=bool(joined), partial=partial)
        decided = found.has_decisions()
        counts = results_file.write(
            chunks, path, joined=joined, decided=decided, advance=advance, force=force, excel=excel
        )
    text = f"{counted(counts.rows, 'row')} = {counts.scored:,} scored + {counts.failed:,} with an error code"
    text += ("." if path == results_file.STDOUT else f": {path}") + _skipped(found.job)
    if path == results_file.STDOUT:
        print(fitted(text, sys.stderr), file=sys.stderr)
    else:
        print(json.dumps(counts.model_dump() | {"file": path}) if as_json else fitted(text, sys.stdout))
    if counts.failed or not (partial or as_json):
        _say_next(found.job.parent or job_id, counts)
    if not counts.scored and not partial:
        raise typer.Exit(_FAILED)


@app.command("report", epilog="Example: twofold batch report june-3f2a9c01 -o june.html")
def report(
    job_id: JobArgument,
    file: Annotated[Path | None, typer.Option("-o", "--file", help="An HTML file.", show_default="JOB.html")] = None,
    partial: Partial = False,
    force: Force = False,
    output: Output = None,
) -> None:
    """Write an HTML page: counts, the scores and whether they have shifted, images worth checking, and errors."""
    from jobs import output_file  # noqa: PLC0415
    from jobs.batch.results import Results  # noqa: PLC0415
    from jobs.report import batch_page  # noqa: PLC0415
    from jobs.report.batch_page import RowSummary  # noqa: PLC0415

    _refuse_file(output)
    if file:
        _check_page(file)
        output_file.check_free(file, force=force)
    client = open_client(output)
    job_id = job_name(client, job_id)
    path = file or Path(f"{job_id}.html")
    output_file.check_free(path, force=force)
    reporter = Reporter()
    found = Results(client.record(job_id))
    rows = RowSummary()
    with reporter.step("Reading the rows", total=found.job.images) as advance:
        for chunk in found.chunks(partial=partial):
            rows.add(chunk)
            advance(len(chunk))
    with reporter.step("Drawing the page"):
        complete = found.record.is_complete(found.job)
        model_uri = client.pinned_model_uri()
        facts = batch_page.gather(found, rows, client.storage, model_uri=model_uri, complete=complete)
    with output_file.writing(path, force=force) as page:
        page.write(batch_page.render(facts).encode())
    print(path)


@app.command("redrive", epilog="Example: twofold batch redrive june-3f2a9c01 --only unavailable --only not_found")
def redrive(
    job_id: JobArgument,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Take only rows with this error_code; can be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for it; exit 1 if it cannot be completed.")] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Resubmit what failed: refused requests, or else images without a score. The results merge the answers."""
    from jobs.batch.inputs import Inputs  # noqa: PLC0415
    from jobs.batch.redrive import Redrive  # noqa: PLC0415
    from jobs.commands.redrive_view import text_of  # noqa: PLC0415

    _check_codes(only or ())
    reporter = Reporter()
    client = open_client(output)
    client.settings.needed_queue()
    job_id = job_name(client, job_id)
    inputs = Inputs(storage=client.storage, output_uri=client.settings.needed_output())
    again = Redrive(client.record(job_id), inputs=inputs, planner=client.planner(), send=client.send).run(
        only or (), client.dead_letters(), reporter
    )
    sent = bool(again.requests or again.images)
    text = text_of(again, with_codes=bool(only), waits=wait)
    if wait and sent:
        reporter.say(text)
        _wait(client, again.redrive_id or job_id, reporter, as_json=as_json)
        return
    print(again.model_dump_json() if as_json else fitted(text, sys.stdout))
    if again.left_out and not sent:
        raise typer.Exit(_FAILED)


@app.command("cancel", epilog="Example: twofold batch cancel june-3f2a9c01")
def cancel(job_id: JobArgument, output: Output = None, as_json: Json = False) -> None:
    """Cancel a job: workers drop its requests. The parts that are written stay; 'results --partial' reads them."""
    from jobs.batch.cancelling import cancel as cancel_job  # noqa: PLC0415 - LiteRT takes a moment to load

    client = open_client(output)
    job_id = job_name(client, job_id)
    was_cancelled = cancel_job(client.record(job_id), client.dead_letters())
    job_status = client.status_reader(job_id).read()
    if not was_cancelled:
        complete = f"{job_id} is {job_status.state}: there is nothing to cancel."
        text = with_command(f"{complete} To write its table:", f"batch results {job_id}")
        print(job_status.model_dump_json() if as_json else fitted(text, sys.stdout))
        return
    text = (
        f"{job_id} is cancelled: {job_status.done:,} of {counted(job_status.images, 'image')} "
        f"{'has' if job_status.images == 1 else 'have'} a row. The name can be used again."
    )
    print(job_status.model_dump_json() if as_json else fitted(text, sys.stdout))


def _say_next(job_id: str, counts: "Counts") -> None:
    """Says what follows the table: what to do about its failures, or the page."""
    from jobs.batch.trying_again import how_to_try_again  # noqa: PLC0415

    if counts.failed:
        none = "" if counts.scored else "No image has a score. "
        text = none + how_to_try_again(job_id, counts.errors)
    else:
        text = with_command("For a page with counts and sample images:", f"batch report {job_id}")
    print(fitted(text, sys.stderr), file=sys.stderr)


def open_client(output: str | None) -> "BatchClient":
    """Opens the client with the settings of the environment; ``output`` is the option of that name."""
    from jobs.batch.client import BatchClient  # noqa: PLC0415
    from worker.contract import S3Uri  # noqa: PLC0415

    _check_option("--output", S3Uri, output)
    return BatchClient.open(output_uri=output)


def _band(text: str | None, threshold: float | None) -> "Band | None":
    """Returns the band of ``--unsure``. Raises BadParameter for one that does not hold ``--threshold``."""
    from worker.contract import check_band  # noqa: PLC0415

    band = band_of(text)
    try:
        check_band(band, threshold)
    except ValueError as error:
        raise typer.BadParameter(str(error).removeprefix("'unsure' "), param_hint="--unsure") from None
    return band


def _check_option(name: str, kind: Any, value: str | None) -> None:  # noqa: ANN401 - an annotated type
    """Raises BadParameter, by the name of the option, for a value that is not of the kind of the contract."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from worker.contract import describe  # noqa: PLC0415

    if value is None:
        return
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        what = describe(error.errors(include_url=False)[0])
        raise typer.BadParameter(what, param_hint=name) from None


def _refuse_file(output: str | None) -> None:
    """Raises BadParameter for ``--output june.csv``, which is how other programs name the file."""
    if output is not None and "://" not in output:
        raise typer.BadParameter(
            f"must be the s3:// prefix of all jobs, not '{output}'. Name the file with -o {output}",
            param_hint="--output",
        )


def _skipped(job: "Job") -> str:
    """Returns a line about the files that have no row, or nothing."""
    files = sum(group.files for group in job.skipped.values())
    were = "was" if files == 1 else "were"
    again = f"'{program()} batch status {job.job_id}'"
    return f"\n{counted(files, 'file')} {were} skipped at submit and have no row: see {again}." if files else ""


def _check_page(file: Path) -> None:
    """Raises BadParameter for a name like ``report.pdf``, which no program opens if HTML is in it."""
    if file.suffix.lower() not in {".html", ".htm"}:
        page = file.with_suffix(".html")
        raise typer.BadParameter(
            f"{file} must end in .html or .htm. For a PDF or paper, write {page} and print it from the browser",
            param_hint="-o",
        )


def _check_codes(codes: Iterable[str]) -> None:
    """Raises BadParameter for a code that no row can have, with the one that is probably meant."""
    from worker.contract import nearest  # noqa: PLC0415
    from worker.errors import ErrorCode  # noqa: PLC0415

    known = [code.value for code in ErrorCode]
    for code in codes:
        if code not in known:
            near = nearest(code, known)
            question = f" Did you mean {near}?" if near else ""
            raise typer.BadParameter(
                f"must be an error_code, as in the column of that name, not '{code}'.{question}", param_hint="--only"
            )


def job_name(client: "BatchClient", asked: str) -> str:
    """Returns the name of a job that was asked for by it, or by the name of the file that it came from."""
    from jobs.batch.job_names import find_job  # noqa: PLC0415

    return find_job(asked, client.settings.needed_output(), client.storage, client.letters)


def _list(client: "BatchClient", *, as_json: bool) -> None:
    from jobs.batch.status import all_jobs  # noqa: PLC0415
    from jobs.commands.batch_view import text_of_all  # noqa: PLC0415

    output_uri = client.settings.needed_output()
    found = all_jobs(
        output_uri, client.storage, letters=client.letters(), closer=client.closer(), pending=cache(client.pending)
    )
    if as_json:
        print(json.dumps([job_status.model_dump(mode="json") for job_status in found]))
    elif found:
        print(text_of_all(found, width=width_of(sys.stdout)))
    else:
        print(fitted(with_command("No jobs yet. To see how to submit one:", "batch submit --help"), sys.stdout))


@contextmanager
def _as_waiting(job_id: str) -> Iterator[None]:
    """Says, if the command or its emulator ends, that the job goes on, and how to wait for it again."""
    again = f"batch status {job_id} --watch"
    try:
        with if_stopped(with_command("The job goes on. To wait for it again:", again)):
            yield
    except Retry:
        check_emulator(after=with_command("The job then goes on. To wait for it again:", again))
        raise


def _wait(client: "BatchClient", job_id: str, reporter: Reporter, *, as_json: bool) -> None:
    """Waits until the job makes no further progress by itself. Exits with 1 unless it is complete and has a score."""
    from jobs.commands.batch_view import watch  # noqa: PLC0415

    with _as_waiting(job_id):
        job_status = watch(client.status_reader(job_id), reporter.console)
    _show(job_status, as_json=as_json)
    if not job_status.complete or job_status.without_answers:
        raise typer.Exit(_FAILED)


def _show(job_status: "JobStatus", *, as_json: bool) -> None:
    from jobs.commands.batch_view import text_of  # noqa: PLC0415

    print(job_status.model_dump_json() if as_json else text_of(job_status, width=width_of(sys.stdout)))


def _print(figures: BaseModel, text: str, *, job_id: str, as_json: bool) -> None:
    print(json.dumps(figures.model_dump() | {"job_id": job_id}) if as_json else fitted(text, sys.stdout))

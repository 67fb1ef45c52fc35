"""The names of jobs as people type them: a job's own, that of the file it came from, or nearly one of these."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Final

from jobs.batch.dead_letters import LettersRead, is_in
from jobs.printable import printable
from jobs.user_error import UserError
from jobs.wording import with_command
from worker.aws.storage import Storage
from worker.batch.job_folder import JobFolder, JobRecord
from worker.messages import job_id_of

#: What a job's default name ends with, after the name of its file: see ``worker.messages.job_id_of``.
_DIGEST: Final = re.compile(r"-?[0-9a-f]{8}(-r\d+)?$")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Names that a message suggests, at most.
_SUGGESTED: Final = 3


def find_job(asked: str, output_uri: str, storage: Storage, refused: Callable[[], LettersRead | None]) -> str:
    """Returns the name of the job that is called ``asked``, or that was made from a file of that name.

    ``refused`` reads the dead letters, if it is needed. Returns ``asked`` itself where there is no such job. Raises
    UserError where several jobs came from the file.
    """
    if _NAME.fullmatch(asked):
        folder = JobFolder(output_uri, asked)
        if next(iter(storage.list(f"{folder.uri}/")), None) is not None:
            return asked
    found = sorted({*_from_file(asked, output_uri, storage), *_refused(asked, output_uri, refused())})
    if len(found) > 1:
        raise UserError(f"{printable(asked)} has become {len(found)} jobs: {', '.join(found)}. Name one of them.")
    return found[0] if found else asked


def no_such_job(asked: str, output_uri: str, storage: Storage) -> UserError:
    """Returns the error for a name that no job has. It suggests those that are nearly the same."""
    near = _nearest(asked, job_ids(output_uri, storage))
    question = f" Did you mean {' or '.join(near)}?" if near else ""
    unknown = f"No job named {printable(asked)} in {output_uri}.{question}"
    return UserError(
        with_command(
            f"{unknown} A request that no worker has received yet is not listed. To see all jobs:", "batch status"
        )
    )


def job_ids(output_uri: str, storage: Storage) -> list[str]:
    """Lists the folders of jobs. Some may be without a job."""
    prefix = f"{output_uri.rstrip('/')}/"
    names = (uri.removeprefix(prefix).rstrip("/") for uri in storage.folders(prefix))
    return [name for name in names if _NAME.fullmatch(name)]


def _from_file(asked: str, output_uri: str, storage: Storage) -> Iterator[str]:
    stem = _stem(job_id_of(asked, identity=""))
    for job_id in job_ids(output_uri, storage):
        if _stem(job_id) == stem and "-r" not in job_id[len(stem) :]:
            job = JobRecord(JobFolder(output_uri, job_id), storage).job()
            # Without job.json, the job is still being planned, and its name is all that is known.
            if job is None or any(_is(source, asked) for source in job.sources):
                yield job_id


def _refused(asked: str, output_uri: str, letters: LettersRead | None) -> Iterator[str]:
    """Yields the jobs of refused requests for a manifest of that name. They may have no folder."""
    for request in letters.requests() if letters else ():
        of_a_list = request.manifest is not None and request.shard is None and _is(request.manifest.uri, asked)
        if of_a_list and is_in(request, output_uri):
            yield request.job_id


def _is(source: str, asked: str) -> bool:
    return source == asked or source.rstrip("/").endswith(f"/{asked.rstrip('/')}")


def _stem(job_id: str) -> str:
    return _DIGEST.sub("", job_id)


def _nearest(asked: str, names: list[str]) -> list[str]:
    """Returns the names that begin as ``asked`` does, or else those that it may be a misspelling of."""
    low, names = asked.casefold(), sorted(names)  # a job before its redrives
    begin = [name for name in names if low and name.casefold().startswith(low)]
    stems = {name: _stem(name).casefold() for name in names}
    known = {*stems.values(), *(name.casefold() for name in names)}
    close = set(difflib.get_close_matches(low, sorted(known), n=_SUGGESTED))
    return (begin or [name for name in names if close & {name.casefold(), stems[name]}])[:_SUGGESTED]

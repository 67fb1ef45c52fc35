"""A copy of a bundle in another store: from a folder to a bucket, back, or between two of a kind.

A file that is there already must have the same bytes: a copy never overwrites. So an interrupted copy goes on where it
was, and ``model.json``, which comes last, appears once all other files have been read back and compared.
"""

from dataclasses import dataclass

from jobs.models.bundle import Bundle
from jobs.models.location import without_file
from jobs.progress import Reporter
from jobs.store import Store
from jobs.user_error import UserError
from worker.contract import ModelManifest
from worker.scoring.models import MANIFEST_FILE


@dataclass(frozen=True)
class BundleCopy:
    """Where a copy is, and what it took."""

    uri: str
    name: str
    version: str
    files: int
    new_files: int  #: the others were there already
    size_bytes: int


def output_of(to: str, manifest: ModelManifest) -> str:
    """Returns the output that ``to`` means: ``…/models``, or ``…/models/pets`` and its versions for the model pets."""
    folder = without_file(to)
    start = "s3://" if folder.startswith("s3://") else ""
    steps = folder.removeprefix(start).split("/")
    for ending in ([manifest.name, manifest.version], [manifest.name]):
        if steps[-len(ending) :] == ending and len(steps) > (len(ending) if start else 0):  # never the bucket itself
            return start + "/".join(steps[: -len(ending)]) or ("/" if folder.startswith("/") else ".")
    return folder


def copy_bundle(bundle: Bundle, target: Store, reporter: Reporter) -> BundleCopy:
    """Writes the files of a bundle that ``target`` lacks. Every file is compared on both ends.

    Raises UserError, before it writes anything, if the bundle is not what training wrote, or if ``target`` has another
    one of that name and version.
    """
    files = checked_files(bundle)
    prefix = f"{bundle.manifest.name}/{bundle.manifest.version}"
    size_bytes = sum(map(len, files.values()))
    missing = []
    with reporter.step(f"Copying {prefix}", total=size_bytes, in_bytes=True) as advance:
        for name, body in files.items():
            found = target.read(f"{prefix}/{name}")
            if found is None:
                missing.append(name)
                continue
            if found != body:
                raise UserError(
                    f"{target.uri}/{prefix}/{name} exists with other bytes. Bundles are never overwritten: "
                    "copy to another place, or remove that bundle first."
                )
            advance(len(body))
        for name in missing:
            target.write_once(f"{prefix}/{name}", files[name])
            if target.read(f"{prefix}/{name}") != files[name]:
                raise UserError(f"{target.uri}/{prefix}/{name} is not what was written. Run the same command again.")
            advance(len(files[name]))
    return BundleCopy(
        uri=f"{target.uri}/{prefix}",
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        files=len(files),
        new_files=len(missing),
        size_bytes=size_bytes,
    )


def checked_files(bundle: Bundle) -> dict[str, bytes]:
    """Returns the files that ``model.json`` lists, and it as the last. Raises UserError if one is not as it says."""
    names = [*bundle.manifest.files, MANIFEST_FILE]
    problems = [f"{finding.file}: {finding.problem}" for finding in bundle.findings if finding.file in names]
    if problems:
        raise UserError(
            f"{bundle.uri} is not what training wrote: {'; '.join(problems)}. Nothing was copied. "
            "Copy it from where it is intact, or train it again."
        )
    return {name: bundle.files[name] for name in names}

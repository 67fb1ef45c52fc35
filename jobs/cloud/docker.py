"""The container images: built with Docker, pushed to ECR, and named by digest from then on."""

import base64
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from jobs.cloud.aws import Client
from jobs.cloud.lambda_zip import Architecture, infra
from jobs.progress import Reporter
from jobs.user_error import UserError

ImageKind = Literal["worker", "train"]
_PLATFORMS: Final[dict[Architecture, str]] = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}


@dataclass(frozen=True)
class Docker:
    """The ``docker`` command, and the folder ``checkout`` that images are built from."""

    program: str
    checkout: Path

    @classmethod
    def find(cls) -> "Docker":
        """Finds the command and the checkout. Raises UserError if Docker is not installed or there is no checkout."""
        program = shutil.which("docker")
        if program is None:
            raise UserError(
                "Docker is not installed here. Install it to build images. The worker's zip does not need it."
            )
        checkout = infra("worker.Dockerfile").parent.parent
        if not (checkout / "pyproject.toml").is_file():
            raise UserError("This is an installed package. Run the command in a checkout of Twofold.")
        return cls(program, checkout)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs the command and returns its output. Raises UserError with the end of its log if it fails."""
        done = subprocess.run(
            [self.program, *arguments], input=stdin, check=False, capture_output=True, text=True, cwd=self.checkout
        )
        if done.returncode:
            log = (done.stderr or done.stdout).strip()[-1500:]
            raise UserError(f"docker {' '.join(arguments[:2])} failed:\n{log}")
        return done.stdout.strip()


def pinned_base(docker: Docker, kind: ImageKind) -> str:
    """Returns the base image that the Dockerfile names by version, by its current digest."""
    text = infra(f"{kind}.Dockerfile").read_text(encoding="utf-8")
    tag = next(line.partition("=")[2] for line in text.splitlines() if line.startswith("ARG PYTHON="))
    digest = docker.run("buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}")
    return f"{tag.partition(':')[0]}@{digest}"


def build_and_push(
    docker: Docker, kind: ImageKind, *, repository: str, base: str, architecture: Architecture, reporter: Reporter
) -> str:
    """Builds the image from the base, pushes it, and returns its name by digest."""
    tag = f"{repository}:{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    with tempfile.TemporaryDirectory(prefix="twofold-image-") as folder:
        metadata = Path(folder) / "metadata.json"
        with reporter.step(f"Building and pushing the {kind} image for {architecture}"):
            docker.run(
                *("buildx", "build", "--push", "--platform", _PLATFORMS[architecture]),
                *("--file", f"infra/{kind}.Dockerfile", "--build-arg", f"PYTHON={base}"),
                "--provenance=false",  # Lambda accepts an image, but not an index of an image and its provenance
                *("--metadata-file", str(metadata), "--tag", tag, "."),
            )
        digest = json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"]
    return f"{repository}@{digest}"


def log_in(docker: Docker, ecr: Client) -> None:
    """Lets Docker push to the account's repositories for twelve hours."""
    granted = ecr.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
    docker.run("login", "--username", user, "--password-stdin", granted["proxyEndpoint"], stdin=password)


def newest(ecr: Client, repository: str) -> str | None:
    """Returns the image that was pushed last, by digest; None if the repository is empty."""
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository.partition("/")[2])
    pushed = [(item["imagePushedAt"], item["imageDigest"]) for page in pages for item in page["imageDetails"]]
    return f"{repository}@{max(pushed)[1]}" if pushed else None

"""The container images: built with Docker, pushed to ECR, named by digest from then on."""

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

Kind = Literal["worker", "train"]
_PLATFORMS: Final[dict[Architecture, str]] = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}


@dataclass(frozen=True)
class Docker:
    """The ``docker`` command. ``checkout`` is the folder that images are built from."""

    program: str
    checkout: Path

    @classmethod
    def find(cls) -> "Docker":
        """Raises UserError where there is no Docker, or no checkout to build from."""
        program = shutil.which("docker")
        if program is None:
            raise UserError("Docker is not installed here: images are built with it. The worker alone needs none.")
        checkout = infra("worker.Dockerfile").parent.parent
        if not (checkout / "pyproject.toml").is_file():
            raise UserError("Images are built from a checkout of Twofold, and this is an installed package.")
        return cls(program, checkout)

    def run(self, *arguments: str, told: str | None = None) -> str:
        """Its output. Raises UserError with its last words when it fails."""
        done = subprocess.run(
            [self.program, *arguments], input=told, check=False, capture_output=True, text=True, cwd=self.checkout
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-1500:]
            raise UserError(f"docker {' '.join(arguments[:2])} failed:\n{words}")
        return done.stdout.strip()


def pinned_base(docker: Docker, kind: Kind) -> str:
    """The base image that the Dockerfile names by version, by the digest it has now."""
    text = infra(f"{kind}.Dockerfile").read_text(encoding="utf-8")
    tag = next(line.partition("=")[2] for line in text.splitlines() if line.startswith("ARG PYTHON="))
    digest = docker.run("buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}")
    return f"{tag.partition(':')[0]}@{digest}"


def build_and_push(
    docker: Docker, kind: Kind, *, repository: str, base: str, architecture: Architecture, reporter: Reporter
) -> str:
    """Builds the image from the base, pushes it, and returns its name by digest."""
    tag = f"{repository}:{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    with tempfile.TemporaryDirectory(prefix="twofold-image-") as folder:
        told = Path(folder) / "metadata.json"
        with reporter.step(f"Building and pushing the {kind} image for {architecture}"):
            docker.run(
                *("buildx", "build", "--push", "--platform", _PLATFORMS[architecture]),
                *("--file", f"infra/{kind}.Dockerfile", "--build-arg", f"PYTHON={base}"),
                "--provenance=false",  # Lambda takes an image, and no index of an image and its provenance
                *("--metadata-file", str(told), "--tag", tag, "."),
            )
        digest = json.loads(told.read_text(encoding="utf-8"))["containerimage.digest"]
    return f"{repository}@{digest}"


def log_in(docker: Docker, ecr: Client) -> None:
    """Lets Docker push to this account's repositories, for twelve hours."""
    given = ecr.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    docker.run("login", "--username", user, "--password-stdin", given["proxyEndpoint"], told=password)


def newest(ecr: Client, repository: str) -> str | None:
    """The image pushed last, by digest; None where there is none."""
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository.partition("/")[2])
    pushed = [(item["imagePushedAt"], item["imageDigest"]) for page in pages for item in page["imageDetails"]]
    return f"{repository}@{max(pushed)[1]}" if pushed else None

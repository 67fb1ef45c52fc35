"""Downloads: complete, of the right version, and without a byte that is not needed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest

from jobs.data.download import FileVersion, fetch
from jobs.data.web import WebFile, _SafeRedirects, _validator
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from tests.jobs.data.image_folders import QUIET
from tests.jobs.data.serving import Site, serve
from worker.uris import masked

BODY = bytes(range(256)) * 9000  # more than two chunks


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(BODY) as site:
        yield site


def _fetch(site: Site, folder: Path) -> bytes:
    return fetch(WebFile(site.url), folder, QUIET, pause_s=0).read_bytes()


def test_an_unchanged_file_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    """One request asks for it, and the response has no body. A changed file is downloaded."""
    assert _fetch(site, tmp_path) == BODY
    assert _fetch(site, tmp_path) == BODY
    assert (len(site.requests), site.sent) == (2, len(BODY))
    site.body = BODY + b"more"
    assert _fetch(site, tmp_path) == BODY + b"more"


@pytest.mark.parametrize("cut", [0, 1, 300_000, len(BODY) - 1])
def test_an_interrupted_download_resumes_where_it_broke_off(site: Site, tmp_path: Path, cut: int) -> None:
    """No byte is sent twice, and the file is the one that was served."""
    site.cuts = [cut]
    assert _fetch(site, tmp_path) == BODY
    assert site.sent == len(BODY)
    assert site.ranges == ([f"bytes={cut}-"] if cut else [])


def test_a_stalled_connection_is_closed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that stays open and sends nothing counts as broken."""
    monkeypatch.setattr("jobs.data.web._TIMEOUT_S", 0.2)
    site.cuts, site.stalls = [300_000], True
    assert _fetch(site, tmp_path) == BODY
    assert site.sent == len(BODY)


def test_a_failed_download_resumes_in_the_next_run(site: Site, tmp_path: Path) -> None:
    """It fails only after attempts that brought nothing, and says that what arrived is kept."""
    site.cuts = [1000, 1000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="The 2,000 bytes that arrived are kept"):
        _fetch(site, tmp_path)
    site.cuts = []
    assert _fetch(site, tmp_path) == BODY
    assert site.ranges[-1] == "bytes=2000-"


def test_a_killed_download_resumes_in_the_next_run(site: Site, tmp_path: Path) -> None:
    """After SIGKILL, which cannot be handled, the next run begins after the bytes that were written."""
    site.cuts, site.stalls = [300_000], True
    code = (
        "import sys; from pathlib import Path; from jobs.data.download import FileVersion, fetch; "
        "from jobs.data.web import WebFile; "
        "from jobs.progress import Reporter; fetch(WebFile(sys.argv[1]), Path(sys.argv[2]), Reporter(quiet=True))"
    )
    job = subprocess.Popen([sys.executable, "-c", code, site.url, str(tmp_path)], cwd=REPOSITORY)
    while not (tmp_path / "part").exists() or (tmp_path / "part").stat().st_size < 200_000:
        assert job.poll() is None
        time.sleep(0.01)
    job.kill()
    job.wait()
    assert _fetch(site, tmp_path) == BODY
    assert int(site.ranges[0].removeprefix("bytes=").rstrip("-")) >= 200_000


def test_a_file_that_changed_in_between_is_downloaded_from_its_start(site: Site, tmp_path: Path) -> None:
    """The first half of one version is never joined to the second half of another."""
    site.cuts = [1000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="are kept"):
        _fetch(site, tmp_path)
    site.cuts, site.body = [], BODY[::-1]
    assert _fetch(site, tmp_path) == BODY[::-1]


def test_a_file_without_an_entity_tag_is_not_resumed(site: Site, tmp_path: Path) -> None:
    """If the server does not identify the version, the complete file is requested."""
    site.validators = False
    site.cuts = [1000]
    assert _fetch(site, tmp_path) == BODY
    assert site.ranges == []


def test_a_weak_entity_tag_is_not_used_to_resume() -> None:
    """It promises the same meaning, not the same bytes. The date is used instead (RFC 9110, 13.1.5)."""
    date = "Tue, 24 Nov 2026 08:00:00 GMT"
    assert _validator(FileVersion(etag='W/"1"', last_modified=date)) == date
    assert _validator(FileVersion(etag='W/"1"')) is None
    assert _validator(FileVersion(etag='"1"', last_modified=date)) == '"1"'


def test_a_part_with_all_bytes_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    """A job can be killed between the last byte and the renaming."""
    whole = fetch(WebFile(site.url), tmp_path, QUIET)
    for path in (whole, whole.with_name("whole.json")):
        path.rename(path.with_name(path.name.replace("whole", "part")))
    assert _fetch(site, tmp_path) == BODY
    assert len(site.requests) == 1


def test_an_earlier_copy_is_used_while_the_server_is_down(site: Site, tmp_path: Path) -> None:
    """So that a job runs offline with what it has."""
    assert _fetch(site, tmp_path) == BODY
    site.statuses = [503]
    assert _fetch(site, tmp_path) == BODY


@pytest.mark.parametrize(("statuses", "attempts"), [([503, 429], 3), ([500] * 9, 5), ([404], 1), ([403], 1)])
def test_only_a_status_that_may_pass_is_retried(site: Site, tmp_path: Path, statuses: list[int], attempts: int) -> None:
    """Up to a limit, after which the message has the status."""
    site.statuses = list(statuses)
    if statuses == [503, 429]:
        assert _fetch(site, tmp_path) == BODY
    else:
        with pytest.raises(UserError, match=str(statuses[0])):
            _fetch(site, tmp_path)
    assert len(site.requests) == attempts


def test_a_redirect_to_anything_but_the_web_is_not_followed(site: Site, tmp_path: Path) -> None:
    """Neither to a local file nor to an insecure protocol."""
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/a.zip"):
        site.redirect = target
        with pytest.raises(UserError, match=r"not followed|not allowed"):
            _fetch(site, tmp_path)


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    """Anyone on the way could send any file."""
    redirects, request = _SafeRedirects(), Request("https://host/a.zip?secret", headers={"Range": "bytes=7-"})
    with pytest.raises(UserError, match=r"https://host/a\.zip redirects to http://host/b\.zip"):
        redirects.redirect_request(request, BytesIO(), 302, "Found", HTTPMessage(), "http://host/b.zip?secret")
    followed = redirects.redirect_request(request, BytesIO(), 302, "Found", HTTPMessage(), "https://host/b.zip")
    assert followed is not None
    assert followed.headers["Range"] == "bytes=7-"


@pytest.mark.parametrize("url", ["https:///a.zip", "https://user:secret@host/a.zip", "https://host:port/a.zip"])
def test_an_invalid_address_is_reported(url: str, tmp_path: Path) -> None:
    """The message does not show the password in it."""
    with pytest.raises(UserError, match="is not the address of a file") as caught:
        fetch(WebFile(url), tmp_path, QUIET)
    assert "secret" not in str(caught.value)


def test_no_message_shows_a_signature() -> None:
    """The query of a presigned URL is a secret."""
    assert masked("https://u:p@host:8/a.zip?X-Amz-Signature=secret#x") == "https://host:8/a.zip"


def test_jobs_that_need_the_same_file_download_it_once(site: Site, tmp_path: Path) -> None:
    """The others wait, and then ask whether it has changed."""
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: _fetch(site, tmp_path), range(4))) == {BODY}
    assert site.sent == len(BODY)

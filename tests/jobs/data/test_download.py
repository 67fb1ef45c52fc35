"""A file from the web: whole, the right one, and no byte twice that need not be."""

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

from jobs.data.download import Version, fetch
from jobs.data.web import WebFile, _SafeRedirects, _validator
from jobs.user_error import UserError
from tests.conftest import REPOSITORY
from tests.jobs.data.pictures import QUIET
from tests.jobs.data.serving import Site, serve
from worker.uris import masked

BODY = bytes(range(256)) * 9000  # more than two chunks


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(BODY) as site:
        yield site


def _fetch(site: Site, folder: Path) -> bytes:
    return fetch(WebFile(site.url), folder, QUIET, pause_s=0).read_bytes()


def test_what_did_not_change_is_not_loaded_again(site: Site, tmp_path: Path) -> None:
    """One request asks; its answer has no body. What did change is."""
    assert _fetch(site, tmp_path) == BODY
    assert _fetch(site, tmp_path) == BODY
    assert (len(site.asked), site.sent) == (2, len(BODY))
    site.body = BODY + b"more"
    assert _fetch(site, tmp_path) == BODY + b"more"


@pytest.mark.parametrize("cut", [0, 1, 300_000, len(BODY) - 1])
def test_a_cut_download_goes_on_where_it_broke_off(site: Site, tmp_path: Path, cut: int) -> None:
    """No byte comes twice, and the file is the one that was served."""
    site.cuts = [cut]
    assert _fetch(site, tmp_path) == BODY
    assert site.sent == len(BODY)
    assert site.ranges == ([f"bytes={cut}-"] if cut else [])


def test_a_server_that_says_no_more_is_left(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that stays open without a byte is as broken as one that is cut."""
    monkeypatch.setattr("jobs.data.web._TIMEOUT_S", 0.2)
    site.cuts, site.stalls = [300_000], True
    assert _fetch(site, tmp_path) == BODY
    assert site.sent == len(BODY)


def test_a_job_that_gave_up_goes_on_in_its_next_run(site: Site, tmp_path: Path) -> None:
    """It says that what arrived is kept; and it gives up only after tries that brought nothing."""
    site.cuts = [1000, 1000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="2,000 bytes, is kept"):
        _fetch(site, tmp_path)
    site.cuts = []
    assert _fetch(site, tmp_path) == BODY
    assert site.ranges[-1] == "bytes=2000-"


def test_a_job_that_is_killed_goes_on_in_its_next_run(site: Site, tmp_path: Path) -> None:
    """With SIGKILL, which nobody can prepare for: what was written is where the next one begins."""
    site.cuts, site.stalls = [300_000], True
    code = (
        "import sys; from pathlib import Path; from jobs.data.download import Version, fetch; "
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


def test_a_file_that_changed_in_between_is_loaded_from_its_start(site: Site, tmp_path: Path) -> None:
    """Never the first half of one version with the second half of another."""
    site.cuts = [1000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="is kept"):
        _fetch(site, tmp_path)
    site.cuts, site.body = [], BODY[::-1]
    assert _fetch(site, tmp_path) == BODY[::-1]


def test_without_an_entity_tag_nothing_is_patched_together(site: Site, tmp_path: Path) -> None:
    """A server that does not say which version it sends is asked for all of it."""
    site.validators = False
    site.cuts = [1000]
    assert _fetch(site, tmp_path) == BODY
    assert site.ranges == []


def test_a_weak_entity_tag_is_no_ground_to_patch_on() -> None:
    """It promises the same meaning, not the same bytes; the date is what is left then (RFC 9110, 13.1.5)."""
    date = "Tue, 24 Nov 2026 08:00:00 GMT"
    assert _validator(Version(etag='W/"1"', last_modified=date)) == date
    assert _validator(Version(etag='W/"1"')) is None
    assert _validator(Version(etag='"1"', last_modified=date)) == '"1"'


def test_a_part_that_is_all_of_it_is_the_file(site: Site, tmp_path: Path) -> None:
    """Killed between the last byte and the new name: nothing is loaded again."""
    whole = fetch(WebFile(site.url), tmp_path, QUIET)
    for path in (whole, whole.with_name("whole.json")):
        path.rename(path.with_name(path.name.replace("whole", "part")))
    assert _fetch(site, tmp_path) == BODY
    assert len(site.asked) == 1


def test_what_was_there_is_used_where_the_server_is_down(site: Site, tmp_path: Path) -> None:
    """A train, a plane, a server's bad day."""
    assert _fetch(site, tmp_path) == BODY
    site.statuses = [503]
    assert _fetch(site, tmp_path) == BODY


@pytest.mark.parametrize(("statuses", "tries"), [([503, 429], 3), ([500] * 9, 5), ([404], 1), ([403], 1)])
def test_an_answer_that_passes_is_asked_for_again_and_no_other(
    site: Site, tmp_path: Path, statuses: list[int], tries: int
) -> None:
    """With a limit; and the message names the status."""
    site.statuses = list(statuses)
    if statuses == [503, 429]:
        assert _fetch(site, tmp_path) == BODY
    else:
        with pytest.raises(UserError, match=str(statuses[0])):
            _fetch(site, tmp_path)
    assert len(site.asked) == tries


def test_a_redirect_to_anything_but_the_web_is_not_followed(site: Site, tmp_path: Path) -> None:
    """Not to a file of this machine, and not to an unsafe protocol."""
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/a.zip"):
        site.redirect = target
        with pytest.raises(UserError, match=r"not followed|not allowed"):
            _fetch(site, tmp_path)


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    """Whoever sits in between could send anything."""
    redirects, asked = _SafeRedirects(), Request("https://host/a.zip?secret", headers={"Range": "bytes=7-"})
    with pytest.raises(UserError, match=r"https://host/a\.zip redirects to http://host/b\.zip"):
        redirects.redirect_request(asked, BytesIO(), 302, "Found", HTTPMessage(), "http://host/b.zip?secret")
    followed = redirects.redirect_request(asked, BytesIO(), 302, "Found", HTTPMessage(), "https://host/b.zip")
    assert followed is not None
    assert followed.headers["Range"] == "bytes=7-"


@pytest.mark.parametrize("url", ["https:///a.zip", "https://user:secret@host/a.zip", "https://host:port/a.zip"])
def test_an_address_that_is_none_is_told(url: str, tmp_path: Path) -> None:
    """Without its secret."""
    with pytest.raises(UserError, match="is no address of a file") as caught:
        fetch(WebFile(url), tmp_path, QUIET)
    assert "secret" not in str(caught.value)


def test_no_message_shows_a_signature() -> None:
    """A presigned address is a secret behind its question mark."""
    assert masked("https://u:p@host:8/a.zip?X-Amz-Signature=secret#x") == "https://host:8/a.zip"


def test_jobs_that_want_the_same_file_load_it_once(site: Site, tmp_path: Path) -> None:
    """The others wait, and ask whether it changed."""
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: _fetch(site, tmp_path), range(4))) == {BODY}
    assert site.sent == len(BODY)

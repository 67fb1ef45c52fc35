"""Downloads: complete, of the right version, and without a byte that is not needed."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from jobs.data.download import FileVersion, fetch
from jobs.data.web import WebFile, _validator
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


def test_a_download_that_never_began_has_nothing_to_resume(site: Site, tmp_path: Path) -> None:
    """So nothing is said to be kept."""
    site.cuts = [0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"bytes\.$"):
        _fetch(site, tmp_path)


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


@pytest.fixture
def other() -> Iterator[Site]:
    """A second server, to which the first one redirects."""
    with serve(BODY[::-1]) as site:
        yield site


def _as_localhost(site: Site) -> str:
    return site.url.replace("127.0.0.1", "localhost")


def test_a_redirect_within_its_host_is_followed(site: Site, other: Site, tmp_path: Path) -> None:
    """To another path or port of the same name."""
    site.redirect = other.url
    assert _fetch(site, tmp_path) == BODY[::-1]
    assert len(other.requests) == 1


def test_a_redirect_to_another_host_is_followed_only_if_it_is_named(site: Site, other: Site, tmp_path: Path) -> None:
    """The message names the host and the option, and the other server is not asked. Neither query is shown."""
    site.redirect = f"{_as_localhost(other)}?sig=secret"
    site.url += "?sig=secret"
    with pytest.raises(UserError, match=r"redirects to another host, localhost, .*: --redirect-hosts localhost$") as e:
        _fetch(site, tmp_path / "refused")
    assert "secret" not in str(e.value)
    assert other.requests == []
    allowed = WebFile(site.url, redirect_hosts=frozenset({"localhost"}))
    assert fetch(allowed, tmp_path / "allowed", QUIET, pause_s=0).read_bytes() == BODY[::-1]


def test_the_message_about_a_second_host_names_the_first_one_too(site: Site, tmp_path: Path) -> None:
    """So that the option can be copied from it."""
    site.redirect = "http://example.com/a.zip"
    remote = WebFile(_as_localhost(site), redirect_hosts=frozenset({"cdn.example.com"}))
    with pytest.raises(UserError, match=r"--redirect-hosts cdn\.example\.com,example\.com$"):
        fetch(remote, tmp_path, QUIET, pause_s=0)


def test_a_redirect_back_to_the_first_host_is_followed(site: Site, other: Site, tmp_path: Path) -> None:
    """A host that is named may check a login there."""
    with serve(BODY[::-1]) as last:
        site.redirect, other.redirect = _as_localhost(other), last.url
        remote = WebFile(site.url, redirect_hosts=frozenset({"localhost"}))
        assert fetch(remote, tmp_path, QUIET, pause_s=0).read_bytes() == BODY[::-1]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254"]
)
def test_a_redirect_to_an_ip_address_is_not_followed(site: Site, other: Site, tmp_path: Path, host: str) -> None:
    """In any form that a connection accepts: behind it may be a cloud's metadata, or a machine that only we reach."""
    site.redirect = other.url.replace("127.0.0.1", host)
    shown = host.strip("[]")
    with pytest.raises(UserError, match=f"redirects to the IP address {shown}, which is not followed") as caught:
        fetch(WebFile(_as_localhost(site)), tmp_path, QUIET, pause_s=0)
    assert str(caught.value).endswith(f"--redirect-hosts {shown}")
    assert other.requests == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "redirects to file:///etc/passwd, which is less secure and not followed"),
        ("ftp://127.0.0.1/a.zip?secret", "redirects to ftp://127.0.0.1/a.zip, which is less secure"),
        ("data:,x", "redirects to data:"),
        ("http://user:secret@127.0.0.1/a.zip", "redirects to an address that is not valid"),
        ("http://[secret/a.zip", "redirects to an address that is not valid"),
        ("//user@host/a.zip", "redirects to an address that is not valid"),
        ("//example.com/a.zip?secret", "redirects to another host, example.com, which is not followed"),
    ],
)
def test_a_redirect_to_anything_but_the_web_is_not_followed(
    site: Site, tmp_path: Path, target: str, message: str
) -> None:
    """Neither to a local file nor to an insecure protocol, nor without a scheme, with any status that redirects."""
    site.redirect = target
    for status in (301, 302, 303, 307, 308):
        site.redirect_status = status
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            _fetch(site, tmp_path)
        assert "secret" not in str(caught.value)
    assert len(site.requests) == 5


def test_a_cached_file_does_not_let_a_redirect_pass(site: Site, other: Site, tmp_path: Path) -> None:
    """The question whether it has changed is a request, too."""
    assert _fetch(site, tmp_path) == BODY
    site.redirect = _as_localhost(other)
    with pytest.raises(UserError, match="another host, localhost"):
        _fetch(site, tmp_path)
    assert other.requests == []


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key and a certificate for 127.0.0.1, which this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    path = tmp_path / "certificate.pem"
    path.write_bytes(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def test_a_redirect_from_https_to_http_is_not_followed(certificate: Path, site: Site, tmp_path: Path) -> None:
    """Anyone on the way could send any file, even from the same host."""
    with serve(BODY, certificate=certificate) as secure, serve(BODY[::-1], certificate=certificate) as target:
        secure.redirect = f"{site.url}?secret"
        with pytest.raises(UserError, match=r"redirects to http://127\.0\.0\.1:\d+/pets\.zip, which is less secure"):
            _fetch(secure, tmp_path)
        assert site.requests == []
        secure.redirect, target.cuts = target.url, [1000]
        assert _fetch(secure, tmp_path) == BODY[::-1]
        assert target.ranges == ["bytes=1000-"]


@pytest.mark.parametrize(
    "url",
    [
        "https:///a.zip",
        "https://user:secret@host/a.zip",
        "https://host:port/a.zip",
        "https://user:secret@[host/a.zip",
        "https://host/a.zip?X-Amz-Signature=secret or so",
    ],
)
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

"""A remote file behind an http(s):// address."""

import http.client
import ipaddress
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import Request

from jobs.data.download import FileVersion, RemoteStream
from jobs.printable import printable
from jobs.user_error import UserError
from worker.errors import ErrorCode, Retry
from worker.uris import masked

_TIMEOUT_S: Final = 30
_CHUNK_BYTES: Final = 1024**2
_NOT_MODIFIED: Final = 304
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416
#: Statuses that may pass. https://www.rfc-editor.org/rfc/rfc9110#name-status-codes
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebFile:
    """A ``RemoteFile`` on a web server, which may redirect to ``redirect_hosts`` and to paths of its own.

    Proxies are those of the environment, as urllib finds them.
    """

    def __init__(self, url: str, *, redirect_hosts: frozenset[str] = frozenset()) -> None:
        self._url = url.partition("#")[0]  # the fragment is not for the server
        parts = _split(self._url)
        if parts is None or not parts.hostname or parts.username is not None:
            shown = "--data" if parts is None else masked(url)
            raise UserError(f"{shown} is not the address of a file. Use https://host/name, without a user name.")
        self.where = masked(url)
        self._opener = urllib.request.build_opener(_Redirects(parts.hostname, redirect_hosts))

    def is_still(self, version: FileVersion) -> bool:
        """Sends a conditional request. A server that ignores the condition is judged by its response headers."""
        conditions = {"If-None-Match": version.etag, "If-Modified-Since": version.last_modified}
        headers = {name: value for name, value in conditions.items() if value}
        if not headers:
            return False
        try:
            with self._get(headers) as response:
                return _version(response, 0) == version
        except urllib.error.HTTPError as error:
            if error.code == _NOT_MODIFIED:
                return True
            raise self._decide(error) from error

    @contextmanager
    def open(self, start: int, version: FileVersion | None) -> Iterator[RemoteStream]:
        """Opens the file at ``start`` if the server supports ranges and identifies the version, and at 0 otherwise."""
        validator = _validator(version) if start and version else None
        with self._begin({"Range": f"bytes={start}-", "If-Range": validator} if validator else {}) as response:
            first = self._first_byte(response, start) if response.status == _PARTIAL else 0
            yield RemoteStream(_version(response, first), first, self._chunks(response, first))

    def _begin(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            return self._get(headers)
        except urllib.error.HTTPError as error:
            if error.code == _NOT_SATISFIABLE and headers:
                return self._begin({})
            raise self._decide(error) from error

    def _get(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        # Without compression: lengths and ranges must be those of the file itself.
        request = Request(  # noqa: S310 - the scheme was checked, and is again after each redirect
            self._url, headers={"User-Agent": "twofold", "Accept-Encoding": "identity"} | headers
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError:
            raise
        except http.client.InvalidURL:  # it quotes the address with its query, hence "from None"
            wrong = "a character in it is not allowed there, or its port is not a number"
            raise UserError(f"{self.where} is not the address of a file: {wrong}.") from None
        except (http.client.HTTPException, OSError) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise UserError(f"{self.where}: the server's certificate is not trusted: {cause}.") from error
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where} cannot be reached: {cause}") from error
        return response

    def _first_byte(self, response: http.client.HTTPResponse, start: int) -> int:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise UserError(f"{self.where}: the server sends different bytes from those requested. Try again later.")
        return start

    def _chunks(self, response: http.client.HTTPResponse, first: int) -> Iterator[bytes]:
        total = _version(response, first).size_bytes
        arrived = first
        try:
            # read1 returns what has arrived. read would wait for a full chunk, and lose it if the connection stalls.
            while arrived != total and (chunk := response.read1(_CHUNK_BYTES)):
                arrived += len(chunk)
                yield chunk
        except (http.client.HTTPException, OSError) as error:
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where}: connection lost: {error}") from error
        if total is not None and arrived != total:
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where}: connection lost after {arrived:,} of {total:,} bytes")

    def _decide(self, error: urllib.error.HTTPError) -> Exception:
        answer = f"{self.where}: the server answers {error.code} {error.reason}"
        if error.code in _PASSING:
            return Retry(ErrorCode.UNAVAILABLE, answer)
        return UserError(f"{answer}. Check that the address is right and needs no login.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect within ``host`` and to ``others``, from https only to https. Raises UserError for any other.

    Whoever controls a server, or the way to it, could otherwise have this machine request any address that it can
    reach: a router, a database, the credentials of a cloud's metadata service.
    """

    def __init__(self, host: str, others: frozenset[str]) -> None:
        self._host = host.rstrip(".")
        self._others = others

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> object:
        """Is called first. For file: and other schemes, urllib would raise an error with the complete address."""
        self._check(req, headers.get("Location") or headers.get("URI") or "")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        """Checks the address that is requested next, as urllib understood it."""
        self._check(req, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def _check(self, req: Request, target: str) -> None:
        start, parts = f"{masked(req.full_url)} redirects to", _split(target, base=req.full_url)
        if parts is None or parts.username is not None:
            raise UserError(f"{start} an address that is not valid. Ask its owner, or use another address.")
        if parts.scheme not in (("https",) if req.type == "https" else ("https", "http")):
            shown = printable(masked(parts.geturl()))
            raise UserError(f"{start} {shown}, which is less secure and not followed. Use an https:// address.")
        host = (parts.hostname or "").rstrip(".")
        if host != self._host and host not in self._others:
            what = "the IP address" if _is_ip_address(host) else "another host,"
            hosts = ",".join([*sorted(self._others), printable(host)])
            raise UserError(
                f"{start} {what} {printable(host)}, which is not followed. If you trust it: --redirect-hosts {hosts}"
            )


def _split(url: str, *, base: str = "") -> SplitResult | None:
    """Returns the parts of an address, which may be relative to ``base``, or None if it is not valid."""
    try:
        return urlsplit(urljoin(base, url))
    except ValueError:
        return None


def _is_ip_address(host: str) -> bool:
    """Whether a host is an IP address in any form that a connection accepts, such as 2130706433 for 127.0.0.1."""
    try:
        socket.inet_aton(host)
    except OSError:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
    return True


def _version(response: http.client.HTTPResponse, first: int) -> FileVersion:
    length = response.headers.get("Content-Length")
    return FileVersion(
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size_bytes=first + int(length) if length and length.isdigit() else None,
    )


def _validator(version: FileVersion) -> str | None:
    """Returns the value for If-Range: a strong entity tag, or else the date.

    https://www.rfc-editor.org/rfc/rfc9110#name-if-range
    """
    if version.etag and not version.etag.startswith("W/"):
        return version.etag
    return version.last_modified

"""A file behind an http(s):// address. ``#sha256=<64 digits>`` at its end is what it must be, and never sent."""

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final
from urllib.parse import urlsplit
from urllib.request import Request

from jobs.data.download import Answer, Version
from jobs.user_error import UserError
from worker.errors import ErrorCode, Retry
from worker.uris import masked

_TIMEOUT_S: Final = 30
_CHUNK_BYTES: Final = 1024**2
_NOT_MODIFIED: Final = 304
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416
#: Of an address or of its server: what passes. https://www.rfc-editor.org/rfc/rfc9110#name-status-codes
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebFile:
    """A ``download.Remote``. Proxies are those of the environment, as urllib finds them."""

    def __init__(self, url: str) -> None:
        self._url = url.partition("#")[0]
        parts = urlsplit(self._url)
        if not parts.hostname or parts.username is not None:
            raise UserError(f"{masked(url)} is no address of a file: give https://host/name, without a user's name.")
        self.where = masked(url)
        self._opener = urllib.request.build_opener(_SafeRedirects)

    def is_still(self, version: Version) -> bool:
        """A conditional request; a server that knows no conditions is asked by its answer's header."""
        conditions = {"If-None-Match": version.etag, "If-Modified-Since": version.last_modified}
        asked = {name: value for name, value in conditions.items() if value}
        if not asked:
            return False
        try:
            with self._get(asked) as response:
                return _version(response, 0) == version
        except urllib.error.HTTPError as error:
            if error.code == _NOT_MODIFIED:
                return True
            raise self._decide(error) from error

    @contextmanager
    def open(self, start: int, version: Version | None) -> Iterator[Answer]:
        """From ``start`` on, where the server can do that and says by what it knows the file again."""
        sure = _validator(version) if start and version else None
        with self._begin({"Range": f"bytes={start}-", "If-Range": sure} if sure else {}) as response:
            first = self._first_byte(response, start) if response.status == _PARTIAL else 0
            yield Answer(_version(response, first), first, self._chunks(response, first))

    def _begin(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            return self._get(headers)
        except urllib.error.HTTPError as error:
            if error.code == _NOT_SATISFIABLE and headers:
                return self._begin({})
            raise self._decide(error) from error

    def _get(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        # The length and the ranges are of the file itself, so it may not be packed for the way.
        request = Request(  # noqa: S310 - the scheme was checked, and is after each redirect
            self._url, headers={"User-Agent": "twofold", "Accept-Encoding": "identity"} | headers
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError:
            raise
        except http.client.InvalidURL as error:
            raise UserError(f"{self.where} is no address of a file: {error}.") from error
        except (http.client.HTTPException, OSError) as error:
            why = getattr(error, "reason", error)
            if isinstance(why, ssl.SSLCertVerificationError):
                raise UserError(f"{self.where}: the server's certificate is not to be trusted: {why}.") from error
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where} cannot be reached: {why}") from error
        return response

    def _first_byte(self, response: http.client.HTTPResponse, start: int) -> int:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise UserError(f"{self.where}: the server sends other bytes than it was asked for.")
        return start

    def _chunks(self, response: http.client.HTTPResponse, first: int) -> Iterator[bytes]:
        total = _version(response, first).size_bytes
        arrived = first
        try:
            # read1: what has come, and not what fills the chunk, would else be lost with a connection that stalls.
            while arrived != total and (chunk := response.read1(_CHUNK_BYTES)):
                arrived += len(chunk)
                yield chunk
        except (http.client.HTTPException, OSError) as error:
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where} broke off: {error}") from error
        if total is not None and arrived != total:
            raise Retry(ErrorCode.UNAVAILABLE, f"{self.where} broke off: {arrived:,} of {total:,} bytes arrived")

    def _decide(self, error: urllib.error.HTTPError) -> Exception:
        said = f"{self.where}: the server answers {error.code} {error.reason}"
        if error.code in _PASSING:
            return Retry(ErrorCode.UNAVAILABLE, said)
        return UserError(f"{said}. Is the address right, and may it be read without logging in?")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """From https never to anything less, and from http to the web alone."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        allowed = ("https:",) if req.type == "https" else ("https:", "http:")
        if not newurl.lower().startswith(allowed):
            raise UserError(f"{masked(req.full_url)} redirects to {masked(newurl)}, which is less safe: not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(response: http.client.HTTPResponse, first: int) -> Version:
    length = response.headers.get("Content-Length")
    return Version(
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size_bytes=first + int(length) if length and length.isdigit() else None,
    )


def _validator(version: Version) -> str | None:
    """For If-Range: a strong entity tag, else the date. https://www.rfc-editor.org/rfc/rfc9110#name-if-range"""
    if version.etag and not version.etag.startswith("W/"):
        return version.etag
    return version.last_modified

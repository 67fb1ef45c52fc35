"""What a person can put right, said so that they can."""

from urllib.parse import urlsplit


class UserError(Exception):
    """Something the person at the keyboard can mend: the message says what was found and what to do next."""


def shown(url: str) -> str:
    """The address without what can be a secret: user, password, query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url.partition("?")[0]
    return f"{parts.scheme}://{host}{parts.path}"

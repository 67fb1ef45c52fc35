"""Logging: plain lines on a terminal or in a container, JSON in Lambda."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_CHATTY: Final = ("botocore", "boto3", "urllib3", "PIL")
#: The fields of the ``about`` block that is open. Blocks are not nested.
_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


def configure(level: str) -> None:
    """Logs lines to standard error, with the time in UTC."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
    )
    logging.Formatter.converter = time.gmtime
    _quieten()


def configure_lambda(level: str) -> None:
    """Leaves the format to Lambda's runtime client: JSON with the call's id, where the function is set to JSON.

    Adds the fields of ``about`` and ``note`` to each record; the client writes every such field.
    """
    logging.basicConfig()  # where there is no client, and so no handler
    root = logging.getLogger()
    root.setLevel(level)
    for handler in root.handlers:
        handler.addFilter(_add_about)
    _quieten()


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Adds fields to every record that is logged within the block, such as the id of the message."""
    token = _about.set(fields)
    try:
        yield
    finally:
        _about.reset(token)


def note(**fields: str) -> None:
    """Adds fields to the enclosing ``about`` block, from here to its end. Does nothing outside such a block."""
    about_ = _about.get()
    if about_ is not None:
        about_.update(fields)


def _add_about(record: logging.LogRecord) -> bool:
    for name, value in (_about.get() or {}).items():
        setattr(record, name, value)
    return True


def _quieten() -> None:
    logging.captureWarnings(capture=True)  # Pillow's warnings about odd files belong in the log
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)

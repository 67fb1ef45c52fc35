"""How the worker logs: lines on a terminal or in a container, JSON in Lambda."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_CHATTY: Final = ("botocore", "boto3", "urllib3", "PIL")
#: One block at a time, and none within another.
_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


def configure(level: str) -> None:
    """Lines on standard error, with the time in UTC."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
    )
    logging.Formatter.converter = time.gmtime
    _quieten()


def configure_lambda(level: str) -> None:
    """Leaves the form to Lambda's runtime client: JSON with the id of the call, where the function says so.

    To each record it adds what the log is ``about``; the client writes every such field.
    """
    logging.basicConfig()  # where there is no client, and so no handler
    root = logging.getLogger()
    root.setLevel(level)
    for handler in root.handlers:
        handler.addFilter(_add_about)
    _quieten()


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """What all that is logged within the block is about, as far as it is known; ``note`` tells more."""
    token = _about.set(fields)
    try:
        yield
    finally:
        _about.reset(token)


def note(**fields: str) -> None:
    """Adds to what the block around it is about, to its end. Without such a block it does nothing."""
    about_ = _about.get()
    if about_ is not None:
        about_.update(fields)


def _add_about(record: logging.LogRecord) -> bool:
    for name, value in (_about.get() or {}).items():
        setattr(record, name, value)
    return True


def _quieten() -> None:
    logging.captureWarnings(capture=True)  # Pillow's remarks on odd files belong in the log
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)

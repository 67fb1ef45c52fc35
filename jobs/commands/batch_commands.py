"""The group ``twofold batch`` with all its commands, each of which is added by the file that it is in."""

from jobs.commands import sort  # noqa: F401 - which adds its command
from jobs.commands.batch import app

__all__ = ["app"]

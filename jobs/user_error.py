"""The error that a command reports without a traceback."""


class UserError(Exception):
    """A problem that the user can fix. The message says what was found and what to do next."""

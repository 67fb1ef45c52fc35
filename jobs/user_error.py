"""The error that a command shows to its user."""


class UserError(Exception):
    """A problem that the user can fix. The message says what was found and what to do next."""

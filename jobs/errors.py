"""What a person can put right, said so that they can."""


class UserError(Exception):
    """Something the person at the keyboard can mend: the message says what was found and what to do next."""

"""A question that a person answers with y or n."""

import sys

from jobs.wording import fitted


def confirm(question: str, *, default: bool | None = None) -> bool:
    """Asks on standard error until the answer is yes or no. Enter means ``default``; the end of the input means no."""
    choices = {None: "y/n", True: "Y/n", False: "y/N"}[default]
    text = fitted(f"{question} [{choices}]:", sys.stderr)
    while True:
        print(text, end=" ", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower()
        if answer in {"y", "yes"}:
            return True
        if answer in {"n", "no"} or not line:
            return False
        if not answer and default is not None:
            return default
        print("Type y or n.", file=sys.stderr)

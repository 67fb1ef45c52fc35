r"""Text from outside, such as the name of a file or the address of an image, as a person may see it.

    a name with U+202E, which reverses it       a\u202egpj.exe
    https://host/a.jpg?X-Amz-Signature=…        https://host/a.jpg

It is for pages, messages and ``quarantine.csv``. A file that a program joins with another, such as the results of a
job, keeps every name as it is.
"""

import re
from typing import Final

from worker.uris import masked

#: Characters that cannot be seen, or that reorder the text around them: control and format characters, surrogates
#: (how Python reads bytes of a file name that are not UTF-8), and the controls of Unicode's bidirectional algorithm.
#: Joiners belong to many scripts and to emoji; after an ASCII character there is nothing that they could join.
_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]"
)
_START: Final = r"(?!s3://)[a-z][a-z0-9+.-]*://"  #: a ``?`` in an s3:// URI belongs to the key
#: An address: a text that begins with one, one in quotes, or one up to the next white space.
_ADDRESS: Final = re.compile(
    rf"""\A\s*{_START}.*"""
    rf"""|(?<='){_START}.*?(?='(?:\s|\Z))|(?<="){_START}.*?(?="(?:\s|\Z))"""
    rf"""|(?<![a-z0-9+.-]){_START}\S+""",
    re.IGNORECASE | re.DOTALL,
)


def printable(text: str) -> str:
    """Writes out what cannot be seen, and leaves out of every address what may be secret."""
    return without_secrets(visible(text))


def printable_lines(text: str) -> str:
    """Returns a text of several lines, each of them ``printable``."""
    return "\n".join(map(printable, text.split("\n")))


def visible(text: str) -> str:
    r"""Writes out what cannot be seen: U+202E in a file name is shown as ``\u202e``."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_secrets(text: str) -> str:
    """Leaves out the user name, password, query and fragment of every address in a text."""
    return _ADDRESS.sub(lambda found: masked(found[0]), text)

"""Text from outside: nothing in it is invisible, nothing reorders the text around it, and no address has a secret."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.printable import printable, printable_lines, visible, without_secrets

#: Bidi classes of explicit controls, of separators, and of characters that are not drawn. ZWJ and ZWNJ are BN, too.
_HIDDEN = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN", "B", "S"}
#: The marks and the other characters without a glyph, which have the classes of letters (DerivedCoreProperties.txt).
_MARKS = "\u061c\u200e\u200f\u115f\u1160\u3164\uffa0"
_JOINERS = "\u200c\u200d"


@given(st.text(st.characters(codec=None)))
def test_every_character_shown_can_be_seen_and_encoded(text: str) -> None:
    """No control character, no surrogate, and nothing that reorders the text around it."""
    seen = visible(text)
    seen.encode()
    assert not [c for c in seen if unicodedata.category(c) in {"Cc", "Cs"}]
    assert not [c for c in seen if unicodedata.bidirectional(c) in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI"}]


@pytest.mark.parametrize(
    "text",
    [
        "cat.1.jpg",
        "חתולים",
        "كلاب",
        "می\u200cروم",
        "क्\u200dष",
        "👩\u200d🔬.jpg",
        "❤\ufe0f\u200d🔥",
        "naïve\u0301",
        "a b",
    ],
    ids=ascii,
)
def test_a_name_in_any_script_is_unchanged(text: str) -> None:
    """Its joiners and marks belong to it."""
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("cat\udcff\n", r"cat\udcff\n"),
        ("cat\u200b.jpg", r"cat\u200b.jpg"),
        ("cat\u200d.jpg", r"cat\u200d.jpg"),
        ("\u200ccat", r"\u200ccat"),
        ("c\xadat\ufeff", r"c\xadat\ufeff"),
        ("cat\U000e0063", r"cat\U000e0063"),
    ],
    ids=ascii,
)
def test_invisible_characters_are_written_out(text: str, shown: str) -> None:
    """A name that hides its real ending, bytes that are not UTF-8, and joiners with nothing to join."""
    assert visible(text) == shown


def test_no_control_character_of_unicode_is_left_out() -> None:
    """Of all 1,114,112 code points, after a letter of ASCII."""
    hidden = {
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in _HIDDEN
    }
    assert [ascii(c) for c in hidden | {*_MARKS, *_JOINERS} if visible(f"a{c}") == f"a{c}"] == []


SECRET = "X-Amz-Credential=AKIA&X-Amz-Signature=5ec7e7"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://host:8/a.jpg?{SECRET}", "https://host:8/a.jpg"),
        (f"HTTPS://user:5ec7e7@host/a.jpg?{SECRET}#5ec7e7", "https://host/a.jpg"),
        (f"https://host/my cat's.jpg?{SECRET} 5ec7e7", "https://host/my cat's.jpg"),
        (f" ftp://host/a.jpg?{SECRET}", "ftp://host/a.jpg"),
        (f"'https://host/my cat.jpg?{SECRET}' is not of the form", "'https://host/my cat.jpg' is not of the form"),
        (f'"https://host/it\'s.jpg?{SECRET}" is not', '"https://host/it\'s.jpg" is not'),
        (f"from https://a/b?{SECRET} to https://u:5ec7e7@c/d?{SECRET} now", "from https://a/b to https://c/d now"),
        (f"https://host/a.jpg?\u2028{SECRET}", "https://host/a.jpg"),
    ],
)
def test_no_address_shows_a_signature(text: str, shown: str) -> None:
    """As the whole text, in quotes, or within a sentence. Such an address is a password for as long as it works."""
    assert printable(text) == shown
    assert "5ec7e7" not in printable(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://shelter/what?/a#1.jpg",
        "Which one? Use a folder, its https:// address, or an s3:// prefix.",
        "https://host/a.zip: the server answers 404 Not Found.",
        "What: a/b?c",
    ],
)
def test_any_other_text_is_unchanged(text: str) -> None:
    """In the key of an object, ``?`` and ``#`` belong to the name."""
    assert without_secrets(text) == text


def test_the_lines_of_a_message_stay_lines() -> None:
    """Each is shown as a text of its own."""
    assert printable_lines(f"a\x1b[2J:\nhttps://host/a?{SECRET}\nb") == "a\\x1b[2J:\nhttps://host/a\nb"

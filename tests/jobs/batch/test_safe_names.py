"""Names from outside as the names of files."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.batch.safe_names import MAX_NAME_BYTES, MAX_STEP_BYTES, Names, safe_name

#: Texts with many of the parts that lead out of a folder, or that a system takes for something else.
HOSTILE = [
    "..", ".", "", "/", "\\", "C:", "con", "CON.jpg", "nul", "com1.png", "LPT¹", "a.", "a ", " a", ".hidden", "a:b",
    "\0", "\n", "\x1b[2J", "\u202egpj.exe", "\ud800", "a" * 300, "é" * 150, "~", "-rf", "$(x)", "%2e%2e",
    "a|b", "piles.csv",
]  # fmt: skip
names = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=6), min_size=1, max_size=6).map("/".join)


@given(names)
@example("../../etc/passwd")
@example("/" * 5000)
@example("/".join(["a" * 190] * 20))
@example("..\\..\\windows\\system32")
def test_a_name_stays_below_its_folder_and_works_on_every_system(text: str) -> None:
    """No step leads up or is hidden; none is a device or too long; nothing in it is unseen."""
    name = safe_name(text)
    name.encode()
    assert len(name.encode()) <= MAX_NAME_BYTES + 10
    for step in name.split("/"):
        assert 0 < len(step.encode()) <= MAX_STEP_BYTES
        assert not step.startswith((".", " "))
        assert not step.endswith((".", " "))
        assert not set(step) & set('<>:"|?*\\')
        assert not {unicodedata.category(sign) for sign in step} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", step.partition(".")[0], re.IGNORECASE)
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["a.jpg", "deep down/é+%.png", "2026-11-24 10.30.12", "猫/写真 1.webp", "x" * 200])
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    """With its folders, spaces and accents."""
    assert safe_name(name) == name


def _seen_as(name: str) -> str:
    """How a file system without capitals, which composes accents, sees a name."""
    return unicodedata.normalize("NFC", name).casefold()


@given(st.lists(names | st.sampled_from(["a.jpg", "A.JPG", "a", "a/b", "é", "e\u0301", "A/B.jpg"]), max_size=12))
@example(["a", "a/b", "A/b", "a/B/c"])
@example(["a/b", "a", "A"])
@example(["a.jpg", "a-2c26b46b.jpg", "a.jpg"])
@example(["é.jpg", "e\u0301.jpg", "É.jpg"])
def test_no_two_pictures_get_the_same_name(texts: list[str]) -> None:
    """Nor one that some system takes for the same, or for a folder of another. The same list gives the same names."""
    claimed = [Names.claim(taken, text, str(number)) for taken in [Names()] for number, text in enumerate(texts)]
    seen = [_seen_as(name) for name in claimed]
    assert len(set(seen)) == len(seen)
    assert not [one for one in seen for other in seen if other.startswith(f"{one}/")]
    again = Names()
    assert [again.claim(text, str(number)) for number, text in enumerate(texts)] == claimed


def test_the_first_picture_keeps_its_name_and_the_others_get_a_digest() -> None:
    """Of what they are, so that it is the same next time, whichever pile they are in."""
    taken = Names()
    first, second = (taken.claim("in/a.jpg", f"s3://{bucket}/in/a.jpg") for bucket in ("one", "two"))
    assert first == "in/a.jpg"
    assert re.fullmatch(r"in/a-[0-9a-f]{8}\.jpg", second)
    other = Names()
    other.take("in/A.jpg")
    assert other.claim("in/a.jpg", "s3://two/in/a.jpg") == second

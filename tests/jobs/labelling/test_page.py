"""The page for labelling in a real browser: keys, buttons, swipes, what it keeps, and what it saves."""

import base64
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.labelled_list import LabelledLine, labelled_list_csv, read_labelled_list
from jobs.labelling.page import PageImage, render_labelling_page
from jobs.printable import printable
from tests.browser import Browser, Page
from tests.conftest import REPOSITORY
from tests.jobs.labelling.conftest import OpenPage, picture
from tests.jobs.report.strict_html import HOSTILE, assert_only_text
from tests.jobs.report.strict_html import Page as StrictHtml

PHONE: dict[str, int | bool] = {"width": 390, "height": 844, "touch": True}
#: Enough to have looked at an image of 96 by 64 pixels.
BEFORE = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)


def _counts(page: Page) -> dict[str, int]:
    shown: dict[str, int] = page.run(
        "Object.fromEntries([...document.querySelectorAll('#counts span')].map((s) => "
        "[s.className, Number(s.querySelector('b').textContent)]))"
    )
    return shown


def _labels(lines: list[LabelledLine]) -> dict[str, str | None]:
    return {line.source_ref: line.label for line in lines}


def _saved(page: Page) -> list[LabelledLine]:
    page.press("s")
    return read_labelled_list(page.browser.downloaded("labels.csv"), where="labels.csv")


def test_keys_label_one_image_after_the_other(open_page: OpenPage) -> None:
    """Arrows and numbers; each label is announced, counted, and followed by the next image."""
    page = open_page(7)
    assert page.text("#name") == "1.jpg"
    assert page.text("#place") == "1 of 7"
    page.press("ArrowLeft", "ArrowRight", "ArrowUp", "1", "2", "3")
    assert page.text("#said") == "6.jpg: unsure. Next: 7.jpg"
    assert _counts(page) == {"zero": 2, "one": 2, "unsure": 2, "open": 1}
    assert page.run("document.querySelector('#progress').ariaValueNow") == "6"
    page.press("ArrowLeft")
    assert page.text("#said") == "7.jpg: cat. It was the last one."
    marks = {"photos/1.jpg": "cat", "photos/2.jpg": "dog", "photos/3.jpg": None}
    marks |= {"photos/4.jpg": "cat", "photos/5.jpg": "dog", "photos/6.jpg": None, "photos/7.jpg": "cat"}
    assert _labels(_saved(page)) == marks
    assert page.problems == []


def test_undo_takes_back_one_label_after_the_other(open_page: OpenPage) -> None:
    """And shows the image again, with the label that it had before."""
    page = open_page()
    page.press("ArrowLeft", "ArrowRight", "Shift ArrowLeft", "ArrowLeft")  # 2.jpg is a cat after all
    page.press("Backspace")
    assert page.text("#said") == "Undone: 2.jpg has dog."
    assert (page.text("#name"), _counts(page)["one"]) == ("2.jpg", 1)
    page.press("u", "u")
    assert page.text("#said") == "Undone: 1.jpg has no label."
    assert _counts(page) == {"zero": 0, "one": 0, "unsure": 0, "open": 6}
    page.press("Backspace")
    assert page.text("#said") == "There is nothing to undo."


def test_a_reload_and_a_page_made_again_keep_every_label(
    browser: Browser, open_page: OpenPage, write_page: Callable[..., Path]
) -> None:
    """By the key of the page; a page of other images begins anew. What is kept can be undone, too."""
    page = open_page()
    page.press("ArrowLeft", "ArrowUp")
    page.reload()
    assert (page.text("#name"), _counts(page)["open"]) == ("3.jpg", 4)
    write_page(title="made again")
    page.reload()
    assert page.text("h1") == "made again"
    page.press("ArrowRight", "u", "u")
    assert _counts(page) == {"zero": 1, "one": 0, "unsure": 0, "open": 5}
    write_page(key="other")
    page.reload()
    assert _counts(page)["open"] == 6


@pytest.mark.parametrize(
    ("kept", "shown"),
    [("2020-01-01T00:00:00+00:00", "dog"), ("2999-01-01T00:00:00+00:00", "cat")],
    ids=["older", "newer"],
)
def test_of_the_browser_and_the_list_the_newer_label_counts(
    kept: str, shown: str, open_page: OpenPage, write_page: Callable[..., Path]
) -> None:
    """A list may have been written by another page in the meantime."""
    page = open_page()
    page.press("ArrowRight")
    write_page(kept=[LabelledLine("photos/1.jpg", "cat", datetime.fromisoformat(kept))])
    page.reload()
    assert _labels(_saved(page)) == {"photos/1.jpg": shown}


def test_save_downloads_the_bytes_that_the_command_would_write(open_page: OpenPage) -> None:
    """With every line that the list had, names that a spreadsheet would run, quotes, and line breaks in them."""
    names = ["=1+1.jpg", "a,b.jpg", 'a"b.jpg', "a\nb.jpg", "'@x.jpg", "ü\u202e日本.jpg", "</script>.jpg", "\uff1dx.jpg"]
    images = [PageImage(name, name, picture(1)) for name in names]
    kept = [
        LabelledLine("elsewhere.jpg", "dog", None, "ada", '=both, "of" them'),
        LabelledLine("a,b.jpg", "cat", BEFORE.replace(microsecond=5000)),
        LabelledLine("a,b.jpg", None, BEFORE, None, "looked again"),
    ]
    page = open_page(images, kept=kept)
    assert _counts(page) == {"zero": 0, "one": 0, "unsure": 1, "open": 7}
    page.press(*["ArrowLeft"] * 7)
    page.press("s")
    data = page.browser.downloaded("labels.csv")
    lines = read_labelled_list(data, where="labels.csv")
    assert labelled_list_csv(lines) == data
    assert lines[:3] == kept
    assert [line.source_ref for line in lines[3:]] == [name for name in names if name != "a,b.jpg"]
    times = [line.reviewed_at for line in lines[3:]]
    assert all(one and other and one <= other for one, other in pairwise(times))
    assert page.problems == []


def test_a_label_given_again_takes_the_place_of_its_line(open_page: OpenPage) -> None:
    """Its note stays; who gave the old label does not."""
    kept = [LabelledLine("photos/1.jpg", "cat", BEFORE, "ada", "blurred"), LabelledLine("photos/2.jpg", "dog")]
    page = open_page(2, kept=kept)
    page.press("ArrowRight")
    first, second = _saved(page)
    assert (first.label, first.reviewer, first.note) == ("dog", None, "blurred")
    assert first.reviewed_at
    assert first.reviewed_at > BEFORE
    assert second == kept[1]


def test_save_counts_what_no_file_has_yet(open_page: OpenPage) -> None:
    """On its button, also after a reload."""
    page = open_page()
    page.press("ArrowLeft", "ArrowLeft")
    page.reload()
    assert page.text("#saving") == "Save (2)"
    page.click("#save")
    assert len(read_labelled_list(page.browser.downloaded("labels.csv"), where="")) == 2
    assert page.text("#saving") == "Save"
    assert page.text("#said") == "Saved as labels.csv."


def test_the_grid_moves_with_arrows_and_labels_with_numbers(open_page: OpenPage) -> None:
    """Enter and a click show an image large."""
    page = open_page(40)
    page.press("g")
    assert page.run("document.activeElement.ariaLabel") == "1.jpg, no label"
    columns = page.run("getComputedStyle(document.querySelector('#tiles')).gridTemplateColumns.split(' ').length")
    page.press("ArrowDown", "ArrowRight", "1", "2", "ArrowLeft")
    assert page.run("document.activeElement.ariaLabel") == f"{columns + 3}.jpg, dog"
    assert _counts(page) == {"zero": 1, "one": 1, "unsure": 0, "open": 38}
    page.press("Enter")
    assert page.text("#name") == f"{columns + 3}.jpg"
    page.press("g")
    page.click("#tiles button")
    assert page.text("#name") == "1.jpg"
    assert page.run("document.querySelector('#grid').hidden")


def test_only_images_near_the_window_are_decoded(open_page: OpenPage) -> None:
    """Of a thousand in the grid; and those that were scrolled away are let go."""
    page = open_page(1000)
    decoded = "[...document.querySelectorAll('#tiles img')].filter((i) => i.hasAttribute('src')).length"
    page.press("g")
    page.wait_for(f"{decoded} > 40")
    assert page.run(decoded) < 200
    page.run("scrollTo(0, document.body.scrollHeight)")
    page.wait_for("document.querySelector('#tiles li:last-child img').complete")
    page.wait_for("!document.querySelector('#tiles img').hasAttribute('src')")
    assert page.run(decoded) < 200


def test_swipes_label_on_a_phone(open_page: OpenPage) -> None:
    """To the left, to the right, and up. A short one, and one down, are none."""
    page = open_page(window=PHONE)
    page.swipe("#stage", right=-150)
    page.swipe("#stage", right=150)
    page.swipe("#stage", down=-150)
    page.swipe("#stage", right=40)
    page.swipe("#stage", down=150)
    marks = {"photos/1.jpg": "cat", "photos/2.jpg": "dog", "photos/3.jpg": None}
    assert _labels(_saved(page)) == marks
    assert page.run("document.querySelector('#stamp').hidden")


def test_buttons_do_what_keys_do(open_page: OpenPage) -> None:
    """With the mouse, and by Tab and Enter. The image's own label is pressed."""
    page = open_page()
    for button in ("#zero", "#unsure", "#one", "#undo", "#forward", "#back", "#one", "#back"):
        page.click(button)
    assert page.run("document.querySelector('#one').ariaPressed") == "true"
    page.run("document.querySelector('#unsure').focus()")
    page.press("Enter")
    page.click("#next")
    assert page.text("#name") == "5.jpg"
    marks = {"photos/1.jpg": "cat", "photos/2.jpg": None, "photos/3.jpg": None}
    assert _labels(_saved(page)) == marks


def test_a_filter_shows_one_kind_of_images(open_page: OpenPage) -> None:
    """And n the next unlabelled image."""
    page = open_page()
    page.press("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowLeft")
    choose = "((f) => {{ f.value = '{}'; f.onchange(); }})(document.querySelector('#filter'))"
    page.run(choose.format("zero"))
    assert (page.text("#place"), page.text("#said")) == ("1 of 2", "2 shown")
    page.press("ArrowDown")
    assert page.text("#name") == "4.jpg"
    page.run(choose.format("unsure"))
    assert page.text("#problem") == "No image. Choose others above."
    page.press("ArrowLeft")
    assert _counts(page)["zero"] == 2
    page.run(choose.format("all"))
    assert page.text("#name") == "3.jpg"
    page.press("ArrowDown", "n")
    assert page.text("#name") == "5.jpg"


def test_a_key_that_is_held_labels_one_image(open_page: OpenPage) -> None:
    """A keyboard repeats it thirty times a second."""
    page = open_page()
    for repeat in (False, True, True):
        event = {"key": "ArrowLeft", "windowsVirtualKeyCode": 37, "autoRepeat": repeat}
        page.call("Input.dispatchKeyEvent", type="rawKeyDown", **event)
    assert _counts(page)["zero"] == 1


def test_single_keys_can_be_switched_off(open_page: OpenPage) -> None:
    """Speech input types them by accident (WCAG 2.2, 2.1.4). The help names them all, and Escape closes it."""
    page = open_page()
    page.press("?")
    assert page.run("document.querySelector('#help').open")
    page.press("1")
    page.click("#keys")
    page.press("Escape", "1", "g", "ArrowLeft")
    assert _counts(page)["open"] == 6
    page.click("#zero")
    assert _counts(page)["open"] == 5


def test_a_review_shows_what_the_model_said(open_page: OpenPage) -> None:
    """And why an image is not shown."""
    gone = PageImage("b", "b.jpg", None, problem="no longer available")
    page = open_page([PageImage("a", "a.jpg", picture(1), said="cat", score=0.617), gone])
    assert page.text("#model") == "The model says cat, 0.62"
    page.press("ArrowLeft")
    assert page.run("document.querySelector('#model').hidden")
    assert page.text("#problem") == "no longer available"
    page.press("g")
    assert page.text("#tiles li:last-child") == "no longer available"


def test_a_browser_that_keeps_nothing_says_so_and_asks_before_it_closes(
    browser: Browser, write_page: Callable[..., Path]
) -> None:
    """Some keep nothing for a page that is a file."""
    page = browser.open(f"data:text/html;base64,{base64.b64encode(write_page(2).read_bytes()).decode()}")
    assert page.text("#notice") == "Your browser does not keep labels for this page: save before you close it."
    page.press("ArrowLeft")
    page.reload()
    assert page.dialogs == ["beforeunload"]
    page.press("ArrowLeft", "s")
    assert len(read_labelled_list(browser.downloaded("labels.csv"), where="")) == 1
    page.reload()
    assert page.dialogs == ["beforeunload"]


def test_nothing_runs_but_the_script_that_the_policy_names(browser: Browser, write_page: Callable[..., Path]) -> None:
    """Not even that script with a character changed; and the page can reach nothing."""
    path = write_page()
    text = path.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)', text)
    assert policy
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-\S{44}'; style-src 'sha256-\S{44}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        policy[1].replace("&#39;", "'"),
    )
    page = browser.open(path.as_uri())
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    page.run("fetch('https://example.com').catch(() => 0)")
    assert page.run("window.ran") is None
    blocked = "\n".join(page.problems)
    for what in ("Loading the image", "Executing inline event handler", "Executing inline script", "Connecting to"):
        assert f"{what} " in blocked
    path.write_text(text.replace("The only script", "Another script"))
    page = browser.open(path.as_uri())
    assert page.text("#name") == ""
    assert "script" in page.problems[0]


@pytest.mark.parametrize(("hostile", "shown"), HOSTILE)
def test_a_hostile_name_is_text(hostile: str, shown: str) -> None:
    """In the title, the intro, the classes and the images, and in what the model said."""

    def page(name: str) -> StrictHtml:
        image = PageImage("1", name, picture(1), problem=name, said=name)
        both = ("cat", "dog") if "://" in name else (name, f"{name}2")  # the list needs each of them as it is
        kept = [LabelledLine(both[0], both[1], note=both[0])]
        text = render_labelling_page(
            [image], title=name, intro=name, classes=both, key="k", file_name="a.csv", kept=kept
        ).decode()
        return StrictHtml(re.sub(r'<script type="module">.*?</script>', "", text, flags=re.DOTALL))

    assert_only_text(page(hostile), page("rex"))
    assert shown in page(hostile).text


def test_a_hostile_name_is_shown_as_text(open_page: OpenPage) -> None:
    """By the script, too."""
    names = [str(case.values[0]) for case in HOSTILE]
    page = open_page([PageImage(name, name, picture(1)) for name in names])
    for name in names:
        assert page.text("#name") == re.sub(r"\s+", " ", printable(name))
        page.press("ArrowUp")
    page.press("g")
    assert page.run("document.querySelectorAll('#tiles li').length") == len(names)
    assert [line.source_ref for line in _saved(page)] == names
    assert page.problems == []


def test_the_page_fits_its_window(open_page: OpenPage) -> None:
    """Nothing is cut off, and every button is large enough for a finger (WCAG 2.2, 2.5.8, asks for 24 pixels)."""
    images = [PageImage(f"{n}", f"{'long-' * 30}{n}.jpg", picture(n)) for n in range(30)]
    both = ("a-class-with-a-long-name", "another-one-that-is-long")
    page = open_page(images, classes=both, title="photos-" * 20)
    page.press("ArrowLeft")
    for keys in ([], ["?"], ["Escape", "g"]):
        page.press(*keys)
        for width, height in ((320, 800), (390, 800), (844, 390), (1280, 800)):
            page.resize(width, height)
            assert page.run("document.documentElement.scrollWidth") <= width
            sizes = page.run(
                "[...document.querySelectorAll('button, select, label')].map((e) => e.getBoundingClientRect())"
                ".filter((box) => box.width).map((box) => [box.width, box.height])"
            )
            assert len(sizes) >= 8
            assert all(wide >= 44 and high >= 44 for wide, high in sizes), sizes
            if not keys and width >= 390:  # the image has what is left of the window
                assert page.run("document.documentElement.scrollHeight") <= height


def test_the_script_is_small() -> None:
    """Small enough to be read in ten minutes, and no line of it is long."""
    script = (REPOSITORY / "jobs/templates/labelling.js").read_text()
    assert len(script) < 12 * 1024
    assert max(map(len, script.splitlines())) <= 120


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core. Where it cannot be had, the test is skipped with the reason."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm, which downloads axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", "axe-core@4.11.0", "--silent"]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"axe-core cannot be downloaded: {done.stderr[-200:]}")
    with tarfile.open(fileobj=io.BytesIO(next(folder.glob("*.tgz")).read_bytes())) as package:
        source = package.extractfile("package/axe.min.js")
        assert source
        return source.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(axe: str, width: int, dark: bool, open_page: OpenPage) -> None:  # noqa: FBT001
    """WCAG 2.2 A and AA and axe's best practices: with one image, in the grid, in the help, after labels."""
    page = open_page(12, intro="12 images.", window={"width": width, "height": 800, "dark": dark})
    page.run(axe)
    for keys in ([], ["ArrowLeft", "ArrowRight", "ArrowUp"], ["g"], ["?"]):
        page.press(*keys)
        found = page.run("axe.run().then((found) => found.violations.map((v) => [v.id, v.impact, v.nodes[0].html]))")
        assert found == [], json.dumps(found, indent=1)

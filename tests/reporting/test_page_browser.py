"""The page in a real browser: nothing is fetched, nothing sticks out, at both widths and schemes.

Skipped where playwright or a Chromium is not installed.
"""

import io
import json
import shutil
from collections import namedtuple

import pytest
from PIL import Image
from test_page import PICTURES, evaluation, png

from mezzotint.reporting.page import write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
if not CHROMIUM:
    pytest.skip("no Chromium is installed", allow_module_level=True)

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDTHS, SCHEMES = (1400, 420), ("light", "dark")
NAMES = ["T-shirt/top", "unbroken" * 12, "<script>alert(1)</script>", *map(str, range(9))]

Opened = namedtuple("Opened", "page requests messages")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a file as somebody would; notes requests (and how they failed) and complaints."""
    contexts = []

    def open_page(path, width=1400, scheme="light", media=None):
        viewport = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme))
        page, requests, messages = contexts[-1].new_page(), {}, []
        page.on("request", lambda request: requests.setdefault(request.url))
        page.on("requestfailed", lambda request: requests.update({request.url: request.failure}))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.emulate_media(media=media, color_scheme=scheme)
        page.goto(path.as_uri(), wait_until="load")
        return Opened(page, requests, messages)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """One run and three side by side, with long names, wide pictures and many classes."""
    home = tmp_path_factory.mktemp("reports")
    runs = [home / name for name in ("run", "n" * 60, "other")]
    for i, run in enumerate(runs):
        for k, name in enumerate(PICTURES):
            png(run / "evaluation" / f"{name}.png", seed=k, size=(900, 60) if k % 2 else (30, 20))
        for k in range(9):
            png(run / "samples" / f"{1000 * k:09d}.png", seed=k, size=(140, 180))
        found = evaluation()
        count = len(NAMES)
        found["confusion"] = {"classes": NAMES, "rows": [list(range(count))] * count}
        found["per_class"] = [
            {"class": n, **{f"metric_{k}": k / 7 for k in range(9)}} for n in NAMES
        ]
        found["metrics"]["cas"] = {**found["metrics"]["coverage"], "title": "metric " * 12}
        found["metrics"]["cas"]["protocol"] = {"hash": f"{i}" * 64}
        (run / "evaluation.json").write_text(json.dumps(found))
        (run / "config.toml").write_text(f'long = "{"x" * 200}"\n[origin]\nsource = "{i}"\n')
        rows = [
            {"kind": kind, "images_seen": 1000 * k, "loss": (i + 1) / k, "values": {"fd2k": 9 / k}}
            for kind in ("step", "validation", "metrics")
            for k in range(1, 30)
        ]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = write_report(runs[:1], home / "one.html")
    return {"one": one, "three": write_report(runs, home / "three.html")}


def corner(page):
    """The colour of the page's first pixel, and how many colours there are."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return picture.getpixel((2, 2)), len(set(picture.reduce(4).get_flattened_data()))


@pytest.mark.parametrize("which", ["one", "three"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_is_whole_quiet_and_as_wide_as_the_window(opened, reports, which, width, scheme):
    page, requests, messages = opened(reports[which], width, scheme)
    assert requests == {reports[which].as_uri(): None}
    assert messages == []
    wide, window = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= window
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    # Labels of charts are allowed to stand outside their plot, but not outside the window.
    right = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.panels text')]"
        ".map(t => t.getBoundingClientRect().right))"
    )
    assert right <= window
    background, colours = corner(page)
    assert min(background) > 230 if scheme == "light" else max(background) < 40
    assert colours > 100


def test_wide_tables_scroll_inside_their_box(opened, reports):
    page = opened(reports["one"], 420).page
    boxes = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(b => [b.scrollWidth, b.clientWidth])"
    )
    assert any(wide > 1.5 * seen for wide, seen in boxes)
    assert all(seen <= 420 for _, seen in boxes)


def test_paper_is_white_whatever_the_screen_is(opened, reports):
    page = opened(reports["one"], 700, "dark", media="print").page
    assert corner(page)[0] == (255, 255, 255)
    assert not page.locator("nav").is_visible()


def test_small_pictures_are_enlarged_pixel_by_pixel(opened, reports):
    page = opened(reports["one"]).page
    width, rendering = page.evaluate(
        "(i => [i.clientWidth, getComputedStyle(i).imageRendering])(document.images[0])"
    )
    assert width % 30 == 0
    assert width > 300
    assert rendering == "pixelated"


def test_the_policy_stops_what_the_watch_would_see(opened, reports, tmp_path):
    """A control: a picture from elsewhere is noticed without the policy and stopped by it."""
    text = reports["one"].read_text()
    elsewhere = "http://127.0.0.1:9/a.png"
    text = text.replace(
        "<main>", f'<main><img src="{elsewhere}"><script>console.log(1)</script>', 1
    )
    guarded, open_ = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(text)
    open_.write_text(text.replace("Content-Security-Policy", "nothing", 1))
    assert opened(open_).requests[elsewhere].startswith("net::")
    _, requests, messages = opened(guarded)
    assert requests[elsewhere] == "csp"  # refused before anything was sent
    assert len(messages) == 2  # the picture and the script
    assert all("Content Security Policy" in message for message in messages)

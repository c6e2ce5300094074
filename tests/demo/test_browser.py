"""The demo's page in a real browser, from a portable folder.

Needs the extra [browser] and a Chromium of the system; PICTURES=DIR keeps screenshots.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import vclip_jax
from vclip_jax import prompts
from vclip_jax.demo import answers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,  # a heat map is compiled
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
PATIENCE = 300


@pytest.fixture
def photographs(tmp_path) -> Path:
    root = tmp_path / "photographs"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b <i>.png"):
        pixels = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


@pytest.fixture
def server(portable_folder, photographs, tmp_path):
    """A demo's process, its address, and the folder of its temporary files."""
    pytest.importorskip("gradio", reason="needs the extra [browser]")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vclip_jax.demo",
            "--model",
            portable_folder,
            "--images",
            photographs,
            "--port",
            "0",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    try:
        address = process.stdout.readline().split(" ")[0]
        assert address.startswith("http://127.0.0.1:")
        yield process, address, temporary
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page():
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        browser.close()


def contents(folder: Path) -> list[bytes]:
    """Of the files that are not empty (Gradio leaves an empty one for each upload)."""
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return [content for content in found if content]


def test_a_visitor_gets_scores_a_heat_map_and_search_results(
    server, page, photographs, portable_folder
):
    process, address, temporary = server
    errors, hosts = [], set()
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))

    def picture(name: str) -> None:
        if "PICTURES" in os.environ:
            page.screenshot(path=Path(os.environ["PICTURES"], f"{name}.png"), full_page=True)

    page.goto(address)
    assert page.url == address.partition("?token=")[0]
    page.get_by_text("nothing here is a diagnosis").wait_for()
    page.locator("#score").wait_for()
    picture("empty")
    page.locator("#upload input[type=file]").set_input_files(photographs / "a.jpg")
    page.locator("#scores table").first.wait_for()
    clip = vclip_jax.load(portable_folder)
    photograph = answers.read_photograph(clip, (photographs / "a.jpg").read_bytes())
    answer = answers.score(clip, photograph, prompts.load("zh/fives"))
    best = answer.classes[answer.best]
    first = page.locator("#scores tr").first
    assert first.locator("th").inner_text() == best.name
    assert first.locator(".vc-number").inner_text() == (
        f"{best.probability:.2f} [{best.low:.2f}, {best.high:.2f}]"
    )
    page.locator("#preview img").wait_for()
    page.get_by_role("tab", name="Heat map").click()
    page.locator("#heat img").wait_for()
    assert best.name in page.locator("#heat figcaption").inner_text()
    assert contents(temporary) == []
    picture("heat")
    page.get_by_role("tab", name="Nearest training captions").click()
    assert "does not name its training data" in page.locator("#captions").inner_text()
    page.get_by_role("tab", name="Scores").click()
    picture("scores")

    hostile = "${alert(1)} {{value}} <img src=x onerror=alert(1)>"
    page.locator("#prompts input").click()
    page.get_by_role("option", name="my own words").click()
    page.locator("#typed textarea").fill(f"{hostile} | 正常\n青光眼")
    page.locator("#score").click()
    page.locator("#scores th", has_text="青光眼").wait_for()
    assert hostile in page.locator("#scores th").all_inner_texts()
    picture("typed")
    page.locator("#typed textarea").fill("青光眼")
    page.locator("#score").click()
    page.get_by_text("type at least two prompts").wait_for()
    picture("refused")

    page.get_by_role("tab", name="Search a folder").click()
    page.locator("#query textarea, #query input").fill("青光眼")
    page.locator("#query textarea, #query input").press("Enter")
    page.locator("#found img").nth(1).wait_for()
    assert "b <i>.png" in page.locator("#found").inner_text()
    picture("search")
    assert errors == []
    assert hosts == {"127.0.0.1"}

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_no_photograph_is_refused_and_deleted(server, page, tmp_path):
    _, address, temporary = server
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 not an image")
    page.goto(address)
    page.locator("#upload input[type=file]").set_input_files(bad)
    page.get_by_text("this file: cannot read the image").wait_for()
    assert contents(temporary) == []

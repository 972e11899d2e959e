"""``causalgen app mnist`` in a headless Chromium: what a person does, and whom the page asks."""

import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as PILImage

import causalgen as cg
from causalgen.counterfactuals.export import to_png
from tests.causalgen.chromium import Chromium, find_chromium

pytest.importorskip("gradio", reason="the extra app is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no chromium on this machine"),
]

UPLOAD = ":has(> #observed-image-upload) > input[type=file]"


@pytest.fixture(scope="module")
def address():
    """Of a page about mnist, in a process of its own."""
    program = "from causalgen.cli.main import main; main()"
    words = [sys.executable, "-c", program, "app", "mnist", "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        found = re.match(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, "the server did not start"
        yield found[0]
    finally:
        process.terminate()
        process.wait(180)
        process.stdout.close()


@pytest.fixture
def page(address, tmp_path):
    """The page, open and ready."""
    with Chromium(find_chromium(), tmp_path / "profile") as browser:
        browser.open(address)
        browser.wait(
            "!!document.querySelector('#ask') && !!document.querySelector('#observed-image img')", 120
        )
        yield browser


def pictures(page):
    """The PNGs of the worlds, without those of what differs."""
    found = page.run("[...document.querySelectorAll('.cg-world img:not(.cg-difference)')].map(e => e.src)")
    return [base64.b64decode(each.removeprefix("data:image/png;base64,")) for each in found]


def test_a_counterfactual_on_the_page_is_that_of_the_api_bit_for_bit(page, address):
    for count, digit in enumerate("35", start=1):
        page.choose("#set-digit", digit)
        page.click("#ask")
        page.wait(f"document.querySelectorAll('.cg-world').length === {count}")
    rows, scm = cg.sample_rows("mnist"), cg.SCM.from_pretrained("mnist")
    abduction = scm.abduct({"digit": rows["digit"][0], "image": rows["image"][0]}, seed=0)
    asked = [np.asarray(abduction.counterfactual({"digit": digit})["image"][0]) for digit in (3, 5)]
    assert pictures(page) == [to_png(image) for image in asked]
    words = page.run("document.querySelector('.cg-world').innerText")
    assert "do(digit = 3)" in words and "posterior" in words and "interventional" in words
    # Nobody but the page's own server was asked, and the page ran without an error.
    foreign = [each for each in page.requests if not each.startswith((address, "data:", "blob:"))]
    assert foreign == [] and page.problems == []
    lines = page.run("document.querySelector('#lines').innerText")
    assert "rows['image'][0]" in lines


def test_evidence_is_picked_emptied_and_uploaded_and_errors_are_told(page, tmp_path):
    rows = cg.sample_rows("mnist")
    page.click("#rows .gallery-item:nth-of-type(2) button")
    page.wait("document.querySelector('#observed-digit input').value === '2'")
    page.click("#empty")
    page.wait("document.querySelector('#observed-digit input').value === 'not observed'")
    page.choose("#set-digit", "3")
    page.click("#ask")
    said = "(document.querySelector('.toast-wrap') || {innerText: ''}).innerText"
    page.wait(f"{said}.includes('Nothing was observed')")
    files = {
        "no picture.png": b"this is no picture",
        "large.png": to_png(np.zeros((1, 64, 64))),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    PILImage.fromarray(np.zeros((28, 28), np.uint16)).save(tmp_path / "deep.png")
    for name, message in [
        ("no picture.png", "cannot read the picture"),
        ("large.png", "expected an image of height 28 and width 28"),
        ("deep.png", "more than 8 bits a channel"),
    ]:
        page.upload(UPLOAD, tmp_path / name)
        page.wait(f"{said}.includes({message!r})")
    (tmp_path / "good.png").write_bytes(to_png(rows["image"][7] / 255))
    page.upload(UPLOAD, tmp_path / "good.png")
    page.wait("!!document.querySelector('#observed-image img')")
    page.click("#ask")
    page.wait("document.querySelectorAll('.cg-world').length === 1")
    scm = cg.SCM.from_pretrained("mnist")
    asked = scm.counterfactual({"image": rows["image"][7]}, {"digit": 3}, seed=0)
    assert pictures(page) == [to_png(np.asarray(asked["image"][0]))]
    assert "inferred" in page.run("document.querySelector('.cg-card').innerText")


def test_the_page_names_no_other_server(address):
    for path in ("/", "/theme.css"):
        with urllib.request.urlopen(address + path) as answer:
            text = answer.read().decode()
        loaded = re.findall(
            r"""(?:<script[^>]*src=|<link[^>]*href=|url\(|@import )["']?(https?:[^"')\s]+)""", text
        )
        assert [each for each in loaded if not each.startswith(address)] == []
        assert "fonts.googleapis" not in text and "google-analytics" not in text


@pytest.mark.parametrize(("name", "value"), [("Host", "evil.example"), ("Origin", "http://evil.example")])
def test_another_page_is_refused(address, name, value):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address + "/config", headers={name: value}))
    assert refused.value.code == 403


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # gradio's client leaves sockets
def test_twenty_sessions_at_once_get_the_answers_of_one(address, tmp_path):
    from gradio_client import Client, handle_file

    rows = cg.sample_rows("mnist")
    questions = [(row, (int(rows["digit"][row]) + 3) % 10) for row in range(20)]
    for row, _ in questions:
        (tmp_path / f"{row}.png").write_bytes(to_png(rows["image"][row] / 255))
    clients = [Client(address, verbose=False) for _ in questions]

    def ask(client, row, digit):
        evidence = [str(rows["digit"][row]), handle_file(tmp_path / f"{row}.png")]
        page, *_ = client.predict(*evidence, str(digit), None, 1, 0, api_name="/counterfactual")
        return re.findall(r'src="data:image/png;base64,([^"]+)" class="cg-pixels"', page)[-1]

    with ThreadPoolExecutor(20) as pool:
        together = [pool.submit(ask, client, *each) for client, each in zip(clients, questions, strict=True)]
        answers = [base64.b64decode(each.result()) for each in together]
    scm = cg.SCM.from_pretrained("mnist")
    for (row, digit), answer in zip(questions, answers, strict=True):
        evidence = {"digit": rows["digit"][row], "image": rows["image"][row]}
        asked = scm.counterfactual(evidence, {"digit": digit}, seed=0)
        assert answer == to_png(np.asarray(asked["image"][0]))

"""``causalgen app`` under attack: many clients, slow ones, huge bodies, other pages, labels that are code."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import networkx as nx
import numpy as np
import pandas as pd
import psutil
import pytest

import causalgen as cg
from tests.causalgen.attacks import record
from tests.causalgen.chromium import Chromium, find_chromium

pytest.importorskip("gradio", reason="the extra app is not installed")
pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 64, int(os.environ.get("CAUSALGEN_REQUESTS", "100"))
"""Of each client: a hundred take minutes, and a thousand most of an hour."""

ATTACK = "<img src=x onerror=window.attacked=1>"
SCRIPT = "</script><script>window.attacked=1</script>"


@contextmanager
def serving(model, *words):
    """The address and process of a page about a model folder."""
    program = "from causalgen.cli.main import main; main()"
    words = [sys.executable, "-c", program, "app", str(model), "--port", "0", "--threads", "1", *words]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        found = re.match(r"http://(127\.0\.0\.1):(\d+)", process.stdout.readline())
        assert found, "the server did not start"
        yield found[1], int(found[2]), process
    finally:
        process.terminate()
        process.wait(180)
        process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fitted table whose name, labels and units are code, and its rows."""
    root = tmp_path_factory.mktemp("attacked")
    equation = cg.mechanisms.Equation
    scm = cg.SCM(
        nx.DiGraph({"kind": ["y"], "x": []}),
        {
            "kind": cg.Categorical([SCRIPT, "plain", f'"{ATTACK}']),
            "y": cg.Continuous(unit=ATTACK),
            "x": cg.Continuous(lower=0, unit=f"[m](javascript:window.attacked=1) {SCRIPT}"),
        },
        {
            "kind": equation(value="floor(u)", noise={"u": {"uniform": [0, 3]}}),
            "y": cg.mechanisms.Additive(),
            "x": equation(value="u", noise={"u": {"exponential": [1.0]}}),
        },
        name=SCRIPT,
    )
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 3, 60)
    rows = pd.DataFrame(
        {
            "kind": np.array([SCRIPT, "plain", f'"{ATTACK}'])[kind],
            "y": kind + generator.normal(size=60),
            "x": generator.exponential(size=60),
        }
    )
    scm.fit(rows, progress=False).save_pretrained(root / "model")
    rows.to_csv(root / "rows.csv", index=False)
    return root


@pytest.fixture(scope="module")
def page(folder):
    """The page about it."""
    with serving(folder / "model", "--data", str(folder / "rows.csv")) as served:
        yield served


@contextmanager
def connected(page):
    """A connection to the page."""
    connection = http.client.HTTPConnection(*page[:2], timeout=300)
    try:
        yield connection
    finally:
        connection.close()


def call(connection, name, data):
    """What the page's own interface gives: the event and its data."""
    body = json.dumps({"data": data})
    connection.request("POST", f"/gradio_api/call/{name}", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    event = json.loads(answer.read())["event_id"]
    assert answer.status == 200
    connection.request("GET", f"/gradio_api/call/{name}/{event}")
    text = connection.getresponse().read().decode()
    return re.findall(r"event: (\w+)\ndata: (.*)\n", text)[-1]


def questions():
    """What is asked, and what the controls hold: counterfactuals, effects, and some to be refused."""
    found = []
    for seed in range(12):
        evidence = [str(seed % 3), "0.25" if seed % 2 else "", "1.5"]
        sets = [str((seed + 1) % 3), "", "2" if seed % 4 == 0 else ""]
        found.append(("counterfactual", [*evidence, *sets, 1 + seed % 3, seed]))
        settings = ["y", None, "everybody", 500, 0.95, seed]
        found.append(("effect", [*settings, str(seed % 3), "", "", "", "", "", *evidence]))
    found.append(("counterfactual", ["0", "", "1.5", "7", "", "", 1, 0]))
    found.append(("counterfactual", ["0", "nan", "-1", "", "", "1/0", 1, 0]))
    found.append(("effect", ["nobody", None, "everybody", 500, 0.95, 0, *[""] * 9]))
    return found


def test_many_clients_at_once_get_the_answers_of_one(page):
    asked, resident = questions(), psutil.Process(page[2].pid).memory_info

    def client(number):
        draw, wrong = random.Random(number), []
        with connected(page) as connection:
            for _ in range(REQUESTS):
                if draw.random() < 0.5:
                    which = draw.randrange(len(asked))
                    if call(connection, *asked[which]) != alone[which]:
                        wrong.append(asked[which])
                    continue
                method, path, body, headers, status = draw.choice(others)
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != status:
                    wrong.append((path, answer.status))
        return wrong

    own = {"Content-Type": "application/json"}
    others = [
        ("GET", "/", None, {}, 200),
        ("GET", "/theme.css", None, {}, 200),
        ("GET", "/", None, {"Host": "evil.example"}, 403),
        ("POST", "/gradio_api/call/counterfactual", "{}", own | {"Origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/call/counterfactual", "{", own, 422),
        ("GET", "/gradio_api/file=/etc/passwd", None, {}, 403),
        ("GET", "/gradio_api/file=../../etc/passwd", None, {}, 403),
        ("GET", "/nowhere", None, {}, 404),
    ]
    with connected(page) as connection:
        alone = [call(connection, *each) for each in asked]
    assert [event for event, _ in alone].count("error") == 3
    before = resident().rss
    with ThreadPoolExecutor(CLIENTS) as pool:
        wrong = [each for found in pool.map(client, range(CLIENTS)) for each in found]
    assert wrong == []
    with connected(page) as connection:
        assert [call(connection, *each) for each in asked] == alone
    assert resident().rss - before < 500 * 2**20
    record("requests of 64 clients to the page", tried=CLIENTS * REQUESTS, lost=0)


def test_the_answers_are_those_of_the_api(page):
    with connected(page) as connection:
        event, data = call(connection, "counterfactual", ["0", "0.25", "1.5", "1", "", "", 1, 3])
    assert event == "complete"
    _, answer, lines = json.loads(data)
    space = {}
    exec(lines["value"].replace("    print(world)", "    pass"), space)
    (world,) = space["worlds"].values()
    assert f"{float(world['y']):.4g}" in answer


def test_names_that_are_code_are_text_in_what_is_answered(page):
    with connected(page) as connection:
        answers = [json.loads(call(connection, *each)[1]) for each in questions()]
    for answer in answers:
        shown = answer["error"] if isinstance(answer, dict) else answer[1]
        assert SCRIPT not in shown and ATTACK not in shown


@pytest.mark.skipif(find_chromium() is None, reason="there is no chromium on this machine")
def test_names_that_are_code_are_text_in_the_browser(page, tmp_path):
    host, port, _ = page
    with Chromium(find_chromium(), tmp_path / "profile") as browser:
        browser.open(f"http://{host}:{port}")
        browser.wait("!!document.querySelector('#ask')", 120)
        browser.run("document.querySelector('#ask').click()")
        browser.wait(
            "document.body.innerText.includes('Nothing to ask') || !!document.querySelector('.cg-world')"
        )
        assert browser.run("window.attacked === undefined")
        links = browser.run("[...document.querySelectorAll('a')].map(e => e.href)")
        assert not [each for each in links if each.startswith("javascript:")]
        assert "attacked" in browser.run("document.body.innerText")


@pytest.mark.parametrize("path", ["/gradio_api/call/counterfactual", "/gradio_api/upload"])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
def test_a_body_of_100_mb_is_refused_without_being_kept(page, path, declared):
    resident = psutil.Process(page[2].pid).memory_info
    before, part, most = resident().rss, b"x" * 2**20, 100
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    chunks = [head, *[part] * most, b"\r\n--b--\r\n"]
    kind = "multipart/form-data; boundary=b" if "upload" in path else "application/json"
    headers = {"Content-Type": kind}
    if declared:
        headers["Content-Length"] = str(sum(map(len, chunks)))
    with connected(page) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it answers before everything is sent
            connection.request("POST", path, iter(chunks), headers, encode_chunked=not declared)
        assert connection.getresponse().status == 413
    assert resident().rss - before < 200 * 2**20
    with connected(page) as connection:
        assert call(connection, *questions()[0])[0] == "complete"


def test_those_who_read_and_write_slowly_hold_up_nobody(page):
    host, port, _ = page
    asked = questions()[0]
    with connected(page) as connection:
        expected = call(connection, *asked)
    slow = [socket.create_connection((host, port)) for _ in range(CLIENTS)]
    try:
        for number, each in enumerate(slow):
            request = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n"
            each.sendall(
                (request if number % 2 else f"{request}\r\n").encode()
            )  # half never end what they ask
        for _ in range(20):
            for each in slow[::2]:
                assert each.recv(1)
            with connected(page) as connection:
                assert call(connection, *asked) == expected
    finally:
        for each in slow:
            each.close()


@pytest.mark.parametrize("fault", ["TERM", "INT", "KILL"])
def test_a_page_that_ends_while_it_answers_harms_no_model(folder, page, tmp_path, monkeypatch, fault):
    """What it wrote for the browser goes with it, but for a kill; the model is as it was, and asked again."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    asked, random_moment = questions()[:8], random.Random(fault)
    with connected(page) as connection:
        expected = [call(connection, *each) for each in asked]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serving(folder / "model", "--data", str(folder / "rows.csv")) as served:
        with connected(served) as connection:
            assert call(connection, *asked[0]) == expected[0]

        def ask():
            with suppress(OSError, http.client.HTTPException, IndexError, KeyError, ValueError):
                with connected(served) as connection:  # cut off, wherever it is
                    for each in asked:
                        call(connection, *each)

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(ask)
            time.sleep(random_moment.uniform(0.05, 1))
            served[2].send_signal(signal.Signals[f"SIG{fault}"])
            code = served[2].wait(60)
    assert code in {"TERM": (143, -15), "INT": (130, -2), "KILL": (-9,)}[fault]
    assert fault == "KILL" or not list(tmp_path.glob("causalgen-app-*"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with serving(folder / "model", "--data", str(folder / "rows.csv")) as served, connected(served) as again:
        assert [call(again, *each) for each in asked] == expected

"""Names, units and labels are shown to the letter: on terminals, in cards, pages, tables and pictures."""

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import causalgen as cg
from causalgen.cli import main as command_line
from causalgen.plotting.plots import plot_graph, plot_image_rows
from graphs.text import markdown, printable

NAME = "<script>alert(1)</script> [red]x[/red] [a](javascript:b) ``` $\\frac$ :smile: **b**"
UNIT = "[bold]$\\sqrt$ ```<img src=x onerror=alert(2)>:smile:"
LABELS = ("=cmd()", "[red]", "<svg onload=alert(3)>", "$\\bad$", ":smile:", "```")
ROWS = 120

_TAGS = re.compile(r"<(script|svg|img src=x)")


@pytest.fixture(scope="module")
def rows() -> dict[str, object]:
    random = np.random.default_rng(0)
    codes = random.integers(0, len(LABELS), ROWS)
    picture = (random.random((ROWS, 1, 8, 8)) * 255).astype(np.uint8)
    size = random.normal(size=ROWS) + codes
    return {"label": np.array(LABELS, dtype=object)[codes], "size": size, "picture": picture}


@pytest.fixture(scope="module")
def scm(rows: dict[str, object]) -> cg.SCM:
    made = cg.SCM(
        nx.DiGraph([("label", "size"), ("label", "picture")]),
        {"label": cg.Categorical(LABELS), "size": cg.Continuous(unit=UNIT), "picture": cg.Image(1, 8, 8)},
        {
            "size": cg.mechanisms.Additive(),
            "picture": cg.mechanisms.Diffusion(
                backbone={"channels": (8, 8)},
                predictor={"channels": (8, 8)},
                solver={"kind": "anchored", "steps": 2},
                training={"epochs": 1, "batch_size": 64, "validation": 0.1},
            ),
        },
        name=NAME,
    )
    return made.fit(rows, progress=False)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["causalgen", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert not ended.value.code


def test_show_prints_brackets_and_colons_as_they_are(
    scm: cg.SCM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scm.to_yaml(tmp_path / "scm.yaml")
    monkeypatch.setenv("COLUMNS", "400")  # cells of one line
    run(monkeypatch, "show", tmp_path / "scm.yaml", "--picture", tmp_path / "graph.png")
    told = "".join(capsys.readouterr().out.split())
    assert "".join(NAME.split()) in told and "[bold]$\\sqrt$```<imgsrc=x" in told and "=cmd(),[red]" in told
    assert (tmp_path / "graph.png").stat().st_size


def test_the_card_of_a_fit_keeps_its_fence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = cg.Continuous(unit=UNIT)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("size")
    cg.SCM(graph, {"size": node}, {"size": cg.mechanisms.Additive()}, name=NAME).to_yaml(
        tmp_path / "scm.yaml"
    )
    pd.DataFrame({"size": np.arange(30.0), "\x1b[31munused": 1}).to_csv(tmp_path / "rows.csv", index=False)
    run(monkeypatch, "fit", tmp_path / "scm.yaml", "--data", tmp_path / "rows.csv", "--out", tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    (
        heading,
        fence,
        first,
        *_,
    ) = [line for line in card.splitlines() if line]
    assert heading == f"# {markdown(NAME)}" and "\\<script\\>" in heading and "\\[a\\]" in heading
    assert fence == "```" and UNIT in first
    # A fence ends at a line of nothing but backticks (CommonMark 4.5): there are the two of the card.
    assert len(re.findall(r"^ {0,3}`{3,}\s*$", card, re.MULTILINE)) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err and "\\x1b[31munused" in captured.err


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


def _is_safe(page: str) -> None:
    tags = _Tags(page)
    assert not tags.found & {"script", "svg", "iframe"} and not _TAGS.search(page)
    assert not any(name.startswith("on") for name in tags.attributes)


def test_the_page_of_an_evaluation_holds_no_tag_of_others(
    scm: cg.SCM, rows: dict[str, object], tmp_path: Path
) -> None:
    page = cg.evaluate(scm, rows, rows=24, seed=0).save(tmp_path / "page").read_text(encoding="utf-8")
    _is_safe(page)
    assert "&lt;script&gt;alert(1)" in page and "onerror=alert(2)&gt;" in page


def test_results_as_html_and_as_tables(scm: cg.SCM, rows: dict[str, object], tmp_path: Path) -> None:
    evidence = {node: values[:6] for node, values in rows.items()}  # type: ignore[index]
    cf = scm.counterfactual(evidence, do={"label": LABELS[2]}, seed=0)
    _is_safe(cf._repr_html_())
    folder = cf.save(tmp_path / "cf")
    factual = pd.read_csv(folder / "factual" / "values.csv", keep_default_na=False)
    assert factual["label"].tolist() == list(evidence["label"])  # to the letter, formulas too
    assert set(pd.read_csv(folder / "values.csv")["label"]) == {LABELS[2]}


def _texts(figure: object) -> list[str]:
    """What a figure says, and that it is an SVG that XML parsers read."""
    buffer = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        import matplotlib as mpl

        patch.setitem(mpl.rcParams, "svg.fonttype", "none")
        figure.savefig(buffer, format="svg")  # type: ignore[attr-defined]
    root = ElementTree.fromstring(buffer.getvalue())
    assert not {each.tag.rpartition("}")[2] for each in root.iter()} & {"script", "img"}
    return ["".join(each.itertext()).strip() for each in root.iter() if each.tag.endswith("}text")]


def test_pictures_show_a_dollar_sign(scm: cg.SCM, rows: dict[str, object]) -> None:
    said = _texts(plot_graph(scm.graph, scm.variables, NAME))
    assert NAME in said and any(text.startswith("continuous [bold]$\\sqrt$") for text in said)
    columns = {node: rows[node] for node in ("label", "size")}
    tables = cg.SCM(
        nx.DiGraph([("label", "size")]),
        {node: scm.variables[node] for node in columns},
        {"size": cg.mechanisms.Additive()},
    ).fit(columns, progress=False)
    assert set(LABELS) - {LABELS[2]} <= set(_texts(tables.sample(50, seed=0).plot()))
    image = np.zeros((1, 1, 4, 4))
    said = _texts(plot_image_rows({"$\\bad$": image}, title="$\\worse$", captions={"$\\bad$": ["$\\x$"]}))
    assert said == ["$\\bad$", "$\\x$", "$\\worse$"]


def test_printable_and_markdown_show_what_is_there() -> None:
    assert printable("a\x1b[2J\nb\u202e") == "a\\x1b[2J\nb\\u202e"
    assert markdown("`a`\n# b") == "\\`a\\` # b"
    assert not re.search(r"(?<!\\)[<>\[\]`]", markdown(NAME + UNIT))

"""Every example in the README and the documentation is run, and prints what the page says it prints."""

import doctest
import json
import re
import shutil
from operator import attrgetter
from pathlib import Path
from typing import get_args

import pytest

from graphs import limits
from tests.causalgen.attacks import with_table

CHECKOUT = Path(__file__).parents[1]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])
FENCED = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> str:
    """The Python blocks of a page at their line numbers, all else blanked: one session from top to bottom."""
    text = page.read_text(encoding="utf-8")
    session, end = "", 0
    for block in FENCED.finditer(text):
        skipped = text[end : block.start("code")].count("\n")
        session += "\n" * skipped + block["code"]
        end = block.end("code")
    return session


@pytest.mark.parametrize(
    "page", [page for page in PAGES if ">>>" in examples(page)], ids=lambda page: page.name
)
def test_examples_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may save a file
    shutil.copytree(CHECKOUT / "docs" / "data", tmp_path / "data")
    session = doctest.DocTestParser().get_doctest(examples(page), {}, page.name, str(page), 0)
    report: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.DocTestRunner(optionflags=flags).run(session, out=report.append)
    assert results.attempted > 0
    assert not results.failed, "".join(report)


def test_every_python_block_is_an_example():
    """A block without a prompt would not be run, so there is none."""
    for page in PAGES:
        for block in FENCED.finditer(page.read_text(encoding="utf-8")):
            assert block["code"].lstrip().startswith(">>>"), f"{page.name}: not run:\n{block['code']}"


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as links give them: lower case, hyphens for spaces, no punctuation."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


LINKING = [
    *PAGES,
    *sorted(CHECKOUT.glob("docs/decisions/*.md")),
    CHECKOUT / "benchmarks" / "README.md",
    CHECKOUT / "llms.txt",
]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_within_the_checkout_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", path) or "`" in link:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}: {sorted(anchors(target))}"


@pytest.mark.filterwarnings("ignore:cg.World is now:DeprecationWarning")  # as the changelog says
@pytest.mark.parametrize("page", LINKING, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_names_of_the_package_in_a_page_exist(page):
    import causalgen as cg

    for name in re.findall(r"\bcg\.([a-zA-Z_][\w.]*\w)", page.read_text(encoding="utf-8")):
        attrgetter(name)(cg)


def test_limits_are_told_as_they_are():
    told = re.search(
        r"^\| +\| at most \|\n.*\n((?:\|.*\n)+)", (CHECKOUT / "docs/fitting.md").read_text(), re.MULTILINE
    )
    assert told
    figures = [re.findall(r"\d[\d,]*", row.split("|")[2]) for row in told[1].splitlines()]
    expected = [
        [limits.FILE_BYTES // 10**6, limits.VALUES],
        [limits.NODES, limits.PARENTS],
        [limits.LABELS, limits.CATEGORIES],
        [2, limits.NUMBERS.bit_length() - 1, limits.DIMENSIONS],
        [limits.NODE_NAME],
        [limits.TEXT],
        [128],
    ]
    assert figures == [[f"{each:,}" for each in row] for row in expected]


def test_every_page_is_in_a_table_of_contents():
    for index in (CHECKOUT / "docs/index.md", CHECKOUT / "docs/decisions/index.md"):
        (listed,) = re.findall(
            r"^```{toctree}\n(?::.*\n)*\n(.*?)^```$", index.read_text(), re.MULTILINE | re.DOTALL
        )
        pages = {page.stem for page in index.parent.glob("*.md")} - {"index"}
        assert {name for name in listed.split() if "/" not in name} == pages


def test_every_provenance_has_one_meaning_that_the_pages_list():
    from causalgen.counterfactuals.provenance import Provenance

    (table,) = re.findall(
        r"^\| Word \|.*?\n\n?\Z", (CHECKOUT / "docs/glossary.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(get_args(Provenance))
    for page in ("README.md", "docs/prediction.md"):
        text = (CHECKOUT / page).read_text(encoding="utf-8")
        assert all(word in text for word in get_args(Provenance)), page


def test_backbones_and_predictions_are_listed_with_their_options_and_defaults():
    from mechanisms.diffusion.backbones import BACKBONES
    from mechanisms.diffusion.denoiser import Prediction

    text = (CHECKOUT / "docs/fitting.md").read_text(encoding="utf-8")

    def table(heading):
        (rows,) = re.findall(rf"^\| `{heading}` \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
        return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()]

    for kind in BACKBONES.kinds():
        options = BACKBONES.get(kind)().model_dump(mode="json", exclude={"kind"})
        assert [row[:2] for row in table(kind)] == [[f"`{name}`", f"`{options[name]}`"] for name in options]
    listed = [row[0].removesuffix(" (default)") for row in table("prediction")]
    assert listed == [f"`{each}`" for each in get_args(Prediction)]


@pytest.mark.parametrize(
    "term",
    [
        "do-operator", "intervention", "abduction", "action", "prediction", "counterfactual",
        "confounding", "identifiability", "markovian", "positivity", "exogenous noise",
        "additive noise model", "normalizing flow", "gumbel-max coupling", "ddim inversion",
        "classifier guidance", "classifier-free guidance", "anticausal", "natural direct effect",
        "natural indirect effect", "effect of treatment", "cld", "im1", "im2", "composition",
        "effectiveness", "reversibility",
    ],
)  # fmt: skip
def test_the_glossary_defines(term):
    entries = re.findall(
        r"^(.+)\n: ", (CHECKOUT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert any(term in entry.lower() for entry in entries)


def test_the_readme_declares_the_gallery_model(tmp_path):
    """The SCM file that the README shows is the one behind the picture above it."""
    import causalgen as cg

    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "scm.yaml").write_text(block)
    declared = cg.SCM.from_yaml(tmp_path / "scm.yaml")
    assert declared.to_yaml() == cg.SCM.from_pretrained("mnist").to_yaml()


def test_the_results_page_says_what_was_measured(monkeypatch):
    """Its figures are those of the saved results, to the last digit."""
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    import results_page

    text = results_page.PAGE.read_text(encoding="utf-8")
    assert results_page.page(text, results_page.current_blocks()) == text


def test_the_page_of_the_tests_says_what_attacks_found():
    page = (CHECKOUT / "docs" / "testing.md").read_text(encoding="utf-8")
    counts = json.loads((CHECKOUT / "docs" / "data" / "attacks.json").read_text())
    assert with_table(page, counts) == page
    assert not any(found["lost"] for found in counts.values())
    mutants = json.loads((CHECKOUT / "docs" / "data" / "mutants.json").read_text())
    tried, killed, since = mutants["tried"], mutants["killed"], mutants["killed since"]
    assert f"Of {tried} of the {mutants['mutants']:,} mutants" in page and f"{killed / tried:.0%}" in page
    assert f"{killed + since} of the {tried} are killed, {(killed + since) / tried:.0%}" in page
    same = [each for each in mutants["survivors"].values() if each["judged"].startswith("the same")]
    assert f"- {len(same)} mean the same" in page and killed + since + len(same) == tried


def test_the_page_of_the_scm_file_says_what_the_code_declares(monkeypatch):
    """To write it anew: ``python docs/scm_file.py``."""
    monkeypatch.syspath_prepend(CHECKOUT / "docs")
    import scm_file

    text = scm_file.PAGE.read_text(encoding="utf-8")
    assert scm_file.page(text) == text


def test_the_gallery_page_lists_every_model_with_its_card():
    from causalgen.saving.pretrained import gallery_names

    text = (CHECKOUT / "docs/gallery.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(.+?)` \|.*`graphs/gallery/(.+?)/README\.md` \|$", text, re.MULTILINE)
    assert listed == [(name, name) for name in gallery_names()]


def test_llms_txt_lists_every_page_once():
    links = re.findall(r"\]\(docs/([^)#]+)\)", (CHECKOUT / "llms.txt").read_text(encoding="utf-8"))
    pages = [page.relative_to(CHECKOUT / "docs").as_posix() for page in CHECKOUT.glob("docs/*.md")]
    assert sorted(links) == sorted([*pages, "decisions/index.md"])

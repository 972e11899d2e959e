"""Workflow, citation, hooks, issue forms and documentation agree with ``pyproject.toml``."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
FORMS = sorted((CHECKOUT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
YAML = [
    *(CHECKOUT / ".github/workflows").glob("*.yml"),
    *FORMS,
    *(CHECKOUT / name for name in (".pre-commit-config.yaml", ".readthedocs.yaml", "CITATION.cff")),
]


def read(name: str | Path) -> dict:
    return yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))


def pythons() -> list[str]:
    """Versions of Python that the classifiers promise."""
    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in PROJECT["classifiers"]
    ]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_it_is_a_mapping(path):
    assert isinstance(read(path), dict)


def test_the_workflow_runs_every_python_with_lowest_and_newest_dependencies():
    matrix = read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"python": pythons(), "dependencies": ["lowest", "newest"]}
    assert PROJECT["requires-python"] == f">={pythons()[0]}"


def test_the_workflow_runs_what_every_change_must_pass():
    jobs = read(".github/workflows/ci.yml")["jobs"].values()
    ran = {step["run"] for job in jobs for step in job["steps"] if "run" in step}
    assert {
        line for line in (CHECKOUT / ".ci/run").read_text().splitlines() if line.startswith("make ")
    } <= ran


def test_every_dependency_has_a_lower_bound():
    """Without one, "lowest" would mean the first release ever."""
    for requirement in PROJECT["dependencies"]:
        assert re.match(r"[a-z0-9-]+>=\d", requirement), requirement


def test_ranges_and_type_checks_name_the_same_python():
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    assert settings["pyright"]["pythonVersion"] == pythons()[0]
    assert settings["ruff"]["target-version"] == f"py{pythons()[0].replace('.', '')}"


def test_the_documentation_is_built_by_a_python_that_is_tested():
    built = read(".readthedocs.yaml")
    assert built["build"]["tools"]["python"] in pythons()
    assert (CHECKOUT / built["sphinx"]["configuration"]).is_file()
    (install,) = built["python"]["install"]
    assert set(install["extra_requirements"]) <= set(PROJECT["optional-dependencies"])


def test_the_citation_is_of_this_version():
    cited = read("CITATION.cff")
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", PROJECT["version"])
    assert cited["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= set(cited)
    assert any("Counterfactual Estimation" in each["title"] for each in cited["references"])


def test_hooks_run_what_make_check_runs():
    repos = read(".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"] for repo in repos for hook in repo["hooks"]}
    assert {"ruff-format", "ruff", "pyright", "end-of-file-fixer"} <= hooks
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"]) for repo in repos if repo["repo"] != "local")


@pytest.mark.parametrize(
    "path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name
)
def test_an_issue_form_asks_something(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"]]
    assert len(identifiers) == len(set(identifiers))
    assert any(field["validations"]["required"] for field in form["body"])

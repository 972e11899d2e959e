"""What users see: sorted public names that all resolve, a cheap import, no global side effects."""

import importlib
import pkgutil
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

PACKAGES = ("graphs", "mechanisms", "causalgen")
HEAVY = ("accelerate", "diffusers", "matplotlib", "pandas", "pyro", "torch", "torchvision")


def public_modules() -> list[str]:
    """Names of all modules of the three packages that are not private."""
    names = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [module.name for module in pkgutil.walk_packages(path, f"{package}.")]
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_sorted_and_resolve(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ lists {missing}, which {name} does not have"
    assert set(module.__all__) <= set(dir(module))


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}; import sys; print(*(name for name in sys.modules if '.' not in name))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["causalgen", "graphs"])
def test_import_is_cheap(package):
    assert modules_after(f"import {package}").isdisjoint(HEAVY)


def test_packages_are_loaded_on_first_use():
    """As the pages write them, ``cg.testing.check_calibration`` among them."""
    assert "causalgen" in modules_after(
        "import causalgen as cg; cg.testing.check_calibration, cg.metrics, cg.datasets, cg.mechanisms"
    )


def test_help_is_cheap():
    loaded = modules_after("import causalgen.cli.main")
    assert loaded.isdisjoint(HEAVY)


def test_unknown_public_name_is_an_attribute_error():
    import causalgen as cg

    with pytest.raises(AttributeError, match="counterfactualz"):
        _ = cg.counterfactualz


def test_a_former_name_works_and_says_the_new_one():
    import causalgen as cg

    with pytest.warns(DeprecationWarning, match=r"cg\.World is now cg\.WorldRef"):
        assert cg.World is cg.WorldRef


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("evaluate", r"cg\.evaluate\(scm, \.\.\.\)"),
        ("tune", r"cg\.tune\(scm, \.\.\.\)"),
        ("save", r"'save'\. Save it by scm\.save_pretrained\(folder\)"),
        ("load", r"'load'\. Load it by cg\.SCM\.from_pretrained\(folder\)"),
    ],
)
def test_a_method_of_another_name_is_told(name, told):
    import causalgen as cg

    scm = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Continuous()})
    with pytest.raises(AttributeError, match=told):
        getattr(scm, name)


@pytest.mark.parametrize("name", ["graphs", "mechanisms"])
def test_a_file_that_shadows_a_package_is_named(tmp_path, name):
    mine = tmp_path / f"{name}.py"
    mine.write_text("raise RuntimeError('never run')\n")
    script = tmp_path / "script.py"
    script.write_text("import causalgen\n")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.returncode == 1
    error = run.stderr.splitlines()[-1]
    assert error.startswith(f"ImportError: {mine}")
    assert "Rename that file" in error


def test_pyro_parameter_store_stays_as_it_was():
    import pyro
    import torch

    import causalgen as cg

    store = pyro.get_param_store()
    with store.scope():
        sentinel = pyro.param("sentinel", torch.tensor([1.0, 2.0]))
        noise = np.random.default_rng(0)
        x = noise.normal(size=64)
        scm = cg.SCM(
            nx.DiGraph([("x", "y")]),
            variables={"x": cg.Continuous(), "y": cg.Continuous()},
            mechanisms={
                "x": cg.mechanisms.Flow(training=cg.mechanisms.Training(epochs=1)),
                "y": cg.mechanisms.Additive(),
            },
        )
        scm.fit({"x": x, "y": 2 * x + noise.normal(size=64)}, seed=0)
        scm.sample(3, seed=0)
        scm.counterfactual({"x": 1.0, "y": 3.0}, do={"x": 2.0}, seed=0)
        assert list(store.keys()) == ["sentinel"]
        assert pyro.param("sentinel") is sentinel
        assert sentinel.tolist() == [1.0, 2.0]

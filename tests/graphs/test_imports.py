"""The bottom floor stays light: it never loads torch, and its public names are listed and exist."""

import subprocess
import sys

import graphs


def test_public_names_are_sorted_and_load() -> None:
    assert graphs.__all__ == sorted(graphs.__all__)
    assert all(getattr(graphs, name) is not None for name in graphs.__all__)
    assert not hasattr(graphs, "nothing")


def test_no_heavy_library_is_loaded() -> None:
    code = (
        "import sys, graphs; light = {m for m in sys.modules if m in ('numpy', 'pydantic', 'networkx')};"
        "[getattr(graphs, name) for name in graphs.__all__];"
        "print(sorted(light), [m for m in ('torch', 'pandas', 'PIL', 'pyro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"

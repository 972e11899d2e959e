"""Plug-ins that raise, exit, hang or claim what is taken: one error names them; none ends with success."""

import re
import sys
import textwrap

import pytest

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.data.sources import SOURCES
from mechanisms import registry

SCM = """
    causalgen: 1
    nodes:
      x:
        variable: {type: continuous}
        mechanism: {kind: broken}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points, as pip would leave it, on the path."""

    def install(points, code="", name="acme-parts"):
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(points))
        (folder / "acme.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "acme", raising=False)

    return install


def command(monkeypatch, capsys, *words):
    """Exit code and standard error of ``causalgen`` with these words."""
    monkeypatch.setattr(sys, "argv", ["causalgen", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr().err


BROKEN = {
    "exit with success": ("import sys; sys.exit(0)", r"it calls sys\.exit\(0\)"),
    "exit with nothing": ("import sys; sys.exit()", r"it calls sys\.exit\(None\)"),
    "exit with words": ("raise SystemExit('no licence')", r"it calls sys\.exit\('no licence'\)"),
    "an error": ("raise RuntimeError('no GPU')", "no GPU"),
    "an error of several lines": ("raise OSError('no\\nGPU.')", "no GPU"),
    "an error without words": ("raise ValueError", "ValueError"),
    "an error that is no Exception": ("class Stop(BaseException): pass\nraise Stop('stop')", "stop"),
    "no such module": ("import absent_module", "No module named 'absent_module'"),
    "a syntax error": ("def", "invalid syntax|expected"),
    "no such object": ("", "no attribute 'Part'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plug_in_that_does_not_import_is_named_with_its_package(install, name):
    code, told = BROKEN[name]
    install("[causalgen.mechanisms]\nbroken = acme:Part\n[causalgen.datasets]\nbroken = acme:Part\n", code)
    for what, get in (("mechanism kind", registry.mechanism_spec), ("data set", SOURCES.get)):
        with pytest.raises(cg.MechanismError) as error:
            get("broken")
        said = str(error.value)
        assert said.startswith(f"Plug-in 'acme:Part' of {what} 'broken' does not import: ")
        assert said.endswith(". Mend or uninstall package 'acme-parts'.") and "\n" not in said
        assert re.search(f"does not import: .*({told})", said), said
    assert "broken" in registry.kinds()
    assert registry.mechanism_spec("flow").__name__ == "Flow"  # others are used as before


@pytest.mark.attack("plug-ins that break the command line")
@pytest.mark.parametrize("name", BROKEN)
def test_the_command_line_fails_in_one_line(install, monkeypatch, capsys, tmp_path, name):
    code, told = BROKEN[name]
    install("[causalgen.mechanisms]\nbroken = acme:Part\n", code)
    (tmp_path / "scm.yaml").write_text(textwrap.dedent(SCM))
    status, said = command(monkeypatch, capsys, "show", tmp_path / "scm.yaml")
    assert status == 1
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "'acme:Part' of mechanism kind 'broken' does not import" in said and "scm.yaml:" in said
    assert re.search(told, said), said


def test_a_data_set_that_exits_fails_the_command_line(install, monkeypatch, capsys, tmp_path):
    install("[causalgen.datasets]\nbroken = acme:Part\n", "import sys; sys.exit(0)")
    (tmp_path / "scm.yaml").write_text(textwrap.dedent(SCM).replace("broken", "flow"))
    words = ["fit", tmp_path / "scm.yaml", "--data", "broken:here", "--out", tmp_path / "out"]
    status, said = command(monkeypatch, capsys, *words)
    assert status == 1 and said.startswith("error: Plug-in 'acme:Part' of data set 'broken' does not import")
    assert not (tmp_path / "out").exists()


def test_an_interrupt_is_the_user_s(install):
    install("[causalgen.mechanisms]\nbroken = acme:Part\n", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.mechanism_spec("broken")


def test_a_plug_in_that_hangs_is_named_while_it_does(install, monkeypatch):
    install("[causalgen.mechanisms]\nbroken = acme:Part\n", "import time; time.sleep(0.5); Part = 3")
    monkeypatch.setattr(registry, "_PATIENCE", 0.05)
    told = "Plug-in 'acme:Part' of mechanism kind 'broken' is still being imported after 0.05 s"
    with pytest.raises(cg.MechanismError, match="must be a"), pytest.warns(UserWarning, match=told) as said:
        registry.mechanism_spec("broken")
    assert said[0].filename == __file__


def test_a_kind_that_is_taken_is_refused_with_the_package_to_uninstall(install):
    install("[causalgen.mechanisms]\nflow = acme:Part\n")
    with pytest.raises(cg.MechanismError) as error:
        registry.mechanism_spec("flow")
    assert str(error.value) == (
        "Plug-in 'acme:Part' claims the built-in mechanism kind 'flow'. "
        "Uninstall package 'acme-parts', or have its author choose another kind."
    )
    install("[causalgen.mechanisms]\nnew = acme:Part\n", name="first")
    install("[causalgen.mechanisms]\nnew = other:Part\n", name="second")
    told = r"claim the mechanism kind 'new': acme:Part \(package 'first'\), other:Part \(package 'second'\)"
    with pytest.raises(cg.MechanismError, match=told):
        registry.mechanism_spec("new")


def test_entry_points_that_cannot_be_read_name_their_package(install):
    install("[causalgen.mechanisms]\nthis is no entry point\n")
    with pytest.raises(
        cg.MechanismError, match="The entry points of acme-parts cannot be read: .* again, or"
    ):
        registry.kinds()

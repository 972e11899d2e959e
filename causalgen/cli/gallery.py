"""``causalgen gallery``: the models that ship with the package."""

from __future__ import annotations

__all__ = ["gallery"]


def gallery() -> None:
    """The models that ship with the package."""
    from causalgen.cli.common import console
    from causalgen.saving.pretrained import gallery_folder, gallery_names
    from graphs.scm_file import read_spec

    names = gallery_names()
    width = max(map(len, names))
    for name in names:
        spec, _ = read_spec(gallery_folder(name) / "scm.yaml")
        nodes = ", ".join(f"{node} ({each.variable.describe()})" for node, each in spec.nodes.items())
        console().print(f"{name:<{width}}  {nodes}")

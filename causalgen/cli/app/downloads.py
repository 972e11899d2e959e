"""An answer as files: a picture, JSON, CSV, all of it, and the Python that gives the same answer."""

from __future__ import annotations

import json
import textwrap
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pandas as pd
from PIL import Image as PILImage

from causalgen.cli.app.controls import carried
from causalgen.cli.app.questions import AskedEffect, Model, Session
from causalgen.cli.counterfactual import counterfactual_files
from causalgen.counterfactuals.export import describe_draws, figure_png, free_name, to_png
from causalgen.plotting.plots import plot_worlds
from graphs.variables import image_variables

__all__ = ["counterfactual_downloads", "effect_downloads", "effect_lines", "worlds_lines"]


def counterfactual_downloads(model: Model, session: Session) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, of the worlds in their order."""
    answers = {label: world.answer for label, world in session.worlds.items()}
    pictures = bool(image_variables(model.scm.variables))
    described = {"model": model.name, "seed": session.seed, "samples": session.samples}
    described["worlds"] = {label: describe_draws(answer) for label, answer in answers.items()}
    told = json.dumps(described, indent=2, ensure_ascii=False).encode()
    lines = worlds_lines(model, session).encode()
    if pictures:
        worlds = {f"do({label})": answer for label, answer in answers.items()}
        yield "counterfactual.png", figure_png(plot_worlds(worlds))
    else:
        yield "counterfactual.png", _stacked([figure_png(answer.plot()) for answer in answers.values()])
    yield "counterfactual.json", told
    yield "counterfactual.csv", _table(session).to_csv(index=False).encode()
    yield "counterfactual.py", lines
    every = [*counterfactual_files(answers, pictures=pictures)]
    yield "counterfactual.zip", _zip([*every, ("result.json", told), ("question.py", lines)])


def effect_downloads(model: Model, asked: AskedEffect) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of an effect."""
    table = asked.effect.to_frame()
    told = {"effect": str(asked.effect), "seed": asked.effect.seed, "estimates": table.to_dict("records")}
    yield "effect.png", figure_png(asked.effect.plot())
    yield "effect.json", json.dumps({"model": model.name, **told}, indent=2, ensure_ascii=False).encode()
    yield "effect.csv", table.to_csv(index=False).encode()
    yield "effect.py", effect_lines(model, asked).encode()


def worlds_lines(model: Model, session: Session) -> str:
    """Python that gives the worlds again, bit for bit."""
    script = _Script(model)
    evidence = script.mapping(session.evidence, apart=True)
    does = {label: script.mapping(world.do) for label, world in session.worlds.items()}
    draws = "" if session.samples is None else f", num_samples={session.samples}"
    body = [f"evidence = {evidence}", f"abduction = scm.abduct(evidence{draws}, seed={session.seed})"]
    body += ["worlds = abduction.worlds({", *(f"    {label!r}: {do}," for label, do in does.items()), "})"]
    body += ["for world in worlds.values():", "    print(world)"]
    return script.text(body)


def effect_lines(model: Model, asked: AskedEffect) -> str:
    """Python that gives an effect again."""
    script = _Script(model)
    body = ["effect = scm.effect(", f"    {asked.target!r},", f"    do={script.mapping(asked.do)},"]
    if asked.versus:
        body.append(f"    versus={script.mapping(asked.versus)},")
    if asked.evidence:
        body.append(f"    evidence={script.mapping(asked.evidence)},")
    if asked.category is not None:
        body.append(f"    statistic=lambda values: values == {asked.category!r},")
    body += [f"    n={asked.n},", f"    confidence={asked.confidence!r},", f"    seed={asked.effect.seed},"]
    return script.text([*body, ")", "print(effect)"])


@dataclass
class _Script:
    """Lines of Python about a model; what they need to import and to read, they say."""

    model: Model
    uses_rows: bool = False
    pictures: list[str] = field(default_factory=list)

    def mapping(self, values: Mapping[str, Any], *, apart: bool = False) -> str:
        """A dict of values by node, as Python says it; with ``apart`` a line each."""
        pairs = [f"{node!r}: {self._value(node, value)}" for node, value in values.items()]
        return (
            "\n".join(["{", *(f"    {each}," for each in pairs), "}"]) if apart else f"{{{', '.join(pairs)}}}"
        )

    def text(self, body: list[str]) -> str:
        """The whole."""
        device = "" if self.model.device is None else f".to({self.model.device!r})"
        head = ["from base64 import b64decode", "from io import BytesIO", ""] if self.pictures else []
        text = "\n".join(self.pictures)
        head += ["import causalgen as cg"] + ["import numpy as np"] * ("np.load" in text)
        head += ["from PIL import Image"] * ("Image.open" in text) + [""]
        head.append(f"scm = cg.SCM.from_pretrained({self.model.name!r}){device}")
        head += [f"rows = cg.sample_rows({self.model.name!r})"] * self.uses_rows
        return "\n".join([*head, *self.pictures, *body, ""])

    def _value(self, node: str, value: Any) -> str:
        if not isinstance(value, np.ndarray):
            return repr(value)
        if self.model.own_rows:
            for row, image in enumerate(self.model.rows[node]):
                if np.array_equal(image, value):
                    self.uses_rows = True
                    return f"rows[{node!r}][{row}]"
        name = f"picture_{len(self.pictures)}"
        bytes_ = value.dtype == np.uint8
        coded = b64encode(to_png(value / 255)).decode() if bytes_ else carried(value)
        lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(coded, 96))
        read = "Image.open" if bytes_ else "np.load"
        self.pictures.append(f"{name} = {read}(BytesIO(b64decode(\n{lines}\n)))")
        return name


def _table(session: Session) -> pd.DataFrame:
    """Every world's values, a line a draw, below each other."""
    frames: list[pd.DataFrame] = []
    for label, world in session.worlds.items():
        frame = world.answer.to_frame().reset_index(drop=True)
        names = [*world.answer.variables, *frame.columns]
        frame.insert(0, free_name("world", names), f"do({label})")
        if session.samples is not None:
            frame.insert(1, free_name("draw", names), range(len(frame)))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _stacked(pictures: list[bytes]) -> bytes:
    """Pictures below each other, as PNG."""
    opened = [PILImage.open(BytesIO(each)).convert("RGB") for each in pictures]
    whole = PILImage.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    top = 0
    for picture in opened:
        whole.paste(picture, (0, top))
        top += picture.height
    buffer = BytesIO()
    whole.save(buffer, "PNG")
    return buffer.getvalue()


def _zip(files: list[tuple[str, bytes]]) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)
    return buffer.getvalue()

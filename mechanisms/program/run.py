"""One run of a Pyro program for N rows, its sample sites written as functions of noise.

Every site is drawn for each row: its batch shape is (N,), or () and expanded. What a row has more of is the
site's event (``.to_event``). The program is shut off from handlers around it and Pyro's parameter store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro.poutine import block
from pyro.poutine.messenger import Messenger
from torch import Tensor

from graphs.errors import MechanismError
from mechanisms.tables.standard_form import StandardForm, standard_form

__all__ = ["ProgramRun", "Site", "run_program"]


@dataclass(frozen=True)
class Site:
    """A sample site of a run.

    Attributes:
        fn: its distribution, batch shape (N,).
        form: its draw as a function of noise.
        noise: (N, *event).
        value: (N, *event).
    """

    fn: Any
    form: StandardForm
    noise: Tensor
    value: Tensor

    @property
    def discrete(self) -> bool:
        """Whether its values are whole numbers."""
        return bool(self.fn.support.is_discrete)


@dataclass(frozen=True)
class ProgramRun:
    """What a run returned, and its sites in order."""

    returned: Any
    sites: Mapping[str, Site]

    @property
    def last(self) -> tuple[str, Site]:
        """The last site."""
        return list(self.sites.items())[-1]


def run_program(
    program: Callable[..., Any],
    parents: Mapping[str, Tensor],
    rows: int,
    *,
    noise: Mapping[str, Tensor] | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> ProgramRun:
    """Run a program.

    Args:
        program: of the parents.
        parents: values by name, (N, *event).
        rows: N.
        noise: of each site, (N, *event); drawn from the global random state where None.
        values: of sites that do not follow their noise, (N, *event).

    Raises:
        MechanismError: the program does what none can here; the message names the site.
    """
    sites = _Sites(rows, noise, values or {})
    with block(), sites:
        returned = program(dict(parents))
    missing = sorted((noise or {}).keys() - sites.found.keys())
    if missing:
        raise MechanismError(
            f"The program did not reach its site {missing[0]!r}: it must have the same sites in every run."
        )
    return ProgramRun(returned, sites.found)


class _Sites(Messenger):
    """Gives every sample site its value, and keeps the sites."""

    def __init__(self, rows: int, noise: Mapping[str, Tensor] | None, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.rows, self.noise, self.values = rows, noise, values
        self.found: dict[str, Site] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if type(fn).__name__ == "_Subsample" or msg["infer"].get("_deterministic"):
            return
        self._refuse(msg)
        fn = fn.expand([self.rows])
        form = standard_form(fn)
        if self.noise is None:
            drawn = form.draw()
        elif name in self.noise:
            drawn = self.noise[name]
        else:
            raise MechanismError(
                f"The program has a new site {name!r}: it must have the same sites in every run."
            )
        value = self.values[name] if name in self.values else form.forward(drawn)
        self.found[name] = Site(fn, form, drawn, value)
        msg["value"], msg["done"] = value, True

    def _pyro_param(self, msg: Any) -> None:
        raise MechanismError(
            f"The program has a parameter {msg['name']!r} in Pyro's global store, which no model can save. "
            "Use numbers, tensors, or a torch module."
        )

    def _refuse(self, msg: Any) -> None:
        """Refuse a site that is no noise."""
        name, shape = msg["name"], tuple(msg["fn"].batch_shape)
        if msg["is_observed"]:
            raise MechanismError(
                f"Site {name!r} of the program is observed. A mechanism says how its value comes about; "
                "what was observed is evidence, for scm.counterfactual."
            )
        if msg["mask"] is not None or msg["scale"] not in (None, 1, 1.0):
            raise MechanismError(f"Site {name!r} of the program is masked or scaled: remove the handler.")
        if name in self.found:
            raise MechanismError(f"The program has two sites named {name!r}. Rename one.")
        if shape not in ((self.rows,), (1,), ()):
            raise MechanismError(
                f"Site {name!r} of the program has batch shape {shape}, expected ({self.rows},), the rows. "
                "Further dimensions belong to one row: declare them with .to_event(...), and use no plates."
            )

"""The laws every mechanism keeps, as one check for its author to call in a test.

    interface           shapes, canonical dtypes; prior and abducted noise have the same leaves
    round trip          generate(pa, abduct(x, pa)) == x
    noise               exact: abduct(generate(pa, u), pa) == u; posterior: it follows p(u)
    density             generated scalars and categories follow exp(log_prob)
    change of variables log_prob(x | pa) - log |du/dx| is a function of u alone
    rows                one row at a time equals all rows at once
    generator           the generator alone decides; global random state and Pyro's parameters stay untouched
    inputs              values, parents and noise are not changed
    saving              the same spec with the saved state, by safetensors, gives the same values
    options             a spec of a registered kind survives being written to a file
    dtype, device       moved elsewhere, values are still canonical
    gradients           of the loss, and of values in noise and parents, are finite

A law is applied where the mechanism declares the capability: an abduction, a density, parameters.

``check_calibration`` holds a whole model to one more: abducted noise and inferred values are draws of their
posterior (simulation-based calibration).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from causalgen.checking.calibration import Calibration, calibrate
from causalgen.checking.conformance import Suite
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.scm import SCM
from graphs.errors import NotFittedError
from mechanisms.base import Mechanism

__all__ = ["check_calibration", "check_mechanism"]


def check_calibration(scm: SCM, hidden: Iterable[str] = (), **options: Any) -> Calibration:
    """Hold a model's abduction to the law of the posterior: ranks of true values among draws are uniform.

    Args:
        scm: a fitted model.
        hidden: nodes that the evidence is to lack.
        options: ``rows``, ``draws``, ``seed``, ``level`` and ``particles`` of
            ``causalgen.checking.calibration.calibrate``.

    Returns:
        The p-value of every unknown.

    Raises:
        AssertionError: some draws do not follow their posterior; the message names them.
    """
    found = calibrate(MutilatedModel(scm.graph, scm.mechanisms), scm.variables, hidden, **options)
    assert found.ok, f"Law 'calibration': {found}"
    return found


def check_mechanism(
    mechanism: Mechanism, values: Tensor, parents: Mapping[str, Tensor], *, seed: int = 0
) -> None:
    """Hold a fitted mechanism to the laws.

    Args:
        mechanism: bound and fitted; used in evaluation mode as it is, and not changed.
        values: some rows of its variable, (N, *event) in canonical encoding, N >= 2; few will do.
        parents: the same rows of each parent.
        seed: of the draws; statistical laws are checked on these draws alone, so that one seed always
            gives one answer.

    Raises:
        AssertionError: a law is broken; the message begins with its name.
        NotFittedError: the mechanism is not fitted.
    """
    if not mechanism.fitted:
        raise NotFittedError("Fit the mechanism before checking it.")
    suite = Suite(mechanism, values, dict(parents), seed)
    before = _global_state()
    for name, law in suite.laws().items():
        try:
            law()
        except AssertionError as error:
            raise AssertionError(f"Law {name!r}, mechanism {mechanism.spec.kind!r}: {error}") from error
    assert before == _global_state(), (
        f"Law 'generator', mechanism {mechanism.spec.kind!r}: global random state or Pyro's store changed."
    )


def _global_state() -> tuple[bytes, tuple[str, ...]]:
    """Torch's global random state and the names in Pyro's parameter store."""
    pyro = sys.modules.get("pyro")
    names = tuple(pyro.get_param_store().keys()) if pyro else ()
    return torch.get_rng_state().numpy().tobytes(), names

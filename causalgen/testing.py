"""The laws every mechanism keeps, as one check for its author to call in a test.

    interface           shapes, canonical dtypes; prior and abducted noise have the same leaves
    round trip          generate(pa, abduct(x, pa)) == x
    noise               exact: abduct(generate(pa, u), pa) == u; posterior: it follows p(u | x, pa)
    density             generated values follow exp(log_prob), for some rows' parents, and it adds up to 1
    change of variables log_prob(x | pa) - log |du/dx| is a function of u alone
    other forms         linear_form and distribution say what log_prob says; proposals are in their order
    rows                one row at a time equals all rows at once
    batches             rows of prior noise are independent, however many are drawn at once
    generator           the generator alone decides; global random state and Pyro's parameters stay untouched
    inputs              values, parents and noise are not changed
    saving              the same spec with the saved state, by safetensors, gives the same values and noise
    options             a spec of a registered kind survives being written to a file
    dtype, device       moved elsewhere, values are still canonical
    gradients           of the loss, and of values in noise and parents, are finite

A law is applied where the mechanism declares the capability: an abduction, a density, parameters.

Parts have laws of their own. ``check_solver``: decode undoes encode, both approach the exact probability
flow, samples have the moments of their law. ``check_guidance``: nothing moves where no parent changes, nor at
strength 0; prior samples follow the conditional score. ``check_backbone``, ``check_encoder``: shapes, rows,
gradients, dependence on level and context, saving. ``check_grid``: levels rise. ``check_noise_law``: draws
follow the density.

``check_calibration`` holds a whole model to one more: abducted noise and inferred values are draws of their
posterior (simulation-based calibration).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import Tensor

from causalgen.checking.calibration import Calibration, calibrate
from causalgen.checking.conformance import Suite, global_state
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.scm import SCM
from graphs.errors import CausalgenError, NotFittedError
from mechanisms.base import Mechanism

if TYPE_CHECKING:
    from causalgen.checking.diffusion_conformance import check_grid as check_grid
    from causalgen.checking.diffusion_conformance import check_guidance as check_guidance
    from causalgen.checking.diffusion_conformance import check_solver as check_solver
    from causalgen.checking.part_conformance import check_backbone as check_backbone
    from causalgen.checking.part_conformance import check_encoder as check_encoder
    from causalgen.checking.part_conformance import check_noise_law as check_noise_law

_DIFFUSION = ("check_grid", "check_guidance", "check_solver")
_PARTS = ("check_backbone", "check_encoder", "check_noise_law")

__all__ = [
    "check_backbone",
    "check_calibration",
    "check_encoder",
    "check_grid",
    "check_guidance",
    "check_mechanism",
    "check_noise_law",
    "check_solver",
]


def __getattr__(name: str) -> object:
    # On first use: diffusers takes seconds to import, and tables have no need of it.
    if name not in (*_DIFFUSION, *_PARTS):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "diffusion_conformance" if name in _DIFFUSION else "part_conformance"
    return getattr(import_module(f"causalgen.checking.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
    world = MutilatedModel(scm.graph, scm.mechanisms, before=scm._world.before)
    found = calibrate(world, scm.variables, hidden, **options)
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
    before = global_state()
    suite = Suite(mechanism, values, dict(parents), seed)
    for name, law in suite.laws().items():
        try:
            law()
        except CausalgenError:
            raise
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"Law {name!r}, mechanism {mechanism.spec.kind!r}: {said}") from error
    assert before == global_state(), (
        f"Law 'generator', mechanism {mechanism.spec.kind!r}: a global random state or Pyro's store changed."
    )

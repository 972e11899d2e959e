"""The contender "causalgen". With the argument "held-out" it keeps rows aside in ``fit``, as by default."""

from __future__ import annotations

import sys
from typing import Any

from tables_serve import Case, serve

import causalgen as cg


class Causalgen:
    """As a user would: every node ``additive``, a dict of arrays as data and as evidence."""

    def __init__(self, *, held_out: bool) -> None:
        # Peers fit to all rows.
        training = cg.mechanisms.Training() if held_out else cg.mechanisms.Training(validation=0)
        self.mechanism = cg.mechanisms.Additive(training=training)

    def prepare(self, case: Case) -> None:
        """Declare the model."""
        self.case = case
        self.scm = cg.SCM(
            cg.CausalGraph(case.parents),
            {name: cg.Continuous() for name in case.names},
            {name: self.mechanism for name in case.names},
        )

    def fit(self) -> None:
        """To all rows."""
        self.scm.fit(self.case.columns, progress=False)

    def counterfactual(self, rows: int) -> dict[str, Any]:
        """Every node's values, taken out of the result."""
        evidence = self.case.rows(rows)
        return dict(self.scm.counterfactual(evidence, do={self.case.node: self.case.value}, seed=0))

    def interventional(self, rows: int) -> dict[str, Any]:
        """Draws under the intervention."""
        return dict(self.scm.sample(rows, do={self.case.node: self.case.value}, seed=0))


if __name__ == "__main__":
    serve(Causalgen(held_out="held-out" in sys.argv))

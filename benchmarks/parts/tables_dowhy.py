"""The contender "DoWhy-GCM": an invertible SCM of linear additive-noise models, in DoWhy's own Python."""

from __future__ import annotations

from typing import Any

import dowhy.gcm as gcm
import networkx as nx
import pandas as pd
from tables_serve import Case, serve


class DoWhy:
    """As its documentation does it; data frames in and out, which is its form."""

    def prepare(self, case: Case) -> None:
        """Declare the model; the frames are made before, and not timed."""
        gcm.config.disable_progress_bars()
        self.case, self.frame = case, pd.DataFrame(case.columns)
        self.evidence: dict[int, pd.DataFrame] = {}
        graph = nx.DiGraph()
        graph.add_nodes_from(case.names)
        graph.add_edges_from((parent, name) for name in case.names for parent in case.parents[name])
        self.model = gcm.InvertibleStructuralCausalModel(graph)
        for name in case.names:
            if case.parents[name]:
                regression = gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor())
                self.model.set_causal_mechanism(name, regression)
            else:
                self.model.set_causal_mechanism(name, gcm.EmpiricalDistribution())

    def fit(self) -> None:
        """To all rows."""
        gcm.fit(self.model, self.frame)

    def counterfactual(self, rows: int) -> Any:
        """A data frame."""
        evidence = self.evidence.setdefault(rows, self.frame.iloc[:rows])
        return gcm.counterfactual_samples(self.model, self._do(), observed_data=evidence)

    def interventional(self, rows: int) -> Any:
        """A data frame."""
        gcm.util.general.set_random_seed(0)
        return gcm.interventional_samples(self.model, self._do(), num_samples_to_draw=rows)

    def _do(self) -> dict[str, Any]:
        return {self.case.node: lambda natural: self.case.value}


if __name__ == "__main__":
    serve(DoWhy(), "dowhy", "scikit-learn", "pandas")

"""Counterfactuals in Pearl's three steps: abduction, action (the do-operator), prediction."""

__all__: list[str] = []

"""Inference of missing values: blocks of nodes, solved exactly where possible, else by weighted particles."""

__all__: list[str] = []

"""Tables: additive noise models, normalizing flows, and regressions of categories and counts."""

__all__: list[str] = []

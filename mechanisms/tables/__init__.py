"""Tables: additive noise models, normalizing flows, categorical and empirical mechanisms."""

__all__: list[str] = []

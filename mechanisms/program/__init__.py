"""Any Pyro program as a mechanism."""

__all__: list[str] = []

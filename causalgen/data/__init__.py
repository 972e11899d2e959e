"""Data of any common kind -> one checked table, before anything is fitted."""

__all__: list[str] = []

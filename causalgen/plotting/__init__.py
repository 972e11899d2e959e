"""Pictures of results and of graphs, as matplotlib figures."""

__all__: list[str] = []

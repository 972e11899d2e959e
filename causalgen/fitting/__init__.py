"""The one training loop: steps, progress, run folders that survive a kill, and the report at the end."""

__all__: list[str] = []

"""What is written to disk, all or nothing: models, results, tables; and what is read back."""

__all__: list[str] = []

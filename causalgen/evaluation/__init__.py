"""The evaluation of a fitted model: what is asked, what is measured, and the report."""

__all__: list[str] = []

"""Does a fitted model hold on data? Goodness of fit, independence of noise, and the report."""

__all__: list[str] = []

"""What the commands of ``causalgen.cli.main`` do."""

__all__: list[str] = []

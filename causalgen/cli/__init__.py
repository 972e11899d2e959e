"""What each command of ``causalgen.cli.main`` does, one a file."""

__all__: list[str] = []

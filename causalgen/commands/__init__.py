"""What each command of ``causalgen.cli`` does, one a file."""

__all__: list[str] = []

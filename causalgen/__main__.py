"""``python -m causalgen``: the command line, for launchers that start modules."""

from causalgen.cli.main import main

if __name__ == "__main__":
    main()

"""Makes ``python -m gauntlet`` the same as the ``gauntlet`` command."""

from .bench.cli import main

if __name__ == "__main__":
    main()

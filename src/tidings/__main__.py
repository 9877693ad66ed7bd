"""`python -m tidings`, and the command `tidings`."""

import sys


def main() -> int:
    """Run the command line; worker processes import this module as well, and do without what that takes."""
    from tidings.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())

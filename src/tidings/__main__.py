"""`python -m tidings`."""

if __name__ == "__main__":  # worker processes import this module too, under another name
    import sys

    from tidings.cli import main

    sys.exit(main())

"""The budgets, measured as ratios against a bare ASGI app within one run on one machine: `python -m bench`."""

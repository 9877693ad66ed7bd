"""`make cluster`: a store, a feed, several nodes and a balancer over them, on one machine, until Ctrl-C.

`parts.py` says what each part is, `keeping.py` starts them, starts again what ends, and ends them all; `words.py` has
what is printed.
"""

"""HTTP: parse, one service call, reply."""

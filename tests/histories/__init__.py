"""Histories to judge: told by hand (`story`), made by a small correct server (`world`), and spoilt (`plants`)."""

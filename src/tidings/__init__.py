"""Tidings: a messaging backend that an app team runs instead of renting one."""

"""Text of strangers, made harmless for a terminal."""

import re

# Control characters move the cursor, change colours, answer in the reader's name (C0, C1, ESC); bidirectional ones show
# a line in another order than it has (CVE-2021-42574); separators and the byte order mark break lines or hide.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    """The text in one line, each character that a terminal would obey shown as its escape."""
    return _CONTROL.sub(lambda found: _SHORT.get(found[0]) or _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

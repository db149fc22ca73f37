"""Characters that change how a terminal or a page shows the text around them.

These are control characters other than tab and newline (escape sequences clear screens and set
titles) and marks that reverse the direction of writing (they show a text in another order).
"""

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def find_control(text: str) -> str | None:
    """Return the first control character of a text as `U+001B`; None if it has none."""
    found = _CONTROL.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


def make_visible(text: str) -> str:
    r"""Return a text with escapes such as `\x1b` instead of control characters."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

"""The exception for bad input, and its message as one line."""


class UserError(ValueError):
    """Raised for input that cannot be used.

    The message is one line: the file or the dotted path, the error, and the allowed values.
    Commands print it and exit with status 2; they leave no partial output.
    """


def one_line(text: str) -> str:
    """Return a text on one line, with escapes for line feeds and other control characters.

    A file's name can contain them. Escaped, it still is that name, and it can be printed in any
    encoding and to any terminal.
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.strip())
    return "".join(escaped)

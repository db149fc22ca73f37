"""The exception for bad input."""


class UserError(ValueError):
    """Raised for input that cannot be used.

    The message is one line: the file or the dotted path, the error, and the allowed values.
    Commands print it and exit with status 2; they leave no partial output.
    """

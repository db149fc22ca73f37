"""What a person gave that cannot be used."""


class UserError(ValueError):
    """Bad input: the message is one line that says where, what is wrong, and what is allowed.

    Commands print it and end with status 2; nothing has been half written.
    """

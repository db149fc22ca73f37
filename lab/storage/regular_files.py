"""Read regular files only: opening a pipe waits for a writer, and a device may have no end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path as File


def open_binary(file: File) -> BufferedReader:
    """Open a regular file for reading, without waiting for the writer of a pipe.

    Raises:
        OSError: the file is missing, cannot be read, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return os.fdopen(descriptor, "rb")


def read_text(file: File, errors: str = "strict") -> str:
    """Return the content of a regular file in UTF-8.

    Args:
        file: path of the file.
        errors: how bytes that are not UTF-8 are handled, as in `bytes.decode`.

    Raises:
        OSError: as for `open_binary`.
        UnicodeDecodeError: the content is not UTF-8, and `errors` is `strict`.
    """
    with open_binary(file) as stream:
        return stream.read().decode("utf-8", errors)

"""Open the file system of a URI, and report its errors without the URI's secrets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path as File
from pathlib import PurePosixPath as Path
from typing import Any
from urllib.parse import unquote

from lab.storage.mirror import MirrorError

_PUBLIC_PARAMETERS = {"endpoint_override", "scheme", "region"}  # URI parameters without secrets


@contextmanager
def open_remote(uri: str, relative: File = File()) -> Iterator[tuple[Any, str]]:
    """Yield the file system of a URI and a path in it.

    Args:
        uri: URI of the remote tree.
        relative: path below the remote tree.

    Raises:
        MirrorError: the file system raised an error; its message is kept without the URI's secrets.
    """
    try:
        store, base = open_file_system(uri)
        yield store, str(Path(base) / relative)
    except Exception as error:
        # File systems behind fsspec raise exception classes of their own. Builtin exceptions
        # other than these four come from a mistake in the lab.
        builtin = type(error).__module__ == "builtins"
        external = (OSError, ValueError, ImportError, NotImplementedError)
        if builtin and not isinstance(error, external):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        for secret in sorted(_secrets(uri), key=len, reverse=True):
            reason = reason.replace(secret, "***")
        raise MirrorError(
            f"--storage {_without_secrets(uri)}: {reason}; name a folder, or a URI that can be "
            f"written and that pyarrow or an installed fsspec opens, such as s3://bucket/path"
        ) from None


@lru_cache
def open_file_system(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it; opened once in a process."""
    from pyarrow import fs  # imported late: a sweep on a local folder does not need it

    try:
        store, path = fs.FileSystem.from_uri(uri)
    except ValueError as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
        from fsspec.core import url_to_fs  # the same fallback as in Ray; fsspec may be missing

        file_system, path = url_to_fs(uri)
        store = fs.PyFileSystem(fs.FSSpecHandler(file_system))
    return store, path


def _without_secrets(uri: str) -> str:
    """Return a URI without credentials and parameters.

    A secret may contain any character, unquoted, so everything up to the last `@` is removed.
    """
    return re.sub(r"(?<=://).*@", "", uri).partition("?")[0]


def _secrets(uri: str) -> set[str]:
    """Return the parts of a URI that may be secret, both quoted and unquoted."""
    parts = re.split(r"[:/?&=@]", "".join(re.findall(r"://(.*)@", uri)))
    parameters = (parameter.partition("=") for parameter in uri.partition("?")[2].split("&"))
    parts += [value for name, _, value in parameters if name not in _PUBLIC_PARAMETERS]
    return {form for part in parts if part for form in (part, unquote(part))}

"""Open the storage that the option `--storage` names: a folder, or the URI of a remote tree."""

import tempfile
from pathlib import Path as File

from lab.storage import checks, remote_files
from lab.storage.mirror import LocalOnly, Mirror
from lab.storage.remote import Remote, cache_folder
from lab.storage.remote_connection import open_remote


def open_mirror(storage: str) -> tuple[File, Mirror]:
    """Return the local folder of a storage and its mirror.

    Args:
        storage: folder that is visible to all machines, or URI of a remote tree. The local folder
            of a URI is in the user's cache, named by a hash of the URI.

    Raises:
        MirrorError: the URI cannot be opened, or the remote tree cannot be written.
        StorageError: something else has the name of a part of the storage.
    """
    if "://" not in storage:
        checks.check_parts(File(storage))
        return File(storage), LocalOnly()
    with open_remote(storage) as (store, base), tempfile.NamedTemporaryFile() as probe:
        path = f"{base}/partial-{File(probe.name).name}"
        remote_files.upload(store, File(probe.name), path)
        store.delete_file(path)
    root = cache_folder(storage) / "driver"
    return root, Remote(root, storage)


def join_uri(storage: str, name: str) -> str:
    """Return the path or URI of a file or folder in a storage.

    Args:
        storage: folder, or URI with or without parameters.
        name: path in the storage.
    """
    if "://" not in storage:
        return str(File(storage).resolve() / name)
    tree, mark, parameters = storage.partition("?")
    return f"{tree.rstrip('/')}/{name}{mark}{parameters}"

"""Remote storage: each process works on a local folder and synchronizes it with a remote tree.

The tree may be on every file system that `pyarrow` or an installed `fsspec` opens.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path as File

from lab.storage import remote_files, remote_folders
from lab.storage.mirror import Mirror
from lab.storage.remote_connection import open_remote


@dataclass(frozen=True)
class Remote(Mirror):
    """A storage that is a tree behind a URI.

    A file counts as changed if its size differs or, up to `remote_files.SMALL_FILE` bytes, its
    content. Object stores cannot compare larger files. Such a file also counts as changed if
    another file in its folder has changed, for example the one with its digest.

    Attributes:
        root: local folder of the tree.
        uri: URI of the remote tree; it may contain a secret.
        pause: seconds to wait between two checks for changes of another process.
    """

    root: File
    uri: str = field(repr=False)
    pause: float = 10.0

    def delete_local(self, path: File) -> None:
        """Delete the local folder."""
        shutil.rmtree(path, ignore_errors=True)

    def for_process(self, name: str) -> Mirror:
        """Return a mirror with another local folder beside this one's."""
        return Remote(cache_folder(self.uri) / name, self.uri)

    def map_path(self, path: File, other: Mirror) -> File:
        """Return the path below this root that `path` has below the other root."""
        assert isinstance(other, Remote)  # noqa: S101 - it is of the same storage
        return self.root / path.relative_to(other.root)

    def push(self, path: File) -> None:
        """Upload new and changed files, and delete remote files that do not exist locally."""
        with open_remote(self.uri, path.relative_to(self.root)) as (store, remote_path):
            if path.is_dir():
                remote_folders.push_folder(store, path, remote_path)
            elif not path.exists():
                remote_files.delete(store, store.get_file_info(remote_path))
            elif not remote_files.is_same(store, path, store.get_file_info(remote_path)):
                remote_files.upload(store, path, remote_path)

    def pull(self, path: File, *names: str) -> None:
        """Download new and changed files, and delete local files that do not exist remotely."""
        with open_remote(self.uri, path.relative_to(self.root)) as (store, remote_path):
            info = store.get_file_info(remote_path)
            if not info.is_file:
                remote_folders.pull_folder(store, path, remote_path, names)
            elif not remote_files.is_same(store, path, info):
                remote_files.download(store, {path.name: info}, path.parent)


def cache_folder(uri: str) -> File:
    """Return the folder of this machine for the local copies of a remote tree, by its URI."""
    return machine_cache() / hashlib.sha256(uri.encode()).hexdigest()[:12]


def machine_cache() -> File:
    """Return the lab's folder in the user's cache; it may not exist."""
    cache = File(os.environ.get("XDG_CACHE_HOME") or File.home() / ".cache")
    return cache.resolve() / "electra-lab"

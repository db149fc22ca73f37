"""Remote storage: each process works on a local folder and synchronizes it with a remote tree.

All durable data is in plain files, so processes on different machines can share folders through
every file system that `pyarrow` or an installed `fsspec` opens. Each file or folder has one writer,
which pulls it before it continues and pushes its changes. A process that only reads needs a local
root of its own, because a pull overwrites a newer local file that has not been pushed yet.

An interrupted push is harmless, because a file that marks other files as complete is uploaded last
and deleted first. Such files are the `state` of a record, and `.whole`, which a remote folder
contains since its first complete push. A remote folder without `.whole` counts as missing.
"""

import hashlib
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path as File
from pathlib import PurePosixPath as Path
from typing import Any
from urllib.parse import unquote

from lab.errors import UserError
from lab.storage import atomic

_COMPLETION_FILE = "state"  # marks a record as complete: uploaded last, deleted first
_FOLDER_MARK = ".whole"  # marks a remote folder as complete
_SMALL_FILE = 2**20  # bytes; files up to this size are compared by content
_OBJECT_STORES = ("s3", "gcs", "abfs")  # need no folders, and show only complete files
_PUBLIC_PARAMETERS = {"endpoint_override", "scheme", "region"}  # URI parameters without secrets


class MirrorError(UserError):
    """A storage cannot be used; the message has one line."""


class Mirror(ABC):
    """Synchronizes local files and folders with their copies in a storage.

    Files with `partial` in their name are being written and are never copied.

    Attributes:
        pause: seconds to wait between two checks for changes of another process.
    """

    pause: float

    @abstractmethod
    def drop(self, path: File) -> None:
        """Delete a local folder that is no longer needed; the copy in the storage remains."""

    @abstractmethod
    def for_process(self, name: str) -> "Mirror":
        """Return a mirror of the same storage with a local folder for one process.

        Args:
            name: name of the process, unique on this machine.
        """

    @abstractmethod
    def map_path(self, path: File, other: "Mirror") -> File:
        """Return the local path of a file or folder for which another mirror has `path`.

        Args:
            path: local path in the other mirror.
            other: mirror of the same storage.
        """

    @abstractmethod
    def push(self, path: File) -> None:
        """Make the remote copy equal to a local file or folder; delete it if there is none.

        Raises:
            MirrorError: the storage cannot be reached or written.
        """

    @abstractmethod
    def pull(self, path: File, *names: str) -> None:
        """Make a local file or folder equal to the remote copy; do nothing if there is none.

        A folder that does not exist locally appears atomically.

        Args:
            path: path of a local file or folder.
            names: names of the files in the folder to synchronize, all if empty; those that the
                remote folder lacks are deleted locally.

        Raises:
            MirrorError: the storage cannot be reached or read.
        """


class LocalOnly(Mirror):
    """A storage that is a folder visible to all machines; there is nothing to synchronize."""

    pause = 1.0

    def drop(self, path: File) -> None:
        """Do nothing: there is no other copy."""

    def for_process(self, name: str) -> Mirror:  # noqa: ARG002
        """Return this mirror: all processes use the same folder."""
        return self

    def map_path(self, path: File, other: Mirror) -> File:  # noqa: ARG002
        """Return `path`: it is the same for all processes."""
        return path

    def push(self, path: File) -> None:
        """Do nothing: the file is in the storage."""

    def pull(self, path: File, *names: str) -> None:
        """Do nothing: the file is in the storage."""


@dataclass(frozen=True)
class Remote(Mirror):
    """A storage that is a tree behind a URI.

    A file counts as changed if its size differs or, up to `_SMALL_FILE` bytes, its content. Object
    stores cannot compare larger files. Such a file also counts as changed if another file in its
    folder has changed, for example the one with its digest.

    Attributes:
        root: local folder of the tree.
        uri: URI of the remote tree; it may contain a secret.
        pause: seconds to wait between two checks for changes of another process.
    """

    root: File
    uri: str = field(repr=False)
    pause: float = 10.0

    def drop(self, path: File) -> None:
        """Delete the local folder."""
        shutil.rmtree(path, ignore_errors=True)

    def for_process(self, name: str) -> Mirror:
        """Return a mirror with another local folder beside this one's."""
        return Remote(_cache_folder(self.uri) / name, self.uri)

    def map_path(self, path: File, other: Mirror) -> File:
        """Return the path below this root that `path` has below the other root."""
        assert isinstance(other, Remote)  # noqa: S101 - it is of the same storage
        return self.root / path.relative_to(other.root)

    def push(self, path: File) -> None:
        """Upload new and changed files, and delete remote files that do not exist locally."""
        with _open_remote(self.uri, path.relative_to(self.root)) as (store, remote_path):
            if path.is_dir():
                _push_folder(store, path, remote_path)
            elif not path.exists():
                _delete(store, store.get_file_info(remote_path))
            elif not _is_same(store, path, store.get_file_info(remote_path)):
                _upload(store, path, remote_path)

    def pull(self, path: File, *names: str) -> None:
        """Download new and changed files, and delete local files that do not exist remotely."""
        with _open_remote(self.uri, path.relative_to(self.root)) as (store, remote_path):
            info = store.get_file_info(remote_path)
            if not info.is_file:
                _pull_folder(store, path, remote_path, names)
            elif not _is_same(store, path, info):
                _download(store, {path.name: info}, path.parent)


def open_mirror(storage: str) -> tuple[File, Mirror]:
    """Return the local folder of a storage and its mirror.

    Args:
        storage: folder that is visible to all machines, or URI of a remote tree. The local folder
            of a URI is in the user's cache, named by a hash of the URI.

    Raises:
        MirrorError: the URI cannot be opened, or the remote tree cannot be written.
    """
    if "://" not in storage:
        return File(storage), LocalOnly()
    with _open_remote(storage) as (store, base), tempfile.NamedTemporaryFile() as probe:
        path = f"{base}/partial-{File(probe.name).name}"
        _upload(store, File(probe.name), path)
        store.delete_file(path)
    root = _cache_folder(storage) / "driver"
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


def _cache_folder(uri: str) -> File:
    cache = File(os.environ.get("XDG_CACHE_HOME") or File.home() / ".cache")
    return cache.resolve() / "electra-lab" / hashlib.sha256(uri.encode()).hexdigest()[:12]


def _push_folder(store: Any, folder: File, path: str) -> None:
    local, remote = _list_local(folder), _list_remote(store, path)
    changed = _changed(store, {name for name in local if local[name].is_file()}, local, remote)
    if _COMPLETION_FILE in remote and (
        _COMPLETION_FILE in changed or _COMPLETION_FILE not in local
    ):
        _delete(store, remote.pop(_COMPLETION_FILE))
    for name in sorted(changed - {_COMPLETION_FILE}):
        _upload(store, local[name], f"{path}/{name}")
    for name in _topmost(remote.keys() - local.keys()):
        _delete(store, remote[name])
    if _COMPLETION_FILE in changed:
        _upload(store, local[_COMPLETION_FILE], f"{path}/{_COMPLETION_FILE}")
    mark = f"{path}/{_FOLDER_MARK}"
    if not store.get_file_info(mark).is_file:
        with tempfile.NamedTemporaryFile() as empty:
            _upload(store, File(empty.name), mark)


def _pull_folder(store: Any, folder: File, path: str, names: tuple[str, ...]) -> None:
    if not store.get_file_info(f"{path}/{_FOLDER_MARK}").is_file:
        return
    local, remote = _list_local(folder), _list_remote(store, path)
    selected = set(names) or local.keys() | remote.keys()
    files = {n for n in selected & remote.keys() if remote[n].is_file and "partial" not in n}
    changed = _changed(store, files, local, remote)
    _download(store, {name: remote[name] for name in changed}, folder)
    for name in _topmost(selected & local.keys() - remote.keys()):
        shutil.rmtree(local[name]) if local[name].is_dir() else local[name].unlink()


def _list_local(folder: File) -> dict[str, File]:
    """Return the paths in a local folder by relative name."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: path for name, path in paths.items() if "partial" not in name}


def _list_remote(store: Any, path: str) -> dict[str, Any]:
    """Return the content of a remote folder: `pyarrow.fs.FileInfo` by relative name."""
    from pyarrow.fs import FileSelector

    infos = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    by_name = {str(Path(info.path).relative_to(path)): info for info in infos}
    return {name: info for name, info in by_name.items() if Path(name).name != _FOLDER_MARK}


def _changed(
    store: Any, names: set[str], local: dict[str, File], remote: dict[str, Any]
) -> set[str]:
    """Return the names of the files that count as changed (see `Remote`)."""
    both = {name for name in names if name in local and name in remote}
    same = {name for name in both if _is_same(store, local[name], remote[name])}
    changed_folders = {Path(name).parent for name in names - same}
    return names - {
        name
        for name in same
        if remote[name].size <= _SMALL_FILE or Path(name).parent not in changed_folders
    }


def _is_same(store: Any, file: File, info: Any) -> bool:
    """Return whether a file has the size and, if it is small, the content of its remote copy."""
    if not (info.is_file and file.is_file() and file.stat().st_size == info.size):
        return False
    if info.size > _SMALL_FILE:
        return True
    try:
        with store.open_input_stream(info.path) as stream:
            return bool(stream.read() == file.read_bytes())
    except FileNotFoundError:  # its writer has deleted it since it was listed
        return False


def _topmost(names: set[str]) -> list[str]:
    """Return the paths that are not inside another one of them."""
    return [n for n in names if names.isdisjoint(str(parent) for parent in Path(n).parents)]


def _upload(store: Any, file: File, path: str) -> None:
    """Copy a local file to a remote path, where it appears atomically."""
    from pyarrow import fs

    in_place = store.type_name in _OBJECT_STORES
    if not in_place:
        store.create_dir(str(Path(path).parent))
    target = path if in_place else f"{path}.partial"
    fs.copy_files(str(file), target, fs.LocalFileSystem(), store)
    if not in_place:
        store.move(target, path)


def _download(store: Any, infos: dict[str, Any], folder: File) -> None:
    """Copy remote files into a local folder; a new folder appears atomically with all of them.

    Args:
        store: remote file system.
        infos: `pyarrow.fs.FileInfo` of the files by their name in the folder.
        folder: local folder.
    """
    from pyarrow import fs

    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.add_files(folder) as fetched:
        for name, info in infos.items():
            (fetched / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # deleted since it was listed, as in `_is_same`
                fs.copy_files(info.path, str(fetched / name), store, fs.LocalFileSystem())


def _delete(store: Any, info: Any) -> None:
    if info.is_file:
        store.delete_file(info.path)
    elif info.type.name == "Directory":
        if store.get_file_info(f"{info.path}/{_FOLDER_MARK}").is_file:
            store.delete_file(f"{info.path}/{_FOLDER_MARK}")
        store.delete_dir(info.path)


@contextmanager
def _open_remote(uri: str, relative: File = File()) -> Iterator[tuple[Any, str]]:
    """Yield the file system of a URI and a path in it.

    Args:
        uri: URI of the remote tree.
        relative: path below the remote tree.

    Raises:
        MirrorError: the file system raised an error; its message is kept without the URI's secrets.
    """
    try:
        store, base = _open_file_system(uri)
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
def _open_file_system(uri: str) -> tuple[Any, str]:
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

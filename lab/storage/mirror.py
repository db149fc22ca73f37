"""A storage that is no folder: each process works on a local one, kept equal to a remote tree.

Everything durable is written with plain files, so what runs far apart shares folders through
whatever `pyarrow` or an installed `fsspec` opens. A place has one writer, which pulls before it
goes on and pushes what it wrote. Who only reads needs a local root of its own: a pull puts the
remote's file over a newer one that has not been pushed yet.

One rule makes a push that was cut off harmless: what says that the rest is whole goes up last and
is deleted first. That is a record's `state`, and `.whole`, which stands in a remote folder
since its first push was complete; a folder without it is not there.
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

_LAST, _WHOLE = "state", ".whole"
_SMALL = 2**20  # bytes; files up to this size are compared by content
_OBJECTS = ("s3", "gcs", "abfs")  # need no folders, and show a file only once it is whole
_TELLING = {"endpoint_override", "scheme", "region"}  # parameters of a URI that are no secrets


class MirrorError(UserError):
    """A storage that cannot be used; the message is one line for a person."""


class Mirror(ABC):
    """Keeps local places, which are files or folders, equal to their remote ones.

    What has `partial` in its name is being written, and stays where it is.

    Attributes:
        pause: seconds to leave between two looks at a place that another writes.
    """

    pause: float

    @abstractmethod
    def drop(self, place: File) -> None:
        """Let go of a local place whose remote one is all that is needed from now on."""

    @abstractmethod
    def apart(self, name: str) -> "Mirror":
        """Return a mirror of the same storage whose local folder no other process writes to."""

    @abstractmethod
    def place(self, place: File, of: "Mirror") -> File:
        """Return where this one has a place of another mirror of the same storage."""

    @abstractmethod
    def push(self, place: File) -> None:
        """Make the remote place equal to the local one; where that is gone, delete it.

        Raises:
            MirrorError: the storage cannot be reached or written.
        """

    @abstractmethod
    def pull(self, place: File, *names: str) -> None:
        """Make the local place equal to the remote one; where that is not there, leave it alone.

        A folder that is not here yet appears in one piece.

        Args:
            place: a file or a folder.
            names: the only files of the folder that matter, if not all; what the remote folder
                lacks of them is deleted here.

        Raises:
            MirrorError: the storage cannot be reached or read.
        """


class LocalOnly(Mirror):
    """The storage is a folder that all machines see."""

    pause = 1.0

    def drop(self, place: File) -> None:
        """Do nothing: it is the only one."""

    def apart(self, name: str) -> Mirror:  # noqa: ARG002
        """Return itself: processes write to folders of their own in it."""
        return self

    def place(self, place: File, of: Mirror) -> File:  # noqa: ARG002
        """Return the place."""
        return place

    def push(self, place: File) -> None:
        """Do nothing: it is there."""

    def pull(self, place: File, *names: str) -> None:
        """Do nothing: it is here."""


@dataclass(frozen=True)
class Remote(Mirror):
    """A tree behind a URI.

    A file has changed where its size or, if it is small, its content differs; a large one, which
    object stores cannot compare, also where a small one beside it has: its digest, say.

    Attributes:
        root: the local folder; places are below it.
        uri: of the remote tree; may hold a secret.
    """

    root: File
    uri: str = field(repr=False)
    pause: float = 10.0

    def drop(self, place: File) -> None:
        """Delete the local place."""
        shutil.rmtree(place, ignore_errors=True)

    def apart(self, name: str) -> Mirror:
        """Return a mirror with a local folder beside this one's."""
        return Remote(_root(self.uri) / name, self.uri)

    def place(self, place: File, of: Mirror) -> File:
        """Return where this one has a place of another mirror of the same storage."""
        assert isinstance(of, Remote)  # noqa: S101 - of the same storage
        return self.root / place.relative_to(of.root)

    def push(self, place: File) -> None:
        """Upload what is new or changed, and delete what is gone."""
        with _reached(self.uri, place.relative_to(self.root)) as (store, path):
            if place.is_dir():
                _push_folder(store, place, path)
            elif not place.exists():
                _delete(store, store.get_file_info(path))
            elif not _same(store, place, store.get_file_info(path)):
                _upload(store, place, path)

    def pull(self, place: File, *names: str) -> None:
        """Download what is missing or differs, and delete what is gone."""
        with _reached(self.uri, place.relative_to(self.root)) as (store, path):
            there = store.get_file_info(path)
            if not there.is_file:
                _pull_folder(store, place, path, names)
            elif not _same(store, place, there):
                _download(store, {place.name: there}, place.parent)


def open_mirror(storage: str) -> tuple[File, Mirror]:
    """Return the local folder of a storage, and what keeps the two equal.

    Args:
        storage: a folder that all machines see, or a URI. A URI's local folder is in the user's
            cache, under a hash of the URI.

    Raises:
        MirrorError: the URI is none that can be opened, or the tree behind it cannot be written.
    """
    if "://" not in storage:
        return File(storage), LocalOnly()
    with _reached(storage) as (store, base), tempfile.NamedTemporaryFile() as probe:
        path = f"{base}/partial-{File(probe.name).name}"
        _upload(store, File(probe.name), path)
        store.delete_file(path)
    root = _root(storage) / "driver"
    return root, Remote(root, storage)


def join_uri(storage: str, name: str) -> str:
    """Return the address of a place inside of a storage."""
    if "://" not in storage:
        return str(File(storage).resolve() / name)
    tree, mark, parameters = storage.partition("?")
    return f"{tree.rstrip('/')}/{name}{mark}{parameters}"


def _root(uri: str) -> File:
    cache = File(os.environ.get("XDG_CACHE_HOME") or File.home() / ".cache")
    return cache.resolve() / "electra-lab" / hashlib.sha256(uri.encode()).hexdigest()[:12]


def _push_folder(store: Any, folder: File, path: str) -> None:
    here, there, whole = _here(folder), _there(store, path), f"{path}/{_WHOLE}"
    changed = _changed(store, {name for name in here if here[name].is_file()}, here, there)
    if _LAST in there and (_LAST in changed or _LAST not in here):
        _delete(store, there.pop(_LAST))
    for name in sorted(changed - {_LAST}):
        _upload(store, here[name], f"{path}/{name}")
    for name in _topmost(there.keys() - here.keys()):
        _delete(store, there[name])
    if _LAST in changed:
        _upload(store, here[_LAST], f"{path}/{_LAST}")
    if not store.get_file_info(whole).is_file:
        with tempfile.NamedTemporaryFile() as empty:
            _upload(store, File(empty.name), whole)


def _pull_folder(store: Any, folder: File, path: str, names: tuple[str, ...]) -> None:
    if not store.get_file_info(f"{path}/{_WHOLE}").is_file:
        return
    here, there = _here(folder), _there(store, path)
    matter = set(names) or here.keys() | there.keys()
    files = {n for n in matter & there.keys() if there[n].is_file and "partial" not in n}
    _download(store, {name: there[name] for name in _changed(store, files, here, there)}, folder)
    for name in _topmost(matter & here.keys() - there.keys()):
        shutil.rmtree(here[name]) if here[name].is_dir() else here[name].unlink()


def _here(folder: File) -> dict[str, File]:
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    return {name: file for name, file in found.items() if "partial" not in name}


def _there(store: Any, path: str) -> dict[str, Any]:
    """Return what a remote folder holds: `pyarrow.fs.FileInfo` by relative name."""
    from pyarrow.fs import FileSelector

    infos = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    found = {str(Path(info.path).relative_to(path)): info for info in infos}
    return {name: info for name, info in found.items() if Path(name).name != _WHOLE}


def _changed(store: Any, names: set[str], here: dict[str, File], there: dict[str, Any]) -> set[str]:
    both = {name for name in names if name in here and name in there}
    same = {name for name in both if _same(store, here[name], there[name])}
    touched = {Path(name).parent for name in names - same}
    return names - {n for n in same if there[n].size <= _SMALL or Path(n).parent not in touched}


def _same(store: Any, file: File, info: Any) -> bool:
    if not (info.is_file and file.is_file() and file.stat().st_size == info.size):
        return False
    if info.size > _SMALL:
        return True
    try:
        with store.open_input_stream(info.path) as stream:
            return bool(stream.read() == file.read_bytes())
    except FileNotFoundError:  # its writer has deleted it since it was listed
        return False


def _topmost(names: set[str]) -> list[str]:
    """Return those that are not inside of another one."""
    return [n for n in names if names.isdisjoint(str(parent) for parent in Path(n).parents)]


def _upload(store: Any, file: File, path: str) -> None:
    """Copy a file to the remote, where it appears in one piece."""
    from pyarrow import fs

    in_place = store.type_name in _OBJECTS
    if not in_place:
        store.create_dir(str(Path(path).parent))
    target = path if in_place else f"{path}.partial"
    fs.copy_files(str(file), target, fs.LocalFileSystem(), store)
    if not in_place:
        store.move(target, path)


def _download(store: Any, infos: dict[str, Any], folder: File) -> None:
    """Copy files into a folder, by relative name; one that is new appears with all of them."""
    from pyarrow import fs

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as scratch:
        fetched = File(scratch) / "files"
        fetched.mkdir()
        for name, info in infos.items():
            (fetched / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # deleted since, as in `_same`
                fs.copy_files(info.path, str(fetched / name), store, fs.LocalFileSystem())
        with suppress(OSError):  # it is here, or another process has just been faster
            fetched.rename(folder)
            return
        for file in [file for file in fetched.rglob("*") if file.is_file()]:
            target = folder / file.relative_to(fetched)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def _delete(store: Any, info: Any) -> None:
    if info.is_file:
        store.delete_file(info.path)
    elif info.type.name == "Directory":
        if store.get_file_info(f"{info.path}/{_WHOLE}").is_file:
            store.delete_file(f"{info.path}/{_WHOLE}")
        store.delete_dir(info.path)


@contextmanager
def _reached(uri: str, place: File = File()) -> Iterator[tuple[Any, str]]:
    """Yield the file system behind a URI and the path of a place in it.

    What they throw becomes one line without the secrets of the URI.
    """
    try:
        store, base = _store(uri)
        yield store, str(Path(base) / place)
    except Exception as error:
        # Those behind fsspec throw classes of their own; a builtin one that is not about the
        # outside world is a mistake in here.
        ours = type(error).__module__ == "builtins"
        if ours and not isinstance(error, (OSError, ValueError, ImportError, NotImplementedError)):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        for secret in sorted(_secrets(uri), key=len, reverse=True):
            why = why.replace(secret, "***")
        raise MirrorError(
            f"--storage {_shown(uri)}: {why}; name a folder, or a URI that can be written "
            f"and that pyarrow or an installed fsspec opens, such as s3://bucket/path"
        ) from None


@lru_cache
def _store(uri: str) -> tuple[Any, str]:
    """Return the file system behind a URI and the path in it; opened once in a process."""
    from pyarrow import fs  # here, because a sweep on a folder does without

    try:
        store, path = fs.FileSystem.from_uri(uri)
    except ValueError as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
        from fsspec.core import url_to_fs  # as Ray does; may be missing

        opened, path = url_to_fs(uri)
        store = fs.PyFileSystem(fs.FSSpecHandler(opened))
    return store, path


def _shown(uri: str) -> str:
    """Return a URI without credentials and parameters; a secret may hold any sign, unquoted."""
    return re.sub(r"(?<=://).*@", "", uri).partition("?")[0]


def _secrets(uri: str) -> set[str]:
    parts = re.split(r"[:/?&=@]", "".join(re.findall(r"://(.*)@", uri)))
    given = (parameter.partition("=") for parameter in uri.partition("?")[2].split("&"))
    parts += [value for name, _, value in given if name not in _TELLING]
    return {form for part in parts if part for form in (part, unquote(part))}

"""Compare, copy and delete single files of a remote file system."""

from contextlib import suppress
from pathlib import Path as File
from pathlib import PurePosixPath as Path
from typing import Any

from lab.storage import atomic

FOLDER_MARK = ".whole"  # marks a remote folder as complete
SMALL_FILE = 2**20  # bytes; files up to this size are compared by content
_OBJECT_STORES = ("s3", "gcs", "abfs")  # need no folders, and show only complete files


def is_same(store: Any, file: File, info: Any) -> bool:
    """Return whether a file has the size and, if it is small, the content of its remote copy."""
    if not (info.is_file and file.is_file() and file.stat().st_size == info.size):
        return False
    if info.size > SMALL_FILE:
        return True
    try:
        with store.open_input_stream(info.path) as stream:
            return bool(stream.read() == file.read_bytes())
    except FileNotFoundError:  # its writer has deleted it since it was listed
        return False


def upload(store: Any, file: File, path: str) -> None:
    """Copy a local file to a remote path, where it appears atomically."""
    from pyarrow import fs

    in_place = store.type_name in _OBJECT_STORES
    if not in_place:
        store.create_dir(str(Path(path).parent))
    target = path if in_place else f"{path}.partial"
    fs.copy_files(str(file), target, fs.LocalFileSystem(), store)
    if not in_place:
        store.move(target, path)


def download(store: Any, infos: dict[str, Any], folder: File) -> None:
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
            with suppress(FileNotFoundError):  # deleted since it was listed, as in `is_same`
                fs.copy_files(info.path, str(fetched / name), store, fs.LocalFileSystem())


def delete(store: Any, info: Any) -> None:
    """Delete a remote file, or a remote folder with its content; do nothing if there is none.

    Args:
        store: remote file system.
        info: `pyarrow.fs.FileInfo` of the file or folder.
    """
    if info.is_file:
        store.delete_file(info.path)
    elif info.type.name == "Directory":
        if store.get_file_info(f"{info.path}/{FOLDER_MARK}").is_file:
            store.delete_file(f"{info.path}/{FOLDER_MARK}")
        store.delete_dir(info.path)

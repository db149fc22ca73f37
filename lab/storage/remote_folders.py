"""Copy the changes of a folder to a remote tree, or from it.

An interrupted push is harmless, because a file that marks other files as complete is uploaded last
and deleted first. Such files are the `state` of a record, and `.whole`, which a remote folder
contains since its first complete push. A remote folder without `.whole` counts as missing.
"""

import shutil
import tempfile
from pathlib import Path as File
from pathlib import PurePosixPath as Path
from typing import Any

from lab.storage import remote_files
from lab.storage.remote_files import FOLDER_MARK, SMALL_FILE

_COMPLETION_FILE = "state"  # marks a record as complete: uploaded last, deleted first


def push_folder(store: Any, folder: File, path: str) -> None:
    """Make a remote folder equal to a local one.

    Args:
        store: remote file system.
        folder: local folder.
        path: path of the remote folder.
    """
    local, remote = _list_local(folder), list_remote(store, path)
    changed = _changed(store, {name for name in local if local[name].is_file()}, local, remote)
    if _COMPLETION_FILE in remote and (
        _COMPLETION_FILE in changed or _COMPLETION_FILE not in local
    ):
        remote_files.delete(store, remote.pop(_COMPLETION_FILE))
    for name in sorted(changed - {_COMPLETION_FILE}):
        remote_files.upload(store, local[name], f"{path}/{name}")
    for name in _topmost(remote.keys() - local.keys()):
        remote_files.delete(store, remote[name])
    if _COMPLETION_FILE in changed:
        remote_files.upload(store, local[_COMPLETION_FILE], f"{path}/{_COMPLETION_FILE}")
    mark = f"{path}/{FOLDER_MARK}"
    if not store.get_file_info(mark).is_file:
        with tempfile.NamedTemporaryFile() as empty:
            remote_files.upload(store, File(empty.name), mark)


def pull_folder(store: Any, folder: File, path: str, names: tuple[str, ...]) -> None:
    """Make a local folder equal to a remote one; do nothing if that is missing or not complete.

    Args:
        store: remote file system.
        folder: local folder.
        path: path of the remote folder.
        names: names of the files in the folder to synchronize, all if empty.
    """
    if not store.get_file_info(f"{path}/{FOLDER_MARK}").is_file:
        return
    local, remote = _list_local(folder), list_remote(store, path)
    selected = set(names) or local.keys() | remote.keys()
    files = {n for n in selected & remote.keys() if remote[n].is_file and "partial" not in n}
    changed = _changed(store, files, local, remote)
    remote_files.download(store, {name: remote[name] for name in changed}, folder)
    for name in _topmost(selected & local.keys() - remote.keys()):
        shutil.rmtree(local[name]) if local[name].is_dir() else local[name].unlink()


def _list_local(folder: File) -> dict[str, File]:
    """Return the paths in a local folder by relative name."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: path for name, path in paths.items() if "partial" not in name}


def list_remote(store: Any, path: str) -> dict[str, Any]:
    """Return the content of a remote folder: `pyarrow.fs.FileInfo` by relative name."""
    from pyarrow.fs import FileSelector

    infos = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    by_name = {str(Path(info.path).relative_to(path)): info for info in infos}
    return {name: info for name, info in by_name.items() if Path(name).name != FOLDER_MARK}


def _changed(
    store: Any, names: set[str], local: dict[str, File], remote: dict[str, Any]
) -> set[str]:
    """Return the names of the files that count as changed (see `Remote`)."""
    both = {name for name in names if name in local and name in remote}
    same = {name for name in both if remote_files.is_same(store, local[name], remote[name])}
    changed_folders = {Path(name).parent for name in names - same}
    return names - {
        name
        for name in same
        if remote[name].size <= SMALL_FILE or Path(name).parent not in changed_folders
    }


def _topmost(names: set[str]) -> list[str]:
    """Return the paths that are not inside another one of them."""
    return [n for n in names if names.isdisjoint(str(parent) for parent in Path(n).parents)]

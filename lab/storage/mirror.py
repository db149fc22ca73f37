"""Synchronization of local files with a storage that several processes access.

All durable data is in plain files, so processes on different machines can share folders. Each file
or folder has one writer, which pulls it before it continues and pushes its changes. A process that
only reads needs a local root of its own, because a pull overwrites a newer local file that has not
been pushed yet.
"""

from abc import ABC, abstractmethod
from pathlib import Path as File

from lab.errors import UserError


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
    def delete_local(self, path: File) -> None:
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

    def delete_local(self, path: File) -> None:
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

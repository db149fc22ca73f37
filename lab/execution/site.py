"""Settings of a sweep that the command line sets: its storage and its Ray cluster."""

from dataclasses import dataclass
from pathlib import Path as File

from lab.storage.mirror import Mirror


@dataclass(frozen=True, kw_only=True)
class Site:
    """Storage and Ray cluster of a sweep.

    Attributes:
        storage: absolute path of the folder of records and caches.
        mirror: synchronization of `storage` with the storage that all machines access.
        ray: folder or URI for the files that Ray itself writes.
        address: address of the Ray cluster to join; None starts Ray on this machine.
        fresh: whether trials that have ended are run again, replacing their records.
        again: records of single trials that are run again even if they have ended.
    """

    storage: File
    mirror: Mirror
    ray: str
    address: str | None = None
    fresh: bool = False
    again: frozenset[File] = frozenset()

    def replaces(self, folder: File) -> bool:
        """Return whether a record of an earlier sweep is replaced, and its trial runs again."""
        return self.fresh or folder in self.again

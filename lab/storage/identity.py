"""Identity of a storage: random digits in its file `id`, which do not depend on its path.

A tracking store can have the same sweep from several storages. Their trials are told apart by this
identity.
"""

import re
import secrets
from pathlib import Path as File

from lab.storage import atomic
from lab.storage.mirror import Mirror

NAME = "id"
_VALID = re.compile(r"[0-9a-f]{16}")


def storage_identity(storage: File, mirror: Mirror) -> str:
    """Return the identity of a storage; draw it first if the storage has none or it is damaged.

    Args:
        storage: local folder of the storage; it must exist.
        mirror: synchronization of `storage` with a remote storage.
    """
    file = storage / NAME
    mirror.pull(file)
    if not (known := read_identity(storage)):
        try:
            with atomic.create_file(file) as partial:
                partial.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
        except FileExistsError:  # another process has drawn it meanwhile, or it is damaged
            if not read_identity(storage):
                atomic.write_text(file, secrets.token_hex(8))
        known = read_identity(storage)
    mirror.push(file)
    return known


def read_identity(storage: File) -> str:
    """Return the identity of a storage; empty if the storage has none or it is damaged."""
    file = storage / NAME
    if not file.is_file():
        return ""
    content = file.read_text(encoding="utf-8", errors="replace").strip()
    return content if _VALID.fullmatch(content) else ""

"""Digest of the code that computes results; it is part of their identity.

Docstrings, comments, formatting and the messages of exceptions do not change the digest.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path as File

_PACKAGE = File(__file__).parent.parent
# Folders and files of the package with the code of prepared texts, trials and fine-tuning results.
# Probes and minimal pairs read their sentences by the two files of `tasks`.
TEXT = ("data",)
TRIAL = (
    "config",
    "data",
    "training",
    "evaluation",
    "trials",
    "score_blocks.py",
    "tasks/embedded.py",
    "tasks/minimal_pairs.py",
)
FINETUNING = ("config", "data", "tasks", "training", "finetuning", "score_blocks.py")
# Modules of these folders on which no result depends.
_NO_NUMBERS = frozenset(
    {
        "config/code_digest.py",
        "config/costs/constraints.py",
        "config/costs/encoder.py",
        "config/costs/memory.py",
        "config/costs/second_objective.py",
        "config/labels.py",
        "config/mask_counts.py",
        "evaluation/pair_checks.py",
        "finetuning/results.py",
        "tasks/size.py",
        "trials/process_log.py",
        "trials/progress.py",
    }
)


@cache
def code_digest(parts: tuple[str, ...]) -> str:
    """Return the digest of the installed code in some parts of the package.

    Args:
        parts: paths of the folders and files, for example `TRIAL`.
    """
    return digest(_PACKAGE, parts)


def digest(package: File, parts: tuple[str, ...]) -> str:
    """Return twelve hexadecimal digits that name the code in some parts of a package.

    Args:
        package: folder of the package.
        parts: paths of folders and files in it.
    """
    hashed = hashlib.sha256()
    for file in sorted(file for part in parts for file in _list_modules(package / part)):
        name = file.relative_to(package).as_posix()
        if name not in _NO_NUMBERS:
            tree = _WithoutProse().visit(ast.parse(file.read_text(encoding="utf-8")))
            hashed.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return hashed.hexdigest()[:12]


def _list_modules(part: File) -> Iterable[File]:
    return [part] if part.is_file() else part.rglob("*.py")


class _WithoutProse(ast.NodeTransformer):
    """Removes docstrings, and the text of raised exceptions, from a syntax tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        return self.generic_visit(node)

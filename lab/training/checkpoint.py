"""Checkpoints for a bit-exact resume, in safetensors and JSON without pickles.

A checkpoint is a folder, which is written atomically. Its JSON file holds the SHA-256 of the
tensors and of itself; a truncated or modified checkpoint fails this check, and the previous one is
loaded. No state of a random number generator is saved: random numbers are a function of seed, step
and example (`counter_rng`), and the order of the windows is a function of the seed.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab import disk_space
from lab.config.budget import Spent
from lab.storage import atomic, regular_files
from lab.training.objectives.base import Objective
from lab.training.optimizer import Adam

_LOG = logging.getLogger(__name__)
_NEWEST_KEPT = 2  # the newest, and the one before it in case the newest is damaged
# Keys of a stored position that earlier versions named differently.
_RENAMED_KEYS = {"rows": "evaluations", "most": "micro_batch_limit"}


@dataclass(frozen=True, kw_only=True)
class TrainingPosition:
    """Position of a trial in its run.

    Attributes:
        spent: steps, tokens, FLOPs and seconds used so far.
        evaluations: number of evaluations recorded so far.
        score: ranking metric at the latest evaluation; None if it was not measured there.
        counts: number of steps in each running mean since the latest evaluation, by metric name.
        micro_batch_limit: maximum number of positions in a micro-batch; None for no limit.
    """

    spent: Spent
    evaluations: int
    score: float | None
    counts: dict[str, int]
    micro_batch_limit: int | None


class DamagedError(ValueError):
    """A checkpoint is incomplete, was modified, or does not match the trial."""


class Checkpoints:
    """The newest checkpoints of a trial and the best one.

    Args:
        folder: folder that holds the checkpoints; the first save creates it.
        maximize: whether a larger score is better.
    """

    def __init__(self, folder: File, *, maximize: bool) -> None:
        self._folder, self._maximize = folder, maximize

    def save(
        self,
        position: TrainingPosition,
        objective: Objective,
        optimizer: Adam,
        means: dict[str, Tensor],
    ) -> None:
        """Write a checkpoint, then delete all but the newest two and the best.

        Raises:
            DiskFullError: there is no room for the checkpoint; the earlier ones are kept.
        """
        tensors = dict(_tensors(objective, optimizer, means))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic.replace_folder(self._folder / f"{position.spent.steps:012d}") as partial:
                _write(tensors, position, partial)
        except (OSError, SafetensorError) as error:
            if not disk_space.is_disk_full(error):
                raise
            needed = sum(tensor.nbytes for tensor in tensors.values())
            message = disk_space.describe_full(self._folder, needed, "a checkpoint")
            raise disk_space.DiskFullError(message) from error
        self._prune(_NEWEST_KEPT)

    def prune(self) -> None:
        """Delete all but the newest and the best checkpoint, at the end of a run."""
        self._prune(1)

    def load(
        self, objective: Objective, optimizer: Adam, means: dict[str, Tensor], *, rows: int
    ) -> TrainingPosition | None:
        """Restore the newest undamaged checkpoint, and delete damaged newer ones.

        Args:
            objective: objective built from the same trial; receives the weights.
            optimizer: optimizer of the objective's parameters; receives the moments.
            means: dictionary that receives the running sums by metric name.
            rows: number of evaluations in the trial's record; checkpoints with more are skipped.

        Returns:
            The position of the restored checkpoint, or None if there is none.
        """
        for folder in reversed(self._all()):
            try:
                position, tensors = _read(folder)
                if position.evaluations > rows:
                    continue
                _restore(tensors, objective, optimizer, means)
            except DamagedError as error:
                _LOG.warning("damaged checkpoint deleted: %s", error)
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return position
        return None

    def weights(self, objective: Objective) -> TrainingPosition | None:
        """Restore only the weights of the newest undamaged checkpoint.

        Args:
            objective: objective built from the same trial, where only dropout may differ.

        Returns:
            The position of the checkpoint, or None if there is none.
        """
        positions = (restore_weights(folder, objective) for folder in reversed(self._all()))
        return next((position for position in positions if position is not None), None)

    def _all(self) -> list[File]:
        folders = self._folder.glob("[0-9]*") if self._folder.is_dir() else ()
        return sorted(folders)

    def _prune(self, newest: int) -> None:
        folders = self._all()
        remaining = set(folders[-newest:])
        scored = []
        for folder in folders:
            try:
                score = _read_position(folder).score
            except DamagedError:
                continue
            if score is not None:
                scored.append((score if self._maximize else -score, folder))
        if scored:
            remaining.add(max(scored)[1])
        for folder in set(folders) - remaining:
            shutil.rmtree(folder, ignore_errors=True)


def restore_weights(folder: File, objective: Objective) -> TrainingPosition | None:
    """Restore only the weights of one checkpoint.

    Args:
        folder: folder of the checkpoint.
        objective: objective built from the same trial, where only dropout may differ.

    Returns:
        The position of the checkpoint; None if it is damaged.
    """
    try:
        position, tensors = _read(folder)
        _restore_weights(_select(tensors, "weight"), objective)
    except DamagedError as error:
        _LOG.warning("damaged checkpoint skipped: %s", error)
        return None
    return position


def _write(tensors: dict[str, Tensor], position: TrainingPosition, folder: File) -> None:
    file = folder / "state.safetensors"
    save_file(tensors, file)
    body = {"place": asdict(position), "sha256": _digest(file)}
    (folder / "state.json").write_text(json.dumps(body | {"seal": _seal(body)}, indent=2))


def _tensors(
    objective: Objective, optimizer: Adam, means: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor once; a shared one has the first of its names."""
    seen = set()
    for name, value in objective.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            yield f"weight/{name}", value.detach().cpu().contiguous()
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            yield f"moment/{index}/{name}", value.cpu()
    for name, value in means.items():
        yield f"mean/{name}", value.detach().cpu()


def _restore(
    tensors: dict[str, Tensor], objective: Objective, optimizer: Adam, means: dict[str, Tensor]
) -> None:
    device = next(objective.parameters()).device
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    sums: dict[str, Tensor] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        match kind:
            case "weight":
                weights[name] = value
            case "moment":
                index, _, moment = name.partition("/")
                state.setdefault(int(index), {})[moment] = value
            case _:
                sums[name] = value.to(device)
    _restore_weights(weights, objective)
    groups: Any = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    means.update(sums)


def _restore_weights(weights: dict[str, Tensor], objective: Objective) -> None:
    own = objective.state_dict()
    # A shared tensor is saved under the first of its names.
    saved_name = {value.data_ptr(): name for name, value in reversed(own.items())}
    if set(weights) != set(saved_name.values()):
        raise DamagedError("the checkpoint's weights have other names than the trial's objective")
    objective.load_state_dict({name: weights[saved_name[v.data_ptr()]] for name, v in own.items()})


def _select(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the tensors with the prefix `kind`, by their names without it."""
    prefix = f"{kind}/"
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _read(folder: File) -> tuple[TrainingPosition, dict[str, Tensor]]:
    position = _read_position(folder)
    file = folder / "state.safetensors"
    try:
        if _digest(file) != _read_json(folder)["sha256"]:
            raise DamagedError(f"{file}: its SHA-256 differs from the one in state.json")
        return position, load_file(file)
    except (OSError, KeyError, SafetensorError) as error:
        raise DamagedError(f"{file}: {error}") from None


def _read_position(folder: File) -> TrainingPosition:
    try:
        raw = _read_json(folder)["place"]
        raw = {_RENAMED_KEYS.get(key, key): value for key, value in raw.items()}
        return TrainingPosition(**(raw | {"spent": Spent(**raw["spent"])}))
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / 'state.json'}: not the expected keys: {error}") from None


def _read_json(folder: File) -> dict[str, Any]:
    file = folder / "state.json"
    try:
        body: dict[str, Any] = json.loads(regular_files.read_text(file))
        seal = body.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DamagedError(f"{file}: {error}") from None
    if seal != _seal(body):
        raise DamagedError(f"{file}: its SHA-256 differs from its `seal`")
    return body


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest(file: File) -> str:
    with regular_files.open_binary(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

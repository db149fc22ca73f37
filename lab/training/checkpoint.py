"""All that a bit-exact resume needs: safetensors and JSON, no pickles.

A checkpoint is a folder, written beside and renamed into place, so that it is whole or not there.
Its JSON holds the tensors' SHA-256 and its own, so that one which was cut short or changed later is
found out, and the one before it is taken. Chance needs no state: it is a function of seed, step and
example (`noise`), and so is the order of the windows.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.config.budget import Spent
from lab.training.objectives.base import Objective
from lab.training.optimizer import Adam

_KEPT = 2  # the newest, and the one before it in case the newest is damaged


@dataclass(frozen=True, kw_only=True)
class TrainingPosition:
    """Where in its run a trial is.

    Attributes:
        spent: everything used so far.
        rows: scored points recorded so far.
        score: the ranking metric at the last of them; None where it has none.
        counts: steps in each running mean since then, by name.
        most: positions of a micro-batch, at most; None for as many as there are.
    """

    spent: Spent
    rows: int
    score: float | None
    counts: dict[str, int]
    most: int | None


class DamagedError(ValueError):
    """A checkpoint that is not what was written."""


class Checkpoints:
    """The newest checkpoints of a trial and the best one.

    Args:
        folder: of all of them; made by the first.
        maximize: whether a larger score is the better one.
    """

    def __init__(self, folder: File, *, maximize: bool) -> None:
        self._folder, self._maximize = folder, maximize

    def save(
        self,
        place: TrainingPosition,
        objective: Objective,
        optimizer: Adam,
        means: dict[str, Tensor],
    ) -> None:
        """Write a checkpoint, then delete those that are neither new nor best."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = File(tempfile.mkdtemp(dir=self._folder, prefix=".partial-"))
        try:
            save_file(dict(_tensors(objective, optimizer, means)), partial / "state.safetensors")
            body = {"place": asdict(place), "sha256": _digest(partial / "state.safetensors")}
            (partial / "state.json").write_text(json.dumps(body | {"seal": _seal(body)}, indent=2))
            for file in partial.iterdir():
                _flush(file)
            target = self._folder / f"{place.spent.steps:012d}"
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._prune(_KEPT)

    def settle(self) -> None:
        """Keep only the newest and the best: the run is over."""
        self._prune(1)

    def load(
        self, objective: Objective, optimizer: Adam, means: dict[str, Tensor], *, rows: int
    ) -> TrainingPosition | None:
        """Put the newest undamaged checkpoint back; None where there is none.

        Args:
            objective: built from the same trial; gets its weights.
            optimizer: of its parameters; gets its moments.
            means: is filled with the running sums.
            rows: scored points that are on record; a checkpoint with more behind it is no use.
        """
        for folder in reversed(self._all()):
            try:
                place, tensors = _read(folder)
                if place.rows > rows:
                    continue
                _put_back(tensors, objective, optimizer, means)
            except DamagedError:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return place
        return None

    def weights(self, objective: Objective) -> TrainingPosition | None:
        """Put the weights alone of the newest undamaged checkpoint back; None where there is none.

        Args:
            objective: built from the same trial, dropout apart.
        """
        for folder in reversed(self._all()):
            try:
                place, tensors = _read(folder)
                _put_weights(_named(tensors, "weight"), objective)
            except DamagedError:
                continue
            return place
        return None

    def _all(self) -> list[File]:
        found = self._folder.glob("[0-9]*") if self._folder.is_dir() else ()
        return sorted(found)

    def _prune(self, newest: int) -> None:
        folders = self._all()
        kept = set(folders[-newest:])
        scored = []
        for folder in folders:
            try:
                score = _place(folder).score
            except DamagedError:
                continue
            if score is not None:
                scored.append((score if self._maximize else -score, folder))
        if scored:
            kept.add(max(scored)[1])
        for folder in set(folders) - kept:
            shutil.rmtree(folder, ignore_errors=True)


def _tensors(
    objective: Objective, optimizer: Adam, means: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor once; what is shared goes by the first of its names."""
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


def _put_back(
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
    _put_weights(weights, objective)
    groups: Any = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    means.update(sums)


def _put_weights(weights: dict[str, Tensor], objective: Objective) -> None:
    own = objective.state_dict()
    first = {value.data_ptr(): name for name, value in reversed(own.items())}
    if set(weights) != set(first.values()):
        raise DamagedError("its weights are not those of this trial")
    objective.load_state_dict({name: weights[first[v.data_ptr()]] for name, v in own.items()})


def _named(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    found = ((key.partition("/"), value) for key, value in tensors.items())
    return {name: value for (what, _, name), value in found if what == kind}


def _read(folder: File) -> tuple[TrainingPosition, dict[str, Tensor]]:
    place = _place(folder)
    file = folder / "state.safetensors"
    try:
        if _digest(file) != _body(folder)["sha256"]:
            raise DamagedError(f"{file}: not what was written")
        return place, load_file(file)
    except (OSError, KeyError, SafetensorError) as error:
        raise DamagedError(f"{file}: {error}") from None


def _place(folder: File) -> TrainingPosition:
    try:
        raw = _body(folder)["place"]
        return TrainingPosition(**(raw | {"spent": Spent(**raw["spent"])}))
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{folder}: of another form: {error}") from None


def _body(folder: File) -> dict[str, Any]:
    file = folder / "state.json"
    try:
        body: dict[str, Any] = json.loads(file.read_text())
        seal = body.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DamagedError(f"{file}: {error}") from None
    if seal != _seal(body):
        raise DamagedError(f"{file}: not what was written")
    return body


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest(file: File) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _flush(file: File) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

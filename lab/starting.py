"""What `init_from` names -> one file of weights that every trial of a sweep can start from.

The driver reads the source once, and refuses what does not fit before anything runs. The file's
name is a hash of its weights, and part of the name of each trial that starts from them.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as File
from typing import assert_never

from safetensors.torch import load_file, save_file

from lab import record, runs
from lab.errors import UserError
from lab.ladder import generator_of
from lab.mirror import Mirror
from lab.shapes import Encoder
from lab.spec import Earlier, Released, Scratch, Start, Trial
from lab.trained import open_record
from lab.vocabulary import open_vocabulary
from lab.weights import Weights, dims, part

_KEPT, _GENERATORS = "encoder", "generator.encoder"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Weights to start from, and what tells whether they fit.

    Attributes:
        file: of the weights, by the names of `weights.of`, tokens in the lab's order.
        heads: of each encoder, by place.
        said: where each encoder was found, by place: a dotted path and a name.
    """

    file: File
    heads: Mapping[str, int]
    said: Mapping[str, str]


class Starts:
    """What the trials of a sweep start from, each source read once.

    Args:
        storage: of the records and caches.
        mirror: what keeps it equal to a storage that is no folder.
    """

    def __init__(self, storage: File, mirror: Mirror) -> None:
        self._storage, self._mirror = storage, mirror
        self._known: dict[tuple[Start, File, bool], Origin] = {}

    def of(self, trial: Trial, text: File) -> File | None:
        """Return the file of the weights that a trial starts from; None where chance draws them.

        Args:
            trial: any of the sweep.
            text: folder of its prepared text.

        Raises:
            UserError: as `resolve` and `check`.
        """
        start, detects = trial.init_from, "discriminator" in trial.objective.networks
        if isinstance(start, Scratch):
            return None
        key = (start, text, detects)
        if key not in self._known:
            found = resolve(start, text, self._storage, self._mirror, detects=detects)
            self._mirror.push(found.file)
            self._known[key] = found
        check(self._known[key], trial)
        return self._known[key].file


def resolve(
    start: Released | Earlier, text: File, storage: File, mirror: Mirror, *, detects: bool
) -> Origin:
    """Read what trials start from, and leave it as a file in the cache.

    Args:
        start: what is named.
        text: folder of the prepared text, whose tokens the weights must be of.
        storage: of the records.
        mirror: brings an earlier trial's record and text.
        detects: whether the encoder's head finds replaced tokens; it predicts tokens otherwise.

    Raises:
        UserError: it cannot be read, or its tokens are others.
    """
    match start:
        case Released():
            weights, heads, said = _released(start, text, detects=detects)
        case Earlier():
            weights, heads, said = _earlier(start, text, storage, mirror)
        case _:
            assert_never(start)
    file = storage / "cache" / f"start-{_digest(weights)}.safetensors"
    if not file.exists():
        _save(weights, file)
    return Origin(file=file, heads=heads, said=said)


def check(origin: Origin, trial: Trial) -> None:
    """Refuse weights that are not of a trial's shapes.

    Raises:
        UserError: names every side that differs.
    """
    shapes = {_KEPT: trial.encoder}
    generator = generator_of(trial.objective, trial.encoder)
    if generator is not None:
        shapes[_GENERATORS] = generator
    weights = load_file(origin.file)
    for place, heads in origin.heads.items():
        shape = shapes.get(place)  # none of a generator that this objective does without
        wrong = [] if shape is None else [*_differences(part(weights, place), heads, shape, trial)]
        if wrong:
            name = "base.encoder" if place == _KEPT else "the generator of base.objective"
            told = "; ".join(f"{theirs}, {name} has {mine}" for theirs, mine in wrong)
            raise UserError(f"{origin.said[place]}: {told}")
    _check_shared(weights, origin, trial)


def _differences(
    encoder: Weights, heads: int, shape: Encoder, trial: Trial
) -> Iterator[tuple[str, str]]:
    """Yield what an encoder's weights are and what is asked for, where these are not the same."""
    found = dims(encoder)
    for side in ("layers", "hidden", "ffn", "embedding"):
        theirs, mine = getattr(found, side), getattr(shape, side)
        if theirs != mine:
            yield f"{side} {theirs}", f"{mine}"
    if heads != shape.heads:
        yield f"heads {heads}", f"{shape.heads}"
    norm = "pre" if "final_norm.weight" in encoder else "post"
    if norm != shape.norm:
        yield f"norm {norm}", shape.norm
    if found.length < trial.data.length:
        yield f"positions {found.length}", f"{trial.data.length} (base.data.length)"


def _check_shared(weights: Weights, origin: Origin, trial: Trial) -> None:
    """Refuse a generator that is to share what is not the same in both."""
    sharing = getattr(trial.objective, "sharing", "none")
    shared = {"tokens": "embeddings.", "all": ""}.get(sharing)
    generator = part(weights, _GENERATORS)
    if shared is None or not generator:
        return
    kept = part(weights, _KEPT)
    for name, value in generator.items():
        if name.startswith(shared) and not value.equal(kept[name]):
            raise UserError(
                f"{origin.said[_GENERATORS]}: its {name} is another than the discriminator's, and "
                f"base.objective.sharing: {sharing} has one for both; take none or gdes"
            )


def _released(
    start: Released, text: File, *, detects: bool
) -> tuple[Weights, dict[str, int], dict[str, str]]:
    from lab import released  # it takes seconds, and most sweeps need none of it

    vocabulary = open_vocabulary(text)
    named = {_KEPT: ("discriminator", start.discriminator)}
    if start.generator:
        named[_GENERATORS] = ("generator", start.generator)
    weights: Weights = {}
    heads, said = {}, {}
    for place, (field, name) in named.items():
        said[place] = f"base.init_from.{field}: {name}"
        try:
            found, heads[place] = released.read(
                name, vocabulary, detects=detects and place == _KEPT
            )
        except UserError as error:
            raise UserError(f"{said[place]}: {error}") from None
        prefix = place.removesuffix("encoder")
        weights |= {f"{prefix}{key}": value for key, value in found.items()}
    return weights, heads, said


def _earlier(
    start: Earlier, text: File, storage: File, mirror: Mirror
) -> tuple[Weights, dict[str, int], dict[str, str]]:
    said = f"base.init_from.name: {start.name}"
    try:
        folder = runs.resolve(start.name, storage, mirror=mirror)
        mirror.pull(storage / "cache" / str(record.said(folder).get("text")))
        kept = open_record(folder, storage / "cache")
    except UserError as error:
        raise UserError(f"base.init_from.name: {error}") from None
    if kept.vocabulary().fingerprint() != open_vocabulary(text).fingerprint():
        raise UserError(
            f"{said}: its tokens are those of {kept.text.name}, and base.data makes others "
            f"({text.name}); take the same tokenizer"
        )
    heads = {place: shape.heads for place, shape in kept.shapes.items()}
    return kept.weights, heads, dict.fromkeys(heads, said)


def _digest(weights: Weights) -> str:
    made = sha256()
    for name, value in sorted(weights.items()):
        made.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        made.update(value.contiguous().numpy().tobytes())
    return made.hexdigest()[:12]


def _save(weights: Weights, file: File) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix="partial-")
    os.close(handle)
    try:
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, partial)
        File(partial).replace(file)
    finally:
        File(partial).unlink(missing_ok=True)

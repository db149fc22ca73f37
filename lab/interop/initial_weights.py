"""What a trial starts from (`init_from`, its own and a frozen generator's) -> one file of weights.

The driver reads each source once, and refuses what does not fit before anything runs; only the
weights of mlm runs that the sweep trains itself come later. The file's name is a hash of its
weights, and part of the name of each trial that starts from them.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as File
from typing import NamedTuple, assert_never

from safetensors.torch import load_file, save_file

from lab.config.architecture import EncoderConfig
from lab.config.init_from import FromCheckpoint, FromMlmRun, FromScratch, FromTrial, InitFrom
from lab.config.preparatory_runs import GENERATOR, KEPT, frozen_start
from lab.config.trial import Trial
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.interop import find_trial
from lab.interop.trained import TrainedTrial, open_trained
from lab.storage import record
from lab.storage.mirror import Mirror
from lab.training.weights import Weights, infer_dims, weights_below

_KEPT, _GENERATORS = "encoder", "generator.encoder"


Records = Mapping[str, File]  # of finished preparatory runs, by the network that starts from them
_NO_RECORDS: Records = {}


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Weights to start from, and what tells whether they fit.

    Attributes:
        file: of the weights, by the names of `weights.of`, tokens in the lab's order.
        heads: of each encoder, by place.
        said: where each encoder was found, by place: a dotted path and a name.
        earlier_flops: what earlier trials that it names had spent, stand-alone; None where it
            names weights whose compute was not recorded.
    """

    file: File
    heads: Mapping[str, int]
    said: Mapping[str, str]
    earlier_flops: float | None


@dataclass(frozen=True, kw_only=True)
class WeightSources:
    """What a trial's first weights are read from.

    Attributes:
        start: its `init_from`.
        frozen: that of its frozen generator; None where it has none.
        records: of its preparatory runs that have finished, by network.
        text: folder of the prepared text, whose tokens the weights must be of.
        detects: whether the encoder's head finds replaced tokens; it predicts tokens otherwise.
    """

    start: InitFrom
    frozen: FromMlmRun | FromTrial | None
    records: tuple[tuple[str, File], ...]
    text: File
    detects: bool


class InitialWeights:
    """What the trials of a sweep start from, each source read once.

    Args:
        storage: of the records and caches.
        mirror: what keeps it equal to a storage that is no folder.
    """

    def __init__(self, storage: File, mirror: Mirror) -> None:
        self._storage, self._mirror = storage, mirror
        self._known: dict[WeightSources, WeightsOrigin | None] = {}

    def of(self, trial: Trial, text: File, records: Records = _NO_RECORDS) -> WeightsOrigin | None:
        """Return the weights that a trial starts from; None where chance draws all of them.

        Args:
            trial: any of the sweep.
            text: folder of its prepared text.
            records: of its preparatory runs that have finished, by network. Without them only
                what the trial names is read and checked.

        Raises:
            UserError: as `resolve_source` and `check_shapes`.
        """
        sources = WeightSources(
            start=trial.init_from,
            frozen=frozen_start(trial),
            records=tuple(sorted(records.items())),
            text=text,
            detects="discriminator" in trial.objective.networks,
        )
        if sources not in self._known:
            found = resolve_source(sources, self._storage, self._mirror)
            if found is not None:
                self._mirror.push(found.file)
            self._known[sources] = found
        origin = self._known[sources]
        if origin is not None:
            check_shapes(origin, trial)
        return origin


class _Read(NamedTuple):
    """What one source gives: weights and, by place of each encoder, its heads and its name."""

    weights: Weights
    heads: dict[str, int]
    said: dict[str, str]
    spent: dict[File | None, float | None]  # stand-alone FLOPs by record; None where unknown


def resolve_source(sources: WeightSources, storage: File, mirror: Mirror) -> WeightsOrigin | None:
    """Read what a trial starts from, and leave it as a file in the cache.

    Args:
        sources: what is named, and what the sweep has trained.
        storage: of the records.
        mirror: brings an earlier trial's record and text.

    Returns:
        None where there is nothing to read.

    Raises:
        UserError: it cannot be read, or its tokens are others.
    """
    reader = _Reader(sources.text, storage, mirror)
    found = [*_kept(sources, reader), *_frozen(sources, reader)]
    if not found:
        return None
    weights: Weights = {}
    heads: dict[str, int] = {}
    said: dict[str, str] = {}
    spent: dict[File | None, float | None] = {}
    for read in found:
        weights |= read.weights
        heads, said, spent = heads | read.heads, said | read.said, spent | read.spent
    known = [flops for flops in spent.values() if flops is not None]
    file = storage / "cache" / f"start-{_digest(weights)}.safetensors"
    if not file.exists():
        _save(weights, file)
    return WeightsOrigin(
        file=file,
        heads=heads,
        said=said,
        earlier_flops=sum(known) if len(known) == len(spent) else None,
    )


def _kept(sources: WeightSources, reader: "_Reader") -> Iterator[_Read]:
    """Yield what `init_from` gives; nothing of a generator that is frozen."""
    match sources.start:
        case FromScratch():
            return
        case FromCheckpoint() as start:
            yield _released(start, sources.text, detects=sources.detects)
        case FromTrial(name=name):
            read = reader.earlier("base.init_from.name", name)
            yield _without_generator(read) if sources.frozen is not None else read
        case FromMlmRun():
            for network, folder in sources.records:
                if network == KEPT or sources.frozen is None:
                    yield reader.predictor(folder, network, f"base.init_from: {folder.name}")
        case _:
            assert_never(sources.start)


def _frozen(sources: WeightSources, reader: "_Reader") -> Iterator[_Read]:
    """Yield the weights of a frozen generator."""
    path = "base.objective.generator.init_from"
    match sources.frozen:
        case None:
            return
        case FromTrial(name=name):
            yield reader.generator(f"{path}.name", name)
        case FromMlmRun():
            for network, folder in sources.records:
                if network == GENERATOR:
                    yield reader.predictor(folder, network, f"{path}: {folder.name}")
        case _:
            assert_never(sources.frozen)


def check_shapes(origin: WeightsOrigin, trial: Trial) -> None:
    """Refuse weights that are not of a trial's shapes.

    Raises:
        UserError: names every side that differs.
    """
    shapes = {_KEPT: trial.encoder}
    generator = trial.objective.generator_shape(trial.encoder)
    if generator is not None:
        shapes[_GENERATORS] = generator
    weights = load_file(origin.file)
    for place, heads in origin.heads.items():
        shape = shapes.get(place)  # none of a generator that this objective does without
        wrong = (
            []
            if shape is None
            else [*_differences(weights_below(weights, place), heads, shape, trial)]
        )
        if wrong:
            name = "base.encoder" if place == _KEPT else "the generator of base.objective"
            told = "; ".join(f"{theirs}, {name} has {mine}" for theirs, mine in wrong)
            raise UserError(f"{origin.said[place]}: {told}")
    _check_shared(weights, origin, trial)


def _differences(
    encoder: Weights, heads: int, shape: EncoderConfig, trial: Trial
) -> Iterator[tuple[str, str]]:
    """Yield what an encoder's weights are and what is asked for, where these are not the same."""
    found = infer_dims(encoder)
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


def _check_shared(weights: Weights, origin: WeightsOrigin, trial: Trial) -> None:
    """Refuse a generator that is to share what is not the same in both."""
    sharing = getattr(trial.objective, "sharing", "none")
    shared = {"tokens": "embeddings.", "all": ""}.get(sharing)
    generator = weights_below(weights, _GENERATORS)
    if shared is None or not generator:
        return
    kept = weights_below(weights, _KEPT)
    for name, value in generator.items():
        if name.startswith(shared) and not value.equal(kept[name]):
            raise UserError(
                f"{origin.said[_GENERATORS]}: its {name} is another than the discriminator's, and "
                f"base.objective.sharing: {sharing} has one for both; take none or gdes"
            )


def _released(start: FromCheckpoint, text: File, *, detects: bool) -> _Read:
    from lab.interop import hf_checkpoints  # it takes seconds, and most sweeps need none of it

    vocabulary = open_vocabulary(text)
    named = {_KEPT: ("discriminator", start.discriminator)}
    if start.generator:
        named[_GENERATORS] = ("generator", start.generator)
    weights: Weights = {}
    heads, said = {}, {}
    for place, (field, name) in named.items():
        said[place] = f"base.init_from.{field}: {name}"
        try:
            found, heads[place] = hf_checkpoints.read_checkpoint(
                name, vocabulary, detects=detects and place == _KEPT
            )
        except UserError as error:
            raise UserError(f"{said[place]}: {error}") from None
        prefix = place.removesuffix("encoder")
        weights |= {f"{prefix}{key}": value for key, value in found.items()}
    return _Read(weights, heads, said, {None: None})


class _Reader:
    """Reads records of trials whose tokens are those of a text.

    Args:
        text: folder of the prepared text.
        storage: of the records.
        mirror: brings a record and its text.
    """

    def __init__(self, text: File, storage: File, mirror: Mirror) -> None:
        self._text, self._storage, self._mirror = text, storage, mirror

    def earlier(self, path: str, name: str) -> _Read:
        """Return all networks of the trial called `name`, which stands at `path`."""
        kept = self._named(path, name)
        heads = {place: shape.heads for place, shape in kept.shapes.items()}
        said = dict.fromkeys(heads, f"{path}: {name}")
        return _Read(kept.weights, heads, said, {kept.folder: _standalone(kept)})

    def generator(self, path: str, name: str) -> _Read:
        """Return as a generator the one of a trial, or its encoder where that predicts tokens."""
        kept = self._named(path, name)
        if _GENERATORS not in kept.shapes and kept.detects:
            raise UserError(f"{path}: {name}: none of its networks predicts tokens")
        place = _GENERATORS if _GENERATORS in kept.shapes else _KEPT
        return self._as_generator(kept, place, f"{path}: {name}", {kept.folder: _standalone(kept)})

    def predictor(self, folder: File, network: str, said: str) -> _Read:
        """Return the network of a preparatory run, as the encoder that is kept or a generator."""
        self._mirror.pull(folder)
        kept = open_trained(folder, self._storage / "cache")
        if network == GENERATOR:
            return self._as_generator(kept, _KEPT, said, {})
        return _Read(kept.network(_KEPT), {_KEPT: kept.trial.encoder.heads}, {_KEPT: said}, {})

    def _as_generator(
        self, kept: TrainedTrial, place: str, said: str, spent: dict[File | None, float | None]
    ) -> _Read:
        weights = {f"generator.{name}": value for name, value in kept.network(place).items()}
        heads = {_GENERATORS: kept.shapes[place].heads}
        return _Read(weights, heads, {_GENERATORS: said}, spent)

    def _named(self, path: str, name: str) -> TrainedTrial:
        try:
            folder = find_trial.resolve_run(name, self._storage, mirror=self._mirror)
            cache = self._storage / "cache"
            self._mirror.pull(cache / str(record.read_facts(folder).get("text")))
            kept = open_trained(folder, cache)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if kept.vocabulary().fingerprint() != open_vocabulary(self._text).fingerprint():
            raise UserError(
                f"{path}: {name}: its tokens are those of {kept.text.name}, and base.data makes "
                f"others ({self._text.name}); take the same tokenizer"
            )
        return kept


def _without_generator(read: _Read) -> _Read:
    weights = {n: v for n, v in read.weights.items() if not n.startswith("generator.")}
    return read._replace(
        weights=weights, heads={_KEPT: read.heads[_KEPT]}, said={_KEPT: read.said[_KEPT]}
    )


def _standalone(kept: TrainedTrial) -> float | None:
    """Return what a trial's weights took from nothing; None where that was not recorded."""
    rows = record.read_curve(kept.folder)
    if not rows or "spent/standalone_flops" not in rows[-1]:
        return None
    before = rows[-1]["spent/standalone_flops"] - rows[-1]["spent/marginal_flops"]
    return kept.place.spent.flops + before


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

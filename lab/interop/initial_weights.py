"""Resolve `init_from`, of a trial and of its frozen generator, to one file of initial weights.

The driver reads each source once. Weights that do not fit a trial are refused before any trial
runs; only the weights of preparatory runs become available later. The file's name contains a hash
of its weights, which also enters the name of each trial that starts from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as File
from typing import assert_never

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lab.config.init_from import FromCheckpoint, FromMlmRun, FromScratch, FromTrial, InitFrom
from lab.config.preparatory_runs import ENCODER, GENERATOR, frozen_generator_source
from lab.config.trial import Trial
from lab.interop.shape_checks import WeightsOrigin, check_shapes
from lab.interop.source_weights import SourceWeights, Spent, TrialReader, read_checkpoints
from lab.storage import atomic, digests
from lab.storage.mirror import Mirror
from lab.training.weights import Weights

Records = Mapping[str, File]  # records of preparatory runs, by the network that starts from each
_NO_RECORDS: Records = {}


@dataclass(frozen=True, kw_only=True)
class WeightSources:
    """The sources of a trial's initial weights.

    Attributes:
        start: `init_from` of the trial.
        frozen: `init_from` of its frozen generator; None without a frozen generator.
        records: records of its finished preparatory runs, by network.
        text: folder of the prepared text; the weights must have its vocabulary.
        detects: True if the encoder has a detection head, False if it predicts tokens.
    """

    start: InitFrom
    frozen: FromMlmRun | FromTrial | None
    records: tuple[tuple[str, File], ...]
    text: File
    detects: bool


class InitialWeights:
    """The initial weights of a sweep's trials; each source is read once.

    Args:
        storage: folder of the records and caches.
        mirror: remote copy of the storage.
    """

    def __init__(self, storage: File, mirror: Mirror) -> None:
        self._storage, self._mirror = storage, mirror
        self._resolved: dict[WeightSources, WeightsOrigin | None] = {}

    def resolve(
        self, trial: Trial, text: File, records: Records = _NO_RECORDS
    ) -> WeightsOrigin | None:
        """Return the initial weights of a trial; None if all of them are drawn at random.

        Args:
            trial: a trial of the sweep.
            text: folder of its prepared text.
            records: records of its finished preparatory runs, by network. Without them, only the
                trials and checkpoints that the trial names are read and checked.

        Raises:
            UserError: a source cannot be read, has another vocabulary or another shape.
        """
        sources = WeightSources(
            start=trial.init_from,
            frozen=frozen_generator_source(trial),
            records=tuple(sorted(records.items())),
            text=text,
            detects="discriminator" in trial.objective.networks,
        )
        if sources not in self._resolved:
            resolved = resolve_source(sources, self._storage, self._mirror)
            if resolved is not None:
                self._mirror.push(resolved.file)
            self._resolved[sources] = resolved
        origin = self._resolved[sources]
        if origin is not None:
            check_shapes(origin, trial)
        return origin


def resolve_source(sources: WeightSources, storage: File, mirror: Mirror) -> WeightsOrigin | None:
    """Read the initial weights of a trial and save them to the cache.

    Args:
        sources: sources of the weights.
        storage: folder of the records and caches.
        mirror: remote copy of the storage, from which an earlier trial's record and text are
            pulled.

    Returns:
        The weights' origin; None without any source.

    Raises:
        UserError: a source cannot be read, or has another vocabulary.
    """
    reader = TrialReader(sources.text, storage, mirror)
    parts = [*_read_start(sources, reader), *_read_frozen(sources, reader)]
    if not parts:
        return None
    weights: Weights = {}
    heads: dict[str, int] = {}
    names: dict[str, str] = {}
    spent: Spent = {}
    for part in parts:
        weights |= part.weights
        heads, names, spent = heads | part.heads, names | part.sources, spent | part.spent
    known = [flops for flops in spent.values() if flops is not None]
    file = storage / "cache" / f"start-{_digest(weights)}.safetensors"
    if file.exists():
        _check(file)
    else:
        _save(weights, file)
    return WeightsOrigin(
        file=file,
        heads=heads,
        sources=names,
        earlier_flops=sum(known) if len(known) == len(spent) else None,
    )


def _read_start(sources: WeightSources, reader: TrialReader) -> Iterator[SourceWeights]:
    """Yield the weights of `init_from`, except those of a frozen generator."""
    match sources.start:
        case FromScratch():
            return
        case FromCheckpoint() as start:
            yield read_checkpoints(start, sources.text, detects=sources.detects)
        case FromTrial(name=name):
            source = reader.all_networks("base.init_from.name", name)
            yield source.without_generator() if sources.frozen is not None else source
        case FromMlmRun():
            for network, folder in sources.records:
                if network == ENCODER or sources.frozen is None:
                    yield reader.preparatory(folder, network, f"base.init_from: {folder.name}")
        case _:
            assert_never(sources.start)


def _read_frozen(sources: WeightSources, reader: TrialReader) -> Iterator[SourceWeights]:
    """Yield the weights of a frozen generator; nothing without one."""
    path = "base.objective.generator.init_from"
    match sources.frozen:
        case None:
            return
        case FromTrial(name=name):
            yield reader.generator(f"{path}.name", name)
        case FromMlmRun():
            for network, folder in sources.records:
                if network == GENERATOR:
                    yield reader.preparatory(folder, network, f"{path}: {folder.name}")
        case _:
            assert_never(sources.frozen)


def _digest(weights: Weights) -> str:
    digest = sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _check(file: File) -> None:
    """Raise `UserError` if a file of weights is damaged: its name has another digest."""
    remedy = "delete it and run the same command again, which makes it again"
    try:
        digest = _digest(load_file(file))
    except (OSError, SafetensorError) as error:
        raise digests.damaged(file, str(error).splitlines()[0], remedy) from None
    if file.stem != f"start-{digest}":
        raise digests.damaged(file, "its content differs from the SHA-256 in its name", remedy)


def _save(weights: Weights, file: File) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write_file(file) as partial:
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, partial)

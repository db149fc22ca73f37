"""Resolve `init_from`, of a trial and of its frozen generator, to one file of initial weights.

The driver reads each source once. Weights that do not fit a trial are refused before any trial
runs; only the weights of preparatory runs become available later. The file's name contains a hash
of its weights, which also enters the name of each trial that starts from them.
"""

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
from lab.storage import atomic, record
from lab.storage.mirror import Mirror
from lab.training.weights import Weights, infer_dims, weights_below

_ENCODER_PATH, _GENERATOR_PATH = "encoder", "generator.encoder"  # module paths of the encoders


Records = Mapping[str, File]  # records of preparatory runs, by the network that starts from each
_NO_RECORDS: Records = {}
_Spent = dict[File | None, float | None]  # as `_SourceWeights.spent`


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Initial weights, and the properties by which `check_shapes` compares them with a trial.

    Attributes:
        file: file of the weights, by the names of `collect_weights`, tokens in the lab's order.
        heads: number of attention heads of each encoder, by module path.
        sources: source of each encoder, by module path: a dotted path of the search space and the
            name of a trial or checkpoint.
        earlier_flops: stand-alone FLOPs of the earlier trials that the sources name; None if the
            compute of a source is not recorded.
    """

    file: File
    heads: Mapping[str, int]
    sources: Mapping[str, str]
    earlier_flops: float | None


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

    def of(self, trial: Trial, text: File, records: Records = _NO_RECORDS) -> WeightsOrigin | None:
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
            frozen=frozen_start(trial),
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


class _SourceWeights(NamedTuple):
    """The weights of one source.

    Attributes:
        weights: weights by the names of `collect_weights`.
        heads: number of attention heads of each encoder, by module path.
        sources: source of each encoder, by module path, as in `WeightsOrigin`.
        spent: stand-alone FLOPs by record; the key None is a released checkpoint, the value None
            unrecorded compute.
    """

    weights: Weights
    heads: dict[str, int]
    sources: dict[str, str]
    spent: _Spent


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
    reader = _TrialReader(sources.text, storage, mirror)
    parts = [*_read_start(sources, reader), *_read_frozen(sources, reader)]
    if not parts:
        return None
    weights: Weights = {}
    heads: dict[str, int] = {}
    names: dict[str, str] = {}
    spent: _Spent = {}
    for part in parts:
        weights |= part.weights
        heads, names, spent = heads | part.heads, names | part.sources, spent | part.spent
    known = [flops for flops in spent.values() if flops is not None]
    file = storage / "cache" / f"start-{_digest(weights)}.safetensors"
    if not file.exists():
        _save(weights, file)
    return WeightsOrigin(
        file=file,
        heads=heads,
        sources=names,
        earlier_flops=sum(known) if len(known) == len(spent) else None,
    )


def _read_start(sources: WeightSources, reader: "_TrialReader") -> Iterator[_SourceWeights]:
    """Yield the weights of `init_from`, except those of a frozen generator."""
    match sources.start:
        case FromScratch():
            return
        case FromCheckpoint() as start:
            yield _read_checkpoints(start, sources.text, detects=sources.detects)
        case FromTrial(name=name):
            source = reader.all_networks("base.init_from.name", name)
            yield _without_generator(source) if sources.frozen is not None else source
        case FromMlmRun():
            for network, folder in sources.records:
                if network == KEPT or sources.frozen is None:
                    yield reader.preparatory(folder, network, f"base.init_from: {folder.name}")
        case _:
            assert_never(sources.start)


def _read_frozen(sources: WeightSources, reader: "_TrialReader") -> Iterator[_SourceWeights]:
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


def check_shapes(origin: WeightsOrigin, trial: Trial) -> None:
    """Check that initial weights have the shapes of a trial's networks.

    Raises:
        UserError: a shape differs; the message lists all differing dimensions.
    """
    shapes = {_ENCODER_PATH: trial.encoder}
    generator = trial.objective.generator_shape(trial.encoder)
    if generator is not None:
        shapes[_GENERATOR_PATH] = generator
    weights = load_file(origin.file)
    for path, heads in origin.heads.items():
        shape = shapes.get(path)  # None for a generator that the trial's objective does not have
        if shape is None:
            continue
        differences = [*_differences(weights_below(weights, path), heads, shape, trial)]
        if differences:
            name = "base.encoder" if path == _ENCODER_PATH else "the generator of base.objective"
            listed = "; ".join(
                f"{actual}, {name} has {required}" for actual, required in differences
            )
            raise UserError(f"{origin.sources[path]}: {listed}")
    _check_shared(weights, origin, trial)


def _differences(
    encoder: Weights, heads: int, shape: EncoderConfig, trial: Trial
) -> Iterator[tuple[str, str]]:
    """Yield name and value of each dimension that differs, and the value that the trial has."""
    dims = infer_dims(encoder)
    for name in ("layers", "hidden", "ffn", "embedding"):
        actual, required = getattr(dims, name), getattr(shape, name)
        if actual != required:
            yield f"{name} {actual}", f"{required}"
    if heads != shape.heads:
        yield f"heads {heads}", f"{shape.heads}"
    norm = "pre" if "final_norm.weight" in encoder else "post"
    if norm != shape.norm:
        yield f"norm {norm}", shape.norm
    if dims.length < trial.data.length:
        yield f"positions {dims.length}", f"{trial.data.length} (base.data.length)"


def _check_shared(weights: Weights, origin: WeightsOrigin, trial: Trial) -> None:
    """Raise `UserError` if weights that the networks of a trial share differ between them."""
    sharing = getattr(trial.objective, "sharing", "none")
    shared = {"tokens": "embeddings.", "all": ""}.get(sharing)
    generator = weights_below(weights, _GENERATOR_PATH)
    if shared is None or not generator:
        return
    encoder = weights_below(weights, _ENCODER_PATH)
    for name, value in generator.items():
        if name.startswith(shared) and not value.equal(encoder[name]):
            raise UserError(
                f"{origin.sources[_GENERATOR_PATH]}: its {name} differs from the "
                f"discriminator's, and base.objective.sharing: {sharing} has one for both; "
                f"take none or gdes"
            )


def _read_checkpoints(start: FromCheckpoint, text: File, *, detects: bool) -> _SourceWeights:
    from lab.interop import hf_checkpoints  # the import takes seconds; few sweeps need it

    vocabulary = open_vocabulary(text)
    named = {_ENCODER_PATH: ("discriminator", start.discriminator)}
    if start.generator:
        named[_GENERATOR_PATH] = ("generator", start.generator)
    weights: Weights = {}
    heads, sources = {}, {}
    for path, (field, name) in named.items():
        sources[path] = f"base.init_from.{field}: {name}"
        try:
            network, heads[path] = hf_checkpoints.read_checkpoint(
                name, vocabulary, detects=detects and path == _ENCODER_PATH
            )
        except UserError as error:
            raise UserError(f"{sources[path]}: {error}") from None
        prefix = path.removesuffix("encoder")
        weights |= {f"{prefix}{key}": value for key, value in network.items()}
    return _SourceWeights(weights, heads, sources, {None: None})


class _TrialReader:
    """Reads the networks of earlier trials that have the vocabulary of a text.

    Args:
        text: folder of the prepared text.
        storage: folder of the records and caches.
        mirror: remote copy of the storage, from which a record and its text are pulled.
    """

    def __init__(self, text: File, storage: File, mirror: Mirror) -> None:
        self._text, self._storage, self._mirror = text, storage, mirror

    def all_networks(self, path: str, name: str) -> _SourceWeights:
        """Return all networks of a trial.

        Args:
            path: dotted path of the setting that names the trial.
            name: name of the trial.
        """
        trained = self._open(path, name)
        heads = {network: shape.heads for network, shape in trained.shapes.items()}
        sources = dict.fromkeys(heads, f"{path}: {name}")
        spent: _Spent = {trained.folder: _standalone_flops(trained)}
        return _SourceWeights(trained.weights, heads, sources, spent)

    def generator(self, path: str, name: str) -> _SourceWeights:
        """Return a trial's generator or, without one, its token-predicting encoder, as a generator.

        Args:
            path: dotted path of the setting that names the trial.
            name: name of the trial.
        """
        trained = self._open(path, name)
        if _GENERATOR_PATH not in trained.shapes and trained.detects:
            raise UserError(f"{path}: {name}: none of its networks predicts tokens")
        network = _GENERATOR_PATH if _GENERATOR_PATH in trained.shapes else _ENCODER_PATH
        spent: _Spent = {trained.folder: _standalone_flops(trained)}
        return self._as_generator(trained, network, f"{path}: {name}", spent)

    def preparatory(self, folder: File, network: str, source: str) -> _SourceWeights:
        """Return the network of a preparatory run, as the trial's encoder or as its generator.

        Args:
            folder: record of the preparatory run.
            network: network that starts from the run, `KEPT` or `GENERATOR`.
            source: dotted path of the setting and name of the run.
        """
        self._mirror.pull(folder)
        trained = open_trained(folder, self._storage / "cache")
        if network == GENERATOR:
            return self._as_generator(trained, _ENCODER_PATH, source, {})
        heads = {_ENCODER_PATH: trained.trial.encoder.heads}
        return _SourceWeights(trained.network(_ENCODER_PATH), heads, {_ENCODER_PATH: source}, {})

    def _as_generator(
        self,
        trained: TrainedTrial,
        network: str,
        source: str,
        spent: _Spent,
    ) -> _SourceWeights:
        weights = {f"generator.{name}": value for name, value in trained.network(network).items()}
        heads = {_GENERATOR_PATH: trained.shapes[network].heads}
        return _SourceWeights(weights, heads, {_GENERATOR_PATH: source}, spent)

    def _open(self, path: str, name: str) -> TrainedTrial:
        try:
            folder = find_trial.resolve_run(name, self._storage, mirror=self._mirror)
            cache = self._storage / "cache"
            self._mirror.pull(cache / str(record.read_facts(folder).get("text")))
            trained = open_trained(folder, cache)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if trained.vocabulary().fingerprint() != open_vocabulary(self._text).fingerprint():
            raise UserError(
                f"{path}: {name}: its tokens are those of {trained.text.name}, and base.data gives "
                f"other tokens ({self._text.name}); take the same tokenizer"
            )
        return trained


def _without_generator(source: _SourceWeights) -> _SourceWeights:
    weights = {n: v for n, v in source.weights.items() if not n.startswith("generator.")}
    return source._replace(
        weights=weights,
        heads={_ENCODER_PATH: source.heads[_ENCODER_PATH]},
        sources={_ENCODER_PATH: source.sources[_ENCODER_PATH]},
    )


def _standalone_flops(trained: TrainedTrial) -> float | None:
    """Return the FLOPs that it takes to train a trial's weights from scratch.

    Returns:
        FLOPs of the trial up to its checkpoint and of the runs that it started from; None if they
        are not recorded.
    """
    rows = record.read_curve(trained.folder)
    if not rows or "spent/standalone_flops" not in rows[-1]:
        return None
    earlier = rows[-1]["spent/standalone_flops"] - rows[-1]["spent/marginal_flops"]
    return trained.place.spent.flops + earlier


def _digest(weights: Weights) -> str:
    digest = sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _save(weights: Weights, file: File) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write_file(file) as partial:
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, partial)

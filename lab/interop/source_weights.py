"""Read the weights of one source of `init_from`: released checkpoints, or an earlier trial."""

from pathlib import Path as File
from typing import NamedTuple

from lab.config.init_from import FromCheckpoint
from lab.config.preparatory_runs import GENERATOR
from lab.data.vocabulary import open_vocabulary
from lab.errors import UserError
from lab.interop import find_trial
from lab.interop.shape_checks import ENCODER, GENERATOR_ENCODER
from lab.interop.trained import TrainedTrial, open_trained
from lab.storage import record
from lab.storage.mirror import Mirror
from lab.training.weights import Weights

Spent = dict[File | None, float | None]  # see `SourceWeights.spent`


class SourceWeights(NamedTuple):
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
    spent: Spent

    def without_generator(self) -> "SourceWeights":
        """Return the weights of the encoder and its head alone."""
        return self._replace(
            weights={n: v for n, v in self.weights.items() if not n.startswith("generator.")},
            heads={ENCODER: self.heads[ENCODER]},
            sources={ENCODER: self.sources[ENCODER]},
        )


def read_checkpoints(start: FromCheckpoint, text: File, *, detects: bool) -> SourceWeights:
    """Return the networks of released checkpoints.

    Args:
        start: names of the checkpoints.
        text: folder of the prepared text; the checkpoints must have its vocabulary.
        detects: True if the encoder has a detection head, False if it predicts tokens.

    Raises:
        UserError: a checkpoint cannot be read, or has another vocabulary.
    """
    from lab.interop import hf_checkpoints  # the import takes seconds; few sweeps need it

    vocabulary = open_vocabulary(text)
    named = {ENCODER: ("discriminator", start.discriminator)}
    if start.generator:
        named[GENERATOR_ENCODER] = ("generator", start.generator)
    weights: Weights = {}
    heads, sources = {}, {}
    for path, (field, name) in named.items():
        sources[path] = f"base.init_from.{field}: {name}"
        try:
            network, heads[path] = hf_checkpoints.read_checkpoint(
                name, vocabulary, detects=detects and path == ENCODER
            )
        except UserError as error:
            raise UserError(f"{sources[path]}: {error}") from None
        prefix = path.removesuffix("encoder")
        weights |= {f"{prefix}{key}": value for key, value in network.items()}
    return SourceWeights(weights, heads, sources, {None: None})


class TrialReader:
    """Reads the networks of earlier trials that have the vocabulary of a text.

    Args:
        text: folder of the prepared text.
        storage: folder of the records and caches.
        mirror: remote copy of the storage, from which a record and its text are pulled.
    """

    def __init__(self, text: File, storage: File, mirror: Mirror) -> None:
        self._text, self._storage, self._mirror = text, storage, mirror

    def all_networks(self, path: str, name: str) -> SourceWeights:
        """Return all networks of a trial.

        Args:
            path: dotted path of the setting that names the trial.
            name: name of the trial.
        """
        trained = self._open(path, name)
        heads = {network: shape.heads for network, shape in trained.shapes.items()}
        sources = dict.fromkeys(heads, f"{path}: {name}")
        spent: Spent = {trained.folder: _standalone_flops(trained)}
        return SourceWeights(trained.weights, heads, sources, spent)

    def generator(self, path: str, name: str) -> SourceWeights:
        """Return a trial's generator or, without one, its token-predicting encoder, as a generator.

        Args:
            path: dotted path of the setting that names the trial.
            name: name of the trial.
        """
        trained = self._open(path, name)
        if GENERATOR_ENCODER not in trained.shapes and trained.detects:
            raise UserError(f"{path}: {name}: none of its networks predicts tokens")
        network = GENERATOR_ENCODER if GENERATOR_ENCODER in trained.shapes else ENCODER
        spent: Spent = {trained.folder: _standalone_flops(trained)}
        return self._as_generator(trained, network, f"{path}: {name}", spent)

    def preparatory(self, folder: File, network: str, source: str) -> SourceWeights:
        """Return the network of a preparatory run, as the trial's encoder or as its generator.

        Args:
            folder: record of the preparatory run.
            network: network that starts from the run, `ENCODER` or `GENERATOR`.
            source: dotted path of the setting and name of the run.
        """
        self._mirror.pull(folder)
        trained = open_trained(folder, self._storage / "cache")
        if network == GENERATOR:
            return self._as_generator(trained, ENCODER, source, {})
        heads = {ENCODER: trained.trial.encoder.heads}
        return SourceWeights(trained.network(ENCODER), heads, {ENCODER: source}, {})

    def _as_generator(
        self,
        trained: TrainedTrial,
        network: str,
        source: str,
        spent: Spent,
    ) -> SourceWeights:
        weights = {f"generator.{name}": value for name, value in trained.network(network).items()}
        heads = {GENERATOR_ENCODER: trained.shapes[network].heads}
        return SourceWeights(weights, heads, {GENERATOR_ENCODER: source}, spent)

    def _open(self, path: str, name: str) -> TrainedTrial:
        try:
            folder = find_trial.resolve_trial(name, self._storage, self._mirror)
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


def _standalone_flops(trained: TrainedTrial) -> float | None:
    """Return the FLOPs that it takes to train a trial's weights from scratch.

    Returns:
        FLOPs of the trial up to its checkpoint and of the runs that it started from; None if they
        are not recorded.
    """
    rows = record.read_curve(trained.folder)
    if not rows or "spent/standalone_flops" not in rows[-1]:
        return None
    own = rows[-1]["spent/marginal_flops"] + record.read_origin(trained.folder).charged_flops
    return trained.place.spent.flops + rows[-1]["spent/standalone_flops"] - own

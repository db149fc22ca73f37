"""Check that initial weights have the shapes of a trial's networks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as File

from safetensors.torch import load_file

from lab.config.architecture import EncoderConfig
from lab.config.trial import Trial
from lab.errors import UserError
from lab.training.weights import Weights, infer_dims, weights_below

ENCODER, GENERATOR_ENCODER = "encoder", "generator.encoder"  # module paths of the encoders


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


def check_shapes(origin: WeightsOrigin, trial: Trial) -> None:
    """Check that initial weights have the shapes of a trial's networks.

    Raises:
        UserError: a shape differs; the message lists all differing dimensions.
    """
    shapes = {ENCODER: trial.encoder}
    generator = trial.objective.generator_shape(trial.encoder)
    if generator is not None:
        shapes[GENERATOR_ENCODER] = generator
    weights = load_file(origin.file)
    for path, heads in origin.heads.items():
        shape = shapes.get(path)  # None for a generator that the trial's objective does not have
        if shape is None:
            continue
        network = weights_below(weights, path)
        differences = [*_differences(network, heads, shape)]
        if path == GENERATOR_ENCODER and trial.objective.frozen_generator:
            differences += _missing_positions(network, trial.data.length)
        if differences:
            name = "base.encoder" if path == ENCODER else "the generator of base.objective"
            listed = "; ".join(
                f"{actual}, {name} has {required}" for actual, required in differences
            )
            raise UserError(f"{origin.sources[path]}: {listed}")
    _check_shared(weights, origin, trial)


def _differences(encoder: Weights, heads: int, shape: EncoderConfig) -> Iterator[tuple[str, str]]:
    """Yield name and value of each dimension that differs, and the value that the trial has.

    The number of positions may differ: `assign_weights` cuts or extends the table.
    """
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


def _missing_positions(encoder: Weights, length: int) -> Iterator[tuple[str, str]]:
    """Yield the number of positions of a frozen network if it is less than that of the windows.

    The further positions would keep random values.
    """
    positions = infer_dims(encoder).length
    if positions < length:
        yield f"positions {positions}", f"{length} (base.data.length) and is not trained"


def _check_shared(weights: Weights, origin: WeightsOrigin, trial: Trial) -> None:
    """Raise `UserError` if weights that the networks of a trial share differ between them."""
    sharing = getattr(trial.objective, "sharing", "none")
    shared = {"tokens": "embeddings.", "all": ""}.get(sharing)
    generator = weights_below(weights, GENERATOR_ENCODER)
    if shared is None or not generator:
        return
    encoder = weights_below(weights, ENCODER)
    for name, value in generator.items():
        if name.startswith(shared) and not value.equal(encoder[name]):
            raise UserError(
                f"{origin.sources[GENERATOR_ENCODER]}: its {name} differs from the "
                f"discriminator's, and base.objective.sharing: {sharing} has one for both; "
                f"take none or gdes"
            )

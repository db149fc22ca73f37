"""Scale factors of initial weights and learning rates in the maximal update parametrization (muP).

Tensor Programs V (Yang et al. 2022, arXiv 2203.03466), table 8, multiplies the output of some
layers by a factor m that depends on the width. For Adam, which is invariant to the scale of the
gradient, a weight with the multiplier m is equivalent to a weight without one whose initial values
and learning rate are m times as large (the same paper, appendix J.2.1). This form is used here, so
the forward pass, its FLOPs and exported weights are those of the standard parametrization.

With r = base width / width of a layer's input:

- embeddings, biases, LayerNorm: unchanged;
- matrices between hidden layers: initial values times sqrt(r), the rate of Adam times r;
- layers with one output: both times r;
- attention logits q k / d instead of q k / sqrt(d): query weights and bias, both times
  sqrt(base head width / head width) in addition;
- logits of the tied embedding table: LayerNorm before the table, both times r.

The update of Muon has the spectral norm .2 sqrt(max(rows, columns)) lr, whereas that of Adam grows
with the width, since it is aligned with the layer's input. A change of the output that does not
depend on the width (Yang, Simon and Bernstein 2023, arXiv 2310.17813) therefore needs the rate of
Muon times sqrt(r).
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from lab.config.parametrization import MaximalUpdateParametrization, Parametrization
from lab.training.model import Block, DetectionHead, Encoder, VocabularyHead


class WidthScale(NamedTuple):
    """Factors of one parameter.

    Attributes:
        init: factor of the initial values.
        adam: factor of the learning rate of Adam.
        muon: factor of the learning rate of Muon.
    """

    init: float = 1.0
    adam: float = 1.0
    muon: float = 1.0

    def times(self, factor: float) -> "WidthScale":
        """Return the factors with a multiplier of the layer's output moved into the weights."""
        return WidthScale(*(factor * own for own in self))


def width_scales(module: nn.Module, parametrization: Parametrization) -> dict[Tensor, WidthScale]:
    """Return the factors of the parameters of a module; parameters that are not scaled are absent.

    Args:
        module: an objective, or a part of one.
        parametrization: parametrization of the encoder that the objective trains.
    """
    if not isinstance(parametrization, MaximalUpdateParametrization):
        return {}
    return {
        parameter: scale
        for part in module.modules()
        for parameter, scale in _scales_of(part, parametrization)
    }


def _scales_of(
    part: nn.Module, base: MaximalUpdateParametrization
) -> Iterator[tuple[Tensor, WidthScale]]:
    match part:
        case Block():
            ratio = base.hidden / part.query.in_features
            scale = WidthScale(ratio**0.5, ratio, ratio**0.5)
            for layer in (part.key, part.value, part.attention_output, part.intermediate):
                yield layer.weight, scale
            yield part.output.weight, scale
            attention = (base.head_width / part.head_width) ** 0.5
            yield part.query.weight, scale.times(attention)
            yield part.query.bias, WidthScale().times(attention)
        case Encoder(embeddings_project=nn.Linear() as projection):
            yield projection.weight, _between_hidden_layers(projection, base)
        case VocabularyHead():
            yield part.dense.weight, _between_hidden_layers(part.dense, base)
            ratio = base.hidden / part.dense.out_features
            for parameter in (part.norm.weight, part.norm.bias):
                yield parameter, WidthScale().times(ratio)
        case DetectionHead():
            yield part.dense.weight, _between_hidden_layers(part.dense, base)
        case nn.Linear(out_features=1):
            yield part.weight, WidthScale().times(base.hidden / part.in_features)


def _between_hidden_layers(layer: nn.Linear, base: MaximalUpdateParametrization) -> WidthScale:
    ratio = base.hidden / layer.in_features
    return WidthScale(ratio**0.5, ratio, ratio**0.5)

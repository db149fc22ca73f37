"""Shapes of encoders: those that were run, those between, and larger ones."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from lab.advice.values import short
from lab.config.architecture import EncoderConfig
from lab.config.flops import encoder_weights
from lab.scaling.profiles import Estimate

_LARGEST = 1e3  # times the number of parameters of the largest encoder that was run


@dataclass(frozen=True, kw_only=True)
class ShapeRange:
    """Shapes at the ends of the interval of the optimal size.

    Attributes:
        smallest: shape at the lower end; None if the runs do not limit the size from below.
        largest: shape at the upper end; None if the runs do not limit the size from above.
        level: nominal coverage of the interval.
    """

    smallest: EncoderConfig | None
    largest: EncoderConfig | None
    level: float

    def describe_rising(self, value_of: Callable[[EncoderConfig], float]) -> str:
        """Return the interval of a positive quantity that grows with the size."""
        return self._describe(value_of, self.smallest, self.largest)

    def describe_falling(self, value_of: Callable[[EncoderConfig], float]) -> str:
        """Return the interval of a positive quantity that falls with the size."""
        return self._describe(value_of, self.largest, self.smallest)

    def _describe(
        self,
        value_of: Callable[[EncoderConfig], float],
        low: EncoderConfig | None,
        high: EncoderConfig | None,
    ) -> str:
        ends = ("open" if shape is None else short(value_of(shape)) for shape in (low, high))
        return f"{' to '.join(ends)} ({self.level:.0%})"


def list_shapes(own: Iterable[EncoderConfig]) -> tuple[EncoderConfig, ...]:
    """Return the shapes to choose from, by number of parameters.

    They begin with the smallest encoder that was run. Widths are multiples of the head width of the
    largest one. Between widths that were run, the number of layers is interpolated; beyond them it
    grows in proportion to the width, as from `mini` (256 x 4) to `base` (768 x 12). All other
    settings are those of the encoder of the nearest width that was run.

    Args:
        own: shapes that were run; several of one width count as the deepest of them.
    """
    by_width = {shape.hidden: shape for shape in sorted(own, key=encoder_weights)}
    run = [by_width[width] for width in sorted(by_width)]
    found = {shape.hidden: shape for shape in _between_and_beyond(run)} | by_width
    shapes: list[EncoderConfig] = []
    for width in sorted(found):
        if not shapes or encoder_weights(found[width]) > encoder_weights(shapes[-1]):
            shapes.append(found[width])
    return tuple(shapes)


def nearest_shape(shapes: Iterable[EncoderConfig], parameters: float) -> EncoderConfig:
    """Return the shape with the smallest log ratio of its parameters to `parameters`."""
    return min(shapes, key=lambda shape: abs(np.log(encoder_weights(shape) / parameters)))


def shape_range(shapes: Iterable[EncoderConfig], size: Estimate) -> ShapeRange:
    """Return the shapes nearest to the ends of the interval of the optimal size."""
    shapes = tuple(shapes)
    return ShapeRange(
        smallest=nearest_shape(shapes, size.low) if size.low > 0 else None,
        largest=nearest_shape(shapes, size.high) if np.isfinite(size.high) else None,
        level=size.level,
    )


def _between_and_beyond(run: list[EncoderConfig]) -> Iterator[EncoderConfig]:
    largest = run[-1]
    most = _LARGEST * encoder_weights(largest)
    head = largest.hidden // largest.heads
    widths, depths = [shape.hidden for shape in run], [shape.layers for shape in run]
    width = head * -(-run[0].hidden // head)
    while True:
        depth = (
            np.interp(width, widths, depths)
            if width <= widths[-1]
            else largest.layers * width / largest.hidden
        )
        near = min(run, key=lambda one: abs(one.hidden - width))
        shape = _resize(near, width, max(1, round(depth)), head)
        if encoder_weights(shape) > most:
            return
        yield shape
        width += head


def _resize(near: EncoderConfig, hidden: int, layers: int, head: int) -> EncoderConfig:
    """Return a shape of another width and depth, with heads of width `head`."""
    return replace(
        near,
        hidden=hidden,
        layers=layers,
        ffn=round(hidden * near.ffn / near.hidden),
        heads=hidden // head,
        embedding=hidden if near.embedding == near.hidden else near.embedding,
    )

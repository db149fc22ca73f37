"""Memory of a trial, estimated from its configuration."""

from lab.config.flops import encoder_weights, masked_slots
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import StepSettings
from lab.config.trial import Trial

_ADAM_BYTES = 16  # bytes per parameter: weight, gradient and two moments in fp32


def estimate_memory(trial: Trial) -> float:
    """Return the bytes of weights, optimizer state and activations of one step."""
    data, objective = trial.data, trial.objective
    generator = objective.generator_shape(trial.encoder)
    shapes = [trial.encoder] if generator is None else [trial.encoder, generator]
    table = (data.vocab + data.length) * trial.encoder.embedding
    weights = table + sum(encoder_weights(shape) for shape in shapes)
    # For its backward pass, a layer keeps about 8 tensors of size `hidden` and 2 of size `ffn` per
    # position. The vocabulary head keeps logits, probabilities and their gradient.
    passes = objective.passes(trial.encoder, UpdatedNetworks.ALL)
    bodies = {(one.network, one.head): one.encoder for one in passes}
    block = sum(body.layers * (8 * body.hidden + 2 * body.ffn) for body in bodies.values())
    predictions = max(1, sum(head == "vocabulary_at_slots" for _, head in bodies))
    all_tokens = any(one.head == "vocabulary_at_all_tokens" for one in passes)

    def activations(now: StepSettings) -> int:
        slots = predictions * masked_slots(now.length, now.mask_prob) + all_tokens * now.length
        return now.batch * (block * now.length + 3 * slots * data.vocab)

    most = max(activations(trial.settings_at(progress)) for progress in trial.breakpoints)
    return _ADAM_BYTES * weights + 4.0 * most

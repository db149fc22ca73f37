"""The adversarial generator's REINFORCE gradient against the exact gradient.

With one slot the expected reward is a sum over the vocabulary, which autograd differentiates
through the softmax of transformers' model. The mean of the REINFORCE gradients over all tokens,
weighted by their probabilities, must equal this gradient.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal

import pytest
import torch
from objectives_by_kind import (
    SHAPE,
    SHARES,
    assert_same_gradients,
    gradient,
    make_objective,
    observed,
    text,
)
from torch import Tensor
from torch.nn import functional as F

from lab.config.architecture import GeneratorConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.generators import SamplingConfig
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP
from lab.training.objectives import generator as generator_module
from lab.training.objectives.masking import choose_distinct

VOCAB, LENGTH = FIRST_WORD + len(SHARES), 8
ONE = text(1, LENGTH)
SEEN_BT = (ONE.ids_BT != PAD).long()
SMALL = GeneratorConfig().derive_shape(SHAPE)
(SLOT,) = choose_distinct(ONE, mask_prob=0.15, seed=3, step=0).slots_BK[0].tolist()
ORIGINAL = int(ONE.ids_BT[0, SLOT])
Model = Callable[..., Any]


Reward = Literal["own_token", "all_tokens"]


def adversary(
    weight: float = 1.0, baseline: float = 0.0, reward: Reward = "own_token", **sampling: Any
) -> Any:
    """Return an objective without sharing; its windows have one slot."""
    settings = AdversarialConfig(
        kind="adversarial",
        sharing="none",
        adversarial_weight=weight,
        reward=reward,
        gen_weight=3.0,
        disc_weight=5.0,
        sampling=SamplingConfig(**sampling),
    )
    objective = make_objective(settings, VOCAB, LENGTH)
    with torch.no_grad():
        objective.baseline.bias.fill_(baseline)
    return objective


@pytest.fixture
def force_sample(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes the generator sample the given token from then on."""

    def force(token: int) -> None:
        monkeypatch.setattr(
            generator_module,
            "sample_tokens",
            lambda _logits, slots_BK, *_, **__: torch.full_like(slots_BK, token),
        )

    return force


class ExactGame:
    """Probability and reward of each token, computed with transformers' models.

    Attributes:
        models: generator and discriminator.
        hidden_h: hidden state of the generator's last layer at the slot.
        probabilities_V: probability of each token, differentiable.
        rewards_V: reward of each token, detached: the discriminator's loss at the slot, or its mean
            over the text.
        detection_V: discriminator's mean loss over the text for each token, differentiable.
        mlm_loss: masked language modelling loss of the generator.
    """

    def __init__(
        self, objective: Any, model: Model, reward: Reward = "own_token", **sampling: Any
    ) -> None:
        body, head = objective.generator.encoder, objective.generator.vocabulary
        generator = model(body, head, SMALL, VOCAB, LENGTH)
        discriminator = model(objective.encoder, objective.detection, SHAPE, VOCAB, LENGTH)
        self.models = generator, discriminator
        for net in self.models:
            net.electra.embeddings.word_embeddings.padding_idx = None
        shown_BT = choose_distinct(ONE, mask_prob=0.15, seed=3, step=0).ids_BT
        output = generator(shown_BT, attention_mask=SEEN_BT, output_hidden_states=True)
        logits_V = output.logits[0, SLOT]
        self.hidden_h = output.hidden_states[-1][0, SLOT].detach()
        self.mlm_loss = -logits_V.log_softmax(-1)[ORIGINAL]
        allowed_V = torch.ones(VOCAB, dtype=torch.bool)
        allowed_V[ORIGINAL] = not sampling.get("disallow_correct", False)
        odds_V = (logits_V / sampling.get("temperature", 1.0)).exp() * allowed_V
        self.probabilities_V = odds_V / odds_V.sum()
        written_VT = ONE.ids_BT.repeat(VOCAB, 1)
        written_VT[:, SLOT] = torch.arange(VOCAB)
        logits_VT = discriminator(written_VT, attention_mask=SEEN_BT.expand(VOCAB, -1)).logits
        fake_VT = (written_VT != ONE.ids_BT).float()
        errors_VT = F.binary_cross_entropy_with_logits(logits_VT, fake_VT, reduction="none")
        self.detection_V = errors_VT[:, SEEN_BT[0] > 0].mean(-1)
        at_slot_V = errors_VT[:, SLOT]
        self.rewards_V = (at_slot_V if reward == "own_token" else self.detection_V).detach()

    def expected_reward(self) -> Tensor:
        return (self.probabilities_V * self.rewards_V).sum()


def average_gradients(
    objective: Any, probabilities_V: Tensor, force_sample: Callable[[int], None]
) -> None:
    """Set the objective's gradient to its mean over all tokens, weighted by probability."""
    objective.zero_grad()
    for token in range(VOCAB):
        if probabilities_V[token] > 0:
            force_sample(token)
            (probabilities_V[token].detach() * objective(ONE, 0).total).backward()


@pytest.mark.parametrize("baseline", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.5}, {"disallow_correct": True}, {"reward": "all_tokens"}],
)
def test_expected_gradient_equals_the_exact_gradient_for_any_baseline(
    baseline: float,
    weight: float,
    sampling: dict[str, Any],
    transformers_model: Model,
    force_sample: Callable[[int], None],
) -> None:
    objective = adversary(weight, baseline, **sampling)
    exact = ExactGame(objective, transformers_model, **sampling)
    average_gradients(objective, exact.probabilities_V, force_sample)
    generator, discriminator = exact.models
    generator_loss = -weight * exact.expected_reward() + (1 - weight) * exact.mlm_loss
    # Sampling passes no gradient from the discriminator's loss to the generator.
    detection_loss = (exact.probabilities_V.detach() * exact.detection_V).sum()
    (3 * generator_loss + 5 * detection_loss).backward()
    networks = [
        (objective.generator.encoder, objective.generator.vocabulary, SMALL, generator),
        (objective.encoder, objective.detection, SHAPE, discriminator),
    ]
    for encoder, head, shape, theirs in networks:
        ours = transformers_model(gradient(encoder), gradient(head), shape, VOCAB, LENGTH)
        assert_same_gradients(ours, theirs)

    # The baseline predicts exp(-reward) from the detached hidden state, by cross-entropy.
    target = (exact.probabilities_V * (-exact.rewards_V).exp()).sum().item()
    predicted = objective.baseline(exact.hidden_h).sigmoid().item()
    close = {"rtol": 1e-4, "atol": 1e-6}
    slope = torch.tensor(3 * (predicted - target))
    torch.testing.assert_close(objective.baseline.bias.grad, slope[None], **close)
    torch.testing.assert_close(
        objective.baseline.weight.grad, slope * exact.hidden_h[None], **close
    )


def test_baseline_changes_the_gradient_of_a_single_sample(
    force_sample: Callable[[int], None],
) -> None:
    force_sample(ORIGINAL)
    norms = []
    for baseline in (-3.0, 0.0, 2.0):
        objective = adversary(baseline=baseline)
        objective(ONE, 0).total.backward()
        norms.append(objective.generator.vocabulary.bias.grad.norm().item())
    assert max(norms) > 2 * min(norms)


def test_generator_step_increases_the_discriminators_loss(
    transformers_model: Model, force_sample: Callable[[int], None]
) -> None:
    objective = adversary()
    before = ExactGame(objective, transformers_model)
    average_gradients(objective, before.probabilities_V, force_sample)
    squared_norm = 0.0
    with torch.no_grad():
        for parameter in objective.generator.parameters():
            parameter -= 1e-3 * parameter.grad
            squared_norm += parameter.grad.square().sum().item() / 3
    after = ExactGame(objective, transformers_model)
    rise = (after.expected_reward() - before.expected_reward()).item()
    assert rise == pytest.approx(1e-3 * squared_norm, rel=0.1)
    assert rise > 1e-5


def test_expected_gradient_of_the_whole_loss_of_two_windows_is_exact(
    transformers_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enumerate the tokens of the slots of two windows of different lengths."""
    batch = text(2, LENGTH)
    batch = batch._replace(ids_BT=batch.ids_BT.clone())
    batch.ids_BT[1] = torch.tensor([CLS, FIRST_WORD, FIRST_WORD + 1, SEP, PAD, PAD, PAD, PAD])
    seen_BT = batch.ids_BT != PAD
    masked = choose_distinct(batch, mask_prob=0.15, seed=3, step=0)
    slots_B1 = masked.slots_BK
    assert masked.used_BK.tolist() == [[True], [True]]
    objective = adversary(0.4, baseline=-1.0, reward="all_tokens")
    with torch.no_grad():
        objective.detection.dense_prediction.weight *= 5
    body, head = objective.generator.encoder, objective.generator.vocabulary
    generator = transformers_model(body, head, SMALL, VOCAB, LENGTH)
    discriminator = transformers_model(objective.encoder, objective.detection, SHAPE, VOCAB, LENGTH)
    for network in (generator, discriminator):
        network.electra.embeddings.word_embeddings.padding_idx = None
    logits_BTV = generator(masked.ids_BT, attention_mask=seen_BT.long()).logits
    log_p_BV = torch.stack([logits_BTV[b, slots_B1[b, 0]].log_softmax(-1) for b in range(2)])
    tokens_N2 = torch.tensor(list(product(range(VOCAB), repeat=2)))
    expected_loss = torch.zeros(())
    objective.zero_grad()
    for tokens_2 in tokens_N2:
        probability = log_p_BV[[0, 1], tokens_2].sum().exp()
        written_BT = batch.ids_BT.scatter(1, slots_B1, tokens_2[:, None])
        with torch.no_grad():
            logits_BT = discriminator(written_BT, attention_mask=seen_BT.long()).logits
            fake_BT = (written_BT != batch.ids_BT).float()
            loss = F.binary_cross_entropy_with_logits(logits_BT[seen_BT], fake_BT[seen_BT])
        expected_loss = expected_loss + probability * loss
        monkeypatch.setattr(
            generator_module, "sample_tokens", lambda *_, tokens_2=tokens_2, **__: tokens_2[:, None]
        )
        (probability.detach() * objective(batch, 0).total).backward()
    original_B = batch.ids_BT.gather(1, slots_B1)[:, 0]
    mlm_loss = -log_p_BV[[0, 1], original_B].mean()
    (3 * (-0.4 * expected_loss + 0.6 * mlm_loss)).backward()
    ours = transformers_model(gradient(body), gradient(head), SMALL, VOCAB, LENGTH)
    assert_same_gradients(ours, generator)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_adversarial_loss_equals_its_formula_at_many_slots(
    weight: float, transformers_model: Model
) -> None:
    settings = AdversarialConfig(
        kind="adversarial", sharing="none", adversarial_weight=weight, mask_prob=0.3
    )
    objective, batch = make_objective(settings), text()
    drawn = observed(objective, batch, 0)
    seen_BT = batch.ids_BT != PAD
    body, head = objective.generator.encoder, objective.generator.vocabulary
    generator = transformers_model(body, head, SMALL, 48, 16)
    discriminator = transformers_model(objective.encoder, objective.detection, SHAPE, 48, 16)
    options = {"attention_mask": seen_BT.long(), "output_hidden_states": True}
    output = generator(drawn.shown_BT, **options)
    log_p_BTV = output.logits.log_softmax(-1)
    fake_BT = (drawn.written_BT != batch.ids_BT).float()
    detected_BT = discriminator(drawn.written_BT, **options).logits
    reward_BT = F.binary_cross_entropy_with_logits(detected_BT, fake_BT, reduction="none")
    predicted_BT = objective.baseline(output.hidden_states[-1])[..., 0].sigmoid()
    target_BT = (-reward_BT).exp()

    def at_slots(value_BT: Tensor) -> Tensor:
        return value_BT[drawn.chosen_BT].mean()

    log_written_BT = log_p_BTV.gather(-1, drawn.written_BT[..., None])[..., 0]
    log_original_BT = log_p_BTV.gather(-1, batch.ids_BT[..., None])[..., 0]
    adversarial = at_slots(-log_written_BT * (reward_BT + predicted_BT.log()))
    baseline = at_slots(
        -target_BT * predicted_BT.log() - (1 - target_BT) * (1 - predicted_BT).log()
    )
    expected = weight * adversarial + (1 - weight) * at_slots(-log_original_BT) + baseline
    expected = expected + 50 * reward_BT[seen_BT].mean()
    torch.testing.assert_close(drawn.loss.total, expected, atol=1e-5, rtol=1e-5)
    parts = drawn.loss.parts
    torch.testing.assert_close(parts["health/reward"], at_slots(reward_BT).detach())
    torch.testing.assert_close(parts["health/baseline_loss"], baseline.detach())
    assert drawn.chosen_BT.sum() > len(batch.ids_BT)

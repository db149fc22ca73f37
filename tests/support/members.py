"""The members of the conformance suite: one entry per objective with its expected properties.

A new objective is added to the suite by an entry in MEMBERS; all conformance tests then run on it.
Below the table are the helpers of these tests: training text, and access to the networks of an
objective.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.init_from import FromMlmRun
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import AuxiliaryMlmConfig, Electra15Config, ElectraConfig
from lab.config.objectives.generators import FrozenGeneratorConfig, SamplingConfig
from lab.config.objectives.masking import InputShares
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.objectives.update_rules import AlternationConfig, EpochAlternationConfig
from lab.config.optimizer import AdamConfig
from lab.config.parametrization import StandardParametrization
from lab.config.schedules.learning_rate import Schedule
from lab.config.schedules.phases import UpdatedNetworks
from lab.config.schedules.ramps import ProbabilityRamp, Ramp, StepSettings
from lab.config.schedules.window_growth import FullWindows, GrowingWindows
from lab.config.trial import Seeds, Trial
from lab.data.batches import Batch, Batches
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective
from lab.training.objectives import masking as masks
from lab.training.objectives.base import Objective, StepLoss

VOCAB, LENGTH, SHARE = 64, 16, 0.3
ABSENT = VOCAB - 1  # a token absent from all windows
COUNTS_V = torch.arange(VOCAB)
PRE = EncoderConfig(
    layers=2, hidden=32, ffn=128, heads=2, embedding=32, init_std=0.15, dropout=0, norm="pre"
)
POST = replace(PRE, embedding=16, dropout=0.1, norm="post")


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """Expected inputs and gradients of one term of a loss.

    Attributes:
        of: network that computes the term.
        heads: modules between the last layer of the network and the term.
        reaches: prefixes of the names of parameters that get a gradient; for a parameter with
            several names, any of them.
        scores: positions of the term: "text" for all but padding, "slots" for the chosen ones.
    """

    of: Literal["encoder", "generator"]
    heads: tuple[str, ...]
    reaches: tuple[str, ...]
    scores: Literal["text", "slots"]


class ExpectedDecrease(NamedTuple):
    """An expected decrease of a metric during training on one batch.

    Attributes:
        part: name of the metric.
        share: upper bound of its mean over the last ten steps, as a fraction of the reference.
        of: name of the reference metric, averaged over the same steps; if empty, the first value
            of `part` is the reference.
    """

    part: str
    share: float
    of: str = ""


@dataclass(frozen=True, kw_only=True)
class Member:
    """An objective and its expected properties.

    Attributes:
        id: name in the ids of tests.
        objective: settings of the objective.
        turns: terms of the loss for each set of networks that a step can update.
        expected_decreases: expected decreases of metrics within a few steps on one batch.
        encoder: shape of the exported encoder.
        reads_masks: network that reads [MASK]; empty for objectives without a masked language
            model.
        common: prefixes of the encoder's parameters that are shared with the generator.
        cuts: numbers of steps, of eight, after which a run is stopped and resumed.
        windows: whether and how the windows grow.
    """

    id: str
    objective: AnyObjectiveConfig
    turns: Mapping[UpdatedNetworks, tuple[LossTerm, ...]]
    expected_decreases: tuple[ExpectedDecrease, ...]
    encoder: EncoderConfig = PRE
    reads_masks: Literal["encoder", "generator", ""] = "generator"
    common: tuple[str, ...] = ()
    cuts: tuple[int, ...] = (3,)
    windows: FullWindows | GrowingWindows = field(default_factory=FullWindows)


_DETECT = LossTerm(
    of="encoder", heads=("detection",), reaches=("encoder", "detection"), scores="text"
)
_DETECT_AT_SLOTS = replace(_DETECT, scores="slots")
_PREDICT = LossTerm(
    of="encoder", heads=("vocabulary",), reaches=("encoder", "vocabulary"), scores="slots"
)
_COPY = LossTerm(
    of="encoder",
    heads=("vocabulary", "gate"),
    reaches=("encoder", "vocabulary", "gate"),
    scores="text",
)
_GENERATE = LossTerm(
    of="generator", heads=("generator.vocabulary",), reaches=("generator",), scores="slots"
)
_EXPECT = LossTerm(of="generator", heads=("baseline",), reaches=("baseline",), scores="slots")
_AUXILIARY = LossTerm(
    of="encoder", heads=("auxiliary.vocabulary",), reaches=("encoder", "auxiliary"), scores="slots"
)
# Parameters of the exported encoder with a gradient if its embedding tables are the generator's
# (gradient-disentangled sharing).
_ENCODER_BUT_BASE = (
    "encoder.embeddings.word_delta",
    "encoder.embeddings.position_delta",
    "encoder.embeddings.token_type_delta",
    "encoder.embeddings.norm",
    "encoder.embeddings_project",
    "encoder.layers",
    "encoder.final_norm",
)
_TOKENS, _BASE = ("encoder.embeddings",), ("encoder.embeddings.base",)
_GENERATOR_LEARNS = ExpectedDecrease("train/generator_loss", 0.65)
# Replacements change while the generator is trained, so the discriminator's loss need not decrease;
# it must be below the loss of a majority predictor.
_BEATS_MAJORITY = ExpectedDecrease("train/discriminator_loss", 0.8, "health/majority_loss")
_PREDICTS = ExpectedDecrease("train/mlm_loss", 0.5)
_JOINT = (_GENERATOR_LEARNS, _BEATS_MAJORITY)
_SAME_SIZE = GeneratorConfig(width=1)
_ELECTRA = ElectraConfig(kind="electra", mask_prob=SHARE)
_ADVERSARIAL = AdversarialConfig(kind="adversarial", mask_prob=SHARE)
FROZEN = FrozenGeneratorConfig(
    kind="frozen",
    init_from=FromMlmRun(kind="mlm", budget=Budget(kind="tokens", amount=2 * 8 * LENGTH)),
)

# Ramps start at the values of `_ELECTRA`, which the tests of a single step expect.
_MOVING_ELECTRA = replace(
    _ELECTRA,
    mask_prob=ProbabilityRamp(start=SHARE, end=0.15),
    disc_weight=Ramp(start=50.0, end=10.0),
    sampling=SamplingConfig(temperature=Ramp(start=1.0, end=0.5)),
)
_GROWING = GrowingWindows(kind="growing", start=8, until=0.5)

MEMBERS = (
    Member(
        id="electra_none",
        objective=replace(_ELECTRA, sharing="none"),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        expected_decreases=_JOINT,
    ),
    Member(
        id="electra_tokens",
        objective=_ELECTRA,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        expected_decreases=_JOINT,
        common=_TOKENS,
    ),
    Member(
        id="electra_all",
        objective=replace(_ELECTRA, sharing="all", generator=_SAME_SIZE),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        expected_decreases=_JOINT,
        common=("encoder",),
    ),
    Member(
        id="electra_gdes",
        objective=replace(_ELECTRA, sharing="gdes"),
        turns={
            UpdatedNetworks.ALL: (
                replace(_DETECT, reaches=(*_ENCODER_BUT_BASE, "detection")),
                _GENERATE,
            )
        },
        expected_decreases=_JOINT,
        common=_BASE,
    ),
    Member(
        id="electra_half_as_deep",
        objective=replace(_ELECTRA, generator=GeneratorConfig(depth=0.5), masking="code"),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        expected_decreases=_JOINT,
        encoder=POST,
        common=_TOKENS,
    ),
    Member(
        id="electra_auxiliary",
        objective=replace(
            _ELECTRA,
            masking="bert",
            auxiliary=AuxiliaryMlmConfig(kind="mlm", weight=0.2),
        ),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE, _AUXILIARY)},
        expected_decreases=(*_JOINT, ExpectedDecrease("train/auxiliary_loss", 0.65)),
        encoder=POST,
        common=_TOKENS,
    ),
    *(
        Member(
            id=f"electra_frozen_{encoder.norm}",
            objective=replace(_ELECTRA, sharing="none", generator=FROZEN),
            turns={UpdatedNetworks.ALL: (_DETECT,)},
            expected_decreases=(_BEATS_MAJORITY,),
            encoder=encoder,
        )
        for encoder in (PRE, POST)
    ),
    Member(
        id="electra_moving",
        objective=_MOVING_ELECTRA,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        expected_decreases=_JOINT,
        encoder=POST,
        common=_TOKENS,
        cuts=(3, 4, 5),  # before the last short windows, before and after the first full ones
        windows=_GROWING,
    ),
    Member(
        id="electra_15",
        objective=Electra15Config(kind="electra_15", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_DETECT_AT_SLOTS, _GENERATE)},
        expected_decreases=_JOINT,
        common=_TOKENS,
    ),
    Member(
        id="replace_mlm_tokens",
        objective=ReplaceMlmConfig(kind="replace_mlm", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_PREDICT, _GENERATE)},
        expected_decreases=(_GENERATOR_LEARNS, _PREDICTS),
        common=_TOKENS,
    ),
    Member(
        id="replace_mlm_gdes",
        objective=ReplaceMlmConfig(
            kind="replace_mlm",
            mask_prob=SHARE,
            sharing="gdes",
            masking=InputShares(mask=0.5, random=0.3),
        ),
        turns={
            UpdatedNetworks.ALL: (
                replace(_PREDICT, reaches=(*_ENCODER_BUT_BASE, "vocabulary")),
                _GENERATE,
            )
        },
        expected_decreases=(_GENERATOR_LEARNS, _PREDICTS),
        encoder=POST,
        common=_BASE,
    ),
    Member(
        id="replace_mlm_frozen",
        objective=ReplaceMlmConfig(
            kind="replace_mlm", mask_prob=SHARE, sharing="none", generator=FROZEN
        ),
        turns={UpdatedNetworks.ALL: (_PREDICT,)},
        expected_decreases=(_PREDICTS,),
    ),
    Member(
        id="all_tokens_mlm",
        objective=AllTokensMlmConfig(kind="all_tokens_mlm", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_COPY, _GENERATE)},
        expected_decreases=(_GENERATOR_LEARNS, _PREDICTS),
        encoder=POST,
        common=_TOKENS,
    ),
    *(
        Member(
            id=f"mlm_{masking}",
            objective=MlmConfig(kind="mlm", mask_prob=SHARE, masking=masking),
            turns={UpdatedNetworks.ALL: (_PREDICT,)},
            expected_decreases=(_PREDICTS,),
            encoder=encoder,
            reads_masks="encoder",
        )
        for masking, encoder in (("paper", PRE), ("code", POST), ("bert", PRE))
    ),
    Member(
        id="two_stage",
        objective=TwoStageConfig(kind="two_stage", mask_prob=SHARE),
        turns={UpdatedNetworks.GENERATOR: (_GENERATE,), UpdatedNetworks.DISCRIMINATOR: (_DETECT,)},
        expected_decreases=_JOINT,
        cuts=(3, 4, 5),  # before the last step of stage one, at and after the switch
    ),
    Member(
        id="two_stage_post",
        objective=TwoStageConfig(kind="two_stage", mask_prob=SHARE, masking="code"),
        turns={UpdatedNetworks.GENERATOR: (_GENERATE,), UpdatedNetworks.DISCRIMINATOR: (_DETECT,)},
        expected_decreases=_JOINT,
        encoder=POST,
    ),
    Member(
        id="reinforce",
        objective=_ADVERSARIAL,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE, _EXPECT)},
        expected_decreases=(_BEATS_MAJORITY,),
        common=_TOKENS,
    ),
    Member(
        id="reinforce_half_all_tokens",
        objective=replace(
            _ADVERSARIAL, adversarial_weight=0.5, reward="all_tokens", masking="code"
        ),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE, _EXPECT)},
        expected_decreases=(_BEATS_MAJORITY,),
        encoder=POST,
        common=_TOKENS,
    ),
    *(
        Member(
            id=f"alternation_{steps}",
            objective=replace(
                _ADVERSARIAL,
                sharing="none",
                rule=AlternationConfig(kind="alternation", steps=steps),
            ),
            turns={
                UpdatedNetworks.DISCRIMINATOR: (_DETECT,),
                UpdatedNetworks.GENERATOR: (_GENERATE, _EXPECT),
            },
            expected_decreases=(_BEATS_MAJORITY,),
            cuts=(3, 4),  # with two steps per phase: within a phase, and between two phases
        )
        for steps in (1, 2)
    ),
    Member(
        id="alternation_generator_first",
        objective=replace(
            _ADVERSARIAL, rule=AlternationConfig(kind="alternation", steps=2, first="generator")
        ),
        turns={
            UpdatedNetworks.GENERATOR: (_GENERATE, _EXPECT),
            UpdatedNetworks.DISCRIMINATOR: (_DETECT,),
        },
        expected_decreases=(_BEATS_MAJORITY,),
        common=_TOKENS,
        cuts=(3, 4),
    ),
    Member(
        id="epoch_alternation",
        objective=replace(
            _ADVERSARIAL,
            sharing="gdes",
            adversarial_weight=0.5,
            reward="all_tokens",
            rule=EpochAlternationConfig(kind="epoch_alternation"),
            auxiliary=AuxiliaryMlmConfig(kind="mlm", weight=0.2),
        ),
        turns={
            UpdatedNetworks.DISCRIMINATOR: (
                replace(_DETECT, reaches=(*_ENCODER_BUT_BASE, "detection")),
                replace(_AUXILIARY, reaches=(*_ENCODER_BUT_BASE, "auxiliary")),
            ),
            UpdatedNetworks.GENERATOR: (_GENERATE, _EXPECT),
        },
        expected_decreases=(_BEATS_MAJORITY,),
        encoder=POST,
        common=_BASE,
        cuts=(3, 4, 5),  # the second epoch begins after four of the eight steps
    ),
    Member(
        id="random_unigram",
        objective=RandomReplacementConfig(kind="random", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_DETECT,)},
        expected_decreases=(_BEATS_MAJORITY,),
        reads_masks="",
    ),
    Member(
        id="random_uniform",
        objective=RandomReplacementConfig(
            kind="random", mask_prob=SHARE, replacement_distribution="uniform", masking="code"
        ),
        turns={UpdatedNetworks.ALL: (_DETECT,)},
        expected_decreases=(_BEATS_MAJORITY,),
        encoder=POST,
        reads_masks="",
    ),
    Member(
        id="random_bernoulli",
        objective=RandomReplacementConfig(
            kind="random",
            mask_prob=SHARE,
            replacement_distribution="uniform",
            masking="bernoulli",
        ),
        turns={UpdatedNetworks.ALL: (_DETECT,)},
        expected_decreases=(_BEATS_MAJORITY,),
        reads_masks="",
    ),
)

GROWING = tuple(
    replace(member, id=f"{member.id}_growing", windows=_GROWING, cuts=(3, 4, 5))
    for member in {member.objective.kind: member for member in reversed(MEMBERS)}.values()
)  # the first of each kind

DETECTORS = tuple(m for m in MEMBERS if "discriminator" in m.objective.networks)
SAMPLERS = tuple(m for m in MEMBERS if hasattr(m.objective, "sampling"))
WRITERS = tuple(m for m in MEMBERS if m.reads_masks != "encoder")  # these replace tokens


def each(members: tuple[Member, ...] = MEMBERS) -> pytest.MarkDecorator:
    """Return a parametrization of a test by member."""
    return pytest.mark.parametrize("member", members, ids=lambda member: member.id)


def each_turn(members: tuple[Member, ...] = MEMBERS) -> pytest.MarkDecorator:
    """Return a parametrization of a test by member and by the networks that a step updates."""
    cases = [(member, updates) for member in members for updates in member.turns]
    ids = [f"{member.id}-{updates.value}" for member, updates in cases]
    return pytest.mark.parametrize(("member", "updates"), cases, ids=ids)


def reading_turn(member: Member) -> UpdatedNetworks:
    """Return the networks updated in a step in which the exported encoder is trained."""
    return next(
        updates
        for updates, lessons in member.turns.items()
        if any(lesson.of == "encoder" for lesson in lessons)
    )


def trial(member: Member, **changes: Any) -> Trial:
    """Return a trial of eight steps with the objective of the member."""
    base = Trial(
        encoder=member.encoder,
        objective=member.objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        windows=member.windows,
        batch=8,
        optim=AdamConfig(lr=3e-3, weight_decay=0.1),
        schedule=Schedule(kind="constant", warmup=0),
        budget=Budget(kind="tokens", amount=8 * 8 * LENGTH),
        seeds=Seeds(init=1, order=2, mask=3),
    )
    return replace(base, **changes)


def make_objective(member: Member, **changes: Any) -> Any:
    """Return the objective module of a trial of the member."""
    return build_objective(trial(member, **changes), COUNTS_V)


def windows(rows: int, longest: int = LENGTH - 2, length: int = LENGTH) -> np.ndarray:
    """Return a copy of the windows of `_windows`."""
    return _windows(rows, longest, length).copy()


@cache
def _windows(rows: int, longest: int, length: int) -> np.ndarray:
    """Return windows with `longest`, `longest` - 1, ... words; 10 % are [UNK], 10 % are [MASK]."""
    draw = np.random.default_rng(0)
    ids_NT = np.full((rows, length), PAD)
    for index, row in enumerate(ids_NT):
        n = max(2, longest - index % 8)
        words = draw.integers(FIRST_WORD, ABSENT, n)
        kind = draw.random(n)
        row[: n + 2] = [CLS, *np.select([kind < 0.1, kind < 0.2], [UNK, MASK], words), SEP]
    return ids_NT


def texts(trial: Trial) -> dict[int, Batches]:
    """Return the training windows of a trial by their length."""
    lengths = [data.length for data in trial.data_configs]
    return {
        length: Batches(windows(30, length - 2, length).astype(np.uint16), trial.seeds.order)
        for length in lengths
    }


def text(rows: int = 8, longest: int = LENGTH - 2) -> Batch:
    """Return a batch of the windows of `windows`."""
    return Batch(torch.from_numpy(windows(rows, longest)), torch.arange(rows) + 100)


def only(word: int, rows: int = 8) -> Batch:
    """Return a batch in which all words are the token `word`."""
    batch = text(rows)
    return batch._replace(ids_BT=batch.ids_BT.where(~candidates(batch.ids_BT), word))


def candidates(ids_BT: Tensor) -> Tensor:
    """Return a mask of the positions that may be chosen for masking, (B, T)."""
    return ~torch.isin(ids_BT, torch.tensor([CLS, SEP, MASK, PAD]))


def chosen(member: Member, batch: Batch, step: int = 0) -> Tensor:
    """Return a mask of the positions that the member chooses for masking, (B, T)."""
    return masks.chosen_positions(masked(member, batch, step))


def masked(member: Member, batch: Batch, step: int = 0) -> masks.MaskedBatch:
    """Return the slots that the member chooses with the seed of its trial, with [MASK] at all."""
    match member.objective.masking:
        case "code":
            select = masks.draw_slots
        case "bernoulli":
            select = masks.choose_independently
        case _:
            select = masks.choose_distinct
    settings = trial(member)
    mask_prob = settings.settings_at(0.0).mask_prob
    return select(batch, mask_prob=mask_prob, seed=settings.seeds.mask, step=step)


def drawn_once(masked: masks.MaskedBatch) -> Tensor:
    """Return a mask of the positions of exactly one used slot, (B, T)."""
    times_BT = torch.zeros_like(masked.ids_BT)
    return times_BT.scatter_add(1, masked.slots_BK, masked.used_BK.long()) == 1


def wanted(member: Member, batch: Batch) -> Tensor:
    """Return the number of slots of each window: clip(round(n p), 1, K), (B,).

    n is the number of all tokens with masking `code`, and that of the candidates otherwise. Rounds
    in single precision, as the official code does.
    """
    share, K = trial(member).settings_at(0.0).mask_prob, int((SHARE + 0.005) * LENGTH)
    of_all = member.objective.masking == "code"
    n_B = (batch.ids_BT != PAD if of_all else candidates(batch.ids_BT)).sum(1).numpy()
    rounded_B = np.round(n_B.astype(np.float32) * np.float32(share))
    return torch.from_numpy(np.minimum(np.clip(rounded_B, 1, K), n_B)).long()


def _speakers(objective: Any) -> tuple[dict[nn.Module, str], list[RemovableHandle]]:
    """Return the name of the network for each encoder module, and the hooks that keep it current.

    If generator and discriminator share one module, its name is that of the current caller.
    """
    if not hasattr(objective, "generator"):
        return {objective.encoder: "encoder"}, []
    generator = objective.generator
    names = {generator.encoder: "generator", objective.encoder: "encoder"}

    def enter(*_: Any) -> None:
        names[generator.encoder] = "generator"

    def leave(*_: Any) -> None:
        names[objective.encoder] = "encoder"

    hooks = generator.register_forward_pre_hook(enter), generator.register_forward_hook(leave)
    return names, [*hooks]


class _AllHaveReadError(Exception):
    """All networks of an objective have read their inputs."""


@contextmanager
def watched(
    objective: Any, disturb: str = "", where_BT: Tensor | None = None, *, brief: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping filled with the token ids that each network reads in its first pass.

    Args:
        objective: objective to watch.
        disturb: network to which noise is added at the last layer; none if empty.
        where_BT: positions of the noise.
        brief: whether `_AllHaveReadError` ends the step once all networks have read.
    """
    seen: dict[str, Tensor] = {}
    names, handles = _speakers(objective)
    networks = {"encoder", "generator"} if hasattr(objective, "generator") else {"encoder"}

    def record(body: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.setdefault(names[body], inputs[0])
        if brief and seen.keys() == networks:
            raise _AllHaveReadError

    def add_noise(body: nn.Module, _: tuple[Tensor, ...], hidden_BTh: Tensor) -> Tensor:
        if names[body] != disturb:
            return hidden_BTh
        chance = torch.Generator().manual_seed(0)
        noise_h = 3 * torch.randn(hidden_BTh.shape[-1], generator=chance)
        return hidden_BTh + where_BT[..., None] * noise_h

    for body in names:
        handles += [body.register_forward_pre_hook(record), body.register_forward_hook(add_noise)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def reads(
    objective: Objective,
    batch: Batch,
    updates: UpdatedNetworks = UpdatedNetworks.ALL,
    step: int = 0,
) -> dict[str, Tensor]:
    """Return the token ids that each network reads in its first pass of a step.

    The step ends as soon as all networks have read.
    """
    with watched(objective, brief=True) as seen, torch.no_grad(), suppress(_AllHaveReadError):
        objective(batch, step, updates)
    return seen


def write_by(objective: Any, probability_V: Tensor) -> None:
    """Make the objective sample all replacements from one distribution, independent of context."""
    with torch.no_grad():
        if hasattr(objective, "cumulated_V"):
            objective.cumulated_V.copy_(probability_V.double().cumsum(0))
            return
        head = objective.generator.vocabulary
        head.norm.weight.zero_()
        head.norm.bias.zero_()
        head.bias.copy_(probability_V.log())


def always(word: int) -> Tensor:
    """Return the distribution in which `word` has probability 1."""
    return torch.eye(VOCAB)[word]


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dictionary of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two mappings have the same names and bitwise equal tensors."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def matches(name: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether a dotted name is one of the prefixes or is below one."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def promised(objective: nn.Module, prefixes: tuple[str, ...]) -> set[str]:
    """Return the first names of the parameters that have any name below one of the prefixes."""
    all_names = objective.named_parameters(remove_duplicate=False)
    matching = {id(p) for name, p in all_names if matches(name, prefixes)}
    return {name for name, p in objective.named_parameters() if id(p) in matching}


def ticking() -> Callable[[], float]:
    """Return a clock that advances by one second per reading, so that a step takes a second."""
    ticks = iter(range(10**6))
    return lambda: float(next(ticks))


class Weightless(nn.Module):
    """An objective with one weight, for tests of the training loop without computation.

    Attributes:
        learnt: networks updated in each step so far.
    """

    parametrization = StandardParametrization()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.learnt: list[UpdatedNetworks] = []

    def begin(self, updates: UpdatedNetworks, _: StepSettings) -> None:
        """Record the networks that the step updates."""
        self.learnt.append(updates)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": [self.weight]}

    def forward(self, *_: object) -> StepLoss:
        return StepLoss(0 * self.weight, {"train/loss": torch.zeros(())})

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return parts


class Run:
    """A trial with its objective and optimizer, ready for the training loop.

    Args:
        trial: trial to run.
        init: seed of the initial weights; that of the trial by default.
    """

    def __init__(self, trial: Trial, init: int | None = None) -> None:
        self.trial = trial
        seeds = trial.seeds if init is None else replace(trial.seeds, init=init)
        self.objective: Any = build_objective(replace(trial, seeds=seeds), COUNTS_V)
        self.optimizer = optimizer.build_optimizer(self.objective, trial.optim)

    def steps(self, spent: Spent = Spent()) -> Iterator[CompletedStep]:  # noqa: B008 - frozen
        """Run the remaining steps after `spent`; yield each completed step."""
        yield from train_steps(
            Gradients(self.objective, texts(self.trial), self.trial),
            self.optimizer,
            trial=self.trial,
            clock=ticking(),
            spent=spent,
        )

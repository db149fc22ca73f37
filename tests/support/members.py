"""The members of the conformance suite: one entry for each objective, with what it promises.

A new objective subscribes by an entry in MEMBERS; every property then holds it to its promises.
Below the table: text, and the few ways in which properties look into an objective.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lab.config import trial as spec
from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.init_from import FromMlmRun
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.adversarial import AdversarialConfig, AlternationConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.generators import FrozenGeneratorConfig, SamplingConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.optimizer import AdamConfig
from lab.config.phases import UpdatedNetworks
from lab.config.ramps import ProbabilityRamp, Ramp, StepSettings
from lab.config.schedule import Schedule
from lab.config.window_growth import FullWindows, GrowingWindows
from lab.data.batches import Batch, Batches
from lab.data.vocabulary import CLS, FIRST_WORD, MASK, PAD, SEP, UNK
from lab.training import optimizer
from lab.training.gradients import Gradients
from lab.training.loop import CompletedStep, train_steps
from lab.training.objectives import build_objective
from lab.training.objectives import masking as masks
from lab.training.objectives.base import Objective, StepLoss

VOCAB, LENGTH, SHARE = 64, 16, 0.3
ABSENT = VOCAB - 1  # a word that no text has
COUNTS_V = torch.arange(VOCAB)
PRE = EncoderConfig(
    layers=2, hidden=32, ffn=128, heads=2, embedding=32, init_std=0.15, dropout=0, norm="pre"
)
POST = replace(PRE, embedding=16, dropout=0.1, norm="post")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One loss: which network speaks, and whom its gradient reaches.

    Attributes:
        of: the network whose last layer the loss is taken from.
        heads: modules between that layer and the loss.
        reaches: prefixes of the parameters that get a gradient, by any of their names.
        scores: the loss is taken at all text, or at the chosen slots.
    """

    of: Literal["encoder", "generator"]
    heads: tuple[str, ...]
    reaches: tuple[str, ...]
    scores: Literal["text", "slots"]


class Falls(NamedTuple):
    """A loss that falls below `share` of another part, or of where it began."""

    part: str
    share: float
    of: str = ""


@dataclass(frozen=True, kw_only=True)
class Member:
    """An objective and its promises.

    Attributes:
        id: its name in the tests.
        objective: its settings.
        turns: what is learned in each kind of turn.
        learns: what a few steps on one batch must bring.
        encoder: the shape of the encoder that is kept.
        reads_masks: the network that reads [MASK]; none does without a generator.
        common: prefixes of the encoder's parameters that the generator has as well.
        cuts: after how many of eight steps a run is broken off to go on from its state.
        windows: whether its windows grow.
    """

    id: str
    objective: AnyObjectiveConfig
    turns: Mapping[UpdatedNetworks, tuple[Lesson, ...]]
    learns: tuple[Falls, ...]
    encoder: EncoderConfig = PRE
    reads_masks: Literal["encoder", "generator", ""] = "generator"
    common: tuple[str, ...] = ()
    cuts: tuple[int, ...] = (3,)
    windows: FullWindows | GrowingWindows = field(default_factory=FullWindows)


_DETECT = Lesson(
    of="encoder", heads=("detection",), reaches=("encoder", "detection"), scores="text"
)
_DETECT_AT_SLOTS = replace(_DETECT, scores="slots")
_PREDICT = Lesson(
    of="encoder", heads=("vocabulary",), reaches=("encoder", "vocabulary"), scores="slots"
)
_COPY = Lesson(
    of="encoder",
    heads=("vocabulary", "gate"),
    reaches=("encoder", "vocabulary", "gate"),
    scores="text",
)
_GENERATE = Lesson(
    of="generator", heads=("generator.vocabulary",), reaches=("generator",), scores="slots"
)
_EXPECT = Lesson(of="generator", heads=("baseline",), reaches=("baseline",), scores="slots")
# What a loss of the kept encoder reaches where the tables it reads are another's.
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
_GENERATOR_LEARNS = Falls("train/generator_loss", 0.65)
# Replacements change while the generator learns: below the majority is what can be learned.
_BEATS_MAJORITY = Falls("train/discriminator_loss", 0.8, "health/majority_loss")
_PREDICTS = Falls("train/mlm_loss", 0.5)
_JOINT = (_GENERATOR_LEARNS, _BEATS_MAJORITY)
_SAME_SIZE = GeneratorConfig(width=1)
_ELECTRA = ElectraConfig(kind="electra", mask_prob=SHARE)
_ADVERSARIAL = AdversarialConfig(kind="adversarial", mask_prob=SHARE)
FROZEN = FrozenGeneratorConfig(
    kind="frozen",
    init_from=FromMlmRun(kind="mlm", budget=Budget(kind="tokens", amount=2 * 8 * LENGTH)),
)

# They begin as the plain ones, which properties of a single step look at, and end elsewhere.
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
        learns=_JOINT,
    ),
    Member(
        id="electra_tokens",
        objective=_ELECTRA,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        learns=_JOINT,
        common=_TOKENS,
    ),
    Member(
        id="electra_all",
        objective=replace(_ELECTRA, sharing="all", generator=_SAME_SIZE),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        learns=_JOINT,
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
        learns=_JOINT,
        common=_BASE,
    ),
    Member(
        id="electra_half_as_deep",
        objective=replace(_ELECTRA, generator=GeneratorConfig(depth=0.5), masking="code"),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        learns=_JOINT,
        encoder=POST,
        common=_TOKENS,
    ),
    *(
        Member(
            id=f"electra_frozen_{encoder.norm}",
            objective=replace(_ELECTRA, sharing="none", generator=FROZEN),
            turns={UpdatedNetworks.ALL: (_DETECT,)},
            learns=(_BEATS_MAJORITY,),
            encoder=encoder,
        )
        for encoder in (PRE, POST)
    ),
    Member(
        id="electra_moving",
        objective=_MOVING_ELECTRA,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE)},
        learns=_JOINT,
        encoder=POST,
        common=_TOKENS,
        cuts=(3, 4, 5),  # the last short windows are to come, the first full ones are, were
        windows=_GROWING,
    ),
    Member(
        id="electra_15",
        objective=Electra15Config(kind="electra_15", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_DETECT_AT_SLOTS, _GENERATE)},
        learns=_JOINT,
        common=_TOKENS,
    ),
    Member(
        id="replace_mlm_tokens",
        objective=ReplaceMlmConfig(kind="replace_mlm", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_PREDICT, _GENERATE)},
        learns=(_GENERATOR_LEARNS, _PREDICTS),
        common=_TOKENS,
    ),
    Member(
        id="replace_mlm_gdes",
        objective=ReplaceMlmConfig(kind="replace_mlm", mask_prob=SHARE, sharing="gdes"),
        turns={
            UpdatedNetworks.ALL: (
                replace(_PREDICT, reaches=(*_ENCODER_BUT_BASE, "vocabulary")),
                _GENERATE,
            )
        },
        learns=(_GENERATOR_LEARNS, _PREDICTS),
        encoder=POST,
        common=_BASE,
    ),
    Member(
        id="replace_mlm_frozen",
        objective=ReplaceMlmConfig(
            kind="replace_mlm", mask_prob=SHARE, sharing="none", generator=FROZEN
        ),
        turns={UpdatedNetworks.ALL: (_PREDICT,)},
        learns=(_PREDICTS,),
    ),
    Member(
        id="all_tokens_mlm",
        objective=AllTokensMlmConfig(kind="all_tokens_mlm", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_COPY, _GENERATE)},
        learns=(_GENERATOR_LEARNS, _PREDICTS),
        encoder=POST,
        common=_TOKENS,
    ),
    *(
        Member(
            id=f"mlm_{how}",
            objective=MlmConfig(kind="mlm", mask_prob=SHARE, masking=how),
            turns={UpdatedNetworks.ALL: (_PREDICT,)},
            learns=(_PREDICTS,),
            encoder=encoder,
            reads_masks="encoder",
        )
        for how, encoder in (("paper", PRE), ("code", POST), ("bert", PRE))
    ),
    Member(
        id="two_stage",
        objective=TwoStageConfig(kind="two_stage", mask_prob=SHARE),
        turns={UpdatedNetworks.GENERATOR: (_GENERATE,), UpdatedNetworks.DISCRIMINATOR: (_DETECT,)},
        learns=_JOINT,
        cuts=(3, 4, 5),  # the last of the first stage is to come, the switch is, the switch was
    ),
    Member(
        id="two_stage_post",
        objective=TwoStageConfig(kind="two_stage", mask_prob=SHARE, masking="code"),
        turns={UpdatedNetworks.GENERATOR: (_GENERATE,), UpdatedNetworks.DISCRIMINATOR: (_DETECT,)},
        learns=_JOINT,
        encoder=POST,
    ),
    Member(
        id="reinforce",
        objective=_ADVERSARIAL,
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE, _EXPECT)},
        learns=(_BEATS_MAJORITY,),
        common=_TOKENS,
    ),
    Member(
        id="reinforce_half",
        objective=replace(_ADVERSARIAL, adversarial_weight=0.5),
        turns={UpdatedNetworks.ALL: (_DETECT, _GENERATE, _EXPECT)},
        learns=(_BEATS_MAJORITY,),
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
            learns=(_BEATS_MAJORITY,),
            cuts=(3, 4),  # with two steps a turn: amid the generator's, and between two turns
        )
        for steps in (1, 2)
    ),
    Member(
        id="random_unigram",
        objective=RandomReplacementConfig(kind="random", mask_prob=SHARE),
        turns={UpdatedNetworks.ALL: (_DETECT,)},
        learns=(_BEATS_MAJORITY,),
        reads_masks="",
    ),
    Member(
        id="random_uniform",
        objective=RandomReplacementConfig(
            kind="random", mask_prob=SHARE, replacement_distribution="uniform", masking="code"
        ),
        turns={UpdatedNetworks.ALL: (_DETECT,)},
        learns=(_BEATS_MAJORITY,),
        encoder=POST,
        reads_masks="",
    ),
)

GROWING = tuple(
    replace(member, id=f"{member.id}_growing", windows=_GROWING, cuts=(3, 4, 5))
    for member in {member.objective.kind: member for member in reversed(MEMBERS)}.values()
)  # the first of each kind

DETECTORS = tuple(m for m in MEMBERS if "discriminator" in m.objective.networks)
SAMPLERS = tuple(m for m in MEMBERS if hasattr(m.objective, "sampling"))
WRITERS = tuple(m for m in MEMBERS if m.reads_masks != "encoder")  # they replace what they mask


def each(members: tuple[Member, ...] = MEMBERS) -> pytest.MarkDecorator:
    """Return a parametrisation by member."""
    return pytest.mark.parametrize("member", members, ids=lambda member: member.id)


def each_turn(members: tuple[Member, ...] = MEMBERS) -> pytest.MarkDecorator:
    """Return a parametrisation by member and turn."""
    cases = [(member, learns) for member in members for learns in member.turns]
    ids = [f"{member.id}-{learns.value}" for member, learns in cases]
    return pytest.mark.parametrize(("member", "learns"), cases, ids=ids)


def reading_turn(member: Member) -> UpdatedNetworks:
    """Return a turn in which the encoder that is kept learns."""
    return next(
        learns
        for learns, lessons in member.turns.items()
        if any(one.of == "encoder" for one in lessons)
    )


def trial(member: Member, **changes: Any) -> spec.Trial:
    """Return a run of eight steps of the member."""
    base = spec.Trial(
        encoder=member.encoder,
        objective=member.objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        windows=member.windows,
        batch=8,
        optim=AdamConfig(lr=3e-3, weight_decay=0.1),
        schedule=Schedule(kind="constant", warmup=0),
        budget=Budget(kind="tokens", amount=8 * 8 * LENGTH),
        seeds=spec.Seeds(init=1, order=2, mask=3),
    )
    return replace(base, **changes)


def made(member: Member, **changes: Any) -> Any:
    """Return the member's objective."""
    return build_objective(trial(member, **changes), COUNTS_V)


def windows(rows: int, longest: int = LENGTH - 2, length: int = LENGTH) -> np.ndarray:
    """Return windows of `longest`, longest - 1, ... words; one in ten [UNK], one in ten [MASK]."""
    draw = np.random.default_rng(0)
    ids_NT = np.full((rows, length), PAD)
    for place, row in enumerate(ids_NT):
        n = max(2, longest - place % 8)
        words = draw.integers(FIRST_WORD, ABSENT, n)
        kind = draw.random(n)
        row[: n + 2] = [CLS, *np.select([kind < 0.1, kind < 0.2], [UNK, MASK], words), SEP]
    return ids_NT


def texts(trial: spec.Trial) -> dict[int, Batches]:
    """Return what the trial reads, by the length of its windows."""
    lengths = [data.length for data in trial.texts]
    return {
        length: Batches(windows(30, length - 2, length).astype(np.uint16), trial.seeds.order)
        for length in lengths
    }


def text(rows: int = 8, longest: int = LENGTH - 2) -> Batch:
    """Return a batch of windows."""
    return Batch(torch.from_numpy(windows(rows, longest)), torch.arange(rows) + 100)


def only(word: int, rows: int = 8) -> Batch:
    """Return windows of one word."""
    batch = text(rows)
    return batch._replace(ids_BT=batch.ids_BT.where(~candidates(batch.ids_BT), word))


def candidates(ids_BT: Tensor) -> Tensor:
    """Return where a token may be chosen."""
    return ~torch.isin(ids_BT, torch.tensor([CLS, SEP, MASK, PAD]))


def chosen(member: Member, batch: Batch, step: int = 0) -> Tensor:
    """Return where the member chooses slots."""
    return masks.chosen_positions(masked(member, batch, step))


def masked(member: Member, batch: Batch, step: int = 0) -> masks.MaskedBatch:
    """Return the slots that the member chooses, by its seed."""
    how = getattr(member.objective, "masking", "paper")
    return masks.mask_batch(
        batch,
        mask_prob=trial(member).at(0.0).mask_prob,
        how="paper" if how == "bert" else how,
        seed=trial(member).seeds.mask,
        step=step,
    )


def wanted(member: Member, batch: Batch) -> Tensor:
    """Return clip(round(n p), 1, K) of each window, in single precision as officially."""
    share, K = trial(member).at(0.0).mask_prob, int((SHARE + 0.005) * LENGTH)
    n_B = candidates(batch.ids_BT).sum(1).numpy()
    rounded_B = np.round(n_B.astype(np.float32) * np.float32(share))
    return torch.from_numpy(np.minimum(np.clip(rounded_B, 1, K), n_B)).long()


def _speakers(objective: Any) -> tuple[dict[nn.Module, str], list[RemovableHandle]]:
    """Return which network a body is, also while it is both's: then whoever calls it."""
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


@contextmanager
def watched(
    objective: Any, disturb: str = "", where_BT: Tensor | None = None
) -> Iterator[dict[str, Tensor]]:
    """Note the tokens that each network reads; `disturb`'s last layer is altered at some places."""
    seen: dict[str, Tensor] = {}
    names, handles = _speakers(objective)

    def note(body: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[names[body]] = given[0]

    def alter(body: nn.Module, given: tuple[Tensor, ...], hidden_BTh: Tensor) -> Tensor:
        if names[body] != disturb:
            return hidden_BTh
        chance = torch.Generator().manual_seed(0)
        noise_h = 3 * torch.randn(hidden_BTh.shape[-1], generator=chance)
        return hidden_BTh + where_BT[..., None] * noise_h

    for body in names:
        handles += [body.register_forward_pre_hook(note), body.register_forward_hook(alter)]
    yield seen
    for handle in handles:
        handle.remove()


def reads(
    objective: Objective, batch: Batch, learns: UpdatedNetworks = UpdatedNetworks.ALL, step: int = 0
) -> dict[str, Tensor]:
    """Return the tokens that each network is given to read."""
    with watched(objective) as seen, torch.no_grad():
        objective(batch, step, learns)
    return seen


def write_by(objective: Any, law_V: Tensor) -> None:
    """Make the objective write by one law, whatever stands there."""
    with torch.no_grad():
        if hasattr(objective, "cumulated_V"):
            objective.cumulated_V.copy_(law_V.double().cumsum(0))
            return
        head = objective.generator.vocabulary
        head.norm.weight.zero_()
        head.norm.bias.zero_()
        head.bias.copy_(law_V.log())


def always(word: int) -> Tensor:
    """Return the law that knows one word."""
    return torch.eye(VOCAB)[word]


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two states or reports are bitwise equal."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def matches(name: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether a dotted name begins with one of the prefixes."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def promised(objective: nn.Module, prefixes: tuple[str, ...]) -> set[str]:
    """Return the first name of each parameter that has any name with one of the prefixes."""
    every = objective.named_parameters(remove_duplicate=False)
    wanted = {id(p) for name, p in every if matches(name, prefixes)}
    return {name for name, p in objective.named_parameters() if id(p) in wanted}


def ticking() -> Callable[[], float]:
    """Return a clock on which every step takes a second: it is read twice a step."""
    ticks = iter(range(10**6))
    return lambda: float(next(ticks))


class Weightless(nn.Module):
    """An objective of one weight: the loop counts what its trial says, and computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.learnt: list[UpdatedNetworks] = []

    def begin(self, learns: UpdatedNetworks, _: StepSettings) -> None:
        """Note whose turn it is."""
        self.learnt.append(learns)

    def networks(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": [self.weight]}

    def forward(self, *_: object) -> StepLoss:
        return StepLoss(0 * self.weight, {"train/loss": torch.zeros(())})

    def health(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return parts


class Run:
    """A trial in the training loop."""

    def __init__(self, trial: spec.Trial, init: int | None = None) -> None:
        self.trial = trial
        seeds = trial.seeds if init is None else replace(trial.seeds, init=init)
        self.objective: Any = build_objective(replace(trial, seeds=seeds), COUNTS_V)
        self.optimizer = optimizer.build_optimizer(self.objective, trial.optim)

    def steps(self, spent: Spent = Spent()) -> Iterator[CompletedStep]:  # noqa: B008 - frozen
        """Yield the steps that are left."""
        yield from train_steps(
            Gradients(self.objective, texts(self.trial), self.trial),
            self.optimizer,
            trial=self.trial,
            clock=ticking(),
            spent=spent,
        )

"""Fine-tuning by the paper's protocol (table 7; the official `configure_finetuning.py`).

Encoders narrower than the paper's have a rate of their own. Adam without weight decay, a rate for
each layer, linear warm-up over a tenth of the run and linear decay, batches of 32, dropout of a
tenth in the encoder and before the head, whatever pre-training used. The evaluation split is
scored once, after the last epoch: nothing is picked on it. A run is a function of its seed, which
draws the head, the order of the windows and the dropout.

Letters: B windows, T positions.
"""

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lab.config import flops
from lab.config.architecture import EncoderConfig
from lab.config.optimizer import AdamConfig
from lab.config.schedule import Schedule
from lab.config.tasks import PairTask, RegressionTask
from lab.data.batches import segment_ids
from lab.data.vocabulary import Vocabulary
from lab.finetuning import features, heads
from lab.finetuning.features import TaskWindow
from lab.finetuning.heads import Answer, Head, HeadInputs
from lab.finetuning.metrics import Scores, score_task
from lab.tasks.examples import Example, Examples, TextExample
from lab.training import optimizer as optim
from lab.training.model import Encoder

DROPOUT = 0.1
_READ = 64  # windows scored at once


@dataclass(frozen=True, kw_only=True)
class FinetuneProtocol:
    """What fine-tuning is done by.

    Attributes:
        lr: peak rate of the head.
        decay: ratio of the rates of two layers, the lower to the upper.
        batch: windows of a step.
        warmup: share of the steps.
        clip: largest norm of the gradient.
    """

    lr: float
    decay: float
    batch: int = 32
    warmup: float = 0.1
    clip: float = 1.0


def default_protocol(hidden: int, lr: float | None = None) -> FinetuneProtocol:
    """Return the protocol for an encoder of a width.

    The paper's from its small on. Narrower encoders have few layers and learn little at that rate
    (reports/LOG.md): theirs is higher, and the same for all layers.

    Args:
        hidden: width; between two of the paper's sizes the smaller rate is taken.
        lr: instead of the width's own rate.
    """
    if hidden < 256:
        rate, decay = 1e-3, 1.0
    elif hidden <= 768:
        rate, decay = (3e-4, 0.8) if hidden == 256 else (1e-4, 0.8)
    else:
        rate, decay = 5e-5, 0.9
    return FinetuneProtocol(lr=rate if lr is None else lr, decay=decay)


class PretrainedEncoder(NamedTuple):
    """An encoder to start from.

    Attributes:
        encoder: built with `DROPOUT`.
        shape: of it.
        vocabulary: its own.
        steps: of its pre-training.
    """

    encoder: Encoder
    shape: EncoderConfig
    vocabulary: Vocabulary
    steps: int


@dataclass(frozen=True, kw_only=True)
class FinetuneRun:
    """One run of fine-tuning.

    Attributes:
        seed: of the head, the order and the dropout.
        scores: of the evaluation split, by metric.
        flops: of learning, by the honest count, padding included; scoring is not counted.
        tokens: positions learned from, padding included.
        seconds: of learning and scoring.
    """

    seed: int
    scores: Scores
    flops: float
    tokens: int
    seconds: float


class Finetuner:
    """Fine-tunes one encoder on one task, as often as there are seeds.

    Args:
        pretrained: to start from; stays as it is.
        task: to learn.
        given: the protocol.
        device: where to compute.

    Attributes:
        cut: share of the examples to be scored on that one window does not hold.
    """

    def __init__(
        self,
        pretrained: PretrainedEncoder,
        task: Examples,
        given: FinetuneProtocol,
        device: str = "cpu",
    ) -> None:
        self._pretrained, self._task, self._protocol = pretrained, task, given
        self._device = torch.device(device)
        vocabulary, length = pretrained.vocabulary, pretrained.encoder.length
        self._train, _ = features.make_features(task, _both_orders(task), vocabulary, length)
        self._evaluation, self.cut = features.make_features(
            task, task.evaluation, vocabulary, length
        )

    def run(self, seed: int) -> FinetuneRun:
        """Learn from all epochs, then score the evaluation split."""
        began, shape = time.perf_counter(), self._pretrained.shape
        encoder = deepcopy(self._pretrained.encoder).to(self._device)
        head = heads.build_head(self._task, shape.hidden, DROPOUT)
        head.start(torch.Generator().manual_seed(seed))
        head.to(self._device)
        tokens, spent = self._learn(encoder, head, seed)
        scores = score_task(self._task, self._evaluation, self._answers(encoder, head))
        return FinetuneRun(
            seed=seed,
            scores=scores,
            flops=spent,
            tokens=tokens,
            seconds=time.perf_counter() - began,
        )

    def _learn(self, encoder: Encoder, head: Head, seed: int) -> tuple[int, float]:
        """Return tokens and FLOPs of all steps."""
        settings = AdamConfig(
            lr=self._protocol.lr, beta2=0.999, weight_decay=0, clip=self._protocol.clip
        )
        optimizer = optim.Adam(parameter_groups(encoder, head, self._protocol), settings)
        schedule = Schedule(kind="linear", warmup=self._protocol.warmup)
        parameters = [*encoder.parameters(), *head.parameters()]
        encoder.train()
        head.train()
        tokens, spent = 0, 0.0
        steps = self._task.form.epochs * -(-len(self._train) // self._protocol.batch)
        for step, windows in enumerate(self._batches(seed)):
            inputs = heads.collate_windows(windows, self._device)
            torch.manual_seed(seed * 1_000_003 + step)  # of dropout
            optim.set_rate(optimizer, schedule(step / steps))
            optimizer.zero_grad()
            head.loss(encoder(inputs.ids_BT, segment_ids(inputs.ids_BT)), inputs).backward()
            nn.utils.clip_grad_norm_(parameters, self._protocol.clip)
            optimizer.step()
            tokens += inputs.ids_BT.numel()
            spent += finetune_step_flops(self._pretrained.shape, head, inputs)
        return tokens, spent

    def _batches(self, seed: int) -> Iterator[list[TaskWindow]]:
        N, B = len(self._train), self._protocol.batch
        for epoch in range(self._task.form.epochs):
            order_N = np.random.default_rng([seed, epoch]).permutation(N).tolist()
            for start in range(0, N, B):
                yield [self._train[place] for place in order_N[start : start + B]]

    @torch.no_grad()
    def _answers(self, encoder: Encoder, head: Head) -> list[Answer]:
        encoder.eval()
        head.eval()
        found: dict[int, Answer] = {}
        places = np.argsort([len(window.ids) for window in self._evaluation], kind="stable")
        for start in range(0, len(places), _READ):  # alike in length: little padding
            chosen = places[start : start + _READ].tolist()
            inputs = heads.collate_windows(
                [self._evaluation[place] for place in chosen], self._device
            )
            hidden_BTh = encoder(inputs.ids_BT, segment_ids(inputs.ids_BT))
            found |= zip(chosen, head.answers(hidden_BTh, inputs), strict=True)
        return [found[place] for place in range(len(places))]


def parameter_groups(encoder: Encoder, head: Head, given: FinetuneProtocol) -> list[dict[str, Any]]:
    """Return the parameters by depth, each with its rate, for `optim.Adam`.

    `optimization._get_layer_lrs` of the official code: of n layers, layer l (from 0) learns at
    lr x decay^(n + 1 - l), the embeddings and their projection at lr x decay^(n + 2), the head at
    lr. So even the top layer is two steps below the head. A pre-norm encoder's last norm, which
    the official one lacks, goes with the top layer.
    """
    top = len(encoder.layers) + 2
    by_depth: dict[int, list[nn.Parameter]] = {top: list(head.parameters())}
    for name, parameter in encoder.named_parameters():
        by_depth.setdefault(_depth(name, top - 2), []).append(parameter)
    rates = {depth: given.lr * given.decay ** (top - depth) for depth in by_depth}
    return [
        {"params": parameters, "peak": rates[depth], "lr": rates[depth], "weight_decay": 0.0}
        for depth, parameters in sorted(by_depth.items())
    ]


def _depth(name: str, layers: int) -> int:
    match name.split("."):
        case ["layers", layer, *_]:
            return int(layer) + 1
        case ["final_norm", *_]:
            return layers
        case _:
            return 0


def finetune_step_flops(shape: EncoderConfig, head: Head, inputs: HeadInputs) -> float:
    """Return the FLOPs of a step by the honest count: forward, and backward as twice that."""
    tokens, length = inputs.ids_BT.numel(), inputs.ids_BT.shape[1]
    body = tokens * sum(flops.encoder_terms(shape, length).values())
    return 3 * (body + 2 * shape.hidden * head.outputs * head.places(inputs))


def _both_orders(task: Examples) -> tuple[Example, ...]:
    """Return what is learned from, pairs whose order means nothing in both."""
    if not isinstance(task.form, PairTask | RegressionTask) or not task.form.unordered:
        return task.train
    pairs = [e for e in task.train if isinstance(e, TextExample) and e.pair is not None]
    return (*task.train, *(TextExample(str(e.pair), e.text, e.label) for e in pairs))

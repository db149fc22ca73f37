"""Fine-tune encoders by the paper's protocol (table 7; the official `configure_finetuning.py`).

The optimizer is Adam without weight decay, with layer-wise learning rates, linear warm-up over 10 %
of the steps, linear decay and batches of 32. Dropout is 0.1 in the encoder and before the head,
independent of the pre-training's dropout. Encoders narrower than the paper's have another learning
rate (`default_protocol`). The evaluation split is scored once, after the last epoch, so nothing is
selected on it. A run is a function of its seed, which determines the head's initial weights, the
order of the windows and dropout.

Letters: B windows, T positions.
"""

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lab.config import flops
from lab.config.architecture import EncoderConfig
from lab.config.optimizer import AdamConfig
from lab.config.schedules.learning_rate import Schedule
from lab.config.tasks import PairTask, RegressionTask
from lab.data.batches import segment_ids
from lab.data.vocabulary import Vocabulary
from lab.finetuning import features, heads
from lab.finetuning.features import TaskWindow
from lab.finetuning.heads import Answer, Head, HeadInputs
from lab.finetuning.metrics import Scores, describe_undefined, score_task
from lab.finetuning.row_blocks import find_row_blocks
from lab.tasks.examples import Example, Examples, TextExample
from lab.training import optimizer as optim
from lab.training.model import Encoder

DROPOUT = 0.1
_EVAL_BATCH = 64  # windows scored at once
_DIVERGED = "fine-tuning diverged: the outputs of the network are not finite"


@dataclass(frozen=True, kw_only=True)
class FinetuneProtocol:
    """Hyperparameters of fine-tuning.

    Attributes:
        lr: peak learning rate of the head.
        decay: learning rate of a layer divided by that of the layer above it.
        batch: windows of a step.
        warmup: share of the steps during which the learning rate increases.
        clip: maximum norm of the gradient.
    """

    lr: float
    decay: float
    batch: int = 32
    warmup: float = 0.1
    clip: float = 1.0


def default_protocol(hidden: int, lr: float | None = None) -> FinetuneProtocol:
    """Return the protocol for an encoder of a given width.

    From width 256 (the paper's "small") on it is the paper's. The rate of narrower encoders, which
    have few layers, is equal in all layers, and higher below width 128 (reports/LOG.md).

    Args:
        hidden: hidden width of the encoder. A width between two of the paper's sizes gets the rate
            of the larger size, which is the lower one.
        lr: peak learning rate of the head; None for the default of the width.
    """
    if hidden < 256:
        rate, decay = (1e-3 if hidden < 128 else 3e-4), 1.0
    elif hidden <= 768:
        rate, decay = (3e-4, 0.8) if hidden == 256 else (1e-4, 0.8)
    else:
        rate, decay = 5e-5, 0.9
    return FinetuneProtocol(lr=rate if lr is None else lr, decay=decay)


class PretrainedEncoder(NamedTuple):
    """A pre-trained encoder, from which fine-tuning starts.

    Attributes:
        encoder: encoder with dropout probability `DROPOUT`.
        shape: architecture of the encoder.
        vocabulary: vocabulary of the encoder.
        steps: steps of its pre-training.
    """

    encoder: Encoder
    shape: EncoderConfig
    vocabulary: Vocabulary
    steps: int


@dataclass(frozen=True, kw_only=True)
class FinetuneRun:
    """Result of one fine-tuning run.

    Attributes:
        seed: seed of the head's initial weights, the order of the windows and dropout.
        scores: scores on the evaluation split, by metric.
        flops: FLOPs of the training steps (`finetune_step_flops`), padding included. Scoring is not
            counted.
        tokens: positions of the training batches, padding included.
        seconds: duration of training and scoring.
        undefined: reason why the scores say nothing about the encoder: the run has diverged, or its
            predictions have no correlation; empty otherwise.
        blocks: contribution of each block of evaluation rows to the score of the task's metric;
            empty if it is unknown (`find_row_blocks`).
    """

    seed: int
    scores: Scores
    flops: float
    tokens: int
    seconds: float
    undefined: str = ""
    blocks: list[float] = field(default_factory=list)


class Finetuner:
    """Fine-tunes one encoder on one task, once for each seed.

    Args:
        pretrained: encoder to start from; it is not modified.
        task: task to fine-tune on.
        protocol: hyperparameters.
        device: device of the computation.

    Attributes:
        truncated_share: share of the evaluation examples that do not fit into one window.
    """

    def __init__(
        self,
        pretrained: PretrainedEncoder,
        task: Examples,
        protocol: FinetuneProtocol,
        device: str = "cpu",
    ) -> None:
        self._pretrained, self._task, self._protocol = pretrained, task, protocol
        self._device = torch.device(device)
        vocabulary, length = pretrained.vocabulary, pretrained.encoder.length
        self._train, _ = features.make_features(task, _training_examples(task), vocabulary, length)
        self._evaluation, self.truncated_share = features.make_features(
            task, task.evaluation, vocabulary, length
        )

    def run(self, seed: int) -> FinetuneRun:
        """Train for all epochs, score the evaluation split, and return the result.

        Args:
            seed: seed of the head's initial weights, the order of the windows and dropout.
        """
        began, shape = time.perf_counter(), self._pretrained.shape
        encoder = deepcopy(self._pretrained.encoder).to(self._device)
        head = heads.build_head(self._task, shape.hidden, DROPOUT)
        head.init_weights(torch.Generator().manual_seed(seed))
        head.to(self._device)
        tokens, spent_flops = self._fit(encoder, head, seed)
        answers, finite = self._predict(encoder, head)
        return FinetuneRun(
            seed=seed,
            scores=score_task(self._task, self._evaluation, answers),
            flops=spent_flops,
            tokens=tokens,
            seconds=time.perf_counter() - began,
            undefined=describe_undefined(self._task, answers) if finite else _DIVERGED,
            blocks=find_row_blocks(self._task, self._evaluation, answers),
        )

    def _fit(self, encoder: Encoder, head: Head, seed: int) -> tuple[int, float]:
        """Train the encoder and the head; return the tokens and FLOPs of all steps."""
        settings = AdamConfig(
            lr=self._protocol.lr, beta2=0.999, weight_decay=0, clip=self._protocol.clip
        )
        optimizer = optim.Adam(parameter_groups(encoder, head, self._protocol), settings)
        schedule = Schedule(kind="linear", warmup=self._protocol.warmup)
        parameters = [*encoder.parameters(), *head.parameters()]
        encoder.train()
        head.train()
        tokens, spent_flops = 0, 0.0
        steps = self._task.config.epochs * -(-len(self._train) // self._protocol.batch)
        for step, windows in enumerate(self._batches(seed)):
            inputs = heads.collate_windows(windows, self._device)
            torch.manual_seed(seed * 1_000_003 + step)  # for dropout
            optim.set_rate(optimizer, schedule(step / steps))
            optimizer.zero_grad()
            head.loss(encoder(inputs.ids_BT, segment_ids(inputs.ids_BT)), inputs).backward()
            nn.utils.clip_grad_norm_(parameters, self._protocol.clip)
            optimizer.step()
            tokens += inputs.ids_BT.numel()
            spent_flops += finetune_step_flops(self._pretrained.shape, head, inputs)
        return tokens, spent_flops

    def _batches(self, seed: int) -> Iterator[list[TaskWindow]]:
        N, B = len(self._train), self._protocol.batch
        for epoch in range(self._task.config.epochs):
            order_N = np.random.default_rng([seed, epoch]).permutation(N).tolist()
            for start in range(0, N, B):
                yield [self._train[index] for index in order_N[start : start + B]]

    @torch.no_grad()
    def _predict(self, encoder: Encoder, head: Head) -> tuple[list[Answer], bool]:
        """Return the prediction for each evaluation window, and whether all outputs are finite."""
        encoder.eval()
        head.eval()
        predicted: dict[int, Answer] = {}
        finite = True
        order = np.argsort([len(window.ids) for window in self._evaluation], kind="stable")
        for start in range(0, len(order), _EVAL_BATCH):  # similar lengths: little padding
            indices = order[start : start + _EVAL_BATCH].tolist()
            inputs = heads.collate_windows(
                [self._evaluation[index] for index in indices], self._device
            )
            hidden_BTh = encoder(inputs.ids_BT, segment_ids(inputs.ids_BT))
            # Of an output that is not finite, argmax returns an index as of any other.
            finite &= bool(head.logits(hidden_BTh).isfinite().all())
            predicted |= zip(indices, head.predict(hidden_BTh, inputs), strict=True)
        return [predicted[index] for index in range(len(order))], finite


def parameter_groups(
    encoder: Encoder, head: Head, protocol: FinetuneProtocol
) -> list[dict[str, Any]]:
    """Return the parameter groups of `optim.Adam`: one for each depth, with its learning rate.

    The rates equal those of `optimization._get_layer_lrs` of the official code. With n layers,
    layer l (from 0) has the rate lr x decay^(n + 1 - l), the embeddings and their projection have
    lr x decay^(n + 2), and the head has lr. Hence the rate of the top layer is lr x decay^2. The
    final norm of a pre-norm encoder, which the official encoder lacks, has the top layer's rate.
    """
    top = len(encoder.layers) + 2
    by_depth: dict[int, list[nn.Parameter]] = {top: list(head.parameters())}
    for name, parameter in encoder.named_parameters():
        by_depth.setdefault(_depth(name, top - 2), []).append(parameter)
    rates = {depth: protocol.lr * protocol.decay ** (top - depth) for depth in by_depth}
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
    """Return the FLOPs of a step; the backward pass counts as twice the forward pass.

    All matrix products are counted (`lab.config.flops`), attention and padding included.
    """
    tokens, length = inputs.ids_BT.numel(), inputs.ids_BT.shape[1]
    body = tokens * sum(flops.encoder_terms(shape, length).values())
    return 3 * (body + 2 * shape.hidden * head.outputs * head.count_positions(inputs))


def _training_examples(task: Examples) -> tuple[Example, ...]:
    """Return the training split; pairs of an unordered task are included in both orders."""
    if not isinstance(task.config, PairTask | RegressionTask) or not task.config.unordered:
        return task.train
    pairs = [e for e in task.train if isinstance(e, TextExample) and e.pair is not None]
    return (*task.train, *(TextExample(str(e.pair), e.text, e.label) for e in pairs))

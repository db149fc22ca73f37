"""Held-out text, corrupted once: the questions that every trial of a text answers.

The same slots are refilled by three fixed sources of growing strength: a token drawn by its
frequency, one drawn by what follows the token before, and one drawn from a small masked language
model that the lab trains once. No trial influences any of them, so unlike a loss against a
trial's own generator they can rank trials (trap 1). Made once for each text, by the driver.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as File

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.data import DataConfig
from lab.config.metrics import CORRUPTIONS
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import MuonConfig
from lab.config.schedule import Schedule
from lab.config.trial import Seeds, Trial, content_hash
from lab.data.batches import Batch, Batches, Corpus, Windows
from lab.data.vocabulary import FIRST_WORD
from lab.training import counter_rng
from lab.training import optimizer as optim
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import build_objective
from lab.training.objectives.masking import MaskedBatch, mask_batch, write_tokens
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.sampling import sample_tokens

_TOKENS = 32_768  # held-out positions: the AUROC's own noise is then near .004
_FOLLOWED = 2**24  # training positions that the frequencies are taken from, at most
_SHARE = 0.15
_FROZEN_TOKENS = 2_000_000  # or one epoch, where the text is smaller
_FROZEN_STEP = 1_024  # positions of one step
_SEED = 20_03_10555  # the paper's number; any constant would do
_STREAMS = {name: 16 + place for place, name in enumerate(CORRUPTIONS)}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Original windows and their corrupted copies, int64, shape (N, T)."""

    original_NT: Tensor
    corrupted_NT: dict[str, Tensor]


def frozen_model_trial(data: DataConfig, tokens: int) -> Trial:
    """Return the run that makes the frozen masked language model of a text of `tokens`."""
    return Trial(
        encoder=SIZES["nano"],
        objective=MlmConfig(kind="mlm", mask_prob=0.25),
        data=data,
        batch=max(1, _FROZEN_STEP // data.length),
        optim=MuonConfig(kind="muon", iterations=3),
        schedule=Schedule(warmup=0.02),
        budget=Budget(kind="tokens", amount=min(_FROZEN_TOKENS, tokens)),
        seeds=Seeds(init=_SEED, order=_SEED, mask=_SEED),
    )


def prepare_held_out(
    corpus: Corpus,
    data: DataConfig,
    cache: File,
    progress: Callable[[float], None] = lambda _: None,
) -> File:
    """Return the file of the corrupted held-out text, made first if it is not there.

    Args:
        corpus: the prepared text.
        data: its settings.
        cache: folder to keep the file in.
        progress: called with the share of the frozen model's training that is done.
    """
    file = held_out_file(corpus, data, cache)
    if not file.exists():
        model = _frozen_model(corpus, data, progress)
        arrays = {"original": _windows(corpus)}
        arrays |= {name: _corrupt(name, corpus, model) for name in CORRUPTIONS}
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as partial:
            np.savez(partial, allow_pickle=False, **arrays)
        File(partial.name).replace(file)
    return file


def held_out_file(corpus: Corpus, data: DataConfig, cache: File) -> File:
    """Return the file that `prepare_held_out` returns, whether it is there or not."""
    identity = content_hash(
        [corpus.fingerprint, repr(frozen_model_trial(data, corpus.train_NT.size)), _TOKENS]
    )
    return cache / f"held-out-{identity}.npz"


def open_held_out(file: File) -> HeldOut:
    """Read what `prepare_held_out` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        as_tensor = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in arrays.files}
    return HeldOut(original_NT=as_tensor.pop("original"), corrupted_NT=as_tensor)


def _windows(corpus: Corpus) -> Windows:
    """Choose windows spread evenly over the held-out documents."""
    return _spread(corpus.held_out_NT, max(1, _TOKENS // corpus.held_out_NT.shape[1]))


def _spread(windows_NT: Windows, most: int) -> Windows:
    """Return at most so many windows, spread evenly."""
    wanted = min(len(windows_NT), most)
    return np.asarray(windows_NT[np.linspace(0, len(windows_NT) - 1, wanted).astype(int)])


def _frozen_model(corpus: Corpus, data: DataConfig, progress: Callable[[float], None]) -> Mlm:
    trial = frozen_model_trial(data, corpus.train_NT.size)
    model = build_objective(trial, torch.from_numpy(corpus.counts_V))
    batches = {data.length: Batches(corpus.train_NT, trial.seeds.order, corpus.parts)}
    optimizer = optim.build_optimizer(model, trial.optim)
    gradients = Gradients(model, batches, trial)
    for step in train_steps(gradients, optimizer, trial=trial, clock=time.monotonic):
        progress(step.progress)
    assert isinstance(model, Mlm)  # noqa: S101 - `build` chose by the trial's own kind
    return model.eval()


def _corrupt(name: str, corpus: Corpus, model: Mlm) -> Windows:
    ids_NT = torch.from_numpy(_windows(corpus).astype(np.int64))
    batch = Batch(ids_NT, torch.arange(len(ids_NT)))
    masked = mask_batch(batch, mask_prob=_SHARE, how="paper", seed=_SEED, step=0)
    if name == "mlm":
        filled_NK = _from_model(model, batch, masked)
    else:
        chance_NK = counter_rng.uniform(
            _SEED, _STREAMS[name], 0, batch.example_B, masked.slots_BK.shape[1]
        )
        before_NK = ids_NT.gather(1, (masked.slots_BK - 1).clamp(min=0))
        follows = _Follows(corpus)
        draw = follows.any if name == "unigram" else follows.after
        filled_NK = torch.from_numpy(draw(chance_NK.double().numpy(), before_NK.numpy()))
    return write_tokens(batch, masked, filled_NK).numpy().astype(corpus.held_out_NT.dtype)


@torch.no_grad()
def _from_model(model: Mlm, batch: Batch, masked: MaskedBatch) -> Tensor:
    filled = []
    for start in range(0, len(batch.ids_BT), 128):
        rows = slice(start, start + 128)
        part = Batch(batch.ids_BT[rows], batch.example_B[rows])
        slots_BK = masked.slots_BK[rows]
        logits_BKV = model.predict(masked.ids_BT[rows], slots_BK, part.segment_BT)
        filled.append(sample_tokens(logits_BKV, slots_BK, part, seed=_SEED, step=0))
    return torch.cat(filled)


class _Follows:
    """Draws words from the training text by pointing at one of their occurrences.

    A uniform choice among the occurrences of a token, followed by reading what stands after it,
    is an exact draw from the empirical bigram law, and needs no table of V x V.
    """

    def __init__(self, corpus: Corpus) -> None:
        rows_NT = _spread(corpus.train_NT, _FOLLOWED // corpus.train_NT.shape[1])
        before, after = rows_NT[:, :-1].reshape(-1), rows_NT[:, 1:].reshape(-1)
        words = after >= FIRST_WORD
        before, after = before[words], after[words]
        order = np.argsort(before, kind="stable")
        self._after = after[order]
        self._starts = np.searchsorted(before[order], np.arange(corpus.vocabulary.size + 1))

    def any(
        self, chance: npt.NDArray[np.float64], _before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Draw by frequency."""
        return self._after[(chance * len(self._after)).astype(np.int64)].astype(np.int64)

    def after(
        self, chance: npt.NDArray[np.float64], before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Draw by what follows `before`; by frequency where it was never followed by a word."""
        low, high = self._starts[before], self._starts[before + 1]
        place = (low + chance * (high - low)).astype(np.int64)
        drawn = self._after[np.minimum(place, len(self._after) - 1)].astype(np.int64)
        return np.where(high > low, drawn, self.any(chance, before))

"""Corrupt the held-out text once, so that every trial on it is scored on the same replacements.

The same masked positions are refilled by three fixed sources of increasing strength: a token drawn
by its unigram frequency, a token drawn by its bigram frequency after the preceding token, and a
token drawn from a small masked language model (the frozen model) that the lab trains once. No
trial influences these sources. They can therefore rank trials, which a loss against a trial's own
generator cannot: that loss depends on the generator and the mask rate. The driver makes the
corruptions once for each text. The scores of look-up tables (`lookup`, `task_lookup`,
`word_lookup`, `token_lookup`) are stored beside them.

The frozen model's weights depend on the machine and its number of threads in their last bits, so
the same settings can give different tokens. The file is therefore named by a hash of its content,
which is part of the identity of all trials that it scores, and found by an index file, which is
named by a hash of the settings (`content_index`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.code_digest import TRIAL, code_digest
from lab.config.data import DataConfig
from lab.config.metrics import CORRUPTIONS
from lab.config.objectives.mlm import MlmConfig
from lab.config.optimizer import MuonConfig
from lab.config.schedules.learning_rate import Schedule
from lab.config.trial import Seeds, Trial, content_hash
from lab.data.batches import Batch, Batches, Corpus, Windows
from lab.data.vocabulary import FIRST_WORD
from lab.evaluation import content_index, lookup, task_lookup, token_lookup, word_lookup
from lab.storage import atomic, digests
from lab.storage.mirror import LocalOnly, Mirror
from lab.training import counter_rng
from lab.training import optimizer as optim
from lab.training.gradients import Gradients
from lab.training.loop import train_steps
from lab.training.objectives import build_objective
from lab.training.objectives.masking import MaskedBatch, choose_distinct, write_tokens
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.sampling import sample_tokens

_TOKENS = 32_768  # held-out positions; the sampling error of the AUROC is then about .004
_MASK_PROB = 0.15
_FROZEN_TOKENS = 2_000_000  # training tokens of the frozen model; one epoch of a smaller text
_FROZEN_STEP = 1_024  # positions of one step
_SEED = 20_03_10555  # arXiv number of the ELECTRA paper; any constant would do
_LOCAL = LocalOnly()
_DIGEST = "sha256"  # name of the array with the digest of all others
_STREAMS = {name: 16 + index for index, name in enumerate(CORRUPTIONS)}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out windows and their corrupted copies, int64, shape (N, T).

    Attributes:
        original_NT: original windows.
        corrupted_NT: corrupted windows, by the name of the corruption.
        document_N: index of the document of each window, int64, ascending.
        baselines: scores of look-up tables on these corruptions, on hidden words and on the tasks
            of the probes, by the name of their metric entry.
    """

    original_NT: Tensor
    corrupted_NT: dict[str, Tensor]
    document_N: Tensor
    baselines: dict[str, float] = field(default_factory=dict)


def frozen_model_trial(data: DataConfig, tokens: int) -> Trial:
    """Return the trial that trains the frozen masked language model of a text.

    Args:
        data: settings of the text.
        tokens: number of training tokens of the text.
    """
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
    mirror: Mirror = _LOCAL,
) -> File:
    """Return the file of the corrupted held-out text; make it first if it does not exist.

    Args:
        corpus: prepared text.
        data: settings of the text.
        cache: folder of the file.
        progress: function called with the finished share of the frozen model's training.
        mirror: synchronization of `cache` with a remote storage.
    """
    index = _index_file(corpus, data, cache)

    def make() -> File:
        model = _frozen_model(corpus, data, progress)
        original_NT = _scored_windows(corpus)
        corrupted = {name: _corrupt(name, corpus, model) for name in CORRUPTIONS}
        document_N = _spread_over_held_out(corpus, corpus.document_N)
        arrays = {"original": original_NT, "document": document_N, **corrupted}
        file = cache / f"held-out-{content_index.hash_arrays(arrays)}.npz"
        baselines = {
            name: np.array(score)
            for name, score in _score_tables(corpus, original_NT, corrupted).items()
        }
        stored = arrays | baselines
        digest = np.array(content_index.sha256_arrays(stored))
        with atomic.write_file(file) as partial:
            np.savez(partial, allow_pickle=False, **stored, **{_DIGEST: digest})
        return file

    return content_index.find_or_make(index, make, mirror)


def find_held_out(corpus: Corpus, data: DataConfig, cache: File) -> File | None:
    """Return the file that `prepare_held_out` returns; None if it has to be made."""
    return content_index.find_file(_index_file(corpus, data, cache))


def _index_file(corpus: Corpus, data: DataConfig, cache: File) -> File:
    """Return the path of the index file of the corruptions with these settings."""
    settings = content_hash(
        [
            corpus.fingerprint,
            repr(frozen_model_trial(data, corpus.train_NT.size)),
            _TOKENS,
            code_digest(TRIAL),
        ]
    )
    return cache / f"held-out-index-{settings}.txt"


def open_held_out(file: File) -> HeldOut:
    """Return the held-out windows in a file that `prepare_held_out` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    remedy = "delete it and run the same command again, which makes it again"
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        digest = str(arrays.pop(_DIGEST))
    except Exception as error:  # NumPy and zipfile raise errors of many classes
        raise digests.damaged(file, _first_line(error), remedy) from None
    if digest != content_index.sha256_arrays(arrays):
        raise digests.damaged(file, "its content differs from its SHA-256", remedy)
    windows = {
        name: torch.from_numpy(array.astype(np.int64))
        for name, array in arrays.items()
        if array.ndim
    }
    return HeldOut(
        original_NT=windows.pop("original"),
        document_N=windows.pop("document"),
        corrupted_NT=windows,
        baselines={name: float(array) for name, array in arrays.items() if not array.ndim},
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _scored_windows(corpus: Corpus) -> Windows:
    """Return about `_TOKENS` positions of windows, evenly spaced over the held-out documents."""
    return _spread_over_held_out(corpus, corpus.held_out_NT)


def _spread_over_held_out(corpus: Corpus, of_windows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the rows of the scored windows among the rows of all held-out windows."""
    return lookup.evenly_spaced(of_windows, max(1, _TOKENS // corpus.held_out_NT.shape[1]))


def _score_tables(
    corpus: Corpus, original_NT: Windows, corrupted: dict[str, Windows]
) -> dict[str, float]:
    """Return the scores of the look-up tables, by the name of their metric entry."""
    table = lookup.count_ngrams(corpus)
    return (
        lookup.score_detection_tables(table, original_NT, corrupted)
        | task_lookup.score_task_tables(corpus.vocabulary)
        | word_lookup.score_word_tables(table, corpus)
        | token_lookup.score_token_tables(table, corpus)
    )


def _frozen_model(corpus: Corpus, data: DataConfig, progress: Callable[[float], None]) -> Mlm:
    trial = frozen_model_trial(data, corpus.train_NT.size)
    model = build_objective(trial, torch.from_numpy(corpus.counts_V))
    batches = {data.length: Batches(corpus.train_NT, trial.seeds.order, corpus.parts)}
    optimizer = optim.build_optimizer(model, trial.optim)
    gradients = Gradients(model, batches, trial)
    for step in train_steps(gradients, optimizer, trial=trial, clock=time.monotonic):
        progress(step.progress)
    assert isinstance(model, Mlm)  # noqa: S101 - the class that `build_objective` uses for `mlm`
    return model.eval()


def _corrupt(name: str, corpus: Corpus, model: Mlm) -> Windows:
    ids_NT = torch.from_numpy(_scored_windows(corpus).astype(np.int64))
    batch = Batch(ids_NT, torch.arange(len(ids_NT)))
    masked = choose_distinct(batch, mask_prob=_MASK_PROB, seed=_SEED, step=0)
    if name == "mlm":
        filled_NK = _sample_from_model(model, batch, masked)
    else:
        uniform_NK = counter_rng.uniform(
            _SEED, _STREAMS[name], 0, batch.example_B, masked.slots_BK.shape[1]
        )
        before_NK = ids_NT.gather(1, (masked.slots_BK - 1).clamp(min=0))
        sampler = _NgramSampler(corpus)
        sample = sampler.unigram if name == "unigram" else sampler.bigram
        filled_NK = torch.from_numpy(sample(uniform_NK.double().numpy(), before_NK.numpy()))
    return write_tokens(batch, masked, filled_NK).numpy().astype(corpus.held_out_NT.dtype)


@torch.no_grad()
def _sample_from_model(model: Mlm, batch: Batch, masked: MaskedBatch) -> Tensor:
    filled = []
    for start in range(0, len(batch.ids_BT), 128):
        rows = slice(start, start + 128)
        part = Batch(batch.ids_BT[rows], batch.example_B[rows])
        logits_BKV = model.predict(masked.ids_BT[rows], masked.slots_BK[rows], part.segment_BT)
        filled.append(sample_tokens(logits_BKV, masked.draws_BK[rows], part, seed=_SEED, step=0))
    return torch.cat(filled)


class _NgramSampler:
    """Draws words from the empirical unigram and bigram distributions of the training text.

    The token after a uniformly chosen occurrence of a token is an exact draw from the empirical
    bigram distribution, without a table of V x V counts.

    Args:
        corpus: prepared text.
    """

    def __init__(self, corpus: Corpus) -> None:
        rows_NT = lookup.counted_windows(corpus)
        before, after = rows_NT[:, :-1].reshape(-1), rows_NT[:, 1:].reshape(-1)
        words = after >= FIRST_WORD
        before, after = before[words], after[words]
        order = np.argsort(before, kind="stable")
        self._after = after[order]
        self._starts = np.searchsorted(before[order], np.arange(corpus.vocabulary.size + 1))

    def unigram(
        self, uniform: npt.NDArray[np.float64], _before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return words drawn from the unigram distribution by uniform numbers in [0, 1)."""
        return self._after[(uniform * len(self._after)).astype(np.int64)].astype(np.int64)

    def bigram(
        self, uniform: npt.NDArray[np.float64], before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return words drawn from the bigram distribution after the tokens `before`.

        A token that no word follows in the training text gets a draw from the unigram distribution.
        """
        low, high = self._starts[before], self._starts[before + 1]
        index = (low + uniform * (high - low)).astype(np.int64)
        drawn = self._after[np.minimum(index, len(self._after) - 1)].astype(np.int64)
        return np.where(high > low, drawn, self.unigram(uniform, before))

"""Inputs of trials that a process reads once for all its trials."""

from functools import lru_cache

from lab.data import batches
from lab.evaluation import corruption, prepared_pairs
from lab.tasks import examples
from lab.trials.assignment import Assignment

open_corpus = lru_cache(maxsize=4)(batches.open_corpus)
open_held_out = lru_cache(maxsize=2)(corruption.open_held_out)
open_pairs = lru_cache(maxsize=2)(prepared_pairs.open_pairs)
open_examples = lru_cache(maxsize=4)(examples.open_examples)


def open_batches(work: Assignment) -> dict[int, batches.Batches]:
    """Return the batches of the training windows by the windows' length."""
    texts = [work.text] if work.short_text is None else [work.text, work.short_text]
    seed = work.trial.seeds.order
    return {
        corpus.train_NT.shape[1]: batches.Batches(corpus.train_NT, seed, corpus.parts)
        for corpus in map(open_corpus, texts)
    }

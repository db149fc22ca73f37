"""Codes of hidden words by look-up tables of tokens, the yardsticks of a vocabulary head.

Both state a word as a vocabulary head does: each token of it from a window in which all of them are
hidden, with the same charges for the number of tokens and for unknown ones
(`word_prediction.code_tokens`).

The first table states a token by its frequency in the training text. The second one multiplies this
frequency by the lifts of the token with its visible neighbors, raised to a power, and normalizes
the product over the vocabulary. A word of one token has two visible neighbors; of a longer word the
first token has one before it and the last token one after it, and those between have the frequency
only. The power is fitted on the other half of the held-out words, because the two neighbors are not
independent given the token.

[PAD], [CLS], [SEP] and [MASK] are never hidden, so both tables give them the probability 0. A head
starts with almost none for them too (`VocabularyHead.initialize_bias`). They are an eighth of the
positions of windows of 16: with their frequencies, the first table would have more nats than many
untrained heads.

Letters: M hidden tokens, W windows, T positions, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from lab.config.lookups import baseline_name
from lab.data.batches import Corpus
from lab.data.vocabulary import CLS, MASK, PAD, SEP
from lab.evaluation.hidden_words import HiddenWords, hide_words
from lab.evaluation.lookup import (
    Bools,
    Floats,
    Ints,
    NeighborModel,
    NgramTable,
    PairLifts,
    fit_power,
)
from lab.evaluation.word_prediction import code_tokens

_METRIC = "mlm/own_head/nats_per_character"


@dataclass(frozen=True, kw_only=True, eq=False)
class HiddenTokens:
    """Hidden tokens and their neighbors, in the order of `HiddenWords.word_WT`.

    Attributes:
        token_M: hidden tokens.
        before_M: token before each of them in the window; [MASK] if it is hidden too.
        after_M: token after each of them; likewise.
    """

    token_M: Ints
    before_M: Ints
    after_M: Ints

    def select(self, rows_M: Bools) -> "HiddenTokens":
        """Return some of the tokens."""
        return HiddenTokens(
            token_M=self.token_M[rows_M],
            before_M=self.before_M[rows_M],
            after_M=self.after_M[rows_M],
        )


def score_token_tables(table: NgramTable, corpus: Corpus) -> dict[str, float]:
    """Return the nats per character of hidden words by each table.

    Args:
        table: frequencies in the training text.
        corpus: prepared text.

    Returns:
        `unigram`: by the frequencies of the tokens. `bigram`: by their visible neighbors as well.
        Empty if one of the halves of the held-out text has no hidden token.
    """
    length = corpus.train_NT.shape[1]
    hidden = hide_words(corpus.vocabulary, corpus.passages, length, "each")
    half_M = hidden.half_N[hidden.word_WT[hidden.word_WT >= 0]].numpy()
    if not half_M.any() or half_M.all():
        return {}
    tokens, prior_V = hidden_tokens(hidden), hidden_frequencies(table)
    nats = {
        "unigram": -np.log(prior_V[tokens.token_M]),
        "bigram": predict_by_neighbors(prior_V, table.lifts, tokens, half_M),
    }
    return {
        baseline_name(name, _METRIC): code_tokens(
            hidden, torch.from_numpy(nats_M)
        ).nats_per_character
        for name, nats_M in nats.items()
    }


def hidden_tokens(hidden: HiddenWords) -> HiddenTokens:
    """Return the hidden tokens and their neighbors.

    Args:
        hidden: windows in which [MASK] replaces each token of the words.
    """
    # [CLS] and [SEP] frame each window, so a hidden token has two neighbors.
    w, t = (hidden.word_WT >= 0).nonzero(as_tuple=True)
    return HiddenTokens(
        token_M=hidden.token_WT[w, t].numpy(),
        before_M=hidden.ids_WT[w, t - 1].numpy(),
        after_M=hidden.ids_WT[w, t + 1].numpy(),
    )


def hidden_frequencies(table: NgramTable) -> Floats:
    """Return the frequency of each token among those that can be hidden, shape (V,)."""
    frequencies_V = table.unigram_V.copy()
    frequencies_V[[PAD, CLS, SEP, MASK]] = 0.0
    return np.asarray(frequencies_V / frequencies_V.sum())


def predict_by_neighbors(
    prior_V: Floats, lifts: PairLifts, tokens: HiddenTokens, half_M: Bools
) -> Floats:
    """Return the nats of each token by its visible neighbors, with the power of the other half.

    Args:
        prior_V: distribution of a token without neighbors.
        lifts: lifts of pairs of tokens.
        tokens: hidden tokens; some in each half.
        half_M: half of the text that each token is in.

    Returns:
        Nats, shape (M,).
    """
    nats_M = np.empty(len(half_M))
    for scored_M in (half_M, ~half_M):
        power = fit_power(partial(token_nats, prior_V, lifts, tokens.select(~scored_M)))
        nats_M[scored_M] = token_nats(prior_V, lifts, tokens.select(scored_M), power)
    return nats_M


def token_nats(prior_V: Floats, lifts: PairLifts, tokens: HiddenTokens, power: float) -> Floats:
    """Return the nats of each token by its visible neighbors, shape (M,).

    Args:
        prior_V: distribution of a token without neighbors.
        lifts: lifts of pairs of tokens.
        tokens: hidden tokens.
        power: power to which the lifts are raised.
    """
    model = NeighborModel(prior_V, lifts.raise_to(power))
    nats_M = np.empty(len(tokens.token_M))
    is_before_M, is_after_M = tokens.before_M != MASK, tokens.after_M != MASK
    for is_before in (False, True):
        for is_after in (False, True):
            rows_M = (is_before_M == is_before) & (is_after_M == is_after)
            those = tokens.select(rows_M)
            nats_M[rows_M] = -model.predict(
                those.before_M if is_before else None,
                those.token_M,
                those.after_M if is_after else None,
            )
    return nats_M

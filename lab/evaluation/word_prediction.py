"""Nats per character of hidden words: read from a frozen encoder, or by its own vocabulary head.

Both codes are complete: they state the whole word. The read-out chooses among the most frequent
words of the text or "another word", which is then spelled by the frequencies of its letters; the
spelling is the same for all encoders. The vocabulary head predicts each token of a word from a
window in which all of them are hidden; the number of tokens, which the window shows, is charged by
its entropy, and a word with an unknown token is spelled in addition. Without these charges a
vocabulary of small pieces would be told the length of the word, and one that lacks a character
would get the word for free.

The read-out is a linear discriminant (`discriminant`) on the last layer's states at and beside a
single [MASK] in place of the word. Discriminators never see [MASK] in training, so what a
discriminator knows of the word is mostly in the states beside it. Two ways to hide a word and three
sets of states were compared at nano32 with 1e12 FLOPs, three seeds: nats per word from untrained to
trained encoders, and the difference divided by the standard deviation over seeds (3.30 is the
entropy of the word frequencies):

    hidden by          states            untrained   mlm           ELECTRA
    [MASK]             at the word       3.297       2.606 (67)    2.873 (8)
    [MASK]             beside it         3.136       3.178 (-9)    2.857 (98)
    [MASK]             both              3.125       2.639 (65)    2.766 (19)
    [MASK]             both, all layers  3.114       2.638 (48)    2.742 (33)
    a word drawn by    at the word       3.298       2.919 (17)    3.147 (3)
    its frequency      beside it         3.183       3.243 (-13)   3.014 (24)
                       both, all layers  3.199       2.854 (20)    2.903 (31)

An untrained encoder predicts from the states beside the word as a bigram table does. All layers
together would be too wide for a closed form in deep encoders.

Letters: N hidden words, S those of them that are scored, W windows, T positions, M masked
positions, C classes, h hidden width.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.data.batches import segment_ids
from lab.data.vocabulary import UNK
from lab.evaluation.discriminant import predict_half
from lab.evaluation.hidden_words import HiddenWords, Spelling
from lab.training.model import Encoder, VocabularyHead
from lab.training.objectives.generator import cross_entropy

_CLASSES = 256  # frequent words, and one class for all others; they are 59 % of the embedded text
_TOKENS = 4_096  # positions encoded at once, at most

# Returns the nats of the class of each scored word, shape (S,). Arguments: the class of each word,
# whether it is scored (the others are fitted on), and the number of classes.
Predict = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class WordScore:
    """Score of a prediction of hidden words.

    Attributes:
        nats_per_character: nats of all words, divided by the number of their characters.
        nats_N: nats of each word, float64, on the CPU; they add up to those of all words up to
            rounding. NaN for all words if a state is not finite.
        characters_N: number of characters of each word, float64.
    """

    nats_per_character: float
    nats_N: Tensor
    characters_N: Tensor


def code_words(hidden: HiddenWords, predict: Predict) -> WordScore | None:
    """Return the score of a code of hidden words: the class of each word, and its spelling.

    The classes are the frequent words of the half of the text that is not scored, and one for all
    other words. Both halves are scored, each by what is fitted on the other one.

    Args:
        hidden: hidden words; their windows are not used.
        predict: function that fits a prediction of the classes and scores it.

    Returns:
        The score; None if one of the halves has no hidden word.
    """
    half_N = hidden.half_N
    if not half_N.any() or half_N.all():
        return None
    total, word_nats_N = 0.0, torch.empty(len(hidden.words), dtype=torch.float64)
    for scored_N in (half_N, ~half_N):
        fitted = [word for word, scored in zip(hidden.words, scored_N.tolist(), strict=True)
                  if not scored]  # fmt: skip
        numbers = _number_frequent_words(fitted)
        other = len(numbers)
        labels_N = torch.tensor([numbers.get(word, other) for word in hidden.words])
        nats_S = predict(labels_N, scored_N, other + 1)
        spelling = Spelling([word for word in fitted if word not in numbers])
        spelled = [
            0.0 if word in numbers else spelling.nats(word)
            for word, scored in zip(hidden.words, scored_N.tolist(), strict=True)
            if scored
        ]
        total += nats_S.sum().item() + sum(spelled)
        word_nats_N[scored_N] = nats_S.double().cpu() + torch.tensor(spelled, dtype=torch.float64)
    return _score(total, word_nats_N, hidden)


def score_readout(encoder: Encoder, hidden: HiddenWords) -> WordScore | None:
    """Return the nats per character of hidden words, read from the states around [MASK].

    The read-out is fitted on one half of the text and evaluated on the other one, in both
    directions. Nothing is random, so the same encoder gets bitwise the same score.

    Args:
        encoder: encoder in evaluation mode.
        hidden: windows in which a single [MASK] replaces each word.

    Returns:
        The score; None if one of the halves has no hidden word.
    """
    states_Nh = _states_around_masks(encoder, hidden)

    def predict(labels_N: Tensor, scored_N: Tensor, classes: int) -> Tensor:
        return predict_half(states_Nh, labels_N.to(states_Nh.device), scored_N, classes)

    return code_words(hidden, predict)


@torch.no_grad()
def score_head(encoder: Encoder, head: VocabularyHead, hidden: HiddenWords) -> WordScore | None:
    """Return the nats per character of hidden words, predicted by the encoder's vocabulary head.

    Args:
        encoder: encoder in evaluation mode.
        head: its vocabulary head.
        hidden: windows in which [MASK] replaces each token of the words.

    Returns:
        The score; None if there is no hidden word.
    """
    if not hidden.words:
        return None
    device, table_Ve = head.bias.device, encoder.embeddings.table()
    parts = []
    for rows in _chunks(hidden):
        ids_WT, masked_WT = hidden.ids_WT[rows].to(device), hidden.word_WT[rows].to(device) >= 0
        states_1Mh = encoder(ids_WT, segment_ids(ids_WT))[masked_WT][None]
        tokens_1M = hidden.token_WT[rows].to(device)[masked_WT][None]
        parts.append(cross_entropy(head(states_1Mh, table_Ve), tokens_1M)[0].double().cpu())
    return code_tokens(hidden, torch.cat(parts))


def code_tokens(hidden: HiddenWords, nats_M: Tensor) -> WordScore:
    """Return the score of a code of hidden words: the number of tokens, each of them, its spelling.

    A word is spelled only if one of its tokens is unknown.

    Args:
        hidden: windows in which [MASK] replaces each token of the words; at least one word.
        nats_M: nats of each hidden token, float64, on the CPU, in the order of the windows.
    """
    masked_WT = hidden.word_WT >= 0
    words_M = hidden.word_WT[masked_WT]
    tokens_N = torch.bincount(words_M, minlength=len(hidden.words))
    share_by_count = torch.bincount(tokens_N).double() / len(tokens_N)
    word_nats_N = -share_by_count.log()[tokens_N]
    word_nats_N.index_add_(0, words_M, nats_M)
    spelling = Spelling(hidden.words)
    for number in words_M[hidden.token_WT[masked_WT] == UNK].unique().tolist():
        word_nats_N[number] += spelling.nats(hidden.words[number])
    return _score(word_nats_N.sum().item(), word_nats_N, hidden)


def _score(total: float, nats_N: Tensor, hidden: HiddenWords) -> WordScore:
    characters = [len(word) for word in hidden.words]
    return WordScore(
        nats_per_character=total / sum(characters),
        nats_N=nats_N,
        characters_N=torch.tensor(characters, dtype=torch.float64),
    )


def _number_frequent_words(words: list[str]) -> dict[str, int]:
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return {word: number for number, (word, _) in enumerate(ranked[: _CLASSES - 1])}


@torch.no_grad()
def _states_around_masks(encoder: Encoder, hidden: HiddenWords) -> Tensor:
    """Return the last layer's states before, at and after each hidden word, shape (N, 3 h).

    They are 0 for a word that the tokenizer gives no token.
    """
    device = next(encoder.parameters()).device
    states_Nh = torch.empty(0)
    for rows in _chunks(hidden):
        ids_WT, word_WT = hidden.ids_WT[rows].to(device), hidden.word_WT[rows].to(device)
        states_WTh = encoder(ids_WT, segment_ids(ids_WT)).float()
        if not len(states_Nh):
            states_Nh = states_WTh.new_zeros(len(hidden.words), 3 * states_WTh.shape[-1])
        # [CLS] and [SEP] frame each window, so a hidden word has two neighbours.
        w, t = (word_WT >= 0).nonzero(as_tuple=True)
        around = [states_WTh[w, t + shift] for shift in (-1, 0, 1)]
        states_Nh[word_WT[w, t]] = torch.cat(around, -1)
    return states_Nh


def _chunks(hidden: HiddenWords) -> Iterator[slice]:
    windows, length = hidden.ids_WT.shape
    size = max(1, _TOKENS // length)
    return (slice(start, start + size) for start in range(0, windows, size))

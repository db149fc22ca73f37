"""Shared by tests of export and `init_from`: small tokenizers, trials with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from members import LENGTH, POST, VOCAB
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget, Spent
from lab.config.data import DataConfig
from lab.config.objectives import AnyObjectiveConfig
from lab.config.trial import Trial
from lab.data.prepared_files import write_facts
from lab.data.vocabulary import ROLES, SPECIAL, Vocabulary
from lab.interop.trained import TrainedTrial
from lab.training.checkpoint import TrainingPosition
from lab.training.objectives import build_objective
from lab.training.objectives.base import Detector, Objective
from lab.training.weights import collect_weights

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (*LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "cat")
FIRST = (*SPECIAL, "[four]", "[more]", "[words]", "one", "two", *WORDS)[:VOCAB]
# The order of BERT's vocabulary: padding, unused tokens, the other special tokens, words.
BERT = ("[PAD]", *(f"[unused{n}]" for n in range(5)), *SPECIAL[1:], *WORDS)[:VOCAB]

# The counts of a prepared text that a model card shows.
COUNTED = {
    "length": LENGTH,
    "duplicates": 7,
    "overlaps": [],
    "weights": [1.0],
    "marks": None,
    "coverage": [
        {
            "characters": 900,
            "unknown": 9,
            "overlong": 0,
            "limit": 100,
            "spelled": 891,
            "tokens": 300,
        }
    ],
    "train": {
        "windows": 1_234,
        "tokens_in_windows": 5_678,
        "unknown_rate": 0.0123,
        "padded_share": 0.0456,
        "without_window": 3,
    },
}


def vocabulary(tokens: tuple[str, ...], special: tuple[str, ...] = SPECIAL) -> Vocabulary:
    """Return a WordPiece vocabulary numbered in the order of `tokens`."""
    pieces = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=special[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(special))
    return Vocabulary(tokenizer, dict(zip(ROLES, special, strict=True)))


def make_trial(
    objective: AnyObjectiveConfig, encoder: EncoderConfig = POST, **changes: Any
) -> Trial:
    """Return a trial of an objective with a post-norm encoder."""
    return Trial(
        encoder=replace(encoder, norm="post"),
        objective=objective,
        data=DataConfig(vocab=VOCAB, length=LENGTH),
        budget=Budget(kind="tokens", amount=1e6),
        **changes,
    )


def random(trial: Trial, seed: int = 1) -> Objective:
    """Return the objective of a trial with random weights, including norms and biases."""
    objective = build_objective(trial, torch.arange(trial.data.vocab)).eval()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in objective.parameters():
            nn.init.normal_(parameter, parameter.mean().item(), 0.2, chance)
    return objective


def trained(trial: Trial, objective: Objective, words: Vocabulary, folder: Path) -> TrainedTrial:
    """Return an objective as read from the record of a trained trial.

    Args:
        trial: trial of the objective.
        objective: module with the weights.
        words: vocabulary, written to the folder of the text.
        folder: folder for the text and the record.
    """
    text = folder / "text"
    text.mkdir(parents=True, exist_ok=True)
    words.save(text)
    write_facts(text, COUNTED)
    shapes = {"encoder": trial.encoder}
    if generator := trial.objective.generator_shape(trial.encoder):
        shapes["generator.encoder"] = generator
    return TrainedTrial(
        folder=folder / "record",
        text=text,
        trial=trial,
        place=TrainingPosition(
            spent=Spent(), evaluations=0, score=None, counts={}, micro_batch_limit=None
        ),
        weights=collect_weights(objective),
        shapes=shapes,
        detects=isinstance(objective, Detector),
    )

"""Encoders to fine-tune: of a record, or of a trial that has just been trained."""

from dataclasses import replace
from pathlib import Path as File

import torch

from lab.config.trial import Trial
from lab.data.vocabulary import Vocabulary, open_vocabulary
from lab.errors import UserError
from lab.finetuning.finetuner import DROPOUT, PretrainedEncoder
from lab.storage import record
from lab.training.checkpoint import Checkpoints
from lab.training.objectives import build_objective
from lab.training.objectives.base import Objective


def load_from_record(folder: File, cache: File) -> PretrainedEncoder:
    """Return the encoder of a record's newest checkpoint.

    Args:
        folder: of the record.
        cache: holds the prepared text, and with it the vocabulary.

    Raises:
        UserError: something of it is missing.
    """
    trial, text = record.read_trial(folder)
    if not (cache / text / "tokenizer.json").is_file():
        raise UserError(f"{folder}: its text, {cache / text}, is gone, and with it its vocabulary")
    objective = _built(trial)
    place = Checkpoints(folder / "checkpoints", maximize=True).weights(objective)
    if place is None:
        raise UserError(f"{folder}: no checkpoint that can be read")
    vocabulary = open_vocabulary(cache / text)
    return PretrainedEncoder(objective.encoder, trial.encoder, vocabulary, place.spent.steps)


def copy_from_objective(
    objective: Objective, trial: Trial, vocabulary: Vocabulary, steps: int
) -> PretrainedEncoder:
    """Return a copy of an objective's encoder."""
    copy = _built(trial)
    copy.load_state_dict(objective.state_dict())
    return PretrainedEncoder(copy.encoder, trial.encoder, vocabulary, steps)


def _built(trial: Trial) -> Objective:
    """Return a trial's objective with the dropout of fine-tuning, to be given its weights."""
    shape = replace(trial.encoder, dropout=DROPOUT)
    return build_objective(
        replace(trial, encoder=shape), torch.ones(trial.data.vocab, dtype=torch.int64)
    )

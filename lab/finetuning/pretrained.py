"""Load the encoder to fine-tune from a trial's record, or copy it from a trained objective."""

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
        folder: folder of the record.
        cache: folder of the prepared texts, which contain the vocabularies.

    Raises:
        UserError: the record, its prepared text or a readable checkpoint is missing.
    """
    trial, text = record.read_trial(folder)
    if not (cache / text / "tokenizer.json").is_file():
        raise UserError(
            f"{folder}: the prepared text of the trial, {cache / text}, is missing; the encoder "
            "cannot be used without its vocabulary"
        )
    objective = _build_for_finetuning(trial)
    position = Checkpoints(folder / "checkpoints", maximize=True).weights(objective)
    if position is None:
        raise record.no_checkpoint(folder)
    vocabulary = open_vocabulary(cache / text)
    return PretrainedEncoder(objective.encoder, trial.encoder, vocabulary, position.spent.steps)


def copy_from_objective(
    objective: Objective, trial: Trial, vocabulary: Vocabulary, steps: int
) -> PretrainedEncoder:
    """Return a copy of an objective's encoder.

    Args:
        objective: trained objective.
        trial: trial of the objective.
        vocabulary: vocabulary of the encoder.
        steps: steps of the pre-training so far.
    """
    copy = _build_for_finetuning(trial)
    copy.load_state_dict(objective.state_dict())
    return PretrainedEncoder(copy.encoder, trial.encoder, vocabulary, steps)


def _build_for_finetuning(trial: Trial) -> Objective:
    """Return the objective of a trial with new weights and the dropout of fine-tuning."""
    shape = replace(trial.encoder, dropout=DROPOUT)
    return build_objective(
        replace(trial, encoder=shape), torch.ones(trial.data.vocab, dtype=torch.int64)
    )

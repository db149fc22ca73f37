"""Pre-training objectives."""

from typing import assert_never

from torch import Tensor

from lab.config import trial as spec
from lab.config.objective import (
    AdversarialConfig,
    AllTokensMlmConfig,
    Electra15Config,
    ElectraConfig,
    MlmConfig,
    RandomReplacementConfig,
    ReplaceMlmConfig,
    TwoStageConfig,
)
from lab.training.objectives.adversarial import Adversarial
from lab.training.objectives.base import Objective
from lab.training.objectives.electra import Electra
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.predictors import AllTokensMlm, ReplaceMlm
from lab.training.objectives.random import Random
from lab.training.objectives.two_stage import TwoStage


def build_objective(trial: spec.Trial, counts_V: Tensor) -> Objective:
    """Return the trial's objective with its initial weights.

    Args:
        trial: architecture, objective and seeds.
        counts_V: number of occurrences of each token in the training text; the biases of
            vocabulary heads are initialized from these frequencies.
    """
    settings = trial.objective
    objective: Objective
    match settings:
        case ElectraConfig() | Electra15Config():
            objective = Electra(trial, settings, counts_V)
        case ReplaceMlmConfig():
            objective = ReplaceMlm(trial, settings, counts_V)
        case AllTokensMlmConfig():
            objective = AllTokensMlm(trial, settings, counts_V)
        case MlmConfig():
            objective = Mlm(trial, settings, counts_V)
        case TwoStageConfig():
            objective = TwoStage(trial, settings, counts_V)
        case AdversarialConfig():
            objective = Adversarial(trial, settings, counts_V)
        case RandomReplacementConfig():
            objective = Random(trial, settings, counts_V)
        case _:
            assert_never(settings)
    return objective

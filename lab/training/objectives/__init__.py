"""Objectives: the losses that a trial can minimize."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.base import ObjectiveConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
from lab.config.trial import Trial
from lab.training.objectives.adversarial import Adversarial
from lab.training.objectives.base import Objective
from lab.training.objectives.electra import Electra
from lab.training.objectives.mlm import Mlm
from lab.training.objectives.predictors import AllTokensMlm, ReplaceMlm
from lab.training.objectives.random import Random
from lab.training.objectives.two_stage import TwoStage

_MODULES: Mapping[type[ObjectiveConfig], Callable[[Trial, Any, Tensor], Objective]] = {
    ElectraConfig: Electra,
    Electra15Config: Electra,
    ReplaceMlmConfig: ReplaceMlm,
    AllTokensMlmConfig: AllTokensMlm,
    MlmConfig: Mlm,
    TwoStageConfig: TwoStage,
    AdversarialConfig: Adversarial,
    RandomReplacementConfig: Random,
}


def build_objective(trial: Trial, counts_V: Tensor) -> Objective:
    """Return the trial's objective with its initial weights.

    Args:
        trial: trial with the encoder's shape, the objective and the seeds.
        counts_V: number of occurrences of each token in the training text; the biases of
            vocabulary heads start at the log of these frequencies.
    """
    return _MODULES[type(trial.objective)](trial, trial.objective, counts_V)

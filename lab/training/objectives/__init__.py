"""The family of objectives: what a trial minimises."""

from typing import assert_never

from torch import Tensor

from lab.config import trial as spec
from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig
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
        trial: shape, objective and seeds.
        counts_V: how often each token stands in the training text; vocabulary heads start at
            these frequencies.
    """
    settings = trial.objective
    made: Objective
    match settings:
        case ElectraConfig() | Electra15Config():
            made = Electra(trial, settings, counts_V)
        case ReplaceMlmConfig():
            made = ReplaceMlm(trial, settings, counts_V)
        case AllTokensMlmConfig():
            made = AllTokensMlm(trial, settings, counts_V)
        case MlmConfig():
            made = Mlm(trial, settings, counts_V)
        case TwoStageConfig():
            made = TwoStage(trial, settings, counts_V)
        case AdversarialConfig():
            made = Adversarial(trial, settings, counts_V)
        case RandomReplacementConfig():
            made = Random(trial, settings, counts_V)
        case _:
            assert_never(settings)
    return made

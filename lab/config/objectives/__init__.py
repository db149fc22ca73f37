"""Objectives that a trial can minimize, as a search space names them.

From the ELECTRA paper's section 3.4 (ELECTRA 15 %, replace MLM, all-tokens MLM), section 3.2
(two-stage training, sharing) and appendix F (adversarial), with masked language modelling (BERT)
and replacement without a generator as the two ends.
"""

from lab.config.objectives.adversarial import AdversarialConfig
from lab.config.objectives.electra import Electra15Config, ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.predictors import AllTokensMlmConfig, ReplaceMlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.objectives.two_stage import TwoStageConfig

AnyObjectiveConfig = (
    ElectraConfig
    | Electra15Config
    | ReplaceMlmConfig
    | AllTokensMlmConfig
    | MlmConfig
    | TwoStageConfig
    | AdversarialConfig
    | RandomReplacementConfig
)

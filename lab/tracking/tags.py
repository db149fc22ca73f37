"""Names of the tags, parameters, metrics and artifacts that the lab writes to MLflow.

A sweep is an MLflow run, and each of its trials is a child run. The tags of both are stored as
`lab.<name>`; the constants below hold `<name>`, which is also the key in `SweepFrames.sweep`.
`full_name` adds the prefix. Names that MLflow itself defines, and names without the prefix, are
in the section "Complete names".
"""

from collections.abc import Mapping

PREFIX = "lab."

# Tags of every run.
KIND = "kind"
STATE = "state"

# Values of KIND.
KIND_SWEEP = "sweep"
KIND_TRIAL = "trial"

# Tags of a sweep's run: the experiment.
SWEEP = "sweep"  # content hash of the experiment
STORAGE = "storage"  # identity of the storage with the records (`storage.identity`)
QUESTION = "question"
METRIC = "metric"
ANSWER = "answer"
COMPARE = "compare"
REFERENCE = "reference"
TUNE = "tune"
SEARCH = "search"
CONSTRAINTS = "constraints"  # JSON: limits by name; missing without limits
COST = "cost"  # name of the second objective; missing without one
BUDGET = "budget"
OPENED = "opened"  # Unix time in milliseconds

# Tags of a sweep's run: its last command, and its data.
COMMAND = "command"
LAST_COMMAND = "last_command."  # prefix of CODE and `PROCESS`: those of the last command's process
DATA = "data"  # folders of the prepared texts and of the held-out corruptions
TEXT = "text"
OVERLAPS = "overlaps"  # JSON: overlap of each training text with each task
EXAMPLES = "examples"  # JSON: hash of the minimal pairs (`PAIRS`) and of each task, by metric

# Tags of a trial's run: provenance of its numbers. Those in PROCESS are from the trial's record. If
# several processes have computed the trial, their distinct values are joined by SEPARATOR.
CODE = "code"  # code digest; part of the trial's fingerprint
VERSION = "version"
COMMIT = "commit"
DIRTY = "dirty"  # "true" if the code differs from the commit
PYTHON = "python"
TORCH = "torch"
MACHINE = "machine"
THREADS = "threads"  # of torch, in each worker process; empty where no trial is computed
PROCESS = (VERSION, COMMIT, DIRTY, PYTHON, TORCH, MACHINE, THREADS)
SEPARATOR = "; "
PROVENANCE = "provenance"  # content hash, part of the name of the artifact PROVENANCE_FILE

# Other tags of a trial's run.
NUMBER = "number"
FINGERPRINT = "fingerprint"
ROLE = "role"
CELL = "cell"
TUNED = "tuned"
REPEAT = "repeat"
TRUNK = "trunk"  # name of the trunk that the trial branches from; missing for other trials
RUNG = "rung"  # budget of a trial at a rung, as a share of the full one; missing for other trials
COST_VALUE = "cost_value"  # value of the second objective; missing without one
PROPOSED_BY = "proposed_by"  # earlier sweep that proposed the tuned values; missing without one
MASKED = "masked"  # masked tokens of a full window, as text
REASON = "reason"
BEGAN = "began"  # Unix time in seconds
DEVICE = "device"
SHARED = "shared"  # "True" if other trials used the device at the same time
# Prefix of the name of a score, and of that of the ranking metric at step 0
# (`metrics.untrained_name`): JSON list of the contributions of the blocks of the test set.
BLOCKS = "blocks."

# Value of ROLE, besides those of `Job.role`: the search has replaced this trial by another one.
SUPERSEDED = "superseded"

# Value of STATE, besides those of `State`: the run was created, its parameters not yet stored.
STATE_NEW = "new"

# Complete names.
PARENT_RUN = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # shown as the description of a run in the MLflow UI
# On a sweep's run: "<fingerprint> models:/<id>". Without the prefix, so that it is not shown among
# the provenance in the report.
BEST_MODEL = "electra_lab.model"
REPORT_ANSWER = "electra_lab.answer"  # on a sweep's run: conclusion of its last report
MOST_SHOWN = 5_000  # characters of an answer in a tag; ANSWER_FILE has all
MODEL_TRIAL = "trial"  # on a logged model: fingerprint of its trial

# Parameters of a trial's run are its configuration by dotted path. These two are read by name.
BUDGET_KIND = "budget.kind"
BUDGET_AMOUNT = "budget.amount"

# Metrics of a trial's run, besides those of its curve.
SCORE = "score"  # the ranking metric of a finished trial, so that all sweeps have this column
SLOT_SECONDS = "slot/seconds"
SLOT_BUSY_SECONDS = "slot/busy_seconds"
BY_GFLOPS = "by_gflops/"  # prefix: a score or a training loss with the step axis in GFLOPs
BY_KTOKENS = "by_ktokens/"  # prefix: the ranking metric with the step axis in thousands of tokens
COPY_PREFIX = "by_"  # of the copies with another step axis
SLOT_PREFIX = "slot/"

# Metrics of a sweep's run.
TRIALS = "trials"  # runs of trials when the sweep ended, without superseded ones

# Artifacts of a sweep's run.
SPACE_FILE = "space.yaml"
ANSWER_FILE = "answer.txt"
EXPORT_FOLDER = "export"

PROVENANCE_FILE = "provenance/{}.json"  # by the value of PROVENANCE of trials

# Artifacts of a trial's run.
TRACEBACK_FILE = "traceback.txt"  # of a failed trial

# The logged model of a sweep's best trial.
MODEL_NAME = "best"
MODEL_FOLDER = "model"


def full_name(name: str) -> str:
    """Return the complete name of a tag: `lab.state` for `state`."""
    return PREFIX + name


def add_prefix(values: Mapping[str, str]) -> dict[str, str]:
    """Return `values` with complete tag names as keys."""
    return {full_name(name): value for name, value in values.items()}


def remove_prefix(values: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of `values` that have the lab's prefix, sorted, without the prefix."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in sorted(values.items())
        if name.startswith(PREFIX)
    }

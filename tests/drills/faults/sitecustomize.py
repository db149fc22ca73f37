"""Inject a fault into the processes of a sweep; drills put this folder on PYTHONPATH.

Python imports a module of this name at the start of every process. DRILL_FAULT selects the fault:

    clock       `time.time` is set back by an hour at DRILL_AT, in Unix seconds
    nan, raise  after step DRILL_STEP of the trial DRILL_TRIAL ("width lr seed"), a parameter
                becomes NaN or an exception is raised; only once, marked by the file DRILL_MARKER
"""

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def _set_clock_back(at: float) -> None:
    true_time = time.time

    def changed_time() -> float:
        now = true_time()
        return now if now < at else now - 3_600

    time.time = changed_time
    time.time_ns = lambda: int(changed_time() * 1e9)


class _AfterImport:
    """Import hook that patches `lab.training.loop` before another module imports its names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != "lab.training.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec else None
        execute = loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            _patch(module)

        loader.exec_module = execute_and_patch
        return spec


def _patch(module: Any) -> None:
    """Replace `train_steps` by a generator with the fault."""
    train_steps = module.train_steps

    def faulty_steps(gradients: Any, *arguments: Any, trial: Any, **rest: Any) -> Any:
        name = f"{trial.objective.generator.width} {trial.optim.lr} {trial.seeds.init}"
        for step in train_steps(gradients, *arguments, trial=trial, **rest):
            due = step.spent.steps == int(os.environ["DRILL_STEP"])
            if due and name == os.environ["DRILL_TRIAL"] and _create_marker():
                _inject(gradients.objective)
            yield step

    module.train_steps = faulty_steps


def _inject(objective: Any) -> None:
    if os.environ["DRILL_FAULT"] == "raise":
        raise RuntimeError("the drill raises here\nand this line must not be shown")
    next(objective.parameters()).data.fill_(float("nan"))


def _create_marker() -> bool:
    """Create the marker file; return False if it exists already."""
    try:
        with open(os.environ["DRILL_MARKER"], "x"):  # noqa: PTH123 - avoids the import of pathlib
            return True
    except FileExistsError:
        return False


match os.environ.get("DRILL_FAULT"):
    case "clock":
        _set_clock_back(float(os.environ["DRILL_AT"]))
    case "nan" | "raise":
        sys.meta_path.insert(0, _AfterImport())

"""Faults inside a sweep's processes; this folder is on PYTHONPATH for the drills that want one.

Python imports this file by its name in every process. DRILL_FAULT says what to do:

    clock       `time.time` goes back an hour at DRILL_AT, in Unix seconds
    nan, raise  a weight becomes NaN, or an error is raised, when the trial DRILL_TRIAL
                ("width lr seed") has made step DRILL_STEP; once for each file DRILL_MARKER
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
    true = time.time

    def told() -> float:
        now = true()
        return now if now < at else now - 3_600

    time.time = told
    time.time_ns = lambda: int(told() * 1e9)


class _AfterImport:
    """Spoils `lab.training.loop` as soon as it has been imported, before anybody takes a name from it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != "lab.training.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec else None
        run = loader.exec_module

        def run_and_spoil(module: Any) -> None:
            run(module)
            _spoil(module)

        loader.exec_module = run_and_spoil
        return spec


def _spoil(module: Any) -> None:
    train = module.train

    def spoilt(gradients: Any, *given: Any, trial: Any, **rest: Any) -> Any:
        name = f"{trial.objective.generator.width} {trial.optim.lr} {trial.seeds.init}"
        for step in train(gradients, *given, trial=trial, **rest):
            due = step.spent.steps == int(os.environ["DRILL_STEP"])
            if due and name == os.environ["DRILL_TRIAL"] and _for_the_first_time():
                _break(gradients.objective)
            yield step

    module.train = spoilt


def _break(objective: Any) -> None:
    if os.environ["DRILL_FAULT"] == "raise":
        raise RuntimeError("the drill raises here\nand this line is too many")
    next(objective.parameters()).data.fill_(float("nan"))


def _for_the_first_time() -> bool:
    try:
        with open(os.environ["DRILL_MARKER"], "x"):  # noqa: PTH123 - nothing imported in vain
            return True
    except FileExistsError:
        return False


match os.environ.get("DRILL_FAULT"):
    case "clock":
        _set_clock_back(float(os.environ["DRILL_AT"]))
    case "nan" | "raise":
        sys.meta_path.insert(0, _AfterImport())

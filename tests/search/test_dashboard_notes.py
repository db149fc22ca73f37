"""Notes of trials are those that optuna-dashboard reads."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from simulated.search import build_experiment, carry_out, only_study, outcome_of

from lab.config.costs.constraints import Constraints
from lab.config.experiment import Job
from lab.search.dashboard_notes import describe_job
from lab.search.search import Search

optuna_dashboard = pytest.importorskip("optuna_dashboard")

RUN = "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef"


def read_notes(storage: BaseStorage) -> list[str]:
    """Return the note of each trial as optuna-dashboard reads it."""
    study = only_study(storage)
    return [
        optuna_dashboard.get_note(optuna.Trial(study, trial._trial_id)) for trial in study.trials
    ]


def annotate_all(storage: BaseStorage, notes: Path, text: str | None = None) -> list[Job]:
    """Run a search in which each job is annotated at its end, as the driver does."""
    experiment = build_experiment(
        compare={"batch": (32,)}, constraints=Constraints(parameters=80_000)
    )
    search, jobs = Search(experiment, storage, notes), []
    while (job := search.ask()) is not None:
        jobs.append(job)
        search.tell(job, outcome_of(job, 0.5))
        search.annotate(job, text or describe_job(job, f"{job.number:012x}", RUN))
    return jobs


def test_note_of_each_trial_has_label_cell_record_and_run(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    jobs = annotate_all(storage, tmp_path)
    notes = read_notes(storage)
    assert len(notes) == 8
    for job, note in zip(jobs, notes, strict=False):
        assert f"trial {job.number}" in note
        assert f"ffn {job.tuned['encoder.ffn']}" in note
        assert '`{"batch": 32}`' in note
        assert f"`trials/{job.number:012x}`" in note
        assert f"<{RUN}>" in note
        assert ("infeasible, not trained" in note) == bool(job.infeasible)
    assert any(job.infeasible for job in jobs)


@pytest.mark.parametrize("length", [1, 2_045, 2_046, 5_000])
def test_note_of_any_length_is_read_as_it_was_written(tmp_path: Path, length: int) -> None:
    storage = InMemoryStorage()
    annotate_all(storage, tmp_path, "x" * length)
    assert read_notes(storage) == ["x" * length] * 8


def test_note_that_a_user_has_edited_is_kept(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    annotate_all(storage, tmp_path)
    study = only_study(storage)
    optuna_dashboard.save_note(optuna.Trial(study, study.trials[0]._trial_id), "mine")
    annotate_all(storage, tmp_path)
    assert read_notes(storage)[0] == "mine"


def test_running_trial_has_a_note_and_keeps_it(tmp_path: Path) -> None:
    storage, experiment = InMemoryStorage(), build_experiment()
    search = Search(experiment, storage, tmp_path)
    job = search.ask()
    assert job is not None
    search.start(job)
    search.annotate(job, "running")
    assert read_notes(storage) == ["running"]
    search.tell(job, outcome_of(job, 0.5))
    search.annotate(job, "ended")
    assert read_notes(storage) == ["running"]


def test_repeats_have_no_trial_in_the_study_and_no_note(tmp_path: Path) -> None:
    storage, experiment = InMemoryStorage(), build_experiment()
    jobs = carry_out(experiment, storage, tmp_path, lambda _: 0.5)
    search = Search(experiment, storage, tmp_path)
    search.annotate(jobs[-1], "a repeat")
    assert read_notes(storage) == [""] * 8


def test_settings_cannot_break_out_of_a_note() -> None:
    search = Search(build_experiment(tune={}), InMemoryStorage(), Path())
    job = search.ask()
    assert job is not None
    hostile = "` <script>alert(1)</script>\n# title"
    cell = {"data.source.column": hostile}
    note = describe_job(replace(job, cell=cell, compared={}), "f0", "")
    outside = note.split("`")[::2]
    assert not any("<script>" in part or "# title" in part for part in outside)
    assert "MLflow" not in note

"""Forecasts of a storage are written once, found by all machines, and checked when read."""

from pathlib import Path

import pytest

from lab.config.budget import Budget
from lab.config.trial import Trial
from lab.loading.search_space import build_trial
from lab.storage import record
from lab.storage.forecasts import forecast_file, read_forecasts, write_forecast
from lab.storage.mirror import LocalOnly
from lab.storage.remote import Remote
from lab.storage.trained_trials import find_trained

BASE = {
    "encoder": {"size": "nano32"},
    "objective": {"kind": "mlm"},
    "budget": {"kind": "flops", "amount": 1e12},
}


def test_forecast_is_never_replaced(tmp_path: Path) -> None:
    assert write_forecast(tmp_path / "runs", "a", {"loss": 1.5}, LocalOnly())
    assert not write_forecast(tmp_path / "runs", "a", {"loss": 1.4}, LocalOnly())
    found = read_forecasts(tmp_path / "runs", LocalOnly())
    assert (found.contents, found.damaged) == ({"a": {"loss": 1.5}}, {})
    assert [file.name for file in (tmp_path / "runs" / "forecasts").iterdir()] == ["a.json"]


def test_changed_forecast_is_named_by_its_path_in_the_storage(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_forecast(tmp_path, name, {"loss": 1.5}, LocalOnly())
    file = forecast_file(tmp_path, "a")
    file.write_text(file.read_text().replace("1.5", "1.4"))
    found = read_forecasts(tmp_path, LocalOnly())
    assert found.contents == {"b": {"loss": 1.5}}
    assert found.damaged["a"].startswith("forecasts/a.json: damaged: its content differs")
    assert read_forecasts(tmp_path / "none", LocalOnly()).contents == {}


def test_other_machines_find_the_forecasts_of_a_remote_storage(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    uri = f"file://{tmp_path / 'remote'}"
    one, other = (tmp_path / name for name in ("one", "other"))
    assert write_forecast(one, "a", {"loss": 1.5}, Remote(one, uri))
    assert write_forecast(other, "b", {"loss": 1.6}, Remote(other, uri))
    assert not write_forecast(other, "a", {"loss": 1.4}, Remote(other, uri))
    found = read_forecasts(one, Remote(one, uri))
    assert found.contents == {"a": {"loss": 1.5}, "b": {"loss": 1.6}}


@pytest.mark.parametrize(
    ("kind", "amount", "state", "spent", "is_found"),
    [
        ("flops", 1e12, "finished", 1e12, True),
        ("flops", 2e12, "running", 0.0, True),
        ("flops", 2e12, "queued", None, False),
        ("flops", 2e12, "queued", 1e11, True),  # an interrupted trial that continues
        ("flops", 9e11, "finished", 9e11, False),
        ("tokens", 1e7, "finished", 3e12, True),
        ("tokens", 1e13, "running", 1e11, False),
    ],
)
def test_trials_count_as_trained_once_their_training_has_begun(
    tmp_path: Path, kind: str, amount: float, state: str, spent: float | None, is_found: bool
) -> None:
    trial: Trial = build_trial(BASE, {})
    trial = Trial(**vars(trial) | {"budget": Budget(kind=kind, amount=amount)})
    record.write_queued(tmp_path / "trials" / "a", trial)
    if spent is not None:
        record.append_row(tmp_path / "trials" / "a", {"spent/flops": spent})
    (tmp_path / "trials" / "a" / "state").write_text(f"{state}\n")
    found = list(find_trained(tmp_path, 1e12))
    assert [each.name for each in found] == ["a"] * is_found
    assert list(find_trained(tmp_path / "none", 1e12)) == []

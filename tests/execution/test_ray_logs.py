"""Ray's log files are kept when a cluster is lost, and its messages go to the log."""

import logging
from pathlib import Path

import pytest
from ray._private import worker

from lab.execution import ray_logs
from lab.execution.cluster_watch import ClusterLostError


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    logs = tmp_path / "lab-scratch" / "session_latest" / "logs"
    (logs / "folder").mkdir(parents=True)
    (logs / "raylet.out").write_text("the end of the node")
    (logs / "gcs_server.err").touch()
    return tmp_path / "lab-scratch"


def lose(scratch: Path, logs: Path, error: Exception) -> None:
    with ray_logs.keep_logs(str(scratch), logs):
        raise error


@pytest.mark.reported
def test_log_files_of_a_lost_cluster_are_kept_in_the_storage(scratch: Path, tmp_path: Path) -> None:
    logs = tmp_path / "storage" / "logs"
    with pytest.raises(ClusterLostError):
        lose(scratch, logs, ClusterLostError("the nodes have stopped"))
    (kept,) = logs.iterdir()
    assert {file.name: file.read_text() for file in kept.iterdir()} == {
        "raylet.out": "the end of the node"
    }


def test_nothing_is_kept_after_other_errors(scratch: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"):
        lose(scratch, tmp_path / "logs", ValueError("other"))
    assert not (tmp_path / "logs").exists()


def test_the_end_of_a_long_file_and_the_newest_folders_are_kept(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_logs, "_MAX_BYTES", 4)
    for name in ("ray-1", "ray-2", "ray-3"):
        (tmp_path / "logs" / name).mkdir(parents=True)
    with pytest.raises(ClusterLostError):
        lose(scratch, tmp_path / "logs", ClusterLostError("the nodes have stopped"))
    names = sorted(folder.name for folder in (tmp_path / "logs").iterdir())
    assert len(names) == 3
    assert "ray-1" not in names
    (newest,) = (tmp_path / "logs").glob("ray-????????-*")
    assert (newest / "raylet.out").read_text() == "node"


@pytest.mark.reported
def test_messages_of_ray_are_logged_and_not_printed(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    ray_logs.log_messages()
    message = {"lines": ["Raylet is terminated.", "[state-dump]"], "pid": "raylet"}
    with caplog.at_level(logging.WARNING, "lab"):
        worker.print_to_stdstream(message, ignore_prefix=False)
    assert capsys.readouterr() == ("", "")
    assert "Raylet is terminated.\n[state-dump]" in caplog.text

"""Log of a sweep and --verbose: failures keep their traceback; the output has no records."""

import io
import logging
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from prepared_text import PreparedText, copy_held_out
from project import ROOT

from lab import cli, logging_setup
from lab.errors import UserError
from lab.execution.driver import Driver
from lab.sweep import main
from lab.trials import process_log
from lab.trials.run import run_trial

SWEEP = [
    str(ROOT / "search_spaces" / "smoke.yaml"),
    *("--set", "base.encoder={size: nano32}"),
    *("--set", "base.data={share: 0.01, held_out: 0.1, vocab: 400, length: 16}"),
]
LEVELS = (" INFO ", " WARNING ", " ERROR ")


class Ended(NamedTuple):
    """A sweep that has ended: status, standard output and error, lines of its log, folder."""

    status: int
    out: str
    err: str
    log: list[str]
    cwd: Path


def sweep(cwd: Path, *options: str) -> Ended:
    """Run the command in this process, in the working directory `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([*SWEEP, *options])
    file = cwd / "runs" / "logs" / "smoke.log"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return Ended(status, out.getvalue(), err.getvalue(), lines, cwd)


@pytest.fixture(scope="module")
def failed(
    prepared_text: PreparedText,
    held_out: Path,
    few_sentences: None,
    unsynced: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ended]:
    """Return a sweep that runs without Ray; its trials fail. Its text was prepared before."""
    cwd = tmp_path_factory.mktemp("failed")
    cache = cwd / "runs" / "cache"
    shutil.copytree(prepared_text.text, cache / prepared_text.text.name)
    copy_held_out(held_out, cache)

    def fail(*_: object, **__: object) -> None:
        raise KeyError("boom")

    def run_here(driver: Driver, _: float) -> dict[str, float]:
        """Run all trials in this process, without Ray."""
        while (assignment := driver.next()) is not None:
            driver.on_start(assignment)
            run_trial(assignment)
            driver.on_end(assignment, None)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr("lab.trials.training.train_steps", fail)
        patch.setattr("lab.execution.driver.Driver._carry_out", run_here)
        yield sweep(cwd)


@pytest.mark.slow
def test_failed_trial_gives_status_1_and_its_traceback(failed: Ended) -> None:
    assert failed.status == 1
    lines = failed.out.splitlines()
    tracebacks = sorted((failed.cwd / "runs" / "trials").glob("*/traceback.txt"))
    assert len(tracebacks) == 2
    for traceback in tracebacks:
        assert "in fail" in traceback.read_text(encoding="utf-8")
        assert any(f"KeyError: 'boom'; traceback in {traceback}" in line for line in lines)
        (last,) = [line for line in lines if line.startswith("failed:") and str(traceback) in line]
        assert "KeyError: 'boom'" in last


@pytest.mark.slow
def test_failed_trial_is_in_the_log_with_its_number_name_and_traceback(failed: Ended) -> None:
    ends = [index for index, line in enumerate(failed.log) if " ERROR trial=" in line]
    names = sorted(folder.name for folder in (failed.cwd / "runs" / "trials").iterdir())
    fields = [failed.log[index].partition(" trial=")[2].split()[0] for index in ends]
    assert sorted(field.partition("/")[2] for field in fields) == names
    assert sorted(field.partition("/")[0] for field in fields) == ["0", "1"]
    for index in ends:
        assert "KeyError: 'boom'" in failed.log[index]
        assert failed.log[index + 1].startswith("Traceback (most recent call last)")
    assert sum("in fail" in line for line in failed.log) == 2


@pytest.mark.slow
def test_log_has_arguments_versions_starts_and_counts_and_the_output_has_no_record(
    failed: Ended,
) -> None:
    text = "\n".join(failed.log)
    assert "lab.sweep starts: " in failed.log[0]
    assert "smoke.yaml" in failed.log[0]
    assert "torch " in failed.log[1]
    assert sum(" started " in line for line in failed.log) == 2
    assert "expected: " in text
    assert "sweep finished: 2 failed" in text
    assert failed.log[-1].endswith("lab.sweep ends with status 1")
    assert not any(level in failed.out + failed.err for level in LEVELS)


@pytest.mark.slow
def test_unexpected_error_names_the_log_that_holds_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "the disk is gone")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lab.execution.driver.Driver.run", fail)
    ended = sweep(tmp_path)
    log = tmp_path / "runs" / "logs" / "smoke.log"
    assert ended.status == 1
    assert ended.err.endswith(f"(traceback in {log})\n")
    assert ended.err.count("\n") == 1
    assert any(line.startswith("OSError: [Errno 5] the disk is gone") for line in ended.log)
    assert any("in fail" in line for line in ended.log)


def test_error_while_the_input_is_checked_is_in_the_log_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "the disk is gone")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lab.tracking.store.MlflowStore", fail)
    for starts in (1, 2):  # the second start appends to the log
        ended = sweep(tmp_path)
        assert ended.status == 1
        assert ended.err.endswith(f"(traceback in {tmp_path / 'runs' / 'logs' / 'smoke.log'})\n")
        assert sum("in fail" in line for line in ended.log) == starts
        assert sum("lab.sweep starts: " in line for line in ended.log) == starts


@pytest.mark.parametrize("verbose", [False, True])
def test_records_are_printed_to_standard_error_with_verbose_only(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(_: Namespace) -> None:
        logging.getLogger("lab.somewhere").warning("an event", extra={"trial": "3/0123"})

    assert cli.run("lab.it", "all is kept", body, Namespace(verbose=verbose)) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert (" WARNING trial=3/0123 worker=- an event\n" in err) == verbose
    assert bool(err) == verbose
    logging.getLogger("lab.somewhere").warning("after the end")
    assert "an event" not in capsys.readouterr().err


def test_bad_input_writes_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(tmp_path, "--tracking-uri", "foo://there").status == 2
    assert list(tmp_path.iterdir()) == []


def test_log_is_bounded_in_size_and_keeps_the_newest_records(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "a.log"
    with logging_setup.handle_records(verbose=False) as log:
        log.set_file(file, lambda _: None)
        log.start()
        for number in range(6):
            logging.getLogger("lab.it").info("%d %s", number, "x" * (2**20 - 200))
    files = sorted(file.parent.iterdir())
    assert [each.name for each in files] == ["a.log", "a.log.1", "a.log.2"]
    assert all(each.stat().st_size <= 2**20 for each in files)
    assert " 5 xx" in file.read_text(encoding="utf-8")


def test_log_that_cannot_be_written_ends_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "logs").write_text("a file in place of the folder")

    def body(_: Namespace) -> None:
        logging_setup.command_log().set_file(tmp_path / "logs" / "a.log", lambda _: None)
        logging_setup.command_log().start()
        raise OSError(5, "Input/output error")

    assert cli.run("lab.it", "all is kept", body, Namespace(verbose=False)) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"(traceback in {tmp_path}/lab-error-" in err


@pytest.mark.reported
def test_log_on_a_full_disk_ends_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    uploaded: list[Path] = []

    def body(_: Namespace) -> None:
        log = logging_setup.command_log()
        log.set_file(Path("/dev/full"), uploaded.append)
        log.start()
        raise UserError("no space left")

    assert cli.run("lab.it", "all is kept", body, Namespace(verbose=False)) == 2
    assert capsys.readouterr().err.splitlines() == ["lab.it: error: no space left"]
    assert uploaded == []


def test_log_is_uploaded_when_the_command_ends(tmp_path: Path) -> None:
    uploaded: list[str] = []

    def body(_: Namespace) -> None:
        log = logging_setup.command_log()
        log.set_file(tmp_path / "a.log", lambda file: uploaded.append(file.read_text()))
        log.start()

    assert cli.run("lab.it", "all is kept", body, Namespace(verbose=False)) == 0
    (text,) = uploaded
    assert "lab.it ends with status 0" in text


def test_records_hold_no_credentials_of_uris(capsys: pytest.CaptureFixture[str]) -> None:
    options = Namespace(
        verbose=True,
        storage="s3://key:hidden/1@bucket/path?secret=hidden&region=x",
        tracking_uri="http://user:hidden@host/",
    )
    cli.run("lab.it", "all is kept", lambda _: None, options)
    err = capsys.readouterr().err
    assert "bucket/path" in err
    assert "hidden" not in err


def test_records_of_a_trials_process_are_copied_once_with_its_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("lab.training.checkpoint")
    with logging_setup.handle_records(verbose=True):
        logger.propagate = False  # the process of the trial, which has no handler but its own
        copied = process_log.copy_new_records(tmp_path, 0, {})
        assert copied == 0
        for number in (1, 2):
            with process_log.log_to_record(tmp_path):
                logging.getLogger("lab").handlers[-1].handle(
                    logger.makeRecord(
                        logger.name, logging.WARNING, "", 0, "damaged %d", (number,), None
                    )
                )
            copied = process_log.copy_new_records(tmp_path, copied, {"trial": "3/0123"})
        logger.propagate = True
    err = capsys.readouterr().err
    assert err.count("damaged 1") == err.count("damaged 2") == 1
    assert " WARNING trial=3/0123 worker=" in err
    assert "worker=-" not in err

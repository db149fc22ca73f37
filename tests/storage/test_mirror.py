"""Remote storage: local and remote trees are equal after a push or pull, even an interrupted one.

The remote trees are a folder, a file system behind fsspec, and an S3 server.
"""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prepared_text import PreparedText

from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.experiment import Resources
from lab.config.metrics import METRICS
from lab.config.results import Outcome
from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage import (
    open_storage,
    provenance,
    record,
    remote_connection,
    remote_files,
    remote_folders,
)
from lab.storage.mirror import LocalOnly, MirrorError
from lab.storage.remote import Remote
from lab.trials.assignment import Assignment

LARGE = b"x" * (remote_files.SMALL_FILE + 1)
RECORD = {
    "trial.json": b"{}\n",
    "curve.jsonl": b"1\n2\n",
    "state": b"finished\n",
    "checkpoints/000000000008/state.json": b'{"sha256": "1"}',
    "checkpoints/000000000008/state.safetensors": LARGE,
    "checkpoints/000000000016/state.json": b'{"sha256": "2"}',
    "checkpoints/000000000016/state.safetensors": b"small",
}


def write(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder by name; b"" for an empty subfolder."""
    return {
        str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 server on loopback; yield the URI parameters of its address."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"endpoint_override={host}%3A{port}&scheme=http"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of an empty tree: on disk, behind fsspec, or on an S3 server."""
    match request.param:
        case "file":
            return f"file://{tmp_path}/far%20away"
        case "memory":
            pytest.importorskip("fsspec")
            return f"memory://{tmp_path.name}/runs"
    from pyarrow.fs import FileSystem

    bucket = f"s3://key:sec%2Fret@{tmp_path.name.replace('_', '-').lower()}"
    server = request.getfixturevalue("s3")
    FileSystem.from_uri(f"{bucket}/?{server}&allow_bucket_creation=true")[0].create_dir(
        bucket.partition("@")[2]
    )
    return f"{bucket}/runs?{server}"


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """Return the folder that is the remote tree of `near` and `other`."""
    return tmp_path / "far"


@pytest.fixture
def near(tmp_path: Path, far: Path) -> Remote:
    return Remote(tmp_path / "near", f"file://{far}")


@pytest.fixture
def other(tmp_path: Path, far: Path) -> Remote:
    return Remote(tmp_path / "other", f"file://{far}")


def pull_and_read(remote: Remote, name: str, *names: str) -> dict[str, bytes]:
    remote.pull(remote.root / name, *names)
    return read(remote.root / name)


# Push and pull


def test_another_machine_pulls_the_pushed_files(uri: str, tmp_path: Path) -> None:
    one, two = Remote(tmp_path / "one", uri), Remote(tmp_path / "two", uri)
    write(one.root / "trials/a", RECORD)
    one.push(one.root / "trials/a")
    assert pull_and_read(two, "trials/a") == RECORD

    later = RECORD | {"curve.jsonl": b"1\n3\n", "new/file": b"new"}
    del later["state"], later["checkpoints/000000000008/state.json"]
    del later["checkpoints/000000000008/state.safetensors"]
    write(one.root / "trials/a", later)
    one.push(one.root / "trials/a")
    assert pull_and_read(two, "trials/a") == later

    shutil.rmtree(one.root / "trials/a")
    one.push(one.root / "trials/a")
    three = Remote(tmp_path / "three", uri)
    assert pull_and_read(three, "trials/a") == {}
    assert not (three.root / "trials/a").exists()


def test_a_single_file_can_be_pushed_and_pulled(uri: str, tmp_path: Path) -> None:
    one, two = Remote(tmp_path / "one", uri), Remote(tmp_path / "two", uri)
    write(one.root, {"cache/held-out.npz": b"1", "cache/other.npz": b"2", "notes.jsonl": b"3\n"})
    for name in ("cache/held-out.npz", "notes.jsonl"):
        one.push(one.root / name)
        two.pull(two.root / name)
    assert read(two.root) == {"cache/held-out.npz": b"1", "notes.jsonl": b"3\n"}
    (one.root / "notes.jsonl").write_bytes(b"4\n")
    one.push(one.root / "notes.jsonl")
    two.pull(two.root / "notes.jsonl")
    assert (two.root / "notes.jsonl").read_bytes() == b"4\n"
    (one.root / "notes.jsonl").unlink()
    one.push(one.root / "notes.jsonl")
    two.pull(two.root / "notes.jsonl")
    assert (two.root / "notes.jsonl").read_bytes() == b"4\n", "no remote copy: no change"
    three = Remote(tmp_path / "three", uri)
    three.pull(three.root / "notes.jsonl")
    assert not (three.root / "notes.jsonl").exists()


def test_a_record_reads_the_same_on_another_machine(near: Remote, other: Remote) -> None:
    trial = Trial(**_trial())
    original, copy = near.root / "trials/a", other.root / "trials/a"
    record.begin_record(original, trial)
    record.append_row(original, {"spent/steps": 8.0})
    near.push(original)
    other.pull(copy, *record.CORE_FILES)
    assert record.read_outcome(copy) is None
    assert record.read_curve(copy) == ({"spent/steps": 8.0},)
    rows = record.read_curve(original)
    outcome = Outcome(state="finished", reason="", rows=rows, started_at=1.0, seconds=2.0, busy=1.0)
    record.write_outcome(original, outcome)
    near.push(original)
    other.pull(copy, *record.CORE_FILES)
    assert record.read_outcome(copy) == outcome
    record.begin_record(original, trial)  # the trial is continued
    near.push(original)
    other.pull(copy, *record.CORE_FILES)
    assert record.read_outcome(copy) is None


def _trial() -> dict[str, object]:
    from lab.config.budget import Budget
    from lab.config.objectives.electra import ElectraConfig

    return {
        "encoder": SIZES["tiny"],
        "objective": ElectraConfig(kind="electra"),
        "budget": Budget(kind="flops", amount=1e12),
    }


def test_small_files_are_pulled_without_the_large_ones(near: Remote, other: Remote) -> None:
    small = ("trial.json", "curve.jsonl", "state")
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    assert pull_and_read(other, "a", *small) == {name: RECORD[name] for name in small}
    write(other.root / "a", RECORD | {"checkpoints/000000000004/state.json": b"mine"})
    (near.root / "a/state").unlink()
    (near.root / "a/curve.jsonl").write_bytes(b"1\n3\n")
    near.push(near.root / "a")
    expected = RECORD | {"checkpoints/000000000004/state.json": b"mine", "curve.jsonl": b"1\n3\n"}
    del expected["state"]
    assert pull_and_read(other, "a", *small) == expected


def test_pull_without_a_remote_copy_changes_nothing(other: Remote) -> None:
    write(other.root / "a", RECORD)
    assert pull_and_read(other, "a") == RECORD
    other.pull(other.root / "a/state")
    assert read(other.root / "a") == RECORD


def test_partial_files_are_not_copied(near: Remote, other: Remote, far: Path) -> None:
    complete = {"trial.json": b"{}"}
    write(near.root / "a", complete | {"curve.partial": b"1", "checkpoints/.partial-x/state": b"2"})
    near.push(near.root / "a")
    assert read(far / "a") == complete | {".whole": b""}
    (far / "a/trial.json.partial").write_bytes(b"left by an interrupted push")
    assert pull_and_read(other, "a") == complete
    near.push(near.root / "a")
    assert not (far / "a/trial.json.partial").exists()


def test_nested_folders_can_be_pushed_and_pulled(near: Remote, other: Remote, far: Path) -> None:
    write(near.root, {"trials/a/trial.json": b"1", "trials/b/trial.json": b"2"})
    near.push(near.root / "trials/a")
    near.push(near.root / "trials")
    near.push(near.root)
    assert pull_and_read(other, "") == read(near.root)
    shutil.rmtree(near.root / "trials/b")
    near.push(near.root)
    assert pull_and_read(other, "trials") == {"a/trial.json": b"1"}
    assert pull_and_read(Remote(other.root.with_name("third"), other.uri), "trials/a") != {}


# Detection of changes


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the modification time and inode of each file in a folder."""
    stats = {str(f.relative_to(folder)): f.stat() for f in folder.rglob("*") if f.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def test_unchanged_files_are_not_copied_again(near: Remote, other: Remote, far: Path) -> None:
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    before = stamps(far)
    near.push(near.root / "a")
    near.push(near.root / "a/trial.json")
    assert stamps(far) == before
    other.pull(other.root / "a")
    fetched = stamps(other.root)
    other.pull(other.root / "a")
    other.pull(other.root / "a/trial.json")
    assert stamps(other.root) == fetched


def test_large_files_count_as_changed_by_their_size_or_by_a_change_in_their_folder(
    near: Remote, other: Remote, far: Path
) -> None:
    folder = "checkpoints/000000000008"
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    other.pull(other.root / "a")

    changed = RECORD | {f"{folder}/state.safetensors": LARGE + b"y"}
    write(near.root / "a", changed)
    near.push(near.root / "a")
    assert pull_and_read(other, "a") == changed

    changed[f"{folder}/state.safetensors"] = b"y" * (len(LARGE) + 1)
    changed[f"{folder}/state.json"] = b'{"sha256": "3"}'
    write(near.root / "a", changed)
    near.push(near.root / "a")
    assert pull_and_read(other, "a") == changed

    before = stamps(far)[f"a/{folder}/state.safetensors"]
    write(near.root / "a", changed | {"curve.jsonl": b"3\n4\n"})
    near.push(near.root / "a")
    assert stamps(far)[f"a/{folder}/state.safetensors"] == before, "unchanged: not uploaded"
    (far / f"a/{folder}/state.safetensors").write_bytes(b"z" * (len(LARGE) + 1))
    assert pull_and_read(other, "a") == changed | {"curve.jsonl": b"3\n4\n"}, "not compared"


# Interruptions


class InterruptedPushError(Exception):
    """Simulates that the process was killed."""


def interrupt_after(patch: pytest.MonkeyPatch, limit: int, *names: str) -> Callable[[], int]:
    """Make the functions `names` of the module raise after `limit` calls.

    Returns:
        A function that returns the number of calls so far.
    """
    count = 0

    def limited(function: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            nonlocal count
            count += 1
            if count > limit:
                raise InterruptedPushError
            function(*arguments)

        return run

    for name in names:
        patch.setattr(remote_files, name, limited(getattr(remote_files, name)))
    return lambda: count


def test_a_push_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    newest = "checkpoints/000000000024"
    later = {"trial.json": b"{}\n", "curve.jsonl": b"3\n", "state": b"diverged"}
    later |= {f"{newest}/state.json": b"{}", f"{newest}/state.safetensors": LARGE}
    for start in (dict[str, bytes](), RECORD):
        for after in range(100):
            root = tmp_path / f"{len(start)}-{after}"
            near, reader = Remote(root / "near", f"file://{root}/far"), root / "reader"
            if start:
                write(near.root / "a", start)
                near.push(near.root / "a")
            write(near.root / "a", later)
            with pytest.MonkeyPatch.context() as patch:
                count = interrupt_after(patch, after, "upload", "delete")
                with suppress(MirrorError):
                    near.push(near.root / "a")
            remote = {k: v for k, v in read(root / "far/a").items() if k != ".whole"}
            if "state" in remote:
                assert remote in (start, later), "a record with a state is complete"
            local = pull_and_read(Remote(reader, near.uri), "a")
            if not start:
                assert local in ({}, later), "a new folder appears completely or not at all"
                assert (reader / "a").exists() == bool(local)
            elif f"{newest}/state.safetensors" not in local:  # the old checkpoints still exist
                assert start.items() - local.items() <= {("state", start["state"])}
            near.push(near.root / "a")
            assert pull_and_read(Remote(reader, near.uri), "a") == later
            if count() <= after:
                break
        assert 5 < after < 99


def test_a_deletion_may_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    near = Remote(tmp_path / "near", f"memory://{tmp_path.name}/runs")
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    shutil.rmtree(near.root / "a")
    remove = store.rm

    def failing(self: object, path: str, recursive: bool = False) -> None:
        if recursive:
            raise OSError("connection lost")
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "rm", failing)
        with pytest.raises(MirrorError, match="connection lost"):
            near.push(near.root / "a")
    assert pull_and_read(Remote(tmp_path / "other", near.uri), "a") == {}


def test_a_pushed_file_is_replaced_atomically(near: Remote, far: Path) -> None:
    """A reader in another process always sees one of the complete contents."""
    contents = [bytes([65 + number]) * 300_000 for number in range(2)]
    (near.root).mkdir()
    (near.root / "file").write_bytes(contents[0])
    near.push(near.root / "file")
    watch = (
        "import sys\nfile, seen = sys.argv[1], set()\nprint(flush=True)\n"
        "while 'C' not in seen:\n"
        "    text = open(file).read()\n"
        "    seen.add(text[:1] if text == text[:1] * 300_000 else f'{len(text)} bytes')\n"
        "print(sorted(seen))"
    )
    command = [sys.executable, "-c", watch, str(far / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for number in range(200):
            (near.root / "file").write_bytes(contents[number % 2])
            near.push(near.root / "file")
        (near.root / "file").write_bytes(b"C" * 300_000)
        near.push(near.root / "file")
        assert reader.stdout.readline().strip() in {"['A', 'B', 'C']", "['A', 'C']", "['B', 'C']"}


def test_a_pulled_new_folder_appears_atomically(
    near: Remote, other: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(near.root / "text", {"text.json": b"{}", "train.npy": LARGE, "deep/file": b"1"})
    near.push(near.root / "text")
    from pyarrow import fs

    copy, count = fs.copy_files, 0

    def failing(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError("connection lost")
        copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", failing)
        with pytest.raises(MirrorError, match="connection lost"):
            other.pull(other.root / "text")
    assert list(other.root.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.delattr(Path, "replace")  # no file is moved individually
        assert pull_and_read(other, "text") == read(near.root / "text")


@pytest.mark.parametrize("local", [{}, {"state": b"x" * len(RECORD["state"])}])
def test_the_writer_may_delete_a_file_during_a_pull(
    local: dict[str, bytes],
    near: Remote,
    other: Remote,
    far: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    write(other.root / "a", local)
    original = remote_folders.list_remote

    def list_then_delete(store: object, path: str) -> dict[str, object]:
        infos = original(store, path)
        (far / "a/state").unlink()
        return infos

    monkeypatch.setattr(remote_folders, "list_remote", list_then_delete)
    expected = RECORD | {"state": b""} | local
    assert pull_and_read(other, "a") | {"state": expected["state"]} == expected


# Opening a storage


def test_pushing_and_pulling_a_local_storage_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root, local_only = open_storage.open_mirror("runs")
    assert root == Path("runs")
    assert isinstance(local_only, LocalOnly)
    local_only.push(root / "a")
    local_only.pull(root / "a", "state")
    assert list(tmp_path.iterdir()) == []


def test_each_uri_has_its_own_local_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, _ = open_storage.open_mirror(uri)
    assert root.parent.parent == tmp_path / "cache/electra-lab"
    assert len(root.parent.name) == 12
    assert open_storage.open_mirror(uri) == (root, Remote(root, uri))
    file_system = remote_connection.open_file_system(uri)
    assert remote_folders.list_remote(*file_system) == {}, "the probe file is deleted"
    assert remote_connection.open_file_system(uri) is file_system, "one connection in a process"
    assert open_storage.open_mirror(f"file://{tmp_path}/elsewhere")[0] != root
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        open_storage.open_mirror(uri)[0]
        == tmp_path / ".cache/electra-lab" / root.parent.name / root.name
    )


def test_each_process_has_its_own_local_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, driver = open_storage.open_mirror(f"file://{tmp_path}/far")
    one, two = driver.for_process("one"), driver.for_process("two")
    paths = {m.map_path(root / "trials/a", driver) for m in (driver, one, two)}
    assert len(paths) == 3
    write(root / "trials/a", RECORD)
    driver.push(root / "trials/a")
    for process in (one, two):
        path = process.map_path(root / "trials/a", driver)
        process.pull(path)
        assert read(path) == RECORD


def test_drop_deletes_the_local_copy_only(uri: str, tmp_path: Path) -> None:
    near, reader = Remote(tmp_path / "near", uri), Remote(tmp_path / "reader", uri)
    for name in "ab":
        write(near.root / name, RECORD)
        near.push(near.root / name)
    near.delete_local(near.root / "a")
    near.delete_local(near.root / "a")
    assert [path.name for path in near.root.iterdir()] == ["b"]
    assert pull_and_read(reader, "a") == RECORD
    assert pull_and_read(near, "a") == RECORD, "it can be pulled again"


def test_drop_in_a_local_storage_deletes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", RECORD)
    LocalOnly().delete_local(tmp_path / "a")
    assert read(tmp_path / "a") == RECORD


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of torch's threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("few_sentences", "threads")
def test_actor_deletes_its_local_record_once_it_is_pushed_and_records_its_threads(
    prepared_text: PreparedText,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test runs the actor's function without Tune, so its reports are discarded."""
    runner = pytest.importorskip("lab.execution.runner")
    monkeypatch.setattr(runner.tune, "report", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, driver = open_storage.open_mirror(f"file://{tmp_path}/far")
    shutil.copytree(prepared_text.text, root / "cache/text")
    shutil.copy(held_out, root / "cache/held-out.npz")
    trial = Trial(**_trial() | {"data": prepared_text.data, "batch": 8, "evaluations": 1})
    work = Assignment(
        trial=replace(trial, budget=Budget(kind="tokens", amount=2 * 8 * 16)),
        folder=root / "trials/a",
        text=root / "cache/text",
        held_out=root / "cache/held-out.npz",
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
        resources=Resources(cpus_per_worker=2),
        mirror=driver,
    )
    record.write_queued(work.folder, work.trial)
    for path in (work.text, work.held_out, work.folder):
        driver.push(path)
    runner.run_in_actor({"work": work, "stop_file": root / "stop"})
    driver.pull(work.folder)
    outcome = record.read_outcome(work.folder)
    assert outcome is not None
    assert outcome.state == "finished", outcome.reason
    assert list(work.folder.glob("checkpoints/*/state.safetensors"))
    (entry,) = provenance.read_provenance(work.folder)
    assert entry.threads == 2
    (actor,) = root.parent.glob("alone-*")
    assert [file for file in actor.rglob("*") if file.is_file()] == []


def test_a_mirror_is_pickled_without_its_connection(uri: str, tmp_path: Path) -> None:
    remote = Remote(tmp_path / "near", uri)
    write(remote.root / "a", RECORD)
    remote.push(remote.root / "a")
    pickled = pickle.dumps(remote)
    assert b"pyarrow" not in pickled
    copy = pickle.loads(pickled)  # noqa: S301
    assert copy == remote
    shutil.rmtree(remote.root)
    assert pull_and_read(copy, "a") == RECORD


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("bogus://bucket/runs", "bogus"),
        ("s3:///runs", "bucket"),
        ("s3://bucket/runs?nope=1", "nope"),
        ("s3://[/runs", "URI"),
        ("file:///proc/runs", "proc"),
        ("gdrive://runs/x", "gdrive|install"),
        ("https://127.0.0.1:1/runs", "."),
    ],
)
def test_an_unusable_uri_raises_a_one_line_error(storage: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        open_storage.open_mirror(storage)
    line = str(raised.value)
    assert line.startswith(f"--storage {storage.partition('?')[0]}: ")
    assert line.endswith("such as s3://bucket/path")
    assert "\n" not in line


def test_a_missing_bucket_raises(s3: str) -> None:
    with pytest.raises(MirrorError, match=r"--storage s3://missing/runs: .*NO_SUCH_BUCKET"):
        open_storage.open_mirror(f"s3://key:hidden@missing/runs?{s3}")


@pytest.mark.parametrize(
    "storage",
    [
        "bogus://key:hid%2Fden@bucket/runs",
        "s3://key:hid/den@bucket/runs",
        "s3://key:hid?d/en@[bucket/runs",
        "s3://key:hidden@bucket/runs?hidden=1&nope=hidden",
        "abfs://key:hidden@bucket/runs?client_secret=hidden&nope=2",
        "s3://key:hid den@bucket/runs",
    ],
)
def test_messages_contain_no_secret_of_the_uri(storage: str) -> None:
    with pytest.raises(MirrorError) as raised:
        open_storage.open_mirror(storage)
    message = str(raised.value).lower()
    assert "key" not in message
    assert "hid" not in message
    assert "den@" not in message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert storage not in repr(Remote(Path("runs"), storage))


def test_secrets_are_replaced_in_the_file_systems_message(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = "s3://hid:hid%2Fden@bucket/runs?endpoint_override=host&scheme=http&token=hu%3Dsh"

    def fail(uri: str) -> None:
        raise OSError(f"{uri} at http host: hid/den, hu=sh\nsecond line")

    monkeypatch.setattr(remote_connection, "open_file_system", fail)
    with pytest.raises(MirrorError) as raised:
        open_storage.open_mirror(storage)
    assert str(raised.value).split("; name")[0] == (
        "--storage s3://bucket/runs: s3://***:***@bucket/runs?endpoint_override=host&scheme=http"
        "&token=*** at http host: ***, ***"
    )


def test_a_programming_error_is_not_reported_as_a_storage_error(
    near: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_folders, "push_folder", lambda *_: len(None))  # type: ignore[arg-type]
    write(near.root / "a", RECORD)
    with pytest.raises(TypeError):
        near.push(near.root / "a")
    with pytest.raises(ValueError, match="subpath"):
        near.push(near.root.parent / "elsewhere")

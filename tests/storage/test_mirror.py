"""A remote tree equals the local one, whatever it is behind and wherever a push was cut off."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prepared_text import PreparedText

from lab.config.architecture import SIZES
from lab.config.budget import Budget
from lab.config.metrics import METRICS
from lab.config.results import Outcome
from lab.config.trial import Trial
from lab.errors import UserError
from lab.storage import mirror, record
from lab.storage.mirror import LocalOnly, MirrorError, Remote
from lab.trials.assignment import Assignment

LARGE = b"x" * (mirror._SMALL + 1)
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
    """Return every file of a folder; an empty folder below it counts too."""
    return {
        str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Serve S3 on loopback; return the parameters of a URI that reach it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"endpoint_override={host}%3A{port}&scheme=http"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty tree on a disk, behind fsspec, and on an S3 server."""
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
    """Return the remote tree of `near` and `other`, as a folder."""
    return tmp_path / "far"


@pytest.fixture
def near(tmp_path: Path, far: Path) -> Remote:
    return Remote(tmp_path / "near", f"file://{far}")


@pytest.fixture
def other(tmp_path: Path, far: Path) -> Remote:
    return Remote(tmp_path / "other", f"file://{far}")


def pulled(remote: Remote, place: str, *names: str) -> dict[str, bytes]:
    remote.pull(remote.root / place, *names)
    return read(remote.root / place)


# What is there


def test_another_machine_pulls_what_was_pushed(uri: str, tmp_path: Path) -> None:
    one, two = Remote(tmp_path / "one", uri), Remote(tmp_path / "two", uri)
    write(one.root / "trials/a", RECORD)
    one.push(one.root / "trials/a")
    assert pulled(two, "trials/a") == RECORD

    later = RECORD | {"curve.jsonl": b"1\n3\n", "new/file": b"new"}
    del later["state"], later["checkpoints/000000000008/state.json"]
    del later["checkpoints/000000000008/state.safetensors"]
    write(one.root / "trials/a", later)
    one.push(one.root / "trials/a")
    assert pulled(two, "trials/a") == later

    shutil.rmtree(one.root / "trials/a")
    one.push(one.root / "trials/a")
    three = Remote(tmp_path / "three", uri)
    assert pulled(three, "trials/a") == {}
    assert not (three.root / "trials/a").exists()


def test_a_file_travels_alone(uri: str, tmp_path: Path) -> None:
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
    assert (two.root / "notes.jsonl").read_bytes() == b"4\n", "what is not there is left alone"
    three = Remote(tmp_path / "three", uri)
    three.pull(three.root / "notes.jsonl")
    assert not (three.root / "notes.jsonl").exists()


def test_a_record_reads_the_same_on_another_machine(near: Remote, other: Remote) -> None:
    trial = Trial(**_trial())
    here, there = near.root / "trials/a", other.root / "trials/a"
    record.begin_record(here, trial)
    record.append_row(here, {"spent/steps": 8.0})
    near.push(here)
    other.pull(there, *record.SMALL)
    assert record.read_outcome(there) is None
    assert record.read_curve(there) == ({"spent/steps": 8.0},)
    rows = record.read_curve(here)
    outcome = Outcome(state="finished", reason="", rows=rows, began=1.0, seconds=2.0, busy=1.0)
    record.write_outcome(here, outcome)
    near.push(here)
    other.pull(there, *record.SMALL)
    assert record.read_outcome(there) == outcome
    record.begin_record(here, trial)  # it goes on
    near.push(here)
    other.pull(there, *record.SMALL)
    assert record.read_outcome(there) is None


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
    assert pulled(other, "a", *small) == {name: RECORD[name] for name in small}
    write(other.root / "a", RECORD | {"checkpoints/000000000004/state.json": b"mine"})
    (near.root / "a/state").unlink()
    (near.root / "a/curve.jsonl").write_bytes(b"1\n3\n")
    near.push(near.root / "a")
    expected = RECORD | {"checkpoints/000000000004/state.json": b"mine", "curve.jsonl": b"1\n3\n"}
    del expected["state"]
    assert pulled(other, "a", *small) == expected


def test_what_is_not_there_is_left_alone_here(other: Remote) -> None:
    write(other.root / "a", RECORD)
    assert pulled(other, "a") == RECORD
    other.pull(other.root / "a/state")
    assert read(other.root / "a") == RECORD


def test_what_is_being_written_stays_where_it_is(near: Remote, other: Remote, far: Path) -> None:
    whole = {"trial.json": b"{}"}
    write(near.root / "a", whole | {"curve.partial": b"1", "checkpoints/.partial-x/state": b"2"})
    near.push(near.root / "a")
    assert read(far / "a") == whole | {".whole": b""}
    (far / "a/trial.json.partial").write_bytes(b"left by a push that was cut off")
    assert pulled(other, "a") == whole
    near.push(near.root / "a")
    assert not (far / "a/trial.json.partial").exists()


def test_folders_may_stand_in_one_another(near: Remote, other: Remote, far: Path) -> None:
    write(near.root, {"trials/a/trial.json": b"1", "trials/b/trial.json": b"2"})
    near.push(near.root / "trials/a")
    near.push(near.root / "trials")
    near.push(near.root)
    assert pulled(other, "") == read(near.root)
    shutil.rmtree(near.root / "trials/b")
    near.push(near.root)
    assert pulled(other, "trials") == {"a/trial.json": b"1"}
    assert pulled(Remote(other.root.with_name("third"), other.uri), "trials/a") != {}


# What has changed


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(f.relative_to(folder)): f.stat() for f in folder.rglob("*") if f.is_file()}
    return {name: (state.st_mtime_ns, state.st_ino) for name, state in found.items()}


def test_nothing_is_sent_twice(near: Remote, other: Remote, far: Path) -> None:
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


def test_large_files_are_told_apart_by_size_or_by_what_stands_beside_them(
    near: Remote, other: Remote, far: Path
) -> None:
    folder = "checkpoints/000000000008"
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    other.pull(other.root / "a")

    changed = RECORD | {f"{folder}/state.safetensors": LARGE + b"y"}
    write(near.root / "a", changed)
    near.push(near.root / "a")
    assert pulled(other, "a") == changed

    changed[f"{folder}/state.safetensors"] = b"y" * (len(LARGE) + 1)
    changed[f"{folder}/state.json"] = b'{"sha256": "3"}'
    write(near.root / "a", changed)
    near.push(near.root / "a")
    assert pulled(other, "a") == changed

    before = stamps(far)[f"a/{folder}/state.safetensors"]
    write(near.root / "a", changed | {"curve.jsonl": b"3\n4\n"})
    near.push(near.root / "a")
    assert stamps(far)[f"a/{folder}/state.safetensors"] == before, "it has no reason to travel"
    (far / f"a/{folder}/state.safetensors").write_bytes(b"z" * (len(LARGE) + 1))
    assert pulled(other, "a") == changed | {"curve.jsonl": b"3\n4\n"}, "it is not even read"


# Cut off


class CutError(Exception):
    """The process is gone."""


def cut_off(patch: pytest.MonkeyPatch, after: int, *names: str) -> Callable[[], int]:
    """Let only so many effects happen; return what says how many were asked for."""
    count = 0

    def limited(effect: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            nonlocal count
            count += 1
            if count > after:
                raise CutError
            effect(*arguments)

        return run

    for name in names:
        patch.setattr(mirror, name, limited(getattr(mirror, name)))
    return lambda: count


def test_a_push_may_be_cut_off_anywhere(tmp_path: Path) -> None:
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
                count = cut_off(patch, after, "_upload", "_delete")
                with suppress(MirrorError):
                    near.push(near.root / "a")
            there = {k: v for k, v in read(root / "far/a").items() if k != ".whole"}
            if "state" in there:
                assert there in (start, later), "a record that says it is complete is"
            got = pulled(Remote(reader, near.uri), "a")
            if not start:
                assert got in ({}, later), "a new folder is there when all of it is"
                assert (reader / "a").exists() == bool(got)
            elif f"{newest}/state.safetensors" not in got:  # what it replaces is still there
                assert start.items() - got.items() <= {("state", start["state"])}
            near.push(near.root / "a")
            assert pulled(Remote(reader, near.uri), "a") == later
            if count() <= after:
                break
        assert 5 < after < 99


def test_a_deletion_may_be_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    near = Remote(tmp_path / "near", f"memory://{tmp_path.name}/runs")
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    shutil.rmtree(near.root / "a")
    remove = store.rm

    def failing(self: object, path: str, recursive: bool = False) -> None:
        if recursive:
            raise OSError("the line is dead")
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "rm", failing)
        with pytest.raises(MirrorError, match="the line is dead"):
            near.push(near.root / "a")
    assert pulled(Remote(tmp_path / "other", near.uri), "a") == {}


def test_a_file_appears_there_in_one_piece(near: Remote, far: Path) -> None:
    """A reader in another process never sees less than one of the contents."""
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


def test_a_new_folder_appears_here_in_one_piece(
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
            raise OSError("the line is dead")
        copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", failing)
        with pytest.raises(MirrorError, match="the line is dead"):
            other.pull(other.root / "text")
    assert list(other.root.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.delattr(Path, "replace")  # nothing is moved in one by one
        assert pulled(other, "text") == read(near.root / "text")


@pytest.mark.parametrize("here", [{}, {"state": b"x" * len(RECORD["state"])}])
def test_a_reader_may_be_overtaken_by_the_writer(
    here: dict[str, bytes],
    near: Remote,
    other: Remote,
    far: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(near.root / "a", RECORD)
    near.push(near.root / "a")
    write(other.root / "a", here)
    listed = mirror._there

    def then_deleted(store: object, path: str) -> dict[str, object]:
        found = listed(store, path)
        (far / "a/state").unlink()
        return found

    monkeypatch.setattr(mirror, "_there", then_deleted)
    expected = RECORD | {"state": b""} | here
    assert pulled(other, "a") | {"state": expected["state"]} == expected


# The door


def test_a_folder_is_its_own_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root, nowhere = mirror.open_mirror("runs")
    assert root == Path("runs")
    assert isinstance(nowhere, LocalOnly)
    nowhere.push(root / "a")
    nowhere.pull(root / "a", "state")
    assert list(tmp_path.iterdir()) == []


def test_a_uri_has_a_folder_of_its_own(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, _ = mirror.open_mirror(uri)
    assert root.parent.parent == tmp_path / "cache/electra-lab"
    assert len(root.parent.name) == 12
    assert mirror.open_mirror(uri) == (root, Remote(root, uri))
    assert mirror._there(*mirror._store(uri)) == {}, "the probe leaves nothing"
    assert mirror._store(uri) is mirror._store(uri), "one connection in a process"
    assert mirror.open_mirror(f"file://{tmp_path}/elsewhere")[0] != root
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        mirror.open_mirror(uri)[0] == tmp_path / ".cache/electra-lab" / root.parent.name / root.name
    )


def test_processes_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, driver = mirror.open_mirror(f"file://{tmp_path}/far")
    one, two = driver.apart("one"), driver.apart("two")
    places = {m.place(root / "trials/a", driver) for m in (driver, one, two)}
    assert len(places) == 3
    write(root / "trials/a", RECORD)
    driver.push(root / "trials/a")
    for each in (one, two):
        there = each.place(root / "trials/a", driver)
        each.pull(there)
        assert read(there) == RECORD


def test_a_process_lets_go_of_its_copy_of_what_the_storage_has(uri: str, tmp_path: Path) -> None:
    near, reader = Remote(tmp_path / "near", uri), Remote(tmp_path / "reader", uri)
    for name in "ab":
        write(near.root / name, RECORD)
        near.push(near.root / name)
    near.drop(near.root / "a")
    near.drop(near.root / "a")
    assert [place.name for place in near.root.iterdir()] == ["b"]
    assert pulled(reader, "a") == RECORD
    assert pulled(near, "a") == RECORD, "it may be needed again"


def test_a_folder_that_is_its_own_mirror_keeps_what_is_let_go_of(tmp_path: Path) -> None:
    write(tmp_path / "a", RECORD)
    LocalOnly().drop(tmp_path / "a")
    assert read(tmp_path / "a") == RECORD


@pytest.mark.usefixtures("few_sentences")
def test_actor_leaves_no_record_behind_once_the_storage_has_it(
    prepared_text: PreparedText,
    held_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each trial runs in an actor; what it says on the way goes to Tune, which is not here."""
    runner = pytest.importorskip("lab.execution.runner")
    monkeypatch.setattr(runner.tune, "report", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, driver = mirror.open_mirror(f"file://{tmp_path}/far")
    shutil.copytree(prepared_text.text, root / "cache/text")
    shutil.copy(held_out, root / "cache/held-out.npz")
    asked = Trial(**_trial() | {"data": prepared_text.data, "batch": 8, "evaluations": 1})
    work = Assignment(
        trial=replace(asked, budget=Budget(kind="tokens", amount=2 * 8 * 16)),
        folder=root / "trials/a",
        text=root / "cache/text",
        held_out=root / "cache/held-out.npz",
        metric=METRICS["probe/pos/accuracy"],
        mirror=driver,
    )
    record.write_queued(work.folder, work.trial)
    for place in (work.text, work.held_out, work.folder):
        driver.push(place)
    runner.run_in_actor({"work": work, "stop_file": root / "stop"})
    driver.pull(work.folder)
    ended = record.read_outcome(work.folder)
    assert ended is not None
    assert ended.state == "finished", ended.reason
    assert list(work.folder.glob("checkpoints/*/state.safetensors"))
    (actor,) = root.parent.glob("alone-*")
    assert [file for file in actor.rglob("*") if file.is_file()] == []


def test_it_travels_without_its_connection(uri: str, tmp_path: Path) -> None:
    remote = Remote(tmp_path / "near", uri)
    write(remote.root / "a", RECORD)
    remote.push(remote.root / "a")
    packed = pickle.dumps(remote)
    assert b"pyarrow" not in packed
    copy = pickle.loads(packed)  # noqa: S301
    assert copy == remote
    shutil.rmtree(remote.root)
    assert pulled(copy, "a") == RECORD


@pytest.mark.parametrize(
    ("storage", "says"),
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
def test_what_cannot_be_used_is_refused_in_one_line(storage: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        mirror.open_mirror(storage)
    line = str(refused.value)
    assert line.startswith(f"--storage {storage.partition('?')[0]}: ")
    assert line.endswith("such as s3://bucket/path")
    assert "\n" not in line


def test_a_bucket_that_is_not_there_is_refused(s3: str) -> None:
    with pytest.raises(MirrorError, match=r"--storage s3://missing/runs: .*NO_SUCH_BUCKET"):
        mirror.open_mirror(f"s3://key:hidden@missing/runs?{s3}")


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
def test_no_secret_is_ever_printed(storage: str) -> None:
    with pytest.raises(MirrorError) as refused:
        mirror.open_mirror(storage)
    shown = str(refused.value).lower()
    assert "key" not in shown
    assert "hid" not in shown
    assert "den@" not in shown
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert storage not in repr(Remote(Path("runs"), storage))


def test_a_reason_is_told_without_the_secrets_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = "s3://hid:hid%2Fden@bucket/runs?endpoint_override=host&scheme=http&token=hu%3Dsh"

    def refusing(uri: str) -> None:
        raise OSError(f"{uri} at http host: hid/den, hu=sh\nsecond line")

    monkeypatch.setattr(mirror, "_store", refusing)
    with pytest.raises(MirrorError) as refused:
        mirror.open_mirror(storage)
    assert str(refused.value).split("; name")[0] == (
        "--storage s3://bucket/runs: s3://***:***@bucket/runs?endpoint_override=host&scheme=http"
        "&token=*** at http host: ***, ***"
    )


def test_a_mistake_of_the_labs_is_not_put_on_the_storage(
    near: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_push_folder", lambda *_: len(None))  # type: ignore[arg-type]
    write(near.root / "a", RECORD)
    with pytest.raises(TypeError):
        near.push(near.root / "a")
    with pytest.raises(ValueError, match="subpath"):
        near.push(near.root.parent / "elsewhere")

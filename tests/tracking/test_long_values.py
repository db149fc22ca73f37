"""Values that are longer than MLflow stores in a tag or a parameter, with a real MLflow."""

import dataclasses
import json
from pathlib import Path

import pytest
from experiments import BASE, JOB, experiment, outcome, row

from lab.config.experiment import Experiment, Job
from lab.config.trial import Value
from lab.loading.search_space import build_trial, expand_cells
from lab.reporting.page import write_report
from lab.tracking import frames, long_values, tags
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore

SOURCE = "data.source"
SOURCES: tuple[Value, ...] = tuple(
    {"kind": "files", "paths": [f"/corpora/of/{place}/{number:05}.txt" for number in range(400)]}
    for place in ("rome", "ghana")
)


pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store_folder = tmp_path_factory.mktemp("store")
    connect_client(default_uri(store_folder))  # one for all tests: the schema takes seconds
    return store_folder


@pytest.fixture
def uri(folder: Path) -> str:
    return default_uri(folder)


def store_sweep(uri: str, folder: Path, name: str) -> Experiment:
    """Store a sweep that compares two texts of hundreds of files each."""
    sweep = experiment(name, compare={SOURCE: SOURCES})
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(sweep, {}, {tags.SPACE_FILE: "question: Does it?\n"})
    for number, cell in enumerate(expand_cells(sweep)):
        job = Job(
            number=number,
            role="repeat",
            cell=cell,
            tuned={},
            repeat=1,
            trial=build_trial(BASE, cell),
            compared=sweep.compare,
        )
        store.sync(job, f"f{number}", "running", [row(0)])
        store.sync(job, f"f{number}", "finished", [row(0), row(40)], outcome(row(0), row(40)))
    store.close("finished", {})
    return sweep


@pytest.mark.reported
def test_a_report_of_compared_values_over_8000_characters_has_short_labels(
    uri: str, folder: Path, tmp_path: Path
) -> None:
    sweep = store_sweep(uri, folder, "texts")
    assert len(json.dumps(sweep.compare)) > 2 * long_values.MOST_TAG
    read = frames.load_frames(uri, "texts")
    assert read.compare == {SOURCE: list(SOURCES)}
    labels = list(read.trials["cell"])
    assert len(set(labels)) == 2
    assert max(map(len, labels)) < 100
    assert read.reference in labels
    assert [json.loads(text) for text in read.trials[SOURCE]] == list(SOURCES)
    page = write_report(read, tmp_path / "reports")
    assert all(label in page.with_suffix(".md").read_text() for label in labels)


@pytest.mark.reported
def test_a_shortened_tag_or_parameter_says_so_and_names_the_artifact_with_the_value(
    uri: str, folder: Path
) -> None:
    store_sweep(uri, folder, "shortened")
    client = connect_client(uri)
    sweep_id = client.get_experiment_by_name("shortened").experiment_id
    (run, *_) = client.search_runs([sweep_id], "tags.`lab.number` = '1'")
    tag, param = run.data.tags["lab.cell"], run.data.params[f"{SOURCE}.paths"]
    for text, most in ((tag, long_values.MOST_TAG), (param, long_values.MOST_PARAM)):
        assert text.startswith("long value: ")
        assert len(text) < most
    assert "characters, SHA-256 " in tag
    assert "in the artifact long_values/lab.cell.txt: " in tag
    stored = Path(client.download_artifacts(run.info.run_id, "long_values/lab.cell.txt"))
    assert json.loads(stored.read_text()) == {SOURCE: SOURCES[1]}
    assert "in the artifact long_values/data.source.paths.txt: " in param


def test_a_long_value_whose_artifact_is_missing_gives_one_line(uri: str, folder: Path) -> None:
    store_sweep(uri, folder, "missing")
    run = frames.load_frames(uri, "missing").run_id
    (file,) = folder.glob(f"artifacts/**/{run}/**/lab.compare.txt")
    file.unlink()
    with pytest.raises(frames.FramesError, match="the artifact with a long value is missing"):
        frames.load_frames(uri, "missing")


@pytest.mark.reported
def test_a_value_that_an_older_version_cut_gives_one_line(uri: str, folder: Path) -> None:
    store_sweep(uri, folder, "cut")
    client = connect_client(uri)
    sweep_id = client.get_experiment_by_name("cut").experiment_id
    (run,) = client.search_runs([sweep_id], "tags.`lab.kind` = 'sweep'")
    client.set_tag(run.info.run_id, "lab.compare", json.dumps({SOURCE: SOURCES})[:8_000])
    with pytest.raises(frames.FramesError, match=r"the tag lab\.compare is not a JSON object"):
        frames.load_frames(uri, "cut")


def test_a_value_that_looks_like_a_notice_is_stored_whole(uri: str, folder: Path) -> None:
    """Otherwise a question could name the artifact that is shown in its place."""
    shortened = long_values.shorten({"lab.question": "x" * 9_000}, long_values.MOST_TAG)
    forged = shortened.values["lab.question"].replace("lab.question", "../../secret")
    store = MlflowStore(uri, folder / "artifacts")
    store.begin(experiment("forged", question=forged), {}, {})
    store.sync(dataclasses.replace(JOB), "f0", "queued")
    assert frames.load_frames(uri, "forged").sweep[tags.QUESTION] == forged

"""What a sweep stores for readers of MLflow: report, answer, data sets, score and addresses."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from experiments import JOB, METRIC, experiment, outcome, row
from project import ROOT

from lab.tracking import frames, tags
from lab.tracking.client import connect_client, default_uri
from lab.tracking.inputs import DataInput, SweepInputs, name_source
from lab.tracking.publication import publish_report
from lab.tracking.store import MlflowStore
from lab.tracking.user_interface import describe_interface, list_links, runs_link

pytestmark = pytest.mark.usefixtures("unsynced")
TEXT = DataInput("files a.txt", "text-0123456789ab", {"vocab": 400}, "training")
OTHER = DataInput("files b.txt", "text-ba9876543210", {"vocab": 500}, "training")
TASK = DataInput("own", "0123456789ab", {"kind": "pairs"}, "fine-tuning")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with a sweep that was started twice, and has one finished trial."""
    folder = tmp_path_factory.mktemp("store")
    uri = default_uri(folder)
    texts = {JOB.trial.data: TEXT, dataclasses.replace(JOB.trial.data, vocab=500): OTHER}
    for _ in range(2):
        store = MlflowStore(uri, folder / "artifacts")
        inputs = SweepInputs(texts=texts, tasks=(TASK,))
        store.begin(experiment("read"), {}, {}, inputs)
        store.sync(JOB, "f0", "running", [row(0)])
    store.sync(JOB, "f0", "finished", [row(0), row(40)], outcome(row(0), row(40)))
    store.close("finished", {})
    return uri


def run_of(uri: str, kind: str) -> Any:
    client = connect_client(uri)
    number = client.get_experiment_by_name("read").experiment_id
    (run,) = client.search_runs([number], f"tags.`lab.kind` = '{kind}'")
    return client.get_run(run.info.run_id)


def datasets(run: Any) -> set[tuple[str, str, str]]:
    return {
        (each.dataset.name, each.dataset.digest, each.tags[0].value)
        for each in run.inputs.dataset_inputs
    }


@pytest.mark.reported
def test_runs_have_their_data_sets_once_with_digest_and_use(uri: str) -> None:
    sweep, trial = run_of(uri, "sweep"), run_of(uri, "trial")
    all_inputs = {(each.name, each.digest, each.context) for each in (TEXT, OTHER, TASK)}
    assert datasets(sweep) == all_inputs
    assert len(sweep.inputs.dataset_inputs) == 3
    assert datasets(trial) == {(each.name, each.digest, each.context) for each in (TEXT, TASK)}
    assert len(trial.inputs.dataset_inputs) == 2


def test_score_is_a_column_of_its_own_in_mlflow_but_not_in_the_frames(uri: str) -> None:
    assert run_of(uri, "trial").data.metrics["score"] == row(40)[METRIC]
    read = frames.load_frames(uri, "read")
    assert list(read.trials["score"]) == [row(40)[METRIC]]
    assert "score" not in read.curves


@pytest.mark.reported
def test_report_and_answer_are_in_the_run_of_the_sweep(uri: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html>")
    page.with_suffix(".md").write_text("# Does it?")
    answer = "No difference. " * 1_000
    read = frames.load_frames(uri, "read")
    publish_report(uri, read, page, answer, "# Does it?\n\n**No.**")
    client, run = connect_client(uri), run_of(uri, "sweep")
    stored = {
        name: Path(client.download_artifacts(run.info.run_id, name, str(tmp_path))).read_text()
        for name in ("report.html", "report.md", tags.ANSWER_FILE)
    }
    assert stored == {
        "report.html": "<html>", "report.md": "# Does it?", tags.ANSWER_FILE: answer
    }  # fmt: skip
    assert run.data.tags[tags.REPORT_ANSWER] == answer[: tags.MOST_SHOWN]
    assert run.data.tags["mlflow.note.content"] == "# Does it?\n\n**No.**"
    assert frames.load_frames(uri, "read").sweep == read.sweep  # the report stays as it is


@pytest.mark.reported
def test_link_opens_the_table_of_runs_with_the_best_score_first(uri: str) -> None:
    """Without `workflowType`, MLflow 3 opens its mode for language models."""
    number = connect_client(uri).get_experiment_by_name("read").experiment_id
    link = (
        f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning"
        "&orderByKey=metrics.%60score%60&orderByAsc=false"
    )
    assert list_links(uri) == [f"read: {link}"]
    lines = describe_interface(uri, frames.load_frames(uri, "read"))
    assert lines[-1].endswith(f"then open {link}")
    served = runs_link("https://mlflow.example/base/", "7", maximize=False)
    assert served.startswith("https://mlflow.example/base/#/experiments/7/runs?workflowType=")
    assert served.endswith("orderByAsc=true")


def test_parameters_of_the_link_are_those_of_the_installed_mlflow() -> None:
    import mlflow

    scripts = Path(mlflow.__file__).parent.joinpath("server", "js", "build", "static", "js")
    if not scripts.is_dir():
        pytest.skip("MLflow without its user interface")
    source = "".join(file.read_text() for file in scripts.glob("*.js"))
    for name in ("workflowType", "machine_learning", "orderByKey", "orderByAsc"):
        assert name in source


@pytest.mark.reported
def test_make_ui_prints_the_links_before_it_serves_them() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nui:")[2].partition("\n\n")[0]
    assert recipe.index("lab.tracking.user_interface") < recipe.index("mlflow ui")


def test_names_of_texts_are_short() -> None:
    files = {"kind": "files", "paths": [f"/corpora/{number}.txt" for number in range(300)]}
    assert name_source(files) == "files /corpora/0.txt and 299 more"
    assert name_source({"kind": "hub", "name": "a/b"}) == "hub a/b"
    assert name_source({"kind": "mixture", "parts": []}) == "mixture"
    assert len(name_source({"kind": "files", "paths": ["x" * 900]})) <= 120

"""Trials are found by name, folder or sweep; the best trial is logged as an MLflow model."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from experiments import WIDTH, experiment, outcome, row
from exporting import random
from prepared_text import PreparedText

from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget, Spent
from lab.config.experiment import Job
from lab.config.objectives import AnyObjectiveConfig
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.results import MetricRow
from lab.config.trial import Trial
from lab.errors import UserError
from lab.interop import find_trial, mlflow_model
from lab.interop.export import write_networks
from lab.interop.trained import open_checkpoints, open_trained
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tracking import frames
from lab.tracking.client import connect_client, default_uri
from lab.tracking.store import MlflowStore
from lab.training import optimizer
from lab.training.checkpoint import Checkpoints, TrainingPosition

METRIC = "detect/bigram/auroc"
ELECTRA = ElectraConfig(kind="electra")
BEST, OTHER, UNSCORED = "aaaa00000001", "aaaa00000002", "bbbb00000003"
SCORES = {BEST: 0.8, OTHER: 0.6}


def write_record(
    folder: Path,
    objective: AnyObjectiveConfig,
    text: PreparedText,
    rows: Sequence[MetricRow] = (),
) -> None:
    """Write the record of a trial with random weights.

    Args:
        folder: folder of the record.
        objective: objective of the trial.
        text: its prepared text.
        rows: evaluations, each with a checkpoint; without any, there is a checkpoint of step 0.
    """
    trial = Trial(
        encoder=EncoderConfig(layers=1, hidden=16, ffn=32, heads=2, embedding=8),
        objective=objective,
        data=text.data,
        budget=Budget(kind="tokens", amount=1e4),
    )
    record.write_queued(folder, trial, "", text.text.name)
    record.write_rows(folder, rows)
    checkpoints = Checkpoints(folder / "checkpoints", maximize=True)
    for number, each in enumerate(rows or (row(0),), start=1):
        networks = random(trial, seed=number)
        position = TrainingPosition(
            spent=Spent(steps=int(each["spent/steps"])),
            evaluations=number, score=each[METRIC], counts={}, micro_batch_limit=None,
        )  # fmt: skip
        checkpoints.save(position, networks, optimizer.build_optimizer(networks, trial.optim), {})
    checkpoints.prune()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, prepared_text: PreparedText) -> Path:
    """Return a storage with three records."""
    folder = tmp_path_factory.mktemp("storage")
    (folder / "cache").mkdir()
    (folder / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    for name in (BEST, OTHER, UNSCORED):
        write_record(folder / "trials" / name, ELECTRA, prepared_text)
    connect_client(default_uri(folder))
    return folder


def record_sweep(
    storage: Path, name: str, scores: dict[str, float], uri: str = "", **changes: object
) -> frames.SweepFrames:
    """Record a finished sweep with the scores of some trials; return it as read from the store."""
    uri = uri or default_uri(storage)
    store = MlflowStore(uri, storage / "artifacts")
    width = "objective.generator.width"
    store.begin(experiment(name, **changes), {}, {})
    for number, (fingerprint, score) in enumerate(scores.items()):
        folder = storage / "trials" / fingerprint
        trial = search_space.build_trial(record.read_facts(folder)["trial"], {width: 0.25})
        job = Job(number=number, role="repeat", cell={width: 0.25}, tuned={},
                       repeat=number + 1, trial=trial)  # fmt: skip
        rows = record.read_curve(folder) or (row(1, **{METRIC: score}),)
        store.sync(job, fingerprint, "finished", rows, outcome(*rows))
    store.close("finished", {})
    return frames.load_frames(uri, name)


@pytest.mark.parametrize("run", [BEST, BEST[:-2] + "01", "bbbb"])
def test_trial_is_found_by_its_name_or_a_unique_beginning(storage: Path, run: str) -> None:
    assert find_trial.resolve_run(run, storage).folder == storage / "trials" / (
        UNSCORED if run == "bbbb" else BEST
    )


def test_trial_is_found_by_the_folder_of_its_record(storage: Path, tmp_path: Path) -> None:
    folder = storage / "trials" / OTHER
    assert find_trial.resolve_run(str(folder), tmp_path) == (folder, "")


def test_ambiguous_beginning_is_refused_with_the_matches(storage: Path) -> None:
    with pytest.raises(UserError, match=f"aaaa: begins the names of {BEST}, {OTHER}; write more"):
        find_trial.resolve_run("aaaa", storage)


@pytest.mark.parametrize("run", ["", ".", "..", "../trials", "trials/" + BEST, "ffff", "state"])
def test_unknown_trial_is_refused_with_the_existing_trials(storage: Path, run: str) -> None:
    with pytest.raises(UserError, match=f"there is {BEST}, {OTHER}, {UNSCORED}"):
        find_trial.resolve_run(run, storage, default_uri(storage))


def test_name_of_a_sweep_selects_its_best_repeat(storage: Path) -> None:
    record_sweep(storage, "upwards", SCORES)
    assert find_trial.resolve_run("upwards", storage, default_uri(storage)).folder.name == BEST
    record_sweep(storage, "turned", {BEST: SCORES[OTHER], OTHER: SCORES[BEST]})
    assert find_trial.resolve_run("turned", storage, default_uri(storage)).folder.name == OTHER


def test_smallest_score_is_best_for_a_minimized_metric(storage: Path) -> None:
    from lab.config.metrics import METRICS

    loss = METRICS["detect/bigram/calibrated_loss"]
    table = record_sweep(storage, "downwards", SCORES)
    sweep = table.sweep | {"metric": loss.name}
    best = find_trial.find_best_trial(dataclasses.replace(table, sweep=sweep))
    assert best is not None
    assert best.name == OTHER


@pytest.mark.reported
def test_choice_of_the_best_trial_is_explained(storage: Path) -> None:
    record_sweep(storage, "explained", SCORES)
    reason = find_trial.resolve_run("explained", storage, default_uri(storage)).reason
    assert reason == (
        f"sweep explained: trial 0, {METRIC} {SCORES[BEST]:.4f}, the best of its {len(SCORES)} "
        "trials of the setting with the best mean, width 0.25; no other setting has a score"
    )


@pytest.mark.reported
@pytest.mark.parametrize(
    ("scores", "separation"),
    [
        (
            {0.25: [0.81, 0.80, 0.79], 0.5: [0.5, 0.51, 0.49]},
            "the sweep separates it from the other setting",
        ),
        (
            {0.25: [0.80, 0.71, 0.62], 0.5: [0.6, 0.71, 0.79]},
            "the sweep does not separate it from width 0.5: these settings tie",
        ),
    ],
)
def test_choice_of_the_best_trial_says_whether_settings_are_separable(
    scores: dict[float, list[float]], separation: str
) -> None:
    cells = [(width, score) for width, values in scores.items() for score in values]
    trials = pd.DataFrame(
        {
            "number": number, "fingerprint": f"{number:012}", "state": "finished", "role": "repeat",
            "repeat": number % 3 + 1, "cell": f"width {width:g}", "tuned": "", "score": score,
            "untrained": 0.4, WIDTH: width, METRIC: score,
        }
        for number, (width, score) in enumerate(cells)
    )  # fmt: skip
    table = frames.SweepFrames(
        name="widths",
        sweep={
            "metric": METRIC, "compare": json.dumps({WIDTH: list(scores)}), "tune": "{}",
            "reference": json.dumps({WIDTH: 0.5}),
        },
        measures={},
        texts={},
        trials=trials,
        curves=pd.DataFrame({"number": [], "spent/flops": [], METRIC: []}),
    )  # fmt: skip
    best = find_trial.find_best_trial(table)
    assert best is not None
    assert separation in best.reason
    assert best.name == f"{0:012}"


def test_sweep_without_its_record_in_the_storage_is_refused(storage: Path, tmp_path: Path) -> None:
    record_sweep(storage, "elsewhere", SCORES)
    with pytest.raises(UserError, match=f"its best trial is {BEST}, whose record is not in"):
        find_trial.resolve_run("elsewhere", tmp_path, default_uri(storage))


def test_sweep_without_a_finished_trial_is_refused(storage: Path) -> None:
    record_sweep(storage, "nothing", {})
    with pytest.raises(UserError, match="nothing: no trial of that sweep has finished"):
        find_trial.resolve_run("nothing", storage, default_uri(storage))


@pytest.fixture
def mlflow_uri(storage: Path) -> Iterator[None]:
    """Set MLflow's global tracking URI to the store, for MLflow's own loaders."""
    import mlflow

    before, environment = mlflow.get_tracking_uri(), dict(os.environ)
    mlflow.set_tracking_uri(default_uri(storage))
    yield
    mlflow.set_tracking_uri(before)
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.filterwarnings("ignore")  # warnings inside MLflow
def test_best_trial_is_logged_as_a_model_that_mlflow_loads(storage: Path, mlflow_uri: None) -> None:
    import mlflow.pyfunc
    import mlflow.transformers
    from transformers import pipeline

    table, uri = record_sweep(storage, "models", SCORES), default_uri(storage)
    address = mlflow_model.log_models(uri, table, storage, LocalOnly())
    assert address is not None
    model = mlflow.pyfunc.load_model(address)
    assert model.metadata.signature is not None
    example = model.input_example
    answer = model.predict(example)
    client = connect_client(uri)
    parent = client.get_run(table.trials["run_id"][0]).data.tags["mlflow.parentRunId"]
    exported = Path(client.download_artifacts(parent, "export"))
    assert sorted(folder.name for folder in exported.iterdir()) == ["discriminator", "generator"]
    first = pipeline("fill-mask", model=str(exported / "generator"))(str(example))[0]
    assert list(answer) == [first["token_str"]]
    (version,) = client.search_model_versions("name = 'models'")
    assert (int(version.version), version.tags) == (1, {"trial": BEST})
    assert version.run_id == parent
    logged = client.get_logged_model(address.removeprefix("models:/"))
    shown = json.loads(logged.tags["mlflow.modelVersions"])  # MLflow's page reads this tag
    assert [(each["name"], int(each["version"])) for each in shown] == [("models", 1)]
    assert list(mlflow.pyfunc.load_model("models:/models/1").predict(example)) == list(answer)
    filled = mlflow.transformers.load_model(address)(str(example))
    assert filled[0]["token"] == first["token"]
    assert not list(Path(client.download_artifacts(parent, "")).rglob("*.pkl"))


@pytest.mark.filterwarnings("ignore")
def test_best_trial_is_logged_only_once(storage: Path) -> None:
    uri = default_uri(storage)
    first = mlflow_model.log_models(
        uri, record_sweep(storage, "once", SCORES), storage, LocalOnly()
    )
    assert (
        mlflow_model.log_models(uri, record_sweep(storage, "once", SCORES), storage, LocalOnly())
        == first
    )
    other = record_sweep(storage, "once", {**SCORES, UNSCORED: 0.9})
    again = mlflow_model.log_models(uri, other, storage, LocalOnly())
    assert again is not None
    assert again != first
    experiment_id = connect_client(uri).get_experiment_by_name("once").experiment_id
    logged = connect_client(uri).search_logged_models([experiment_id])
    assert [model.tags["trial"] for model in logged] == [UNSCORED, BEST]
    versions = connect_client(uri).search_model_versions("name = 'once'")
    assert {int(each.version): each.tags["trial"] for each in versions} == {1: BEST, 2: UNSCORED}


ROWS = (row(0), row(40, **{METRIC: 0.9, "train/loss": 3.5}), row(80, **{METRIC: 0.8}))


@pytest.fixture
def with_two_checkpoints(tmp_path: Path, prepared_text: PreparedText) -> Path:
    """Return a storage with a record that has its best checkpoint and a newer one."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    write_record(tmp_path / "trials" / BEST, ELECTRA, prepared_text, ROWS)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_kept_checkpoints_are_models_with_step_scores_and_weights(
    storage: Path, with_two_checkpoints: Path, mlflow_uri: None
) -> None:
    from mlflow.transformers import load_model
    from safetensors.torch import load_file

    uri = default_uri(storage)
    table = record_sweep(with_two_checkpoints, "kept", {BEST: 0.8}, uri)
    client, trial = connect_client(uri), table.trials["run_id"].iloc[0]
    before = client.get_metric_history(trial, METRIC)
    address = mlflow_model.log_models(uri, table, with_two_checkpoints, LocalOnly())
    logged = {model.name: model for model in client.search_logged_models([table.experiment_id])}
    assert set(logged) == {"best", "best-40"}
    assert address == f"models:/{logged['best'].model_id}"
    scores = {
        name: {metric.key: (metric.step, metric.value) for metric in model.metrics}
        for name, model in logged.items()
    }
    assert scores == {
        "best": {METRIC: (80, 0.8)},
        "best-40": {METRIC: (40, 0.9), "train/loss": (40, 3.5)},
    }
    assert client.get_metric_history(trial, METRIC) == before  # no point is stored twice
    steps = {logged["best"].model_id: 80, logged["best-40"].model_id: 40}
    for run in (trial, table.run_id):
        outputs = client.get_run(run).outputs.model_outputs
        assert {output.model_id: output.step for output in outputs} == steps
    for model_id, step in steps.items():
        model = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        checkpoint = with_two_checkpoints / "trials" / BEST / "checkpoints" / f"{step:012d}"
        saved = load_file(checkpoint / "state.safetensors")["weight/generator.vocabulary.bias"]
        loaded = load_model(str(model)).model.state_dict()["generator_lm_head.bias"]
        assert sorted(loaded.tolist()) == sorted(saved.tolist())  # tokens have other numbers
        assert not [file for file in model.rglob("*") if file.suffix in {".pkl", ".pt", ".bin"}]
    (version,) = client.search_model_versions("name = 'kept'")
    assert version.source == logged["best"].artifact_location
    assert mlflow_model.log_models(uri, table, with_two_checkpoints, LocalOnly()) == address
    assert len(client.search_logged_models([table.experiment_id])) == 2


def test_readable_checkpoints_are_opened_newest_first(with_two_checkpoints: Path) -> None:
    folder, cache = with_two_checkpoints / "trials" / BEST, with_two_checkpoints / "cache"
    opened = list(open_checkpoints(folder, cache))
    assert [each.place.spent.steps for each in opened] == [80, 40]
    assert [each.evaluation() for each in opened] == [ROWS[2], ROWS[1]]
    newest = folder / "checkpoints" / f"{80:012d}" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert [each.place.spent.steps for each in open_checkpoints(folder, cache)] == [40]


def test_weights_that_were_saved_between_evaluations_have_no_scores(
    with_two_checkpoints: Path,
) -> None:
    trained = open_trained(with_two_checkpoints / "trials" / BEST, with_two_checkpoints / "cache")
    later = dataclasses.replace(trained.place.spent, steps=90)
    moved = dataclasses.replace(trained, place=dataclasses.replace(trained.place, spent=later))
    assert moved.evaluations() == ROWS
    assert moved.evaluation() == {}


@pytest.mark.filterwarnings("ignore")
def test_model_without_a_token_predictor_returns_embeddings(
    tmp_path: Path, prepared_text: PreparedText
) -> None:
    import mlflow.pyfunc

    write_record(tmp_path / "cccc", RandomReplacementConfig(kind="random"), prepared_text)
    trained = open_trained(tmp_path / "cccc", prepared_text.text.parent)
    write_networks(trained, tmp_path / "out" / "export")
    mlflow_model.save_model(trained, tmp_path / "out")
    model = mlflow.pyfunc.load_model(str(tmp_path / "out" / "model"))
    assert model.predict(model.input_example).shape == (3, 16)  # [CLS] . [SEP]


def test_failure_to_log_the_model_is_reported_in_one_line(
    storage: Path, prepared_text: PreparedText, tmp_path: Path
) -> None:
    from lab.execution.site import Site
    from lab.sweep import _log_best_trial

    site = Site(storage=tmp_path, mirror=LocalOnly(), ray="")
    line = _log_best_trial(record_sweep(storage, "cannot", SCORES), default_uri(storage), site)
    assert line.startswith("not logged as a model: aaaa00000001: no trial in")
    assert len(line.splitlines()) == 1

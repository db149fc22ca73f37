"""Fine-tuning: equality with the official protocol, the command, and fine-tuning in a trial."""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_text import PreparedText, copy_held_out
from torch.utils.flop_counter import FlopCounterMode

from lab import cli, finetune
from lab.config.architecture import EncoderConfig
from lab.config.budget import Budget
from lab.config.code_digest import FINETUNING, code_digest
from lab.config.experiment import FinetuneConfig
from lab.config.metrics import METRICS, find_metric, finetuned, select_metrics, untrained_name
from lab.config.objectives.electra import ElectraConfig
from lab.config.results import Outcome, State
from lab.config.schedules.learning_rate import Schedule
from lab.config.trial import Trial
from lab.data.batches import segment_ids
from lab.display import live
from lab.display.board import Board
from lab.execution.driver import Driver
from lab.execution.prerequisites import Prerequisites
from lab.execution.site import Site
from lab.finetuning import features, finetuner, heads
from lab.finetuning import metrics as task_metrics
from lab.finetuning import pretrained as encoders
from lab.finetuning.finetuner import Finetuner, PretrainedEncoder, default_protocol
from lab.finetuning.results import FinetuneResults
from lab.loading import search_space
from lab.loading.task_table import load_task
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.tasks import examples
from lab.tasks.examples import Examples
from lab.tracking import frames
from lab.tracking.client import default_uri
from lab.tracking.store import MlflowStore
from lab.training.distributed import SingleProcess
from lab.training.initialization import initialize_weights
from lab.training.model import DisentangledEmbeddings, Encoder
from lab.trials.assignment import Assignment
from lab.trials.run import run_trial
from lab.trials.scorers import NoScores
from lab.trials.training import Training

pytestmark = pytest.mark.usefixtures("few_sentences")

SHAPE = EncoderConfig(layers=2, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1, dropout=0)
WORDS = ("the", "king", "of", "land", "and", "man", "day", "great")
YAML = {
    "classification": "kind: classification\nepochs: 6",
    "pairs": "kind: pairs\nepochs: 2\nunordered: true",
    "regression": "kind: regression\nepochs: 2\nlabel: number\npair: pair",
    "tagging": "kind: tagging\nepochs: 4",
    "question_answering": "kind: question_answering\nepochs: 1",
}


def row(number: int) -> dict[str, Any]:
    """Return a row with the columns of every kind; its label is whether the text starts `king`."""
    digits = (number % 8, number // 8 % 8, number // 64 % 8)
    words = ["king" if number % 2 else "day", *(WORDS[digit] for digit in digits)]
    text = " ".join(words)
    return {
        "text": text,
        "pair": " ".join(words[::-1]),
        "label": "yes" if number % 2 else "no",
        "number": float(number % 2),
        "words": words,
        "tags": [word[0] for word in words],
        "question": "what",
        "context": text,
        "answers": {"text": [words[0]], "answer_start": [0]},
    }


@pytest.fixture(scope="module")
def yamls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a task file of each kind: 128 rows for training, 40 others for evaluation."""
    folder = tmp_path_factory.mktemp("tasks")
    for split, numbers in (("train", range(128)), ("test", range(400, 440))):
        lines = [json.dumps(row(number)) for number in numbers]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    for kind, text in YAML.items():
        file = folder / f"{kind}.yaml"
        file.write_text(f"{text}\ntrain: train.jsonl\nevaluation: test.jsonl\n")
    return {kind: str(folder / f"{kind}.yaml") for kind in YAML}


@pytest.fixture
def pretrained(prepared_text: PreparedText) -> PretrainedEncoder:
    vocabulary = prepared_text.corpus.vocabulary
    encoder = Encoder(replace(SHAPE, dropout=finetuner.DROPOUT), vocabulary.size, 16)
    initialize_weights(encoder, SHAPE, 0)
    return PretrainedEncoder(encoder, SHAPE, vocabulary, 0)


def read_task(yamls: dict[str, str], kind: str) -> Examples:
    return examples.read_examples(load_task(yamls[kind]))


def official_rates(lr: float, decay: float, n_layers: int) -> dict[str, float]:
    """Return the rates of `_get_layer_lrs` in google-research/electra `model/optimization.py`."""
    depths = {"/embeddings/": 0, "/embeddings_project/": 0, "task_specific/": n_layers + 2}
    depths |= {f"encoder/layer_{layer}/": layer + 1 for layer in range(n_layers)}
    return {key: lr * decay ** (n_layers + 2 - depth) for key, depth in depths.items()}


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("layers", [1, 2, 12])
def test_every_parameter_has_the_official_learning_rate(layers: int, norm: Any) -> None:
    shape = replace(SHAPE, layers=layers, norm=norm)
    encoder, head = Encoder(shape, 30, 16), heads.ClassificationHead(16, 3, 0.1)
    protocol = default_protocol(256)
    rates = official_rates(protocol.lr, protocol.decay, layers)
    expected = {id(p): rates["task_specific/"] for p in head.parameters()}
    for name, parameter in encoder.named_parameters():
        part, *rest = name.split(".")
        key = {
            "embeddings": "/embeddings/",
            "embeddings_project": "/embeddings_project/",
            "layers": f"encoder/layer_{rest[0]}/",
            "final_norm": f"encoder/layer_{layers - 1}/",  # the official encoder has none
        }[part]
        expected[id(parameter)] = rates[key]
    groups = finetuner.parameter_groups(encoder, head, protocol)
    peaks = {id(parameter): group["peak"] for group in groups for parameter in group["params"]}
    assert peaks == pytest.approx(expected)
    assert all(group["weight_decay"] == 0 for group in groups)


@pytest.mark.parametrize(
    ("hidden", "lr", "decay"), [(256, 3e-4, 0.8), (768, 1e-4, 0.8), (1024, 5e-5, 0.9)]
)
def test_the_papers_sizes_have_the_papers_rates(hidden: int, lr: float, decay: float) -> None:
    """Compare with table 7 of the paper."""
    protocol = default_protocol(hidden)
    assert (protocol.lr, protocol.decay) == (lr, decay)
    assert (protocol.batch, protocol.warmup) == (32, 0.1)
    assert default_protocol(hidden, 1e-3).lr == 1e-3


@pytest.mark.parametrize(
    ("hidden", "lr"), [(32, 1e-3), (64, 1e-3), (96, 1e-3), (128, 3e-4), (255, 3e-4)]
)
def test_encoders_narrower_than_the_papers_have_one_rate_in_all_layers(
    hidden: int, lr: float
) -> None:
    protocol = default_protocol(hidden)
    assert (protocol.lr, protocol.decay) == (lr, 1.0)


def test_rate_increases_over_10_percent_of_the_steps_and_decays_to_zero(
    pretrained: PretrainedEncoder, yamls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with `create_optimizer` of the official code: `polynomial_decay` times warm-up."""
    rates: list[float] = []
    original = finetuner.optim.set_rate

    def set_and_record(optimizer: Any, multiplier: float) -> None:
        original(optimizer, multiplier)
        rates.append(max(group["lr"] for group in optimizer.param_groups))

    monkeypatch.setattr(finetuner.optim, "set_rate", set_and_record)
    Finetuner(pretrained, read_task(yamls, "classification"), default_protocol(256)).run(0)
    steps = 6 * 4  # epochs, and batches of 32 in 128 rows
    official = [3e-4 * (1 - n / steps) * min(1, n / (0.1 * steps)) for n in range(steps)]
    assert rates == pytest.approx(official)
    assert Schedule(kind="linear", warmup=0.1)(1) == 0


@pytest.mark.parametrize("kind", YAML)
def test_same_seed_gives_bitwise_the_same_scores(
    pretrained: PretrainedEncoder, yamls: dict[str, str], kind: str
) -> None:
    """Torch's global generator has no influence, and the pre-trained encoder is not modified."""
    tuner = Finetuner(pretrained, read_task(yamls, kind), default_protocol(16, 3e-3))
    before = {name: value.clone() for name, value in pretrained.encoder.state_dict().items()}
    first = tuner.run(3)
    torch.manual_seed(99)
    tuner.run(4)
    again = Finetuner(pretrained, read_task(yamls, kind), default_protocol(16, 3e-3)).run(3)
    assert (again.scores, again.flops, again.tokens) == (first.scores, first.flops, first.tokens)
    after = pretrained.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert load_task(yamls[kind]).config.metric in first.scores


def test_another_seed_gives_another_order_and_other_scores(
    pretrained: PretrainedEncoder, yamls: dict[str, str]
) -> None:
    tuner = Finetuner(pretrained, read_task(yamls, "regression"), default_protocol(16))
    assert tuner.run(0).scores != tuner.run(1).scores
    orders = [[w.example for batch in tuner._batches(seed) for w in batch] for seed in (0, 1)]
    assert orders[0] != orders[1]
    rows = 2 * 128  # two epochs
    assert [len(order) for order in orders] == [rows, rows]
    assert all(sorted(order[:128]) == sorted(order[128:]) == list(range(128)) for order in orders)


@pytest.mark.parametrize("kind", ["classification", "tagging", "question_answering"])
def test_a_separable_task_is_learned(
    pretrained: PretrainedEncoder, yamls: dict[str, str], kind: str
) -> None:
    """One word determines the label; the rate suits the small encoder."""
    task = read_task(yamls, kind)
    task = replace(task, config=replace(task.config, epochs=20))
    scores = Finetuner(pretrained, task, default_protocol(16, 1e-2)).run(0).scores
    assert scores[task.config.metric] > 0.9


@pytest.mark.parametrize("kind", YAML)
def test_a_diverged_run_has_finite_low_scores(
    pretrained: PretrainedEncoder, yamls: dict[str, str], kind: str
) -> None:
    """The rate makes the weights overflow. A NaN score would count as missing in every sweep."""
    task = read_task(yamls, kind)
    run = Finetuner(pretrained, task, default_protocol(16, 1e30)).run(0)
    assert all(math.isfinite(score) for score in run.scores.values())
    assert run.scores[task.config.metric] < 0.9
    assert run.undefined.startswith("fine-tuning diverged")


def test_unordered_pairs_are_trained_on_in_both_orders(
    pretrained: PretrainedEncoder, yamls: dict[str, str]
) -> None:
    task = read_task(yamls, "pairs")
    tuner = Finetuner(pretrained, task, default_protocol(16))
    assert len(tuner._train) == 2 * len(task.train)
    assert len(tuner._evaluation) == len(task.evaluation)
    forward, reversed_ = tuner._train[0].ids, tuner._train[len(task.train)].ids
    assert forward != reversed_
    assert sorted(forward) == sorted(reversed_)
    assert tuner._train[0].target == tuner._train[len(task.train)].target


@pytest.mark.parametrize("kind", YAML)
def test_flops_equal_torchs_flop_counter(
    pretrained: PretrainedEncoder, yamls: dict[str, str], kind: str
) -> None:
    task = read_task(yamls, kind)
    windows, _ = features.make_features(task, task.train[:8], pretrained.vocabulary, 16)
    encoder = Encoder(SHAPE, pretrained.vocabulary.size, 16)
    head, inputs = (
        heads.build_head(task, 16, 0.0),
        heads.collate_windows(windows, torch.device("cpu")),
    )
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        hidden = encoder(inputs.ids_BT, segment_ids(inputs.ids_BT))
        head.loss(hidden, inputs)
    assert finetuner.finetune_step_flops(SHAPE, head, inputs) == 3 * counter.get_total_flops()


@pytest.fixture(scope="module")
def trial(prepared_text: PreparedText) -> Trial:
    return Trial(
        encoder=replace(SHAPE, norm="pre"),
        objective=ElectraConfig(kind="electra"),
        data=prepared_text.data,
        batch=8,
        budget=Budget(kind="tokens", amount=8 * 8 * 16),
        evaluations=2,
    )


Run = Callable[..., Outcome]


@pytest.fixture
def run(prepared_text: PreparedText, held_out: Path, tmp_path: Path) -> Run:
    """Return a function that runs a trial in an empty storage and fine-tunes it."""

    def run(trial: Trial, *tasks: str, seeds: int = 2, **named: Any) -> Outcome:
        (tmp_path / "cache").mkdir(exist_ok=True)
        text = tmp_path / "cache" / prepared_text.text.name
        if not text.exists():
            text.symlink_to(prepared_text.text)
        work = Assignment(
            trial=trial,
            folder=tmp_path / "trials" / "0123456789ab",
            text=text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
            tasks=tuple(
                examples.prepare_examples(load_task(task), tmp_path / "cache") for task in tasks
            ),
            task_seeds=seeds,
        )
        return run_trial(work, **named)

    return run


def test_the_last_point_of_a_finished_trial_has_the_fine_tuning_scores(
    run: Run, trial: Trial, yamls: dict[str, str], tmp_path: Path
) -> None:
    plain = run(trial)
    outcome = run(trial, yamls["classification"], yamls["tagging"])
    folder = tmp_path / "trials" / "0123456789ab"
    assert outcome.state == "finished"
    assert outcome.rows == record.read_curve(folder) == record.read_outcome(folder).rows  # type: ignore[union-attr]
    *before, last = outcome.rows
    assert tuple(before) == plain.rows[:-1]
    assert plain.rows[-1].items() <= last.items()  # no training or cost was added
    added = last.keys() - plain.rows[-1].keys()
    names = {f"finetune/{task}" for task in ("classification", "tagging")}
    parts = ("", "/low", "/high", "/flops", "/seconds")
    baselines = {f"baseline/majority/{name}" for name in names}
    costs = {"finetune/flops", "finetune/seconds"}
    assert added == {n + p for n in names for p in parts} | costs | baselines
    for name in baselines:
        task = read_task(yamls, name.rpartition("/")[2])
        assert last[name] == task_metrics.majority_baseline(task)[task.config.metric]
    for name in names:
        assert last[f"{name}/low"] <= last[name] <= last[f"{name}/high"]
    assert last["finetune/flops"] == sum(last[f"{name}/flops"] for name in names)


def test_record_keeps_its_blocks_and_has_those_of_fine_tuning_scores(
    run: Run, trial: Trial, yamls: dict[str, str], tmp_path: Path
) -> None:
    """The trial is fine-tuned after its end, so its other scores are not taken again."""
    folder = tmp_path / "trials" / "0123456789ab"
    run(trial)
    before = record.read_blocks(folder)
    assert len(before["probe/pos/accuracy"]) > 1
    run(trial, yamls["classification"], yamls["regression"], seeds=3)
    blocks = record.read_blocks(folder)
    added = {name: blocks[name] for name in blocks.keys() - before.keys()}
    assert blocks == before | added
    assert added.keys() == {"finetune/classification", "finetune/regression"}
    for name in added:
        task = read_task(yamls, name.removeprefix("finetune/"))
        results = FinetuneResults(folder, task, default_protocol(16), 8)
        assert added[name] == results.median_blocks(3)
        assert len(added[name]) == len(task.evaluation) == 40


def test_the_command_gives_the_same_results_as_fine_tuning_in_the_trial(
    run: Run,
    trial: Trial,
    yamls: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The results are bitwise equal, and a stored run is not repeated."""
    last = run(trial, yamls["tagging"], seeds=3).rows[-1]
    (file,) = (tmp_path / "trials" / "0123456789ab" / "finetune").iterdir()
    inside = json.loads(file.read_text())["runs"]
    file.unlink()
    command = ["0123", yamls["tagging"], "--storage", str(tmp_path), "--seeds"]
    assert finetune.main([*command, "2"]) == 0
    outside = json.loads(file.read_text())["runs"]
    without_time = [{k: v for k, v in run.items() if k != "seconds"} for run in inside]
    assert [{k: v for k, v in run.items() if k != "seconds"} for run in outside] == without_time[:2]

    seeds: list[int] = []
    original = Finetuner.run
    monkeypatch.setattr(
        Finetuner,
        "run",
        lambda self, seed: seeds.append(seed) or original(self, seed),  # type: ignore[func-returns-value]
    )
    assert finetune.main([*command, "3"]) == 0
    assert seeds == [2]
    printed = capsys.readouterr().out
    assert f"finetune/tagging: accuracy {last['finetune/tagging']:.4f} (median of 3)" in printed


@pytest.mark.parametrize("sharing", ["none", "tokens", "gdes"])
def test_the_encoder_of_a_record_equals_the_trained_encoder(
    run: Run, trial: Trial, sharing: Any, tmp_path: Path, prepared_text: PreparedText
) -> None:
    """Only the dropout differs. `gdes` has embeddings that are the sum of two tables."""
    objective = ElectraConfig(kind="electra", sharing=sharing)
    run(replace(trial, objective=objective))
    loaded = encoders.load_from_record(tmp_path / "trials" / "0123456789ab", tmp_path / "cache")
    ids_NT = torch.from_numpy(prepared_text.corpus.held_out_NT[:4].astype("int64"))
    trained = Training(
        Assignment(
            trial=replace(trial, objective=objective),
            folder=tmp_path / "trials" / "0123456789ab",
            text=prepared_text.text,
            held_out=tmp_path,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        ),
        NoScores(
            Assignment(
                trial=trial,
                folder=tmp_path,
                text=prepared_text.text,
                held_out=tmp_path,
                pairs=None,
                metric=METRICS["probe/pos/accuracy"],
            ),
            "cpu",
        ),
        SingleProcess(),
    )._objective.eval()
    with torch.no_grad():
        expected = trained.encoder(ids_NT, segment_ids(ids_NT))
        hidden = loaded.encoder.eval()(ids_NT, segment_ids(ids_NT))
    assert torch.equal(expected, hidden)
    assert loaded.steps == 8
    assert loaded.encoder._dropout == loaded.encoder.layers[0]._dropout == finetuner.DROPOUT
    is_sum = isinstance(loaded.encoder.embeddings, DisentangledEmbeddings)
    assert is_sum is (sharing == "gdes")


def test_interrupted_fine_tuning_continues_with_the_next_seed(
    run: Run, trial: Trial, yamls: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seeds: list[int] = []
    original = Finetuner.run

    def run_and_record(self: Finetuner, seed: int) -> finetuner.FinetuneRun:
        seeds.append(seed)
        return original(self, seed)

    monkeypatch.setattr(Finetuner, "run", run_and_record)

    def interrupt_after_one_seed() -> State:
        return "interrupted" if seeds else "running"

    first = run(trial, yamls["pairs"], seeds=3, requested_state=interrupt_after_one_seed)
    assert first.state == "interrupted"
    assert seeds == [0]
    assert "finetune/pairs" not in first.rows[-1]
    second = run(trial, yamls["pairs"], seeds=3)
    assert second.state == "finished"
    assert seeds == [0, 1, 2]
    assert first.rows[-1].items() <= second.rows[-1].items()
    results = FinetuneResults(
        tmp_path / "trials" / "0123456789ab", read_task(yamls, "pairs"), default_protocol(16), 8
    )
    summary = results.summary(3)
    assert summary is not None
    assert summary.items() <= second.rows[-1].items()
    assert results.summary(4) is None


def test_a_trial_that_was_interrupted_is_not_fine_tuned(
    run: Run, trial: Trial, yamls: dict[str, str], tmp_path: Path
) -> None:
    outcome = run(trial, yamls["pairs"], requested_state=lambda: "interrupted")
    assert outcome.state == "interrupted"
    assert not (tmp_path / "trials" / "0123456789ab" / "finetune").exists()


def test_missing_fine_tuning_runs_of_a_finished_trial_are_detected(
    run: Run, trial: Trial, yamls: dict[str, str], tmp_path: Path
) -> None:
    """A finished trial is reused unless an experiment has another task or more seeds."""
    outcome = run(trial, yamls["pairs"])
    folder = tmp_path / "trials" / "0123456789ab"

    def lacks(*kinds: str, seeds: int = 2) -> bool:
        supplies = Prerequisites(tmp_path, LocalOnly())
        supplies.tasks = {Path(kind): read_task(yamls, kind) for kind in kinds}
        supplies._seeds = seeds
        return supplies.lacks(trial, folder, outcome)

    assert not lacks()
    assert not lacks("pairs")
    assert lacks("pairs", seeds=3)
    assert lacks("pairs", "tagging")


def test_damaged_results_count_as_missing(yamls: dict[str, str], tmp_path: Path) -> None:
    results = FinetuneResults(tmp_path, read_task(yamls, "pairs"), default_protocol(16), 8)
    run = finetuner.FinetuneRun(seed=1, scores={"accuracy": 0.5}, flops=1.0, tokens=2, seconds=3.0)
    results.save(run)
    results.save(replace(run, seed=0))
    assert results.runs() == {0: replace(run, seed=0), 1: run}
    results.file.write_text(results.file.read_text()[:-9])
    assert results.runs() == {}


def test_scores_into_a_pipe_without_a_reader_give_status_141(
    yamls: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under load `| head -1` ends late, so that the table is the first output it does not read."""
    task = read_task(yamls, "pairs")
    run = finetuner.FinetuneRun(seed=0, scores={"accuracy": 0.5}, flops=1.0, tokens=2, seconds=3.0)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        options = argparse.Namespace(verbose=False)
        body = partial(finetune._print_scores, task, [run])
        status = cli.run("lab.finetune", "all is kept", lambda _: body(), options)
        monkeypatch.undo()
    assert status == 141
    assert capsys.readouterr().err == "lab.finetune: the output is closed; all is kept\n"


def test_a_run_without_the_score_of_the_metric_counts_as_missing(
    yamls: dict[str, str], tmp_path: Path
) -> None:
    """Otherwise no later command could read the record of the trial."""
    results = FinetuneResults(tmp_path, read_task(yamls, "pairs"), default_protocol(16), 8)
    run = finetuner.FinetuneRun(seed=0, scores={"f2": 0.5}, flops=1.0, tokens=2, seconds=3.0)
    results.save(run)
    assert (results.runs(), results.summary(1)) == ({}, None)


@pytest.mark.reported
def test_undefined_scores_are_counted_beside_the_score(
    yamls: dict[str, str], tmp_path: Path
) -> None:
    results = FinetuneResults(tmp_path, read_task(yamls, "pairs"), default_protocol(16), 8)
    run = finetuner.FinetuneRun(seed=0, scores={"accuracy": 0.5}, flops=1.0, tokens=2, seconds=3.0)
    results.save(run)
    results.save(replace(run, seed=1, undefined="fine-tuning diverged"))
    assert "finetune/pairs/undefined" not in (results.summary(1) or {})
    assert (results.summary(2) or {})["finetune/pairs/undefined"] == 1


def test_results_of_other_code_count_as_missing(
    yamls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, protocol = read_task(yamls, "pairs"), default_protocol(16)
    run = finetuner.FinetuneRun(seed=0, scores={"accuracy": 0.5}, flops=1.0, tokens=2, seconds=3.0)
    results = FinetuneResults(tmp_path, task, protocol, 8)
    results.save(run)
    assert results.summary(1) is not None
    assert json.loads(results.file.read_text())["code"] == code_digest(FINETUNING)
    monkeypatch.setattr("lab.finetuning.results.code_digest", lambda _: "edited")
    edited = FinetuneResults(tmp_path, task, protocol, 8)
    assert edited.summary(1) is None
    edited.save(run)
    monkeypatch.undo()
    assert FinetuneResults(tmp_path, task, protocol, 8).runs() == {0: run}


def test_each_task_protocol_and_encoder_has_its_own_results_file(
    yamls: dict[str, str], tmp_path: Path
) -> None:
    pairs = read_task(yamls, "pairs")
    files = {
        FinetuneResults(tmp_path, task, protocol, steps).file
        for task, protocol, steps in (
            (pairs, default_protocol(16), 8),
            (read_task(yamls, "tagging"), default_protocol(16), 8),
            (pairs, default_protocol(16, 2e-3), 8),
            (pairs, default_protocol(16), 9),
        )
    }
    assert len(files) == 4
    assert asdict(default_protocol(16)) != asdict(default_protocol(16, 2e-3))


def run_in_this_process(driver: Driver, began: float) -> dict[str, float]:
    """Run a driver's trials one after another in this process instead of in Ray's processes."""
    while (work := driver.next()) is not None:
        driver.on_start(work)
        run_trial(work, report=lambda _, at=work: driver.on_evaluation(at))
        driver.on_end(work, None)
    return {}


def test_adding_a_task_later_repeats_no_training(
    prepared_text: PreparedText,
    held_out: Path,
    tmp_path: Path,
    yamls: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next sweep fine-tunes and ranks the trials of an earlier one, at a separate cost."""
    monkeypatch.setattr(Driver, "_carry_out", run_in_this_process)
    shutil.copytree(prepared_text.text, tmp_path / "cache" / prepared_text.text.name)
    copy_held_out(held_out, tmp_path / "cache")
    file = tmp_path / "again.yaml"
    scores = []
    for metric, seeds in (("probe/pos/accuracy", 0), ("finetune/pairs", 1), ("finetune/pairs", 2)):
        tasks = yamls["pairs"] if seeds else ""
        file.write_text(SWEPT.format(metric=metric, tasks=tasks, seeds=seeds or 1))
        site = Site(storage=tmp_path, mirror=LocalOnly(), ray="")
        store = MlflowStore(default_uri(tmp_path), tmp_path / "artifacts")
        experiment = search_space.load_experiment(file)
        with live.open_view(Board(experiment.metric)) as view:
            Driver(experiment, site, store, view).run("test")
        (folder,) = (tmp_path / "trials").iterdir()
        last = record.read_curve(folder)[-1]
        (saved,) = folder.glob("checkpoints/*/state.json")
        trained = saved.stat().st_mtime_ns, {n: last[n] for n in last if "finetune" not in n}
        if not seeds:
            before = trained
        assert trained == before
        loaded = frames.load_frames(default_uri(tmp_path), "again")
        row = loaded.trials.iloc[0]
        assert row["score"] == last[metric]
        assert row["spent/flops"] == last["spent/flops"]
        scores.append({n: row[n] for n in last if n.startswith("finetune/")})
        stored = record.read_blocks(folder)
        needless = {name for name in stored if name.startswith(untrained_name(""))}
        needless -= {untrained_name(metric)}
        names = stored.keys() - needless
        assert loaded.blocks == {(row["number"], name): stored[name] for name in names}
        assert {metric, "probe/pos/accuracy"} <= names
        assert ("finetune/pairs" in names) is bool(seeds)
    assert scores[0] == {}
    assert scores[2]["finetune/flops"] == 2 * scores[1]["finetune/flops"]
    assert scores[2]["finetune/pairs/low"] <= scores[1]["finetune/pairs"]


SWEPT = """
question: q
metric: {metric}
base:
  encoder: {{size: tiny, hidden: 16, ffn: 32, heads: 2, embedding: 8}}
  objective: {{kind: mlm}}
  data: {{share: 0.01, vocab: 400, length: 16, held_out: 0.1}}
  batch: 8
  budget: {{kind: tokens, amount: 1024}}
  evaluations: 1
search: {{seeds: 1}}
finetune: {{tasks: [{tasks}], seeds: {seeds}}}
"""


BAD = {
    "unknown run": (["9999", "pos"], "9999: neither a trial in "),
    "unknown task": (["0123", "glue"], "glue: no such task; must be one of cola, sst2"),
    "no seeds": (["0123", "pos", "--seeds", "0"], "--seeds 0: must be from 1 to 1,000"),
    "endless seeds": (["0123", "pos", "--seeds", "1000000000000"], "must be from 1 to 1,000"),
    "no rate": (["0123", "pos", "--lr", "0"], "--lr 0: must be at least 1e-08"),
    "rate of no effect": (["0123", "pos", "--lr", "1e-320"], "must be at least 1e-08"),
    "device without values": (["0123", "pos", "--device", "meta"], "must be one of cpu, cuda"),
    "no device": (["0123", "pos", "--device", "abacus"], "--device abacus: "),
    "no checkpoint": (["0123", "pos"], "no checkpoint that can be read"),
}


@pytest.mark.reported
@pytest.mark.parametrize("case", BAD)
def test_bad_command_exits_with_a_one_line_error(
    trial: Trial, prepared_text: PreparedText, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], case: str,
) -> None:  # fmt: skip
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    record.write_queued(tmp_path / "trials" / "0123456789ab", trial, "", prepared_text.text.name)
    arguments, message = BAD[case]
    assert finetune.main([*arguments, "--storage", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("lab.finetune: error: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_scores_of_tasks_are_metrics_and_their_costs_are_not() -> None:
    names = ["finetune/my_task", "finetune/my_task/low", "finetune/flops", "probe/pos/accuracy",
             "spent/flops", "finetune/"]  # fmt: skip
    assert list(select_metrics(names)) == ["probe/pos/accuracy", "finetune/my_task"]
    assert find_metric("finetune/my_task") == finetuned("my_task")
    assert not finetuned("my_task").at_every_evaluation
    assert finetuned("my_task").find_incomparable_path(("data.vocab", "objective")) is None


SPACE = """
question: q
metric: finetune/{task}
base:
  encoder: {{size: tiny}}
  objective: {{kind: electra}}
  budget: {{kind: flops, amount: 1e13}}
finetune: {{tasks: [{tasks}], seeds: 2}}
"""


def test_a_search_space_may_rank_by_its_tasks(tmp_path: Path, yamls: dict[str, str]) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE.format(task="pairs", tasks=f"sentiment, {yamls['pairs']}"))
    experiment = search_space.load_experiment(file)
    assert experiment.metric == finetuned("pairs")
    assert experiment.finetune == FinetuneConfig(tasks=("sentiment", yamls["pairs"]), seeds=2)
    (tmp_path / "again.yaml").write_text(search_space.dump_experiment(experiment))
    again = search_space.load_experiment(tmp_path / "again.yaml")
    assert replace(again, name="space") == experiment


@pytest.mark.parametrize(
    ("task", "tasks", "message"),
    [
        ("pos", "sentiment", "metric: must be one of"),
        ("pos", "glue", "finetune.tasks: glue: no such task"),
        ("pos", "nowhere.yaml", "finetune.tasks: nowhere.yaml: no such file"),
        ("pos", "pos, pos", "finetune.tasks: two tasks have the name pos"),
    ],
)
def test_a_search_space_with_bad_tasks_raises(
    task: str, tasks: str, message: str, tmp_path: Path
) -> None:
    from lab.errors import UserError

    file = tmp_path / "space.yaml"
    file.write_text(SPACE.format(task=task, tasks=tasks))
    with pytest.raises(UserError, match=r"space\.yaml: ") as error:
        search_space.load_experiment(file)
    assert message in str(error.value)

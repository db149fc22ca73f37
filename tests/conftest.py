"""Fixtures and settings shared by the tests."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# No deadline: the time of an example depends on the load of the machine.
settings.register_profile("lab", deadline=None)
settings.load_profile("lab")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # must be set before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"  # models are built, not downloaded

# A shell starts background jobs with SIGINT ignored. Restore it, because the processes that tests
# interrupt inherit the setting.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the same for nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if TYPE_CHECKING:
    from prepared_text import PreparedText
    from torch import Tensor, nn

# `trains` is derived for tests of these folders and for users of these fixtures. Other tests that
# train have the mark, or `slow`; `forbid_training_and_ray` fails those that have neither.
TRAINING_FOLDERS = {"training", "trials", "finetuning"}
TRAINING_FIXTURES = {"held_out", "few_sentences", "short_timing", "begun_storage"}
BEGIN_STORAGE = Path(__file__).parent / "support" / "begin_storage.py"
# Names of files that Ray executes to start a cluster or a worker.
RAY_PROGRAMS = ("gcs_server", "raylet", "default_worker.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Derive the mark `trains`, and move the files that start Ray sweeps to the front.

    These files take longest and mostly wait for processes. With `--no-loadscope-reorder` they
    start first, so that no core is idle at the end of the run.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.parent.name in TRAINING_FOLDERS or fixtures & TRAINING_FIXTURES:
            item.add_marker("trains")
    slow = [item.path for item in items if item.get_closest_marker("slow")]
    counts = {path: slow.count(path) for path in set(slow)}
    sweeps = {path for path in counts if path.parent.name in {"commands", "execution"}}
    items.sort(key=lambda item: (item.path not in sweeps, item.path not in counts))


@pytest.fixture(autouse=True)
def forbid_training_and_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test without the marks `slow` and `trains` that takes an optimizer step or starts Ray.

    It fails when the test ends, because the code under test may catch an exception.
    """
    if {"slow", "trains"} & {mark.name for mark in request.node.iter_markers()}:
        yield
        return
    _violations.clear()
    _watch_optimizers()
    _active.append(True)
    yield
    _active.clear()
    assert not _violations, f"mark the test as trains or slow: it {', '.join(_violations)}"


_active: list[bool] = []  # not empty during tests without the marks
_violations: set[str] = set()
_hooks: list[Any] = []


def _watch_optimizers() -> None:
    """Record steps of all torch optimizers from now on, if torch has been imported."""
    if _hooks or "torch" not in sys.modules:
        return
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def record(*_: Any) -> None:
        if _active:
            _violations.add("takes an optimizer step")

    _hooks.append(register_optimizer_step_pre_hook(record))


def _record_ray(event: str, arguments: tuple[Any, ...]) -> None:
    """Record processes of Ray that a test starts; an audit hook of the interpreter."""
    if event == "subprocess.Popen" and _active:
        command = arguments[1] if isinstance(arguments[1], list | tuple) else [arguments[1]]
        if any(Path(os.fsdecode(part)).name in RAY_PROGRAMS for part in command):
            _violations.add("starts Ray")


sys.addaudithook(_record_ray)


@pytest.fixture(scope="session")
def prepared_text(tmp_path_factory: pytest.TempPathFactory) -> "PreparedText":
    """Return a prepared text of 1 % of the embedded documents, 400 tokens and windows of 16."""
    from prepared_text import PreparedText

    from lab.config.data import DataConfig
    from lab.data import batches, preparation

    settings = DataConfig(share=0.01, held_out=0.1, vocab=400, length=16)
    text = preparation.prepare_text(settings, tmp_path_factory.mktemp("text"))
    return PreparedText(settings, text, batches.open_corpus(text))


@pytest.fixture(scope="session")
def held_out(
    prepared_text: "PreparedText", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Return the file of held-out corruptions, made by a frozen model trained for few steps."""
    from lab.evaluation import corruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruption, "_FROZEN_TOKENS", 16_384)
        patch.setattr(corruption, "_TOKENS", 4_096)
        cache = tmp_path_factory.mktemp("held_out")
        yield corruption.prepare_held_out(prepared_text.corpus, prepared_text.data, cache)


@pytest.fixture(scope="session")
def few_sentences() -> Iterator[None]:
    """Limit scores to few sentences and few steps, so that a score takes milliseconds."""
    from lab.evaluation import probes
    from lab.tasks import embedded, minimal_pairs
    from lab.trials import cached_inputs

    limits = {("pos", "train"): 100, ("pos", "test"): 50}
    limits |= {("sentiment", "train"): 200, ("sentiment", "test"): 150}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_LIMITS", limits)
        patch.setattr(probes, "_STEPS", 12)
        patch.setattr(probes, "_SEARCH_STEPS", 2)
        patch.setattr(probes, "_PENALTIES", (1e-3, 1e-1))
        pairs = minimal_pairs.embedded_pairs()[::60]
        patch.setattr(minimal_pairs, "embedded_pairs", lambda: pairs)
        caches = (embedded.read_embedded, embedded._labels, probes.probe_windows)
        for cached in (*caches, cached_inputs.open_pairs):
            cached.cache_clear()
        yield
    for cached in (*caches, cached_inputs.open_pairs):
        cached.cache_clear()


@pytest.fixture(scope="session")
def begun_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a storage with the tables of MLflow and the prepared text of `sweeps.DATA`.

    The processes of pytest-xdist share it. Tests of commands copy it, which saves the time of
    preparing all of this again.
    """
    # Another process, because fixtures patch the modules of this one.
    return _shared(
        tmp_path_factory,
        "begun_storage",
        lambda storage: subprocess.run([sys.executable, str(BEGIN_STORAGE), storage], check=True),
    )


@pytest.fixture(scope="session")
def few_rows_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package `lab` that has few rows in its labelled tasks.

    The processes of pytest-xdist share it. It is for PYTHONPATH of sweeps in other processes,
    most of whose time would be spent on probes.
    """
    from few_rows import copy_with_few_rows

    return _shared(tmp_path_factory, "few_rows", copy_with_few_rows)


def _shared(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that the first process of pytest-xdist to need it makes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            make(folder / "made")
            (folder / "complete").touch()
    return folder / "made"


@pytest.fixture(scope="session")
def unsynced() -> Iterator[None]:
    """Make databases faster: no synchronous writes, and tables that are made once and then copied.

    Tests do not need durability at a power failure. MLflow and Optuna take most of a second to make
    the tables of a new database. They also import all their migrations each time they open one, to
    find the newest version of its schema.
    """
    from mlflow.store.db import utils as mlflow_databases
    from optuna.storages._rdb.storage import _VersionManager
    from sqlalchemy import Engine, event

    from lab.storage import databases

    def disable_sync(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", disable_sync)
    look_up, found = _VersionManager.get_head_version, list[str]()

    def head_version(manager: _VersionManager) -> str:
        if not found:
            found.append(look_up(manager))
        return found[0]

    create, made = databases.create_database, dict[str, bytes]()

    def create_or_copy(file: Path, make: Callable[[Path], None]) -> None:
        def make_or_copy(partial: Path) -> None:
            if make.__module__ in made:
                partial.write_bytes(made[make.__module__])
            else:
                make(partial)
                made[make.__module__] = partial.read_bytes()

        library = make.__module__ in {"lab.tracking.client", "lab.search.study_storage"}
        create(file, make_or_copy if library else make)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "get_head_version", head_version)
        newest = cache(mlflow_databases._get_latest_schema_revision)
        patch.setattr(mlflow_databases, "_get_latest_schema_revision", newest)
        patch.setattr(databases, "create_database", create_or_copy)
        yield
    event.remove(Engine, "connect", disable_sync)


@pytest.fixture(scope="session")
def transformers_model() -> "Callable[..., Any]":
    """Return a function that builds a model of `transformers` with the weights of an encoder."""
    return _transformers_model


# Names in `transformers` by names in `lab.training.model`, written independently of `lab.interop`.
_EMBEDDINGS = {
    "word_embeddings": "word_embeddings",
    "position_embeddings": "position_embeddings",
    "token_type_embeddings": "token_type_embeddings",
    "norm": "LayerNorm",
}
_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def _transformers_model(
    encoder: "nn.Module", head: "nn.Module", shape: Any, vocab: int, length: int
) -> Any:
    """Return `ElectraForPreTraining` or `ElectraForMaskedLM` with the weights of the lab.

    Args:
        encoder: encoder of the lab.
        head: head of the lab; a `DetectionHead` gives `ElectraForPreTraining`.
        shape: shape of the encoder.
        vocab: number of tokens.
        length: number of positions.
    """
    import torch
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    from lab.training.model import DetectionHead

    config = ElectraConfig(
        vocab_size=vocab,
        embedding_size=shape.embedding,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=length,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
    )
    names = {f"embeddings.{a}": f"electra.embeddings.{b}" for a, b in _EMBEDDINGS.items()}
    names |= {"embeddings_project": "electra.embeddings_project"}
    names |= {
        f"layers.{layer}.{a}": f"electra.encoder.layer.{layer}.{b}"
        for layer in range(shape.layers)
        for a, b in _BLOCK.items()
    }
    weights: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        part, kind = name.rsplit(".", 1)
        weights[f"{names[part]}.{kind}"] = value
    own = head.state_dict()
    if isinstance(head, DetectionHead):
        model = ElectraForPreTraining(config)
        weights |= {f"discriminator_predictions.{name}": value for name, value in own.items()}
    else:
        model = ElectraForMaskedLM(config)
        weights["generator_lm_head.weight"] = weights["electra.embeddings.word_embeddings.weight"]
        weights["generator_lm_head.bias"] = own["bias"]
        for name in ("dense.weight", "dense.bias"):
            weights[f"generator_predictions.{name}"] = own[name]
        for name in ("weight", "bias"):
            weights[f"generator_predictions.LayerNorm.{name}"] = own[f"norm.{name}"]
    with torch.no_grad():
        model.load_state_dict(weights, strict=True)
    return model.eval()

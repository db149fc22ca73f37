"""The checkpoints of the best trial of a sweep as MLflow models on the sweep's run.

A model has MLflow's `transformers` flavor, which `mlflow.pyfunc` loads as well. It is a fill-mask
pipeline of the generator or of an encoder that predicts tokens; for an objective without such a
network, a feature-extraction pipeline of the encoder. It is an output, at the step of its weights,
of the runs of the sweep and of the trial, and has the scores of these weights. The newest one is
registered, and the folders that `lab.export` writes of it, among them the discriminator with its
head, are artifacts of the sweep's run. Nothing is pickled, and no code of the lab is stored.
"""

import json
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path as File
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lab.interop.export import exported_networks, write_networks

if TYPE_CHECKING:
    from lab.interop.trained import TrainedTrial

from lab.config.results import MetricRow
from lab.interop import find_trial
from lab.storage.mirror import Mirror
from lab.storage.temp_dirs import temporary_folder
from lab.tracking import tags
from lab.tracking.client import connect_client, describe_error
from lab.tracking.frames import SweepFrames
from lab.tracking.points import link_scores

_FORBIDDEN_IN_NAMES = re.compile("[/:]")  # of registered models


class _Checkpoint(NamedTuple):
    """Files and scores of a checkpoint.

    Attributes:
        folder: folder with the model and the exported networks.
        step: step at which the weights were saved.
        scores: evaluation of these weights; empty if they were saved between evaluations.
    """

    folder: File
    step: int
    scores: MetricRow


class _Runs(NamedTuple):
    """MLflow runs of a sweep and of its best trial."""

    sweep: Any
    trial: Any


def log_models(uri: str, frames: SweepFrames, storage: File, mirror: Mirror) -> str | None:
    """Log the checkpoints of a sweep's best trial as models, unless they are logged already.

    Args:
        uri: URI of the MLflow tracking store.
        frames: the sweep, as read from the store.
        storage: folder of the records and caches.
        mirror: remote copy of the storage, from which the record is pulled.

    Returns:
        The address of the newest checkpoint's model, `models:/…`; None if no trial has finished.

    Raises:
        UserError: the record cannot be read or exported, or the store does not answer.
    """
    found = find_trial.find_best_trial(frames)
    if found is None:
        return None
    best = found.name
    client = connect_client(uri)
    with describe_error(uri):
        child = client.get_run(
            frames.trials.loc[frames.trials["fingerprint"] == best, "run_id"].iloc[0]
        )
        runs = _Runs(client.get_run(child.data.tags[tags.PARENT_RUN]), child)
        trial, _, model = runs.sweep.data.tags.get(tags.BEST_MODEL, "").partition(" ")
        if trial == best:
            return str(model)
        record = find_trial.resolve_trial(best, storage, mirror)
        with temporary_folder(File(gettempdir()), "lab-model-") as folder:
            newest, *earlier = _write_checkpoints(record, storage / "cache", folder)
            for checkpoint in earlier:
                _log_model(client, runs, best, checkpoint, f"{tags.MODEL_NAME}-{checkpoint.step}")
            made = _log_model(client, runs, best, newest, tags.MODEL_NAME)
            return _publish(client, runs.sweep, best, newest, made, frames.name)


def _write_checkpoints(record: File, cache: File, folder: File) -> Iterator[_Checkpoint]:
    """Write a model for each kept checkpoint to a folder of its own, the newest first."""
    from lab.interop.trained import open_checkpoints

    for trained in open_checkpoints(record, cache):
        step = trained.place.spent.steps
        target = folder / str(step)
        write_networks(trained, target / tags.EXPORT_FOLDER)
        save_model(trained, target)
        yield _Checkpoint(target, step, trained.evaluation())


def save_model(trained: "TrainedTrial", folder: File) -> None:
    """Write the MLflow model `folder`/model from the exported networks in `folder`/export.

    Signature and requirements are passed explicitly. Otherwise MLflow would infer them in another
    process, with access to the network.

    Args:
        trained: the trial.
        folder: folder with the exported networks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside MLflow and transformers
        import mlflow.transformers  # imported here, since it takes seconds
        from mlflow.models import ModelSignature
        from mlflow.types.schema import ColSpec, Schema

        pipeline, outputs = _pipeline(trained, folder / tags.EXPORT_FOLDER)
        mlflow.transformers.save_model(
            pipeline,
            str(folder / tags.MODEL_FOLDER),
            task=pipeline.task,
            signature=ModelSignature(Schema([ColSpec("string")]), Schema([outputs])),
            input_example=_example(pipeline),
            pip_requirements=_requirements(),
        )


def _pipeline(trained: "TrainedTrial", folder: File) -> tuple[Any, Any]:
    """Return the pipeline, and the MLflow type of its output."""
    from mlflow.types.schema import ColSpec, TensorSpec
    from transformers import AutoModel, AutoTokenizer, pipeline

    roles = {role.loads: name for _, name, role in exported_networks(trained)}
    if name := roles.get("ElectraForMaskedLM"):  # the generator if there is one
        return pipeline("fill-mask", model=str(folder / name)), ColSpec("string")
    body = folder / roles["ElectraForPreTraining"]
    extractor = pipeline(
        "feature-extraction",
        model=AutoModel.from_pretrained(body),
        tokenizer=AutoTokenizer.from_pretrained(body),
    )
    return extractor, TensorSpec(np.dtype(np.float64), (-1, extractor.model.config.hidden_size))


def _example(pipeline: Any) -> str:
    """Return an input that is valid for any vocabulary."""
    return f"{pipeline.tokenizer.mask_token}." if pipeline.task == "fill-mask" else "."


def _requirements() -> list[str]:
    """Return the pip requirements of the model, in the versions that wrote it."""
    names = ("mlflow", "torch", "transformers", "tokenizers")
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]


def _log_model(client: Any, runs: _Runs, trial: str, checkpoint: _Checkpoint, name: str) -> Any:
    """Log the model of a checkpoint with its scores, and return it.

    Args:
        client: MLflow client.
        runs: runs of the sweep and of the trial.
        trial: fingerprint of the trial.
        checkpoint: the checkpoint.
        name: name of the model.
    """
    from mlflow.entities import LoggedModelOutput

    made = client.create_logged_model(
        runs.sweep.info.experiment_id,
        name=name,
        source_run_id=runs.sweep.info.run_id,
        tags={tags.MODEL_TRIAL: trial},
    )
    client.log_model_artifacts(made.model_id, str(checkpoint.folder / tags.MODEL_FOLDER))
    client.finalize_logged_model(made.model_id, "READY")
    for run in runs:
        client.log_outputs(
            run.info.run_id, [LoggedModelOutput(made.model_id, step=checkpoint.step)]
        )
    link_scores(client, runs.trial, made.model_id, checkpoint.scores)
    return made


def _publish(
    client: Any, run: Any, trial: str, checkpoint: _Checkpoint, model: Any, name: str
) -> str:
    """Log the exported networks on the sweep's run, register the model, then set the tag.

    Args:
        client: MLflow client.
        run: run of the sweep.
        trial: fingerprint of the trial.
        checkpoint: its newest checkpoint.
        model: logged model of this checkpoint.
        name: name of the sweep, under which the model is registered.

    Returns:
        The model's address.
    """
    client.log_artifacts(
        run.info.run_id, str(checkpoint.folder / tags.EXPORT_FOLDER), tags.EXPORT_FOLDER
    )
    address = f"models:/{model.model_id}"
    _register(client, name, model, {tags.MODEL_TRIAL: trial})
    # Set last: a run with this tag has all models, and they are complete.
    client.set_tag(run.info.run_id, tags.BEST_MODEL, f"{trial} {address}")
    return address


def _register(client: Any, name: str, model: Any, values: dict[str, str]) -> None:
    """Add a logged model as a new version of the registered model of a sweep.

    Args:
        client: MLflow client.
        name: name of the sweep and of its registered model.
        model: the logged model.
        values: tags of the version.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    name = _FORBIDDEN_IN_NAMES.sub("-", name)
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name, description=f"Best trials of the sweep {name}")
    made = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        tags=values,
        model_id=model.model_id,
    )
    # The MLflow UI reads the registered versions of a logged model from this tag.
    versions = json.dumps([{"name": made.name, "version": made.version}])
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: versions})

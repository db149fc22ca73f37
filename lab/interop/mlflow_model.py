"""The best trial of a sweep as an MLflow model on the sweep's run.

The model has MLflow's `transformers` flavor, which `mlflow.pyfunc` loads as well. It is a fill-mask
pipeline of the generator or of an encoder that predicts tokens; for an objective without such a
network, a feature-extraction pipeline of the encoder. The folders that `lab.export` writes, among
them the discriminator with its head, are artifacts of the run. Nothing is pickled, and no code of
the lab is stored.
"""

import re
import warnings
from importlib import metadata
from pathlib import Path as File
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.interop.export import exported_networks, write_networks

if TYPE_CHECKING:
    from lab.interop.trained import TrainedTrial

from lab.interop import find_trial
from lab.storage.mirror import Mirror
from lab.storage.temp_dirs import temporary_folder
from lab.tracking import tags
from lab.tracking.client import connect_client, describe_error
from lab.tracking.frames import SweepFrames

_FORBIDDEN_IN_NAMES = re.compile("[/:]")  # of registered models


def log_model(uri: str, frames: SweepFrames, storage: File, mirror: Mirror) -> str | None:
    """Log a sweep's best trial as a model, unless that trial is logged already.

    Args:
        uri: URI of the MLflow tracking store.
        frames: the sweep, as read from the store.
        storage: folder of the records and caches.
        mirror: remote copy of the storage, from which the record is pulled.

    Returns:
        The model's address, `models:/…`; None if no trial has finished.

    Raises:
        UserError: the record cannot be read or exported, or the store does not answer.
    """
    found = find_trial.find_best_trial(frames)
    if found is None:
        return None
    best = found.name
    client = connect_client(uri)
    with describe_error(uri):
        child = frames.trials.loc[frames.trials["fingerprint"] == best, "run_id"].iloc[0]
        parent = client.get_run(client.get_run(child).data.tags[tags.PARENT_RUN])
        trial, _, model = parent.data.tags.get(tags.BEST_MODEL, "").partition(" ")
        if trial == best:
            return str(model)
        with temporary_folder(File(gettempdir()), "lab-model-") as folder:
            _write_model(
                find_trial.resolve_trial(best, storage, mirror),
                storage / "cache",
                folder,
            )
            return _upload(client, parent, best, folder, frames.name)


def _write_model(record: File, cache: File, folder: File) -> None:
    from lab.interop.trained import open_trained

    trained = open_trained(record, cache)
    write_networks(trained, folder / tags.EXPORT_FOLDER)
    save_model(trained, folder)


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


def _upload(client: Any, parent: Any, trial: str, folder: File, name: str) -> str:
    """Log model and artifacts on the sweep's run, register it, then set the tag.

    Args:
        client: MLflow client.
        parent: run of the sweep.
        trial: fingerprint of the trial.
        folder: folder with the model and the exported networks.
        name: name of the sweep, under which the model is registered.

    Returns:
        The model's address.
    """
    from mlflow.entities import LoggedModelOutput

    run = parent.info.run_id
    made = client.create_logged_model(
        parent.info.experiment_id,
        name=tags.MODEL_NAME,
        source_run_id=run,
        tags={tags.MODEL_TRIAL: trial},
    )
    client.log_model_artifacts(made.model_id, str(folder / tags.MODEL_FOLDER))
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(made.model_id, step=0)])
    client.log_artifacts(run, str(folder / tags.EXPORT_FOLDER), tags.EXPORT_FOLDER)
    address = f"models:/{made.model_id}"
    _register(client, name, made, {tags.MODEL_TRIAL: trial})
    # Set last: a run with this tag has a complete model.
    client.set_tag(run, tags.BEST_MODEL, f"{trial} {address}")
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

    name = _FORBIDDEN_IN_NAMES.sub("-", name)
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name, description=f"Best trials of the sweep {name}")
    client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        tags=values,
        model_id=model.model_id,
    )

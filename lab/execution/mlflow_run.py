"""MLflow run of a sweep, with the command, the code and the texts as tags."""

import json

from lab.config.experiment import Experiment
from lab.execution.site import Site
from lab.loading import search_space
from lab.storage import identity, provenance
from lab.tracking import tags
from lab.tracking.inputs import SweepInputs
from lab.tracking.run_tags import process_tags
from lab.tracking.store import MlflowStore


def begin_run(
    store: MlflowStore,
    experiment: Experiment,
    site: Site,
    command: str,
    text_tags: dict[str, str],
    inputs: SweepInputs,
) -> None:
    """Open the MLflow run of a sweep, or continue it, and set its tags.

    Args:
        store: tracking store.
        experiment: experiment of the sweep.
        site: storage of the records; the same sweep from another storage has a run of its own.
        command: command line that repeats the sweep.
        text_tags: description of the prepared texts, by tag.
        inputs: prepared texts and tasks.
    """
    process = process_tags(provenance.current_provenance())
    facts = {f"{tags.LAST_COMMAND}{name}": text for name, text in process.items() if text} | {
        tags.COMMAND: command,
        tags.BUDGET: json.dumps(experiment.base["budget"]),
    }
    space = search_space.dump_experiment(experiment)
    storage = identity.storage_identity(site.storage, site.mirror)
    store.begin(experiment, facts | text_tags, {tags.SPACE_FILE: space}, inputs, storage=storage)

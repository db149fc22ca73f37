"""Store the report and the answer of a sweep in its MLflow run."""

from pathlib import Path as File

from lab.tracking import tags
from lab.tracking.client import connect_client, describe_error
from lab.tracking.frames import SweepFrames


def publish_report(uri: str, frames: SweepFrames, page: File, answer: str) -> None:
    """Store the HTML page as an artifact, and the answer as a tag and in the run's description.

    Args:
        uri: URI of the tracking store.
        frames: frames of the sweep.
        page: `report.html`.
        answer: conclusion of the report.

    Raises:
        StoreError: the store cannot be written.
    """
    client, run = connect_client(uri), frames.run_id
    with describe_error(uri):
        client.log_artifact(run, str(page))
        client.log_text(run, answer, tags.ANSWER_FILE)
        client.set_tag(run, tags.REPORT_ANSWER, answer[: tags.MOST_SHOWN])
        note = f"{frames.sweep[tags.QUESTION]}\n\n{answer}"
        client.set_tag(run, tags.NOTE, note[: tags.MOST_SHOWN])

"""Store the report and the answer of a sweep in its MLflow run."""

from pathlib import Path as File

from lab.tracking import tags
from lab.tracking.client import connect_client, describe_error
from lab.tracking.frames import SweepFrames


def publish_report(uri: str, frames: SweepFrames, page: File, answer: str, note: str) -> None:
    """Store the report as artifacts, the answer as a tag, and a summary as the description.

    Args:
        uri: URI of the tracking store.
        frames: frames of the sweep.
        page: `report.html`, beside which is `report.md`.
        answer: conclusion of the report.
        note: summary in Markdown.

    Raises:
        StoreError: the store cannot be written.
    """
    client, run = connect_client(uri), frames.run_id
    with describe_error(uri):
        for file in (page, page.with_suffix(".md")):
            client.log_artifact(run, str(file))
        client.log_text(run, answer, tags.ANSWER_FILE)
        client.set_tag(run, tags.REPORT_ANSWER, answer[: tags.MOST_SHOWN])
        client.set_tag(run, tags.NOTE, note[: tags.MOST_SHOWN])

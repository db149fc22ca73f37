"""Records that were written with the earlier names of their keys can be read."""

import json
from dataclasses import asdict
from pathlib import Path

from experiments import outcome

from lab.config.budget import Spent
from lab.storage import record
from lab.training import checkpoint
from lab.training.checkpoint import TrainingPosition


def rename_keys(content: dict[str, object], names: dict[str, str]) -> dict[str, object]:
    return {names.get(key, key): value for key, value in content.items()}


def test_outcome_with_earlier_keys_is_read(tmp_path: Path) -> None:
    written = outcome(state="interrupted", reason="by hand")
    record.write_outcome(tmp_path, written)
    file = tmp_path / "outcome.json"
    fields = rename_keys(json.loads(file.read_text()), {"started_at": "began", "attempts": "tries"})
    del fields["seal"]  # earlier versions wrote none
    assert {"began", "tries"} <= fields.keys()
    file.write_text(json.dumps(fields))
    assert record.read_outcome(tmp_path) == written


def test_position_with_earlier_keys_is_read(tmp_path: Path) -> None:
    position = TrainingPosition(
        spent=Spent(), evaluations=3, score=0.5, counts={}, micro_batch_limit=64
    )
    fields = rename_keys(asdict(position), {"evaluations": "rows", "micro_batch_limit": "most"})
    assert {"rows", "most"} <= fields.keys()
    body = {"place": fields, "sha256": ""}
    content = body | {"seal": checkpoint._seal(body)}
    (tmp_path / "state.json").write_text(json.dumps(content))
    assert checkpoint._read_position(tmp_path) == position

"""Settings of a trial as MLflow's parameters: texts by dotted path."""

import json

from lab.config.trial import Path, Value


def flatten_settings(value: object, path: str = "") -> dict[Path, str]:
    """Return the settings of a trial as texts, by dotted path.

    Args:
        value: the trial as a mapping, or a part of it.
        path: dotted path of the part.
    """
    if isinstance(value, dict):
        inner = (flatten_settings(v, f"{path}.{k}" if path else str(k)) for k, v in value.items())
        return {key: text for part in inner for key, text in part.items()}
    return {path: json.dumps(value) if isinstance(value, (list, tuple)) else str(value)}


def parse_setting(text: str) -> Value:
    """Return the number that a text represents, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""Model cards of exported networks, generated from the trial's record alone."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path as File
from typing import NamedTuple, assert_never

from lab import __version__
from lab.config.data import EmbeddedText, HubDataset, Mixture, SavedDataset, TextFiles, TextSource
from lab.config.metrics import METRICS
from lab.config.preparatory_runs import frozen_generator_source
from lab.config.results import MetricRow
from lab.config.schedules.window_growth import GrowingWindows
from lab.config.trial import Trial
from lab.reporting import sentences
from lab.storage import record

_SHORT_WINDOW = 128  # positions; ELECTRA-Small, the smallest released model, was trained with 128
_AMOUNTS = (
    ("FLOPs (matrix products, sparse look-up, backward 2x forward)", "spent/flops"),
    ("FLOPs as the paper's script counts them", "spent/paper_flops"),
    ("6 x parameters x tokens, in FLOPs", "spent/six_n"),
    ("tokens, padding included", "spent/tokens"),
)


class NetworkRole(NamedTuple):
    """The function of a network in its trial.

    Attributes:
        title: name of the kind of network, in a few words.
        loads: class of `transformers` that loads the network with its head.
        does: one sentence on the network's predictions and use.
        omitted: one sentence on a part of the network that `transformers` does not support; empty
            if the export is complete.
    """

    title: str
    loads: str
    does: str
    omitted: str = ""


DISCRIMINATOR = NetworkRole(
    "ELECTRA discriminator",
    "ElectraForPreTraining",
    "It predicts for every token whether it was replaced (positive logits); its encoder is the "
    "starting point of fine-tuning.",
)
GENERATOR = NetworkRole(
    "ELECTRA generator",
    "ElectraForMaskedLM",
    "It predicts the tokens at [MASK]; during training its samples were the replaced tokens that "
    "another network had to detect or to correct.",
)
PREDICTOR = NetworkRole(
    "masked language model",
    "ElectraForMaskedLM",
    "It predicts tokens; its encoder is the starting point of fine-tuning.",
)


def write_card(
    role: NetworkRole,
    trial: Trial,
    folder: File,
    rows: tuple[MetricRow, ...],
    name: str,
    counted: str,
) -> str:
    """Return the model card of one network, as Markdown.

    Args:
        role: function of the network.
        trial: configuration of the trial.
        folder: folder of the trial's record.
        rows: evaluations up to the exported weights.
        name: name of the network's exported folder.
        counted: a sentence with counts of the prepared text.
    """
    last = rows[-1] if rows else {}
    tags = "".join(f"- {tag}\n" for tag in ("electra", "replaced-token-detection"))
    pipeline = "pipeline_tag: fill-mask\n" if role.loads == "ElectraForMaskedLM" else ""
    parts = {
        "How to load it": _loading(role, name, trial.data.length),
        "Data": _data(trial, counted),
        "Settings": _settings(trial),
        "Compute": _compute(folder, trial, last),
        "Scores": _scores(rows),
        "Limits": _limits(role, trial, folder, last),
        "Licence": _licence(trial.data.source),
    }
    sections = "".join(f"\n## {title}\n\n{body.strip()}\n" for title, body in parts.items())
    return (
        f"---\nlibrary_name: transformers\n{pipeline}tags:\n{tags}---\n\n"
        f"# {role.title}, trial {folder.resolve().name}\n\n"
        f"Pre-trained by the ELECTRA lab {__version__}. {role.does} Every number below is from the "
        f"trial's record.\n{sections}"
    )


def short_window_warning(length: int) -> str | None:
    """Return a warning about a network that reads few positions; None if it reads enough.

    Args:
        length: number of positions of the windows of training.
    """
    if length >= _SHORT_WINDOW:
        return None
    return (
        f"it reads {length} positions, and most tasks have longer texts, which the tokenizer "
        f"truncates; for longer inputs, continue its training with base.init_from and a larger "
        f"base.data.length"
    )


def _loading(role: NetworkRole, name: str, length: int) -> str:
    more = (
        f'\n\nfill = pipeline("fill-mask", model="{name}")'
        if role.loads == "ElectraForMaskedLM"
        else ""
    )
    imported = f"AutoTokenizer, {role.loads}" + (", pipeline" if more else "")
    return (
        f"```python\nfrom transformers import {imported}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = {role.loads}.from_pretrained("{name}")\n'
        f'inputs = tokenizer("A text.", truncation=True, return_tensors="pt")\n'
        f"logits = model(**inputs).logits{more}\n```\n\n"
        f"`truncation=True` cuts a text to the {length} positions of the model "
        f"(`tokenizer.model_max_length`).\n\n"
        "`AutoModel` loads its encoder, and `AutoModelForSequenceClassification` its encoder "
        "with a new head."
    )


def _data(trial: Trial, counted: str) -> str:
    data = trial.data
    lines = [
        *_sources(data.source),
        f"{100 * data.share:.3g} % of the documents, {100 * data.held_out:.3g} % of it held out.",
        f"{data.vocab:,} tokens ({data.tokenizer.kind} tokenizer), windows of {data.length} "
        f"positions, layout {data.layout}{_grown(trial)}.",
        counted,
    ]
    return _list(lines)


def _grown(trial: Trial) -> str:
    match trial.windows:
        case GrowingWindows(start=start, until=until):
            return f"; windows of {start} positions in the first {100 * until:.3g} % of training"
        case _:
            return ""


def _sources(source: TextSource) -> list[str]:
    match source:
        case EmbeddedText():
            return [
                "The lab's embedded English: introductions of Wikipedia articles, State of the "
                "Union addresses, Moby Dick, Jane Austen's novels, the Bible in Basic English."
            ]
        case TextFiles(paths=paths):
            return [f"Local files: {', '.join(paths)}."]
        case SavedDataset(path=path, split=split):
            return [f"A dataset saved at {path}, split {split}."]
        case HubDataset(name=name, configuration=configuration, split=split, revision=revision):
            dataset = " ".join(part for part in (name, configuration) if part)
            return [f"{dataset} of the Hugging Face hub, split {split}, revision {revision}."]
        case Mixture(parts=parts):
            return [
                f"{line} (weight {each.weight:g})"
                for each in parts
                for line in _sources(each.source)
            ]
        case _:
            assert_never(source)


def _settings(trial: Trial) -> str:
    settings = asdict(trial)
    del settings["data"]
    return f"```json\n{json.dumps(settings, indent=2)}\n```"


def _compute(folder: File, trial: Trial, last: MetricRow) -> str:
    outcome = record.read_last_outcome(folder)
    rows = [
        (title, sentences.format_quantity(last.get(name, math.nan), "")) for title, name in _AMOUNTS
    ]
    rows.append(("optimizer steps", f"{last.get('spent/steps', 0):,.0f}"))
    rows.append(
        ("seconds of training", sentences.format_seconds(last.get("spent/seconds", math.nan)))
    )
    rows.append(("device", (outcome.device if outcome else "") or sentences.NONE))
    rows.append(("budget", f"{trial.budget.amount:g} {trial.budget.kind}"))
    note = ""
    kinds = {trial.init_from.kind, getattr(frozen_generator_source(trial), "kind", "scratch")}
    if "mlm" in kinds:
        own = sentences.format_quantity(last.get("spent/marginal_flops", math.nan), "FLOP")
        note += (
            f"\n\nThe amounts include the mlm runs that the trial starts from; its own training "
            f"took {own}."
        )
    if trial.trunk is not None:
        own = sentences.format_quantity(last.get("spent/marginal_flops", math.nan), "FLOP")
        note += (
            f"\n\nThe amounts are those of a run from scratch. The trial shares its trunk with "
            f"trials of other budgets; it is charged for {own}."
        )
    if kinds & {"trial", "transformers"}:
        note += (
            "\n\nThe amounts do not include the compute of the weights that the trial starts from."
        )
    return _table(("quantity", "amount"), rows) + note


def _scores(rows: tuple[MetricRow, ...]) -> str:
    if not rows:
        return "The record has no evaluation."
    first, last = rows[0], rows[-1]
    recorded = [name for name in METRICS if name in last]
    note = "Scores of the trial; `detect` and `probe` evaluate its encoder.\n\n"
    return note + _table(
        ("score", "better", "at the start", "at the end"),
        [
            (
                name,
                METRICS[name].direction,
                sentences.format_score(first.get(name, math.nan)),
                sentences.format_score(last[name]),
            )
            for name in recorded
        ],
    )


def _limits(role: NetworkRole, trial: Trial, folder: File, last: MetricRow) -> str:
    state, size, tokens = (
        record.read_state(folder),
        trial.encoder,
        last.get("spent/tokens", math.nan),
    )
    lines = [
        f"The state of its trial is {state}." if state != "finished" else "Its trial finished.",
        f"The encoder has a depth of {size.layers} and a width of {size.hidden}; training read "
        f"{sentences.format_quantity(tokens, 'tokens')}. The paper's ELECTRA-Small has a depth of "
        f"12, a width of 256 and read 16.4 G tokens.",
        f"It was trained on windows of {trial.data.length} positions, and longer inputs are not "
        f"supported.",
        *_warned(trial.data.length),
        "Spellings of special tokens in a text, such as [MASK] and [SEP], are these tokens for the "
        "tokenizer of transformers; in training they were ordinary text. `tokenizer(text, "
        "split_special_tokens=True)` reads them as in training.",
        "It can have the biases of its training text; they have not been examined.",
        "The scores are those of a single run: another seed gives other scores.",
        *([role.omitted] if role.omitted else []),
    ]
    return _list(lines)


def _warned(length: int) -> list[str]:
    warning = short_window_warning(length)
    return [] if warning is None else [f"Short windows: {warning}."]


def _licence(source: TextSource) -> str:
    lines = dict.fromkeys(_licences(source))
    return _list([*lines, "The lab's code is under Apache-2.0, which does not apply to weights."])


def _licences(source: TextSource) -> list[str]:
    match source:
        case EmbeddedText():
            return [
                "Wikipedia's text is by its contributors, CC BY-SA 4.0 "
                "(https://creativecommons.org/licenses/by-sa/4.0/).",
                "State of the Union addresses and Moby Dick: PDDL / CC0. Jane Austen's novels and "
                "the Bible in Basic English: public domain.",
            ]
        case Mixture(parts=parts):
            return [line for each in parts for line in _licences(each.source)]
        case TextFiles() | SavedDataset() | HubDataset():
            return [
                "The licence of the training text is not recorded; add the terms of its owners "
                "before publishing the weights."
            ]
        case _:
            assert_never(source)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

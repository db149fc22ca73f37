"""A model card, made of a trial's record and of nothing else."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path as File
from typing import NamedTuple, assert_never

from lab import __version__
from lab.config.data import EmbeddedText, HubDataset, Mixture, SavedDataset, TextFiles, TextSource
from lab.config.metrics import METRICS
from lab.config.preparatory_runs import frozen_start
from lab.config.results import MetricRow
from lab.config.trial import Trial
from lab.config.window_growth import GrowingWindows
from lab.reporting import sentences
from lab.storage import record

_AMOUNTS = (
    ("honest FLOPs (matrix products, sparse look-up, backward 2x forward)", "spent/flops"),
    ("FLOPs as the paper's script counts them", "spent/paper_flops"),
    ("6 x parameters x tokens, in FLOPs", "spent/six_n"),
    ("tokens, padding included", "spent/tokens"),
)


class NetworkRole(NamedTuple):
    """What a network is in its trial.

    Attributes:
        title: what it is, in a few words.
        loads: the class of `transformers` that its head belongs to.
        does: one sentence.
        left: what of it has no place in `transformers`; empty where all has.
    """

    title: str
    loads: str
    does: str
    left: str = ""


DISCRIMINATOR = NetworkRole(
    "ELECTRA discriminator",
    "ElectraForPreTraining",
    "It says of every token whether it was replaced (positive logits); its body is what "
    "fine-tuning starts from.",
)
GENERATOR = NetworkRole(
    "ELECTRA generator",
    "ElectraForMaskedLM",
    "It fills [MASK]; while training it wrote the replacements that another network had to find or "
    "to undo.",
)
PREDICTOR = NetworkRole(
    "masked language model",
    "ElectraForMaskedLM",
    "It predicts tokens; its body is what fine-tuning starts from.",
)


def write_card(
    role: NetworkRole,
    trial: Trial,
    folder: File,
    rows: tuple[MetricRow, ...],
    name: str,
    counted: str,
) -> str:
    """Return the card of one network.

    Args:
        role: what it is.
        trial: what was asked.
        folder: of the record.
        rows: the curve up to the weights.
        name: of the network's own folder.
        counted: a sentence on the prepared text.
    """
    last = rows[-1] if rows else {}
    tags = "".join(f"- {tag}\n" for tag in ("electra", "replaced-token-detection"))
    pipeline = "pipeline_tag: fill-mask\n" if role.loads == "ElectraForMaskedLM" else ""
    parts = {
        "How to load it": _loading(role, name),
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


def _loading(role: NetworkRole, name: str) -> str:
    more = (
        f'\n\nfill = pipeline("fill-mask", model="{name}")'
        if role.loads == "ElectraForMaskedLM"
        else ""
    )
    imported = f"AutoTokenizer, {role.loads}" + (", pipeline" if more else "")
    return (
        f"```python\nfrom transformers import {imported}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = {role.loads}.from_pretrained("{name}"){more}\n```\n\n'
        "`AutoModel` loads its body, and `AutoModelForSequenceClassification` its body under a new "
        "head."
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
            return f"; windows of {start} positions until {100 * until:.3g} % of the progress"
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
            return [f"A data set saved at {path}, split {split}."]
        case HubDataset(name=name, configuration=configuration, split=split, revision=revision):
            which = " ".join(part for part in (name, configuration) if part)
            return [f"{which} of the Hugging Face hub, split {split}, revision {revision}."]
        case Mixture(parts=parts):
            return [
                f"{line} (weight {each.weight:g})"
                for each in parts
                for line in _sources(each.source)
            ]
        case _:
            assert_never(source)


def _settings(trial: Trial) -> str:
    asked = asdict(trial)
    del asked["data"]
    return f"```json\n{json.dumps(asked, indent=2)}\n```"


def _compute(folder: File, trial: Trial, last: MetricRow) -> str:
    ended = record.read_last_outcome(folder)
    rows = [(what, sentences.quantity(last.get(name, math.nan), "")) for what, name in _AMOUNTS]
    rows.append(("optimizer steps", f"{last.get('spent/steps', 0):,.0f}"))
    rows.append(("seconds of training", sentences.seconds(last.get("spent/seconds", math.nan))))
    rows.append(("device", (ended.device if ended else "") or sentences.NONE))
    rows.append(("budget", f"{trial.budget.amount:g} {trial.budget.kind}"))
    note = ""
    kinds = {trial.init_from.kind, getattr(frozen_start(trial), "kind", "scratch")}
    if "mlm" in kinds:
        own = sentences.quantity(last.get("spent/marginal_flops", math.nan), "FLOP")
        note += (
            f"\n\nIt counts the mlm runs that the trial starts from as well; its own training took "
            f"{own}."
        )
    if kinds & {"trial", "transformers"}:
        note += (
            "\n\nIt counts the new compute alone: what the starting point had cost is not in it."
        )
    return _table(("what", "amount"), rows) + note


def _scores(rows: tuple[MetricRow, ...]) -> str:
    if not rows:
        return "None was taken."
    first, last = rows[0], rows[-1]
    known = [name for name in METRICS if name in last]
    says = "Of the trial; `detect` and `probe` are of the encoder that it keeps.\n\n"
    return says + _table(
        ("score", "better", "at the start", "at the end"),
        [
            (
                name,
                METRICS[name].direction,
                sentences.score(first.get(name, math.nan)),
                sentences.score(last[name]),
            )
            for name in known
        ],
    )


def _limits(role: NetworkRole, trial: Trial, folder: File, last: MetricRow) -> str:
    state, size, tokens = (
        record.read_state(folder),
        trial.encoder,
        last.get("spent/tokens", math.nan),
    )
    lines = [
        f"Its run is {state}." if state != "finished" else "Its run finished.",
        f"{size.layers} layers, {size.hidden} wide, {sentences.quantity(tokens, 'tokens')} read; the "
        "paper's ELECTRA-Small has 12, 256 and has read 16.4 G.",
        f"It has seen windows of {trial.data.length} positions and takes no more.",
        "It has what biases its text has; nobody has looked for them.",
        "A single run: another seed gives other scores.",
        *([role.left] if role.left else []),
    ]
    return _list(lines)


def _licence(source: TextSource) -> str:
    lines = dict.fromkeys(_licences(source))
    return _list([*lines, "The lab's code is under Apache-2.0, which says nothing of weights."])


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
                "What the text's owners allow is not recorded here; whoever trained on it has to "
                "say."
            ]
        case _:
            assert_never(source)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

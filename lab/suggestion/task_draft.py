"""Draft the task of a new search space: an existing task, or new files from labelled rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File

from tokenizers import Tokenizer

from lab.config import tasks
from lab.errors import UserError
from lab.loading.task_table import TASKS, load_task
from lab.suggestion import commented_yaml, task_files
from lab.suggestion.commented_yaml import Section
from lab.suggestion.facts import TaskFacts
from lab.tasks import examples
from lab.tasks.examples import Example, QuestionExample, TagExample, TextExample

_COUNTED = 5_000  # largest number of examples of which tokens are counted


@dataclass(frozen=True, kw_only=True)
class TaskDraft:
    """A task, and the files that are to be written for it.

    Attributes:
        name: path of the task's YAML file, or a name of the lab's task table.
        because: one sentence on the origin of the rows.
        contents: texts of the files to write, by path; empty for an existing task.
    """

    name: str
    because: str
    contents: dict[File, str] = field(default_factory=dict)


def draft_task(arguments: Sequence[str], output: File) -> TaskDraft:
    """Return the draft of the task that `--task` names.

    Args:
        arguments: values of `--task`: an existing task, a file of labelled rows, or a file of
            training rows and a file of evaluation rows.
        output: path of the search space; new files are written to its folder.

    Raises:
        UserError: the arguments are none of these, or the columns are not recognized.
    """
    first = arguments[0]
    if len(arguments) == 1 and (first in TASKS or File(first).suffix in {".yaml", ".yml"}):
        return TaskDraft(name=first, because="The task that --task names.")
    if len(arguments) > 2:
        raise UserError("--task: at most two files: training rows and evaluation rows")
    rows = task_files.read_task_rows(File(first))
    guess = task_files.guess_task(File(first), rows)
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in File(first).stem)
    contents: dict[File, str] = {}
    if len(arguments) == 2:
        paths = tuple(os.path.relpath(file, output.parent) for file in arguments)
        because = f"Training rows: {first}. Evaluation rows: {arguments[1]}."
    else:
        train, evaluation, method = task_files.split_rows(File(first), rows, guess)
        paths = f"{stem}_train.jsonl", f"{stem}_evaluation.jsonl"
        for path, part in zip(paths, (train, evaluation), strict=True):
            contents[output.parent / path] = task_files.as_json_lines(part, guess)
        because = (
            f"{first}: {len(train):,} training rows and {len(evaluation):,} evaluation rows, "
            f"split {method}."
        )
    file = output.parent / f"{stem}_task.yaml"
    contents[file] = _write_yaml(guess, paths, because)
    return TaskDraft(name=str(file), because=because, contents=contents)


def _write_yaml(guess: task_files.TaskGuess, paths: Sequence[str], because: str) -> str:
    settings = guess.settings(*paths)
    sections = {
        key: Section(value=value, because=guess.because.get(key, ""))
        for key, value in settings.items()
    }
    return commented_yaml.write_commented(
        sections, f"A task for python -m lab.finetune.\n{because}"
    )


def task_facts(draft: TaskDraft, tokenizer: Tokenizer) -> TaskFacts:
    """Return figures of a task; its files must have been written.

    Args:
        draft: the task.
        tokenizer: tokenizer by which positions are counted.

    Raises:
        UserError: a row of the task is invalid.
    """
    task = load_task(draft.name)
    splits = examples.read_examples(task)
    rows = [*splits.train, *splits.evaluation]
    rows = rows[:: max(1, -(-len(rows) // _COUNTED))]
    texts = [_texts(example) for example in rows]
    encoded = iter(
        tokenizer.encode_batch(
            [text for parts in texts for text in parts], add_special_tokens=False
        )
    )
    # [CLS] before the first text, [SEP] after each.
    sizes = tuple(1 + sum(len(next(encoded).ids) + 1 for _ in parts) for parts in texts)
    return TaskFacts(file=draft.name, name=task.name, sizes=sizes, because=draft.because)


def is_tagging(draft: TaskDraft) -> bool:
    """Return whether the task tags words; their tags may depend on case."""
    return isinstance(load_task(draft.name).config, tasks.TaggingTask)


def _texts(example: Example) -> tuple[str, ...]:
    match example:
        case TextExample(text=text, pair=pair):
            return (text,) if pair is None else (text, pair)
        case TagExample(words=words):
            return (" ".join(words),)
        case QuestionExample(question=question, context=context):
            return question, context

"""A task for a new search space: one that exists, or new files made from labelled rows."""

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
from lab.suggestion.recommend import TaskFacts
from lab.tasks import examples
from lab.tasks.examples import Example, QuestionExample, TagExample, TextExample

_MEASURED = 5_000  # texts whose tokens are counted


@dataclass(frozen=True, kw_only=True)
class TaskDraft:
    """A task, and the files that have to be written for it.

    Attributes:
        name: a YAML file, or a task of the lab's table.
        because: where its rows come from.
        contents: new files; none for a task that exists.
    """

    name: str
    because: str
    contents: dict[File, str] = field(default_factory=dict)


def draft_task(given: Sequence[str], output: File) -> TaskDraft:
    """Return the task that `--task` names.

    Args:
        given: one task, one labelled file, or one to learn from and one to be scored on.
        output: the search space; new files go beside it.

    Raises:
        UserError: it is none of these, or its columns are not recognised.
    """
    first = given[0]
    if len(given) == 1 and (first in TASKS or File(first).suffix in {".yaml", ".yml"}):
        return TaskDraft(name=first, because="The task that --task names.")
    if len(given) > 2:
        raise UserError("--task: at most two files: rows to learn from, and to be scored on")
    rows = task_files.read_task_rows(File(first))
    guess = task_files.guess_task(File(first), rows)
    stem = "".join(c if c.isascii() and c.isalnum() else "_" for c in File(first).stem)
    contents: dict[File, str] = {}
    if len(given) == 2:
        paths = tuple(os.path.relpath(file, output.parent) for file in given)
        because = f"{first} to learn from, {given[1]} to be scored on."
    else:
        train, scored, how = task_files.split_rows(File(first), rows, guess)
        paths = f"{stem}_train.jsonl", f"{stem}_evaluation.jsonl"
        for path, part in zip(paths, (train, scored), strict=True):
            contents[output.parent / path] = task_files.as_json_lines(part, guess)
        because = (
            f"{first}: {len(train):,} rows to learn from and {len(scored):,} to be scored on, "
            f"split {how}."
        )
    file = output.parent / f"{stem}_task.yaml"
    contents[file] = _yaml(guess, paths, because)
    return TaskDraft(name=str(file), because=because, contents=contents)


def _yaml(guess: task_files.TaskGuess, paths: Sequence[str], because: str) -> str:
    settings = guess.settings(*paths)
    sections = {
        key: Section(value=value, because=guess.because.get(key, ""))
        for key, value in settings.items()
    }
    return commented_yaml.write_commented(
        sections, f"A task for python -m lab.finetune.\n{because}"
    )


def task_facts(draft: TaskDraft, tokenizer: Tokenizer) -> TaskFacts:
    """Return the task's figures; its files are written.

    Raises:
        UserError: a row is wrong.
    """
    task = load_task(draft.name)
    made = examples.read_examples(task)
    several = [*made.train, *made.evaluation]
    several = several[:: max(1, -(-len(several) // _MEASURED))]
    texts = [_texts(example) for example in several]
    encoded = iter(
        tokenizer.encode_batch([text for each in texts for text in each], add_special_tokens=False)
    )
    # [CLS] before the first text, [SEP] after each.
    sizes = tuple(1 + sum(len(next(encoded).ids) + 1 for _ in each) for each in texts)
    return TaskFacts(file=draft.name, name=task.name, sizes=sizes, because=draft.because)


def is_tagging(draft: TaskDraft) -> bool:
    """Return whether each word has a tag, which its case may tell."""
    return isinstance(load_task(draft.name).form, tasks.TaggingTask)


def _texts(example: Example) -> tuple[str, ...]:
    match example:
        case TextExample(text=text, pair=pair):
            return (text,) if pair is None else (text, pair)
        case TagExample(words=words):
            return (" ".join(words),)
        case QuestionExample(question=question, context=context):
            return question, context

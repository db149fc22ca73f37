"""`python -m benchmarks.preparing`: how fast text is prepared, and in how much memory.

The text is made of the embedded sample's lines, shuffled into new documents. It is prepared in a
process of its own, whose largest resident memory is read in the end; then `tokenizers` alone
encodes a stretch of the same documents with the same vocabulary, on the same cores.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lab import prepare
from lab.config.data import (
    DataConfig,
    EmbeddedText,
    TextFiles,
    TokenizerConfig,
    TrainedTokenizer,
    WordPieceFile,
)
from lab.data import preparation, sources

_ALONE = 50_000_000  # bytes that `tokenizers` encodes alone
_TOKENIZERS: dict[str, TokenizerConfig] = {
    "given": WordPieceFile(kind="wordpieces", file="bert-uncased"),
    "trained": TrainedTokenizer(),
}


def main() -> None:
    """Make the text, prepare it in another process, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2_000)
    parser.add_argument("--tokenizer", choices=_TOKENIZERS, default="given")
    parser.add_argument("--folder", type=Path, help="for the text and what becomes of it")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        _prepare(given.only, given.tokenizer)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        text = Path(folder, "text.jsonl")
        size = _make(text, given.megabytes * 1_000_000)
        print(f"text: {size / 1e6:,.0f} MB of {text.name}, {os.cpu_count()} cores", flush=True)
        command = [sys.executable, "-m", "benchmarks.preparing", "--only", str(text)]
        command += ["--tokenizer", given.tokenizer]
        began = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - began
        alone = _alone(text)
    print(f"prepared:         {seconds:,.1f} s, {size / seconds / 1e6:.2f} MB/s")
    print(f"tokenizers alone: {alone / 1e6:.2f} MB/s, so {size / seconds / alone:.0%} of it")


def _make(file: Path, size: int) -> int:
    """Write documents of 5 to 40 of the sample's lines, no two alike."""
    chance = random.Random(0)  # noqa: S311
    lines = [
        line
        for text in sources.SourceReader(EmbeddedText(), "refuse").documents()
        for line in text.split("\n")
        if line.isprintable()
    ]
    written = 0
    with file.open("w") as out:
        while written < size:
            document = "\n".join(chance.choices(lines, k=chance.randint(5, 40)))
            written += len(document.encode())
            out.write(json.dumps({"text": document}) + "\n")
    return written


def _prepare(text: Path, tokenizer: str) -> None:
    data = DataConfig(
        source=TextFiles(kind="files", paths=(str(text),)),
        tokenizer=_TOKENIZERS[tokenizer],
        vocab=30_522,
        length=128,
    )
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {line}", flush=True)

    folder = preparation.prepare_text(data, text.parent / "cache", say)
    for line in prepare.lines(data, preparation.read_facts(folder)):
        print(line)
    # Not of `resource`: there a child's peak begins with its parent's.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(f"largest memory:   {int(peak) * 1024 / 1e9:.2f} GB", flush=True)


def _alone(text: Path) -> float:
    """Return the bytes a second that the library encodes when it does nothing else."""
    from lab.data import tokenizers

    tokenizer = tokenizers.build_vocabulary(_TOKENIZERS["given"], 30_522, lambda: ()).tokenizer
    spent = done = 0.0
    for batch in _batches(text):
        began = time.monotonic()
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        spent += time.monotonic() - began
        done += sum(len(document.encode()) for document in batch)
    return done / spent


def _batches(text: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    read = size = 0
    with text.open() as lines:
        for line in lines:
            batch.append(json.loads(line)["text"])
            size += len(batch[-1])
            if size >= 2_000_000:
                yield batch
                read += size
                batch, size = [], 0
            if read >= _ALONE:
                return


if __name__ == "__main__":
    main()

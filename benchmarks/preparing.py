"""Measure speed and memory of text preparation: `python -m benchmarks.preparing`.

The text consists of documents of random lines of the embedded text. It is prepared in a separate
process, and the peak resident memory of this process is measured. Then the `tokenizers` library
alone encodes a part of the same documents with the same vocabulary on the same cores.
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
from lab.data import preparation, sources, text_facts

_ENCODED = 50_000_000  # bytes that the `tokenizers` library encodes alone
_TOKENIZERS: dict[str, TokenizerConfig] = {
    "given": WordPieceFile(kind="wordpieces", file="bert-uncased"),
    "trained": TrainedTokenizer(),
}


def main() -> None:
    """Generate the text, prepare it in another process, and print both speeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparing", description=__doc__)
    parser.add_argument(
        "--megabytes", type=int, default=2_000, help="size of the text (default: %(default)s)"
    )
    parser.add_argument(
        "--tokenizer",
        choices=_TOKENIZERS,
        default="given",
        help="BERT's vocabulary, or a vocabulary trained on the text (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder for the text and the prepared text (default: the system's temporary folder)",
    )
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        _prepare(options.only, options.tokenizer)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text = Path(folder, "text.jsonl")
        size = _write_text(text, options.megabytes * 1_000_000)
        print(f"text: {size / 1e6:,.0f} MB of {text.name}, {os.cpu_count()} cores", flush=True)
        command = [sys.executable, "-m", "benchmarks.preparing", "--only", str(text)]
        command += ["--tokenizer", options.tokenizer]
        began = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - began
        library = _library_speed(text)
    print(f"prepared:         {seconds:,.1f} s, {size / seconds / 1e6:.2f} MB/s")
    print(
        f"tokenizers alone: {library / 1e6:.2f} MB/s; preparation: {size / seconds / library:.0%}"
    )


def _write_text(file: Path, size: int) -> int:
    """Write random documents of 5 to 40 lines of the embedded text; return their size in bytes."""
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
    for line in prepare.lines(text_facts.read_facts(folder)):
        print(line)
    # `resource.getrusage` is not used: the peak of a child process starts with its parent's.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(f"peak memory:      {int(peak) * 1024 / 1e9:.2f} GB", flush=True)


def _library_speed(text: Path) -> float:
    """Return the speed at which the `tokenizers` library encodes, in bytes per second."""
    from lab.data import tokenizers

    tokenizer = tokenizers.build_vocabulary(_TOKENIZERS["given"], 30_522, lambda: ()).tokenizer
    seconds = encoded = 0.0
    for batch in _batches(text):
        began = time.monotonic()
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        seconds += time.monotonic() - began
        encoded += sum(len(document.encode()) for document in batch)
    return encoded / seconds


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
            if read >= _ENCODED:
                return


if __name__ == "__main__":
    main()

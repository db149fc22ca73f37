"""Exported networks compute the same bits in transformers, and have a tokenizer and a card."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import BERT, FIRST, make_trial, random, trained, vocabulary
from members import LENGTH, MEMBERS, POST, VOCAB, Member, each
from prepared_text import PreparedText
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    pipeline,
)

from lab import export
from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.data import ByteLevelTokenizer, TrainedTokenizer
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.trial import Trial
from lab.data import text_facts
from lab.data.tokenizers import build_vocabulary
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP, Vocabulary, open_vocabulary
from lab.errors import UserError
from lab.interop import export as interop_export
from lab.interop import hf_weights, model_card
from lab.interop.export import exported_networks, write_networks
from lab.storage import record
from lab.training.objectives.base import Objective
from lab.trials.assignment import Assignment
from lab.trials.run import run_trial

SHARING = ("none", "tokens", "all", "gdes")
numberings = pytest.mark.parametrize("tokens", [FIRST, BERT], ids=["first", "as_bert"])
Run = Callable[..., Any]


def inputs(padded: bool) -> tuple[Tensor, Tensor]:
    """Return token ids and segments of windows of two segments, padded or full."""
    ids_BT = torch.randint(FIRST_WORD, VOCAB, (3, LENGTH), generator=torch.manual_seed(3))
    segment_BT = torch.where(torch.arange(LENGTH) < 7, 1, 2).expand(3, LENGTH).clone()
    ids_BT[:, 0], ids_BT[:, 6], ids_BT[:, -1] = CLS, SEP, SEP
    if padded:
        for row, end in enumerate((LENGTH, 12, 5)):
            ids_BT[row, end:], segment_BT[row, end:] = PAD, 0
    return ids_BT, segment_BT


def hf_inputs(words: Vocabulary, ids_BT: Tensor, segment_BT: Tensor) -> dict[str, Tensor]:
    """Return the inputs in the format of transformers."""
    return {
        "input_ids": torch.from_numpy(words.outer_V)[ids_BT],
        "attention_mask": (segment_BT > 0).long(),
        "token_type_ids": (segment_BT > 1).long(),
    }


def lab_logits(objective: Objective, path: str, ids_BT: Tensor, segment_BT: Tensor) -> Tensor:
    """Return the logits of the network with the encoder at `path`, by the objective's modules."""
    network: Any = objective.get_submodule(path.rpartition(".")[0])
    if path == "encoder" and hasattr(objective, "detection"):
        scores: Tensor = objective.detect(ids_BT, segment_BT)  # type: ignore[operator]
        return scores
    logits: Tensor = network.vocabulary(
        network.encoder(ids_BT, segment_BT), network.encoder.embeddings.table()
    )
    return logits


def electra(sharing: str) -> ElectraConfig:
    width = 1 if sharing == "all" else 0.5
    return ElectraConfig(kind="electra", sharing=sharing, generator=GeneratorConfig(width=width))  # type: ignore[arg-type]


@each()
@numberings
@torch.no_grad()
def test_every_network_computes_the_same_bits_in_transformers(
    member: Member, tokens: tuple[str, ...], tmp_path: Path
) -> None:
    trial, words = make_trial(member.objective, member.encoder), vocabulary(tokens)
    objective = random(trial)
    source = trained(trial, objective, words, tmp_path)
    write_networks(source, tmp_path / "out")
    outer_V = torch.from_numpy(words.outer_V)
    for path, name, role in exported_networks(source):
        kind = {c.__name__: c for c in (ElectraForPreTraining, ElectraForMaskedLM)}[role.loads]
        model = kind.from_pretrained(tmp_path / "out" / name)
        for padded in (False, True):
            ids_BT, segment_BT = inputs(padded)
            text_BT = segment_BT > 0
            logits = model(**hf_inputs(words, ids_BT, segment_BT)).logits
            logits = logits if kind is ElectraForPreTraining else logits[..., outer_V]
            expected = lab_logits(objective, path, ids_BT, segment_BT)
            assert expected[text_BT].std() > 0.01
            assert logits[text_BT].equal(expected[text_BT]), (name, padded)


@pytest.mark.parametrize("sharing", SHARING)
@torch.no_grad()
def test_encoders_load_with_other_heads(sharing: str, tmp_path: Path) -> None:
    trial, words = make_trial(electra(sharing), POST), vocabulary(BERT)
    objective = random(trial)
    write_networks(trained(trial, objective, words, tmp_path), tmp_path / "out")
    ids_BT, segment_BT = inputs(padded=True)
    arguments, text_BT = hf_inputs(words, ids_BT, segment_BT), segment_BT > 0
    encoders = {"discriminator": objective.encoder, "generator": objective.generator.encoder}  # type: ignore[union-attr]
    for name, encoder in encoders.items():
        expected = encoder(ids_BT, segment_BT)[text_BT]  # type: ignore[operator]
        body = AutoModel.from_pretrained(tmp_path / "out" / name)
        assert body(**arguments).last_hidden_state[text_BT].equal(expected)
        classifier = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "out" / name, num_labels=3
        )
        assert classifier.electra(**arguments).last_hidden_state[text_BT].equal(expected)
        assert classifier(**arguments).logits.shape == (3, 3)


def test_output_weights_stay_tied_after_transformers_saves_the_model(tmp_path: Path) -> None:
    """transformers saves tied weights once, and initializes missing output weights at random."""
    trial = make_trial(electra("gdes"))
    write_networks(trained(trial, random(trial), vocabulary(BERT), tmp_path), tmp_path / "out")
    model = ElectraForMaskedLM.from_pretrained(tmp_path / "out" / "generator")
    model.save_pretrained(tmp_path / "again")
    again, loading = ElectraForMaskedLM.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert again.generator_lm_head.weight is again.electra.embeddings.word_embeddings.weight
    first = load_file(tmp_path / "out" / "generator" / "model.safetensors")
    second = load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(value.equal(second[name]) for name, value in first.items())


@numberings
def test_exported_tokenizer_gives_the_tokens_of_the_lab(
    tokens: tuple[str, ...], tmp_path: Path
) -> None:
    trial, words = make_trial(RandomReplacementConfig(kind="random")), vocabulary(tokens)
    write_networks(trained(trial, random(trial), words, tmp_path), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "discriminator")
    first, second = "The cat bade the cat Ω", "a cab"
    a, b = (words.outer_V[ids].tolist() for ids in words.encode([first, second]))
    cls, sep = (int(words.outer_V[number]) for number in (CLS, SEP))
    assert len(a) > 8
    pair = tokenizer(first, second)
    assert pair["input_ids"] == [cls, *a, sep, *b, sep]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert tokenizer(second)["input_ids"] == [cls, *b, sep]
    assert (tokenizer.model_max_length, len(tokenizer)) == (LENGTH, VOCAB)
    assert tokenizer.mask_token_id == int(words.outer_V[4])
    assert tokenizer.pad_token_id == int(words.outer_V[PAD])


LITERAL = ["the [MASK] cat", "[SEP] bade [CLS]", "[PAD][UNK]", "the cat"]


@pytest.mark.reported
def test_spellings_of_special_tokens_are_read_as_the_card_says(tmp_path: Path) -> None:
    """In training they are ordinary text; transformers reads them as the tokens by default."""
    words = build_vocabulary(TrainedTokenizer(), VOCAB, lambda: [f"{' '.join(FIRST)} cls unk"] * 9)
    trial = make_trial(RandomReplacementConfig(kind="random"))
    trial = replace(trial, data=replace(trial.data, vocab=VOCAB))
    write_networks(trained(trial, random(trial), words, tmp_path), tmp_path / "out")
    folder = tmp_path / "out" / "discriminator"
    assert "split_special_tokens=True" in (folder / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.mask_token_id in tokenizer("the [MASK] cat")["input_ids"]
    for text, ids in zip(LITERAL, words.encode(LITERAL), strict=True):
        split = tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert split == words.outer_V[ids].tolist()


@pytest.mark.parametrize("cased", [False, True])
def test_byte_level_tokenizers_load_in_transformers(cased: bool, tmp_path: Path) -> None:
    texts = ["The café  in\nZürich, 漢字 \N{ROCKET} कि", "x" * 300, "and [MASK] a  b", ""]
    settings = ByteLevelTokenizer(kind="byte_level", cased=cased)
    words = build_vocabulary(settings, 300, lambda: [*texts, "the cat sat on the mat"] * 30)
    folder = tmp_path / "tokenizer"
    hf_weights.build_hf_tokenizer(words, LENGTH).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, ids in zip(texts, words.encode(texts), strict=True):
        encoded = tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
        assert encoded["input_ids"][1:-1] == words.outer_V[ids].tolist()
        spans = words.spans([text])[0].span_T2.tolist()
        assert [list(span) for span in encoded["offset_mapping"][1:-1]] == spans
    assert tokenizer.decode(
        tokenizer("The cat")["input_ids"], skip_special_tokens=True
    ).strip() == ("The cat" if cased else "the cat")


@pytest.mark.reported
@pytest.mark.parametrize(
    ("length", "warned"), [(16, True), (127, True), (128, False), (512, False)]
)
def test_exports_of_short_windows_are_warned_about(length: int, warned: bool) -> None:
    warning = model_card.short_window_warning(length)
    assert (warning is not None) == warned
    if warning is not None:
        assert f"reads {length} positions" in warning
        assert "base.data.length" in warning


@pytest.mark.reported
def test_the_example_of_the_card_truncates(tmp_path: Path) -> None:
    trial, words = make_trial(RandomReplacementConfig(kind="random")), vocabulary(FIRST)
    write_networks(trained(trial, random(trial), words, tmp_path), tmp_path / "out")
    folder = tmp_path / "out" / "discriminator"
    card = (folder / "README.md").read_text()
    assert f"it reads {LENGTH} positions" in card
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace('"discriminator"', repr(str(folder))).replace("A text.", "the cat " * 99)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - the code is the card's example
    assert found["logits"].shape == (1, LENGTH)


def test_fill_mask_pipeline_ranks_tokens_as_the_generator(tmp_path: Path) -> None:
    trial, words = make_trial(electra("tokens")), vocabulary(BERT)
    objective = random(trial)
    write_networks(trained(trial, objective, words, tmp_path), tmp_path / "out")
    fill = pipeline("fill-mask", model=str(tmp_path / "out" / "generator"))
    answers = fill("the [MASK] bade", top_k=VOCAB)
    ids = [2, *words.encode(["the"])[0], 4, *words.encode(["bade"])[0], 3]
    ids_BT = torch.tensor([ids])
    with torch.no_grad():
        logits_BTV = lab_logits(objective, "generator.encoder", ids_BT, torch.ones_like(ids_BT))
    expected = words.outer_V[logits_BTV[0, 2].argsort(descending=True).numpy()].tolist()
    assert [answer["token"] for answer in answers] == expected


def test_encoder_with_pre_norm_gives_one_line(tmp_path: Path) -> None:
    trial = make_trial(electra("tokens"))
    trial = replace(trial, encoder=replace(trial.encoder, norm="pre"))
    source = trained(trial, random(trial), vocabulary(FIRST), tmp_path)
    with pytest.raises(UserError, match=r"encoder\.norm: pre .* encoder\.norm: post"):
        write_networks(source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


def test_network_with_other_logits_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial(electra("tokens"))
    source = trained(trial, random(trial), vocabulary(FIRST), tmp_path)
    monkeypatch.setattr(interop_export, "lab_logits", lambda *_: torch.zeros(4, LENGTH))
    with pytest.raises(RuntimeError, match="logits in transformers differ"):
        write_networks(source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


@pytest.fixture
def storage(prepared_text: PreparedText, held_out: Path, few_sentences: None) -> Path:
    """Return a storage with the record of one finished trial."""
    trial = Trial(
        encoder=EncoderConfig(layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1),
        objective=ElectraConfig(kind="electra"),
        data=prepared_text.data,
        batch=8,
        budget=Budget(kind="tokens", amount=16 * 8 * 16),
        evaluations=2,
    )
    storage = prepared_text.text.parent
    (storage / "cache").mkdir(exist_ok=True)
    if not (storage / "cache" / prepared_text.text.name).exists():
        (storage / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
        work = Assignment(
            trial=trial,
            folder=storage / "trials" / "0123456789ab",
            text=prepared_text.text,
            held_out=held_out,
            pairs=None,
            metric=METRICS["probe/pos/accuracy"],
        )
        assert run_trial(work).state == "finished"
    return storage


def test_command_writes_networks_and_model_cards(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert export.main(["0123", str(out), "--storage", str(storage)]) == 0
    output, notes = capsys.readouterr()
    assert output.split() == [str(out / "discriminator"), str(out / "generator")]
    assert notes.splitlines()[0] == "exporting 0123456789ab"
    files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    for folder in out.iterdir():
        assert {file.name for file in folder.iterdir()} == files | {"README.md"}
    row = record.read_curve(storage / "trials" / "0123456789ab")[-1]
    card = (out / "discriminator" / "README.md").read_text()
    for name in METRICS:
        if name in row:
            assert f"| {name} | {METRICS[name].direction} |" in card
            assert f"{row[name]:.4f} |" in card
    assert f"| optimizer steps | {row['spent/steps']:.0f} |" in card
    text = next((storage / "cache").glob("text-*"))
    assert "lab.export: warning: 0123456789ab: it reads 16 positions" in notes
    assert f"- {text_facts.describe_text(text)}\n" in card
    assert "CC BY-SA 4.0" in card
    front = card.split("---")[1]
    assert "library_name: transformers" in front
    assert "license" not in front
    ids = AutoTokenizer.from_pretrained(out / "generator")("the whale")["input_ids"]
    words = open_vocabulary(text)
    assert ids[1:-1] == words.encode(["the whale"])[0].tolist()
    assert json.loads((out / "generator" / "config.json").read_text())["model_type"] == "electra"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("abcdef", "no trial in .*; there is 0123456789ab|nor a sweep"),
        ("../elsewhere", "no trial in .*; there is 0123456789ab"),
    ],
)
def test_unknown_run_gives_one_line(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, message: str
) -> None:
    out = tmp_path / "out"
    assert export.main([run, str(out), "--storage", str(storage)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
    assert not out.exists()


def test_nonempty_folder_is_not_changed(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("text")
    assert export.main(["0123", str(tmp_path), "--storage", str(storage)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_tested_objectives_include_every_kind_of_sharing() -> None:
    kinds = {getattr(member.objective, "sharing", None) for member in MEMBERS}
    assert set(SHARING) <= kinds

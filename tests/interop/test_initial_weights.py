"""Trials that start from other weights: from transformers' own checkpoints and from the lab's."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import BERT, FIRST, asked, random, trained, vocabulary
from members import COUNTS_V, LENGTH, POST, VOCAB
from prepared_text import PreparedText
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ElectraForMaskedLM,
    ElectraForPreTraining,
)
from transformers import ElectraConfig as HfElectraConfig

from lab.config import trial
from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.init_from import FromCheckpoint, FromTrial
from lab.config.metrics import METRICS
from lab.config.objective import ElectraConfig, MlmConfig, RandomReplacementConfig
from lab.data.vocabulary import CLS, FIRST_WORD, SEP, Vocabulary
from lab.errors import UserError
from lab.interop.export import write_networks
from lab.interop.initial_weights import InitialWeights
from lab.loading import search_space
from lab.storage import record
from lab.storage.mirror import LocalOnly
from lab.training import weights
from lab.training.objectives import build_objective
from lab.training.objectives.base import Objective
from lab.trials import run
from lab.trials.assignment import Assignment

GENERATOR = GeneratorConfig(width=0.5)
ELECTRA = ElectraConfig(kind="electra", generator=GENERATOR, sharing="none")
numberings = pytest.mark.parametrize("tokens", [FIRST, BERT], ids=["first", "as_bert"])
Change = Callable[[dict[str, Any]], Any]


def config(shape: EncoderConfig, **changes: Any) -> HfElectraConfig:
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "embedding_size": shape.embedding,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": 2 * LENGTH,
    }
    return HfElectraConfig(**settings | changes)


def checkpoint(kind: Any, settings: Any, folder: Path) -> Any:
    """Save a model of transformers' own, every weight with a value of its own; return it."""
    torch.manual_seed(len(str(folder)))
    model = kind(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(parameter.mean().item(), 0.2)
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def pair(folder: Path) -> tuple[Any, Any]:
    """Save a discriminator and a generator of the shapes of `asked(ELECTRA)`."""
    wanted = asked(ELECTRA, POST)
    return (
        checkpoint(ElectraForPreTraining, config(wanted.encoder), folder / "d"),
        checkpoint(ElectraForMaskedLM, config(GENERATOR.of(wanted.encoder)), folder / "g"),
    )


def released(folder: Path, generator: bool = True) -> FromCheckpoint:
    return FromCheckpoint(
        kind="transformers",
        discriminator=str(folder / "d"),
        generator=str(folder / "g") if generator else "",
    )


def started(wanted: trial.Trial, words: Vocabulary, folder: Path, seed: int = 5) -> Objective:
    """Return the trial's objective as its run begins."""
    text = folder / "text"
    text.mkdir(exist_ok=True)
    words.save(text)
    origin = InitialWeights(folder, LocalOnly()).of(wanted, text)
    objective = random(wanted, seed)
    if origin is not None:
        weights.load_weights(origin.file, objective)
    return objective


def windows(words: Vocabulary) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return tokens and segments, and what transformers takes instead."""
    ids_BT = torch.randint(FIRST_WORD, VOCAB, (3, LENGTH), generator=torch.manual_seed(3))
    ids_BT[:, 0], ids_BT[:, 6] = CLS, SEP
    segment_BT = torch.where(torch.arange(LENGTH) < 7, 1, 2).expand(3, LENGTH)
    given = {
        "input_ids": torch.from_numpy(words.outer_V)[ids_BT],
        "token_type_ids": segment_BT - 1,
    }
    return ids_BT, segment_BT, given


@numberings
@pytest.mark.parametrize("sharing", ["none", "gdes"])
@torch.no_grad()
def test_trial_begins_as_transformers_checkpoints(
    tokens: tuple[str, ...], sharing: str, folder: Path
) -> None:
    discriminator, generator = pair(folder)
    words = vocabulary(tokens)
    objective = replace(ELECTRA, sharing=sharing)  # type: ignore[arg-type]
    begun: Any = started(asked(objective, init_from=released(folder)), words, folder)
    ids_BT, segment_BT, given = windows(words)
    found_BT, expected_BT = begun.detect(ids_BT, segment_BT), discriminator(**given).logits
    # A difference to the generator's table is rounded; where nothing is shared, nothing is.
    tolerance = 0 if sharing == "none" else 1e-4
    torch.testing.assert_close(found_BT, expected_BT, atol=tolerance, rtol=0)
    whose = begun.generator
    found_BTV = whose.vocabulary(
        whose.encoder(ids_BT, segment_BT), whose.encoder.embeddings.table()
    )
    expected_BTV = generator(**given).logits[..., torch.from_numpy(words.outer_V)]
    assert found_BTV.equal(expected_BTV)


@pytest.mark.parametrize("sharing", ["none", "tokens", "gdes"])
def test_without_a_generator_it_is_drawn_beside_what_it_shares(sharing: str, folder: Path) -> None:
    pair(folder)
    objective = replace(ELECTRA, sharing=sharing)  # type: ignore[arg-type]
    wanted = asked(objective, init_from=released(folder, generator=False))
    words = vocabulary(FIRST)
    begun, drawn = started(wanted, words, folder), random(wanted, 5)
    found, before = weights.collect_weights(begun), weights.collect_weights(drawn)
    tables = [name for name in found if ".embeddings." in name and not name.endswith("norm.weight")]
    tables = [name for name in tables if "_embeddings." in name and name.startswith("generator.")]
    assert len(tables) == 3
    for name in tables:
        kept = found[name.removeprefix("generator.")]
        assert found[name].equal(kept) == (sharing != "none")
    for name in (name for name in found if name.startswith("generator.") and name not in tables):
        if ".embeddings." not in name:
            assert found[name].equal(before[name]), name
    assert not found["encoder.layers.0.query.weight"].equal(before["encoder.layers.0.query.weight"])


@numberings
@pytest.mark.parametrize("sharing", ["none", "tokens", "all"])
def test_export_and_start_are_a_round_trip(
    sharing: str, tokens: tuple[str, ...], folder: Path
) -> None:
    width = GeneratorConfig(width=1 if sharing == "all" else 0.5)
    objective = replace(ELECTRA, sharing=sharing, generator=width)  # type: ignore[arg-type]
    wanted, words = asked(objective), vocabulary(tokens)
    first = random(wanted, 1)
    write_networks(trained(wanted, first, words, folder), folder / "out")
    out = folder / "out"
    start = FromCheckpoint(
        kind="transformers",
        discriminator=str(out / "discriminator"),
        generator=str(out / "generator"),
    )
    begun = weights.collect_weights(started(replace(wanted, init_from=start), words, folder))
    expected = weights.collect_weights(first)
    assert begun.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in begun.items())


def test_predictor_starts_with_its_head(folder: Path) -> None:
    wanted = asked(MlmConfig(kind="mlm"))
    model = checkpoint(ElectraForMaskedLM, config(wanted.encoder), folder / "d")
    words = vocabulary(BERT)
    begun = started(replace(wanted, init_from=released(folder, generator=False)), words, folder)
    ids_BT, segment_BT, given = windows(words)
    slots_BK = torch.arange(LENGTH).expand(3, LENGTH)
    with torch.no_grad():
        found_BTV = begun.predict(ids_BT, slots_BK, segment_BT)  # type: ignore[operator]
        expected_BTV = model(**given).logits[..., torch.from_numpy(words.outer_V)]
    assert found_BTV.equal(expected_BTV)


def refused(folder: Path, wanted: trial.Trial, words: Vocabulary | None = None) -> str:
    """Return the one line that a start is refused with; nothing is left in the cache."""
    with pytest.raises(UserError) as caught:
        started(wanted, words or vocabulary(FIRST), folder)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    return said


def test_every_side_that_differs_is_named(folder: Path) -> None:
    pair(folder)
    other = replace(POST, layers=1, hidden=64, ffn=96, heads=4, embedding=8)
    said = refused(folder, asked(ELECTRA, other, init_from=released(folder)))
    assert said.startswith(f"base.init_from.discriminator: {folder / 'd'}: layers 2, base.encoder ")
    for side in ("layers 2, base.encoder has 1", "hidden 32, base.encoder has 64",
                 "ffn 128, base.encoder has 96", "embedding 16, base.encoder has 8",
                 "heads 2, base.encoder has 4"):  # fmt: skip
        assert side in said


def test_heads_alone_are_told_apart(folder: Path) -> None:
    """Weights of four heads fit a network of two, and mean nothing there."""
    pair(folder)
    said = refused(folder, asked(ELECTRA, replace(POST, heads=4), init_from=released(folder)))
    assert said.endswith("heads 2, base.encoder has 4")


def test_generator_of_another_width_is_named(folder: Path) -> None:
    pair(folder)
    objective = replace(ELECTRA, generator=GeneratorConfig(width=1))
    said = refused(folder, asked(objective, init_from=released(folder)))
    assert said.startswith(f"base.init_from.generator: {folder / 'g'}: hidden 16, the generator")


def test_too_few_positions_are_named(folder: Path) -> None:
    checkpoint(ElectraForPreTraining, config(POST, max_position_embeddings=8), folder / "d")
    said = refused(folder, asked(ELECTRA, init_from=released(folder, generator=False)))
    assert "positions 8" in said
    assert f"{LENGTH} (base.data.length)" in said


def test_what_is_to_be_shared_has_to_be_the_same(folder: Path) -> None:
    pair(folder)
    said = refused(folder, asked(replace(ELECTRA, sharing="tokens"), init_from=released(folder)))
    assert "base.objective.sharing: tokens has one for both; take none or gdes" in said


def test_pre_norm_cannot_start_from_post_norm(folder: Path) -> None:
    pair(folder)
    wanted = asked(ELECTRA, init_from=released(folder))
    said = refused(folder, replace(wanted, encoder=replace(POST, norm="pre")))
    assert "norm post, base.encoder has pre" in said


def test_generator_in_the_discriminator_s_place_is_refused(folder: Path) -> None:
    """Trap 11: transformers would give it a fresh head and only warn."""
    pair(folder)
    start = FromCheckpoint(kind="transformers", discriminator=str(folder / "g"))
    said = refused(folder, asked(ELECTRA, GENERATOR.of(POST), init_from=start))
    assert "it lacks discriminator_predictions.dense.bias and 3 more" in said
    assert "ElectraForPreTraining" in said


def test_discriminator_in_the_generator_s_place_is_refused(folder: Path) -> None:
    pair(folder)
    start = FromCheckpoint(
        kind="transformers", discriminator=str(folder / "d"), generator=str(folder / "d")
    )
    said = refused(folder, asked(ELECTRA, init_from=start))
    assert said.startswith("base.init_from.generator:")
    assert "it lacks generator_lm_head.bias" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_act": "relu"}, "its hidden_act is 'relu'; the lab's is 'gelu'"),
        ({"vocab_size": VOCAB + 3}, f"{VOCAB + 3} tokens, base.data.vocab has {VOCAB}"),
        ({"layer_norm_eps": 1e-5}, "its layer_norm_eps is 1e-05"),
    ],
)
def test_network_that_computes_something_else_is_refused(
    folder: Path, changes: dict[str, Any], says: str
) -> None:
    checkpoint(ElectraForPreTraining, config(POST, **changes), folder / "d")
    assert says in refused(folder, asked(ELECTRA, init_from=released(folder, generator=False)))


def test_another_kind_of_model_is_refused(folder: Path) -> None:
    settings = BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=32)  # fmt: skip
    BertForMaskedLM(settings).save_pretrained(folder / "d")
    said = refused(folder, asked(ELECTRA, init_from=released(folder, generator=False)))
    assert "its model_type is 'bert', not 'electra'" in said


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.txt"])
def test_first_token_that_differs_is_named(folder: Path, form: str) -> None:
    pair(folder)
    if form == "vocab.txt":
        (folder / "d" / form).write_text("\n".join(BERT) + "\n")
    else:
        vocabulary(BERT).tokenizer.save(str(folder / "d" / form))
    said = refused(folder, asked(ELECTRA, init_from=released(folder, generator=False)))
    assert said.endswith("its token 1 is '[unused0]', and base.data's is '[UNK]'")
    started(asked(ELECTRA, init_from=released(folder, generator=False)), vocabulary(BERT), folder)


class _Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/leaving-was-here"),)  # noqa: S108


def test_pickle_is_read_as_weights_alone(folder: Path) -> None:
    """A pickle of tensors serves; one that would run code is refused, and runs none."""
    model, _ = pair(folder)
    (folder / "d" / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "d" / "pytorch_model.bin")
    wanted, words = asked(ELECTRA, init_from=released(folder, generator=False)), vocabulary(FIRST)
    ids_BT, segment_BT, given = windows(words)
    with torch.no_grad():
        begun: Any = started(wanted, words, folder)
        assert begun.detect(ids_BT, segment_BT).equal(model(**given).logits)
    with (folder / "d" / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Payload(), file)
    assert "cannot be read" in refused(folder, wanted)
    assert not Path("/tmp/leaving-was-here").exists()  # noqa: S108


@pytest.mark.parametrize("spoil", ["gone", "empty", "cut"])
def test_what_cannot_be_read_is_one_line(folder: Path, spoil: str) -> None:
    pair(folder)
    match spoil:
        case "gone":
            shutil.rmtree(folder / "d")
        case "empty":
            shutil.rmtree(folder / "d")
            (folder / "d").mkdir()
        case "cut":
            file = folder / "d" / "model.safetensors"
            file.write_bytes(file.read_bytes()[:1_000])
    said = refused(folder, asked(ELECTRA, init_from=released(folder, generator=False)))
    assert said.startswith(f"base.init_from.discriminator: {folder / 'd'}: cannot be read: ")


def test_same_weights_are_one_file_and_others_another(folder: Path) -> None:
    pair(folder)
    words = vocabulary(FIRST)
    wanted = asked(ELECTRA, init_from=released(folder, generator=False))
    for _ in range(2):
        started(wanted, words, folder)
    assert len(list((folder / "cache").iterdir())) == 1
    checkpoint(ElectraForPreTraining, config(POST), folder / "other")
    start = replace(wanted.init_from, discriminator=str(folder / "other"))  # type: ignore[call-arg]
    started(replace(wanted, init_from=start), words, folder)
    assert len(list((folder / "cache").iterdir())) == 2


Asked = dict[str, Any]


def base(**changes: Any) -> Asked:
    return {
        "encoder": {"size": "tiny"},
        "objective": {"kind": "electra"},
        "budget": {"kind": "tokens", "amount": 1e6},
        "init_from": {"kind": "transformers", "discriminator": "somewhere"},
    } | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": {"kind": "two_stage"}}, "base.init_from: must be .* for objective two_stage"),
        (
            {
                "objective": {"kind": "mlm"},
                "init_from": {"kind": "transformers", "discriminator": "d", "generator": "g"},
            },
            "base.init_from.generator: objective mlm has no generator",
        ),
        ({"init_from": {"kind": "transformers"}}, "base.init_from"),
        ({"init_from": {"kind": "trial", "name": "abc"}}, "base.init_from"),
    ],
)
def test_start_of_no_use_is_refused_at_the_door(changes: Asked, says: str) -> None:
    with pytest.raises(UserError, match=says):
        search_space.build_trial(base(**changes), {})


def test_start_is_compared_and_never_tuned(tmp_path: Path) -> None:
    starts = [{"kind": "scratch"}, {"kind": "transformers", "discriminator": "somewhere"}]
    document = {"question": "which?", "metric": "probe/pos/accuracy", "base": base()}
    file = tmp_path / "starts.yaml"
    file.write_text(json.dumps(document | {"compare": {"init_from": starts}}))
    assert len(search_space.expand_cells(search_space.load_experiment(file))) == 2
    file.write_text(json.dumps(document | {"tune": {"init_from": {"choices": starts}}}))
    with pytest.raises(UserError, match=r"tune\.init_from: cannot be tuned"):
        search_space.load_experiment(file)


@pytest.fixture
def work(
    prepared_text: PreparedText, held_out: Path, few_sentences: None, tmp_path: Path
) -> Assignment:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / prepared_text.text.name).symlink_to(prepared_text.text)
    first = trial.Trial(
        encoder=EncoderConfig(layers=1, hidden=16, ffn=32, heads=2, embedding=8, init_std=0.1),
        objective=ElectraConfig(kind="electra"),
        data=prepared_text.data,
        batch=8,
        budget=Budget(kind="tokens", amount=16 * 8 * 16),
        evaluations=2,
    )
    return Assignment(
        trial=first,
        folder=tmp_path / "trials" / "0123456789ab",
        text=prepared_text.text,
        held_out=held_out,
        metric=METRICS["probe/pos/accuracy"],
    )


def test_trial_goes_on_from_an_earlier_one_with_a_schedule_of_its_own(
    work: Assignment, tmp_path: Path
) -> None:
    earlier = run.run_trial(work)
    storage = tmp_path
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    origin = InitialWeights(storage, LocalOnly()).of(second, work.text)
    assert origin is not None
    going_on = replace(work, trial=second, folder=storage / "trials" / "second", start=origin.file)
    later = run.run_trial(going_on)
    assert (earlier.state, later.state) == ("finished", "finished")
    first_row, last_row = later.rows[0], earlier.rows[-1]
    same = [name for name in first_row if name.startswith(("detect/", "probe/"))]
    assert len(same) == 8
    assert [first_row[name] for name in same] == [last_row[name] for name in same]
    assert first_row["spent/flops"] == 0
    assert later.rows[-1]["spent/flops"] == earlier.rows[-1]["spent/flops"]
    assert later.rows[-1]["detect/mlm/loss"] != first_row["detect/mlm/loss"]


def test_run_that_was_cut_off_does_not_start_again(work: Assignment, tmp_path: Path) -> None:
    run.run_trial(work)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    origin = InitialWeights(tmp_path, LocalOnly()).of(second, work.text)
    assert origin is not None
    begun = tmp_path / "trials" / "through"
    through = replace(work, trial=second, folder=begun, start=origin.file)
    expected = run.run_trial(through).rows[-1]
    cut = replace(through, folder=tmp_path / "trials" / "cut")
    steps = iter(["running"] * 4 + ["interrupted"])
    assert run.run_trial(cut, wish=lambda: next(steps)).state == "interrupted"  # type: ignore[arg-type,return-value]
    found = run.run_trial(cut).rows[-1]
    same = [name for name in found if name.startswith(("detect/", "probe/", "train/"))]
    assert [found[name] for name in same] == [expected[name] for name in same]


def test_other_text_s_tokens_are_refused(work: Assignment, tmp_path: Path) -> None:
    run.run_trial(work)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    other = tmp_path / "text-other"
    other.mkdir()
    vocabulary(FIRST).save(other)
    with pytest.raises(UserError, match=r"base\.init_from\.name: 0123: its tokens are those of"):
        InitialWeights(tmp_path, LocalOnly()).of(second, other)


def test_earlier_trial_without_weights_is_refused(work: Assignment, tmp_path: Path) -> None:
    record.write_queued(work.folder, work.trial, "", work.text.name)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    with pytest.raises(UserError, match="no checkpoint that can be read, and its state is queued"):
        InitialWeights(tmp_path, LocalOnly()).of(second, work.text)
    nobody = replace(work.trial, init_from=FromTrial(kind="trial", name="ffff"))
    with pytest.raises(UserError, match=r"ffff: no trial in .*; there is 0123456789ab"):
        InitialWeights(tmp_path, LocalOnly()).of(nobody, work.text)


def test_counts_stay_out_of_a_start() -> None:
    """What a text gives an objective is no weight, and is not carried on."""
    wanted = asked(RandomReplacementConfig(kind="random"))
    objective = build_objective(wanted, COUNTS_V)
    assert {name.partition(".")[0] for name in weights.collect_weights(objective)} == {
        "encoder",
        "detection",
    }

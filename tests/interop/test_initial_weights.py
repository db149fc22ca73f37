"""Initial weights of trials: from checkpoints of transformers and from trials of the lab."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import BERT, FIRST, make_trial, random, trained, vocabulary
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

from lab.config.architecture import EncoderConfig, GeneratorConfig
from lab.config.budget import Budget
from lab.config.init_from import FromCheckpoint, FromTrial
from lab.config.metrics import METRICS
from lab.config.objectives.electra import ElectraConfig
from lab.config.objectives.mlm import MlmConfig
from lab.config.objectives.random import RandomReplacementConfig
from lab.config.trial import Trial
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
    """Save a model of transformers with random values for all weights; return it."""
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
    """Save a discriminator and a generator of the shapes of `make_trial(ELECTRA)`."""
    trial = make_trial(ELECTRA, POST)
    return (
        checkpoint(ElectraForPreTraining, config(trial.encoder), folder / "d"),
        checkpoint(ElectraForMaskedLM, config(GENERATOR.derive_shape(trial.encoder)), folder / "g"),
    )


def released(folder: Path, generator: bool = True) -> FromCheckpoint:
    return FromCheckpoint(
        kind="transformers",
        discriminator=str(folder / "d"),
        generator=str(folder / "g") if generator else "",
    )


def started(trial: Trial, words: Vocabulary, folder: Path, seed: int = 5) -> Objective:
    """Return the trial's objective with its initial weights."""
    text = folder / "text"
    text.mkdir(exist_ok=True)
    words.save(text)
    origin = InitialWeights(folder, LocalOnly()).resolve(trial, text)
    objective = random(trial, seed)
    if origin is not None:
        weights.load_weights(origin.file, objective)
    return objective


def windows(words: Vocabulary) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return token ids, segments and the equal inputs of transformers."""
    ids_BT = torch.randint(FIRST_WORD, VOCAB, (3, LENGTH), generator=torch.manual_seed(3))
    ids_BT[:, 0], ids_BT[:, 6] = CLS, SEP
    segment_BT = torch.where(torch.arange(LENGTH) < 7, 1, 2).expand(3, LENGTH)
    inputs = {
        "input_ids": torch.from_numpy(words.outer_V)[ids_BT],
        "token_type_ids": segment_BT - 1,
    }
    return ids_BT, segment_BT, inputs


@numberings
@pytest.mark.parametrize("sharing", ["none", "gdes"])
@torch.no_grad()
def test_trial_starts_with_the_networks_of_transformers_checkpoints(
    tokens: tuple[str, ...], sharing: str, folder: Path
) -> None:
    discriminator, generator = pair(folder)
    words = vocabulary(tokens)
    objective = replace(ELECTRA, sharing=sharing)  # type: ignore[arg-type]
    networks: Any = started(make_trial(objective, init_from=released(folder)), words, folder)
    ids_BT, segment_BT, inputs = windows(words)
    actual_BT, expected_BT = networks.detect(ids_BT, segment_BT), discriminator(**inputs).logits
    # gdes stores the discriminator's tables as differences to the generator's, with rounding.
    tolerance = 0 if sharing == "none" else 1e-4
    torch.testing.assert_close(actual_BT, expected_BT, atol=tolerance, rtol=0)
    network = networks.generator
    actual_BTV = network.vocabulary(
        network.encoder(ids_BT, segment_BT), network.encoder.embeddings.table()
    )
    expected_BTV = generator(**inputs).logits[..., torch.from_numpy(words.outer_V)]
    assert actual_BTV.equal(expected_BTV)


@pytest.mark.parametrize("sharing", ["none", "tokens", "gdes"])
def test_generator_without_a_checkpoint_is_random_except_for_shared_tables(
    sharing: str, folder: Path
) -> None:
    pair(folder)
    objective = replace(ELECTRA, sharing=sharing)  # type: ignore[arg-type]
    trial = make_trial(objective, init_from=released(folder, generator=False))
    words = vocabulary(FIRST)
    networks, drawn = started(trial, words, folder), random(trial, 5)
    actual, before = weights.collect_weights(networks), weights.collect_weights(drawn)
    tables = [
        name for name in actual if ".embeddings." in name and not name.endswith("norm.weight")
    ]
    tables = [name for name in tables if "_embeddings." in name and name.startswith("generator.")]
    assert len(tables) == 3
    for name in tables:
        encoder_table = actual[name.removeprefix("generator.")]
        assert actual[name].equal(encoder_table) == (sharing != "none")
    for name in (name for name in actual if name.startswith("generator.") and name not in tables):
        if ".embeddings." not in name:
            assert actual[name].equal(before[name]), name
    assert not actual["encoder.layers.0.query.weight"].equal(
        before["encoder.layers.0.query.weight"]
    )


@numberings
@pytest.mark.parametrize("sharing", ["none", "tokens", "all"])
def test_exported_networks_are_the_same_initial_weights(
    sharing: str, tokens: tuple[str, ...], folder: Path
) -> None:
    width = GeneratorConfig(width=1 if sharing == "all" else 0.5)
    objective = replace(ELECTRA, sharing=sharing, generator=width)  # type: ignore[arg-type]
    trial, words = make_trial(objective), vocabulary(tokens)
    first = random(trial, 1)
    write_networks(trained(trial, first, words, folder), folder / "out")
    out = folder / "out"
    start = FromCheckpoint(
        kind="transformers",
        discriminator=str(out / "discriminator"),
        generator=str(out / "generator"),
    )
    actual = weights.collect_weights(started(replace(trial, init_from=start), words, folder))
    expected = weights.collect_weights(first)
    assert actual.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in actual.items())


def test_token_predictor_starts_with_the_head_of_the_checkpoint(folder: Path) -> None:
    trial = make_trial(MlmConfig(kind="mlm"))
    model = checkpoint(ElectraForMaskedLM, config(trial.encoder), folder / "d")
    words = vocabulary(BERT)
    networks = started(replace(trial, init_from=released(folder, generator=False)), words, folder)
    ids_BT, segment_BT, inputs = windows(words)
    slots_BK = torch.arange(LENGTH).expand(3, LENGTH)
    with torch.no_grad():
        actual_BTV = networks.predict(ids_BT, slots_BK, segment_BT)  # type: ignore[operator]
        expected_BTV = model(**inputs).logits[..., torch.from_numpy(words.outer_V)]
    assert actual_BTV.equal(expected_BTV)


def refusal(folder: Path, trial: Trial, words: Vocabulary | None = None) -> str:
    """Return the one-line error for unsuitable initial weights."""
    with pytest.raises(UserError) as caught:
        started(trial, words or vocabulary(FIRST), folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_error_lists_every_dimension_that_differs(folder: Path) -> None:
    pair(folder)
    other = replace(POST, layers=1, hidden=64, ffn=96, heads=4, embedding=8)
    message = refusal(folder, make_trial(ELECTRA, other, init_from=released(folder)))
    assert message.startswith(
        f"base.init_from.discriminator: {folder / 'd'}: layers 2, base.encoder "
    )
    for dimension in ("layers 2, base.encoder has 1", "hidden 32, base.encoder has 64",
                 "ffn 128, base.encoder has 96", "embedding 16, base.encoder has 8",
                 "heads 2, base.encoder has 4"):  # fmt: skip
        assert dimension in message


def test_other_number_of_heads_is_refused(folder: Path) -> None:
    """The shapes of the weights do not depend on the number of heads."""
    pair(folder)
    message = refusal(
        folder, make_trial(ELECTRA, replace(POST, heads=4), init_from=released(folder))
    )
    assert message.endswith("heads 2, base.encoder has 4")


def test_generator_of_another_width_is_refused(folder: Path) -> None:
    pair(folder)
    objective = replace(ELECTRA, generator=GeneratorConfig(width=1))
    message = refusal(folder, make_trial(objective, init_from=released(folder)))
    assert message.startswith(f"base.init_from.generator: {folder / 'g'}: hidden 16, the generator")


@pytest.mark.reported
@pytest.mark.parametrize("sharing", ["none", "gdes"])
@torch.no_grad()
def test_windows_can_grow_when_training_continues_from_a_checkpoint(
    sharing: str, folder: Path
) -> None:
    """Known positions have the values of the checkpoint, further ones those of a new trial."""
    short = 8
    discriminator = checkpoint(
        ElectraForPreTraining, config(POST, max_position_embeddings=short), folder / "d"
    )
    words, objective = vocabulary(FIRST), replace(ELECTRA, sharing=sharing)  # type: ignore[arg-type]
    trial = make_trial(objective, init_from=released(folder, generator=False))
    networks: Any = started(trial, words, folder)
    fresh = weights.collect_weights(random(trial, 5))
    name = "encoder.embeddings.position_embeddings.weight"
    table = weights.collect_weights(networks)[name]
    known = discriminator.electra.embeddings.position_embeddings.weight
    assert table.shape == (LENGTH, POST.embedding)
    torch.testing.assert_close(table[:short], known, atol=1e-4, rtol=0)
    torch.testing.assert_close(table[short:], fresh[name][short:], atol=1e-4, rtol=0)
    ids_BT, segment_BT, inputs = windows(words)
    expected_BT = discriminator(**{key: value[:, :short] for key, value in inputs.items()}).logits
    actual_BT = networks.detect(ids_BT[:, :short], segment_BT[:, :short])
    torch.testing.assert_close(actual_BT, expected_BT, atol=1e-4, rtol=0)


def test_shared_weights_must_be_equal_in_both_networks(folder: Path) -> None:
    pair(folder)
    message = refusal(
        folder, make_trial(replace(ELECTRA, sharing="tokens"), init_from=released(folder))
    )
    assert "base.objective.sharing: tokens has one for both; take none or gdes" in message


def test_pre_norm_cannot_start_from_post_norm(folder: Path) -> None:
    pair(folder)
    trial = make_trial(ELECTRA, init_from=released(folder))
    message = refusal(folder, replace(trial, encoder=replace(POST, norm="pre")))
    assert "norm post, base.encoder has pre" in message


def test_generator_as_a_discriminator_is_refused(folder: Path) -> None:
    """transformers would initialize the missing head at random and only warn."""
    pair(folder)
    start = FromCheckpoint(kind="transformers", discriminator=str(folder / "g"))
    message = refusal(folder, make_trial(ELECTRA, GENERATOR.derive_shape(POST), init_from=start))
    assert "it lacks discriminator_predictions.dense.bias and 3 more" in message
    assert "ElectraForPreTraining" in message


def test_discriminator_as_a_generator_is_refused(folder: Path) -> None:
    pair(folder)
    start = FromCheckpoint(
        kind="transformers", discriminator=str(folder / "d"), generator=str(folder / "d")
    )
    message = refusal(folder, make_trial(ELECTRA, init_from=start))
    assert message.startswith("base.init_from.generator:")
    assert "it lacks generator_lm_head.bias" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "its hidden_act is 'relu'; the lab's is 'gelu'"),
        ({"vocab_size": VOCAB + 3}, f"its vocab_size is {VOCAB + 3}, base.data.vocab has {VOCAB}"),
        ({"layer_norm_eps": 1e-5}, "its layer_norm_eps is 1e-05"),
    ],
)
def test_checkpoint_with_unsupported_settings_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    checkpoint(ElectraForPreTraining, config(POST, **changes), folder / "d")
    assert message in refusal(
        folder, make_trial(ELECTRA, init_from=released(folder, generator=False))
    )


def test_other_architecture_is_refused(folder: Path) -> None:
    settings = BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=32)  # fmt: skip
    BertForMaskedLM(settings).save_pretrained(folder / "d")
    message = refusal(folder, make_trial(ELECTRA, init_from=released(folder, generator=False)))
    assert "its model_type is 'bert', not 'electra'" in message


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.txt"])
def test_error_names_the_first_token_that_differs(folder: Path, form: str) -> None:
    pair(folder)
    if form == "vocab.txt":
        (folder / "d" / form).write_text("\n".join(BERT) + "\n")
    else:
        vocabulary(BERT).tokenizer.save(str(folder / "d" / form))
    message = refusal(folder, make_trial(ELECTRA, init_from=released(folder, generator=False)))
    assert message.endswith("its token 1 is '[unused0]', and base.data's is '[UNK]'")
    started(
        make_trial(ELECTRA, init_from=released(folder, generator=False)), vocabulary(BERT), folder
    )


class _Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/leaving-was-here"),)  # noqa: S108


@pytest.mark.reported
def test_pickle_is_read_without_executing_its_code(folder: Path) -> None:
    """A pickle of tensors is read; a pickle that calls a function is refused."""
    model, _ = pair(folder)
    (folder / "d" / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "d" / "pytorch_model.bin")
    trial, words = (
        make_trial(ELECTRA, init_from=released(folder, generator=False)),
        vocabulary(FIRST),
    )
    ids_BT, segment_BT, inputs = windows(words)
    with torch.no_grad():
        networks: Any = started(trial, words, folder)
        assert networks.detect(ids_BT, segment_BT).equal(model(**inputs).logits)
    with (folder / "d" / "pytorch_model.bin").open("wb") as file:
        pickle.dump(_Payload(), file)
    message = refusal(folder, trial)
    assert "cannot be read" in message
    assert "weights_only" not in message  # torch advises to execute the code
    assert "model.safetensors" in message
    assert not Path("/tmp/leaving-was-here").exists()  # noqa: S108


@pytest.mark.parametrize("spoil", ["gone", "empty", "cut"])
def test_unreadable_checkpoint_gives_one_line(folder: Path, spoil: str) -> None:
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
    message = refusal(folder, make_trial(ELECTRA, init_from=released(folder, generator=False)))
    assert message.startswith(f"base.init_from.discriminator: {folder / 'd'}: cannot be read: ")


def test_equal_weights_share_a_file_in_the_cache(folder: Path) -> None:
    pair(folder)
    words = vocabulary(FIRST)
    trial = make_trial(ELECTRA, init_from=released(folder, generator=False))
    for _ in range(2):
        started(trial, words, folder)
    assert len(list((folder / "cache").iterdir())) == 1
    checkpoint(ElectraForPreTraining, config(POST), folder / "other")
    start = replace(trial.init_from, discriminator=str(folder / "other"))  # type: ignore[call-arg]
    started(replace(trial, init_from=start), words, folder)
    assert len(list((folder / "cache").iterdir())) == 2


Settings = dict[str, Any]


def base(**changes: Any) -> Settings:
    return {
        "encoder": {"size": "tiny"},
        "objective": {"kind": "electra"},
        "budget": {"kind": "tokens", "amount": 1e6},
        "init_from": {"kind": "transformers", "discriminator": "somewhere"},
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": {"kind": "two_stage"}},
            "base.init_from: must be .* for objective two_stage",
        ),
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
def test_invalid_init_from_is_refused_by_the_search_space(changes: Settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        search_space.build_trial(base(**changes), {})


def test_init_from_can_be_compared_but_not_tuned(tmp_path: Path) -> None:
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
    first = Trial(
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
        pairs=None,
        metric=METRICS["probe/pos/accuracy"],
    )


def test_trial_starts_from_an_earlier_trial_with_its_own_schedule(
    work: Assignment, tmp_path: Path
) -> None:
    earlier = run.run_trial(work)
    storage = tmp_path
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    origin = InitialWeights(storage, LocalOnly()).resolve(second, work.text)
    assert origin is not None
    following = replace(work, trial=second, folder=storage / "trials" / "second", start=origin.file)
    later = run.run_trial(following)
    assert (earlier.state, later.state) == ("finished", "finished")
    first_row, last_row = later.rows[0], earlier.rows[-1]
    same = [name for name in first_row if name.startswith(("detect/", "probe/", "mlm/"))]
    assert len(same) == 11
    assert [first_row[name] for name in same] == [last_row[name] for name in same]
    assert first_row["spent/flops"] == 0
    assert later.rows[-1]["spent/flops"] == earlier.rows[-1]["spent/flops"]
    assert later.rows[-1]["detect/mlm/auroc"] != first_row["detect/mlm/auroc"]


def test_interrupted_trial_resumes_instead_of_loading_its_initial_weights(
    work: Assignment, tmp_path: Path
) -> None:
    run.run_trial(work)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    origin = InitialWeights(tmp_path, LocalOnly()).resolve(second, work.text)
    assert origin is not None
    folder = tmp_path / "trials" / "whole"
    whole = replace(work, trial=second, folder=folder, start=origin.file)
    expected = run.run_trial(whole).rows[-1]
    interrupted = replace(whole, folder=tmp_path / "trials" / "interrupted")
    steps = iter(["running"] * 4 + ["interrupted"])
    assert run.run_trial(interrupted, requested_state=lambda: next(steps)).state == "interrupted"  # type: ignore[arg-type,return-value]
    actual = run.run_trial(interrupted).rows[-1]
    same = [name for name in actual if name.startswith(("detect/", "probe/", "mlm/", "train/"))]
    assert [actual[name] for name in same] == [expected[name] for name in same]


def test_trial_with_another_vocabulary_is_refused(work: Assignment, tmp_path: Path) -> None:
    run.run_trial(work)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    other = tmp_path / "text-other"
    other.mkdir()
    vocabulary(FIRST).save(other)
    with pytest.raises(UserError, match=r"base\.init_from\.name: 0123: its tokens are those of"):
        InitialWeights(tmp_path, LocalOnly()).resolve(second, other)


def test_earlier_trial_without_weights_is_refused(work: Assignment, tmp_path: Path) -> None:
    record.write_queued(work.folder, work.trial, "", work.text.name)
    second = replace(work.trial, init_from=FromTrial(kind="trial", name="0123"))
    with pytest.raises(UserError, match="no checkpoint that can be read, and its state is queued"):
        InitialWeights(tmp_path, LocalOnly()).resolve(second, work.text)
    unknown = replace(work.trial, init_from=FromTrial(kind="trial", name="ffff"))
    with pytest.raises(UserError, match=r"ffff: no trial in .*; there is 0123456789ab"):
        InitialWeights(tmp_path, LocalOnly()).resolve(unknown, work.text)


def test_token_counts_are_not_part_of_the_weights() -> None:
    """Token counts belong to the text, so they are not initial weights of another trial."""
    trial = make_trial(RandomReplacementConfig(kind="random"))
    objective = build_objective(trial, COUNTS_V)
    assert {name.partition(".")[0] for name in weights.collect_weights(objective)} == {
        "encoder",
        "detection",
    }

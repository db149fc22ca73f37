"""Write a trial's networks as folders that `transformers` loads, and verify them bit for bit."""

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lab.data import text_facts
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP, Vocabulary
from lab.errors import UserError
from lab.interop import hf_weights, model_card
from lab.interop.trained import TrainedTrial
from lab.storage import atomic
from lab.training.model import DetectionHead, Encoder, VocabularyHead
from lab.training.weights import weights_below


class ComparisonInputs(NamedTuple):
    """Inputs on which two networks are compared: full and padded windows of two segments.

    Attributes:
        ids_BT: token ids in the lab's numbering.
        segment_BT: 0 at padding, 1 in the first segment, 2 in the second.
    """

    ids_BT: Tensor
    segment_BT: Tensor


def write_networks(trained: TrainedTrial, target: File) -> list[File]:
    """Write a trial's networks and return their folders; after an error nothing is left.

    Args:
        trained: networks and configuration of the trial.
        target: new or empty folder, to which one folder per network is written.

    Raises:
        UserError: `target` is not empty, or transformers has no counterpart of a network.
        RuntimeError: a written network computes other logits in transformers than in the lab.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is not empty; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.write_folder(target) as partial:
        vocabulary = trained.vocabulary()
        names = [
            _write_network(trained, path, role, vocabulary, partial / name)
            for path, name, role in exported_networks(trained)
        ]
    return [target / name for name in names]


def exported_networks(trained: TrainedTrial) -> Iterator[tuple[str, str, model_card.NetworkRole]]:
    """Yield the module path of the encoder, the folder's name and the role of each network."""
    name, role = (
        ("discriminator", model_card.DISCRIMINATOR)
        if trained.detects
        else ("encoder", model_card.PREDICTOR)
    )
    yield "encoder", name, role._replace(omitted=trained.trial.objective.not_exported)
    if "generator.encoder" in trained.shapes:
        yield "generator.encoder", "generator", model_card.GENERATOR


def _write_network(
    trained: TrainedTrial,
    path: str,
    role: model_card.NetworkRole,
    vocabulary: Vocabulary,
    folder: File,
) -> str:
    """Write and verify one network; return its folder's name."""
    network = hf_weights.HfNetwork(
        shape=trained.shapes[path],
        length=trained.trial.data.length,
        weights=trained.network(path),
        vocabulary=vocabulary,
    )
    hf_weights.save_hf_model(network, folder)
    (folder / "README.md").write_text(
        model_card.write_card(
            role,
            trained.trial,
            trained.folder,
            trained.evaluations(),
            folder.name,
            text_facts.describe_text(trained.text),
        ),
        encoding="utf-8",
    )
    _verify(network, folder)
    return folder.name


def _verify(network: hf_weights.HfNetwork, folder: File) -> None:
    """Raise `RuntimeError` if the written network differs from the lab's in any bit of a logit."""
    inputs = _comparison_inputs(network)
    expected, text_BT = lab_logits(network, inputs), inputs.segment_BT > 0
    logits = hf_logits(hf_weights.load_hf_model(folder), network.vocabulary, inputs)
    if not logits[text_BT].equal(expected[text_BT]):
        worst = (logits[text_BT] - expected[text_BT]).abs().max().item()
        raise RuntimeError(
            f"{folder.name}: logits in transformers differ from the lab's by up to {worst:.3g}; "
            f"they must be equal"
        )


@torch.no_grad()
def lab_logits(network: hf_weights.HfNetwork, inputs: ComparisonInputs) -> Tensor:
    """Return the logits of the lab's own modules.

    Returns:
        (B, T) of a discriminator, or (B, T, V) of a vocabulary head, tokens in the lab's order.
    """
    vocab, shape = network.vocabulary.size, network.shape
    encoder = Encoder(shape, vocab, network.length).eval()
    encoder.load_state_dict(weights_below(network.weights, "encoder"))
    hidden_BTh = encoder(*inputs)
    if head := weights_below(network.weights, "detection"):
        detection = DetectionHead(shape)
        detection.load_state_dict(head)
        logits_BT: Tensor = detection(hidden_BTh)
        return logits_BT
    vocabulary = VocabularyHead(shape, vocab)
    vocabulary.load_state_dict(weights_below(network.weights, "vocabulary"))
    logits_BTV: Tensor = vocabulary(hidden_BTh, encoder.embeddings.table())
    return logits_BTV


@torch.no_grad()
def hf_logits(model: Any, vocabulary: Vocabulary, inputs: ComparisonInputs) -> Tensor:
    """Return the logits of a model of `transformers`, with shapes and order of `lab_logits`."""
    outer_V = torch.from_numpy(vocabulary.outer_V)
    logits: Tensor = model(
        input_ids=outer_V[inputs.ids_BT],
        attention_mask=(inputs.segment_BT > 0).long(),
        token_type_ids=(inputs.segment_BT > 1).long(),
    ).logits
    return logits if logits.ndim == 2 else logits[..., outer_V]


def _comparison_inputs(network: hf_weights.HfNetwork) -> ComparisonInputs:
    B, T, V = 4, network.length, network.vocabulary.size
    ids_BT = torch.randint(FIRST_WORD, V, (B, T), generator=torch.Generator().manual_seed(0))
    ids_BT[:, 0], ids_BT[:, T // 2] = CLS, SEP
    ends_B = torch.tensor([T, T, T - 1, T // 2 + 1])
    position_T = torch.arange(T)
    ids_BT = torch.where(position_T == ends_B[:, None] - 1, SEP, ids_BT)
    segment_BT = torch.where(position_T <= T // 2, 1, 2).expand(B, T)
    text_BT = position_T < ends_B[:, None]
    return ComparisonInputs(ids_BT.where(text_BT, PAD), segment_BT.where(text_BT, 0))

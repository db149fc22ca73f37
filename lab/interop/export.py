"""Write a trial's networks as folders that `transformers` loads, and verify them bit for bit."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lab.data import preparation
from lab.data.vocabulary import CLS, FIRST_WORD, PAD, SEP, Vocabulary
from lab.errors import UserError
from lab.interop import hf_weights, model_card
from lab.interop.trained import TrainedTrial
from lab.storage import record
from lab.training.model import DetectionHead, Encoder, VocabularyHead
from lab.training.weights import weights_below


class ComparisonInputs(NamedTuple):
    """Text to compare two networks on: a window of two segments, padded ones, a full one.

    Attributes:
        ids_BT: tokens, as the lab numbers them.
        segment_BT: 0 at padding, 1 in the first segment, 2 in the second.
    """

    ids_BT: Tensor
    segment_BT: Tensor


def write_networks(trained: TrainedTrial, target: File) -> list[File]:
    """Write a trial's networks and return their folders; nothing half written is left.

    Raises:
        UserError: `target` holds something, or transformers has no counterpart of a network.
        RuntimeError: what was written computes something else.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is not empty; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = File(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
    try:
        vocabulary = trained.vocabulary()
        names = [
            _write_network(trained, place, role, vocabulary, partial / name)
            for place, name, role in exported_networks(trained)
        ]
        partial.chmod(0o755)  # mkdtemp's own are for one person
        partial.rename(target)  # over an empty folder, or none
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [target / name for name in names]


def exported_networks(trained: TrainedTrial) -> Iterator[tuple[str, str, model_card.NetworkRole]]:
    """Yield place, folder's name and role of each network."""
    if trained.detects:
        yield "encoder", "discriminator", model_card.DISCRIMINATOR
    else:
        role = model_card.PREDICTOR
        if lacking := trained.trial.objective.not_exported:
            role = role._replace(left=lacking)
        yield "encoder", "encoder", role
    if "generator.encoder" in trained.shapes:
        yield "generator.encoder", "generator", model_card.GENERATOR


def _write_network(
    trained: TrainedTrial,
    place: str,
    role: model_card.NetworkRole,
    vocabulary: Vocabulary,
    folder: File,
) -> str:
    network = hf_weights.HfNetwork(
        shape=trained.shapes[place],
        length=trained.trial.data.length,
        weights=trained.network(place),
        vocabulary=vocabulary,
    )
    hf_weights.save_hf_model(network, folder)
    rows = record.read_curve(trained.folder)[: trained.place.rows]
    (folder / "README.md").write_text(
        model_card.write_card(
            role,
            trained.trial,
            trained.folder,
            rows,
            folder.name,
            preparation.describe_text(trained.text),
        ),
        encoding="utf-8",
    )
    _verify(network, folder)
    return folder.name


def _verify(network: hf_weights.HfNetwork, folder: File) -> None:
    """Compare what was written with the lab's own network, bit for bit."""
    inputs = _inputs(network)
    expected, text_BT = lab_logits(network, inputs), inputs.segment_BT > 0
    found = hf_logits(hf_weights.load_hf_model(folder), network.vocabulary, inputs)
    if not found[text_BT].equal(expected[text_BT]):
        worst = (found[text_BT] - expected[text_BT]).abs().max().item()
        raise RuntimeError(f"{folder.name}: transformers computes something else, by {worst:.3g}")


@torch.no_grad()
def lab_logits(network: hf_weights.HfNetwork, inputs: ComparisonInputs) -> Tensor:
    """Return the lab's logits: (B, T) of a discriminator, (B, T, V) in the lab's order."""
    vocab, shape = network.vocabulary.size, network.shape
    encoder = Encoder(shape, vocab, network.length).eval()
    encoder.load_state_dict(weights_below(network.weights, "encoder"))
    hidden_BTh = encoder(*inputs)
    if head := weights_below(network.weights, "detection"):
        detection = DetectionHead(shape)
        detection.load_state_dict(head)
        found_BT: Tensor = detection(hidden_BTh)
        return found_BT
    vocabulary = VocabularyHead(shape, vocab)
    vocabulary.load_state_dict(weights_below(network.weights, "vocabulary"))
    logits_BTV: Tensor = vocabulary(hidden_BTh, encoder.embeddings.table())
    return logits_BTV


@torch.no_grad()
def hf_logits(model: Any, vocabulary: Vocabulary, inputs: ComparisonInputs) -> Tensor:
    """Return the logits of a model of `transformers`, tokens in the lab's order."""
    outer_V = torch.from_numpy(vocabulary.outer_V)
    logits: Tensor = model(
        input_ids=outer_V[inputs.ids_BT],
        attention_mask=(inputs.segment_BT > 0).long(),
        token_type_ids=(inputs.segment_BT > 1).long(),
    ).logits
    return logits if logits.ndim == 2 else logits[..., outer_V]


def _inputs(network: hf_weights.HfNetwork) -> ComparisonInputs:
    B, T, V = 4, network.length, network.vocabulary.size
    ids_BT = torch.randint(FIRST_WORD, V, (B, T), generator=torch.Generator().manual_seed(0))
    ids_BT[:, 0], ids_BT[:, T // 2] = CLS, SEP
    ends_B = torch.tensor([T, T, T - 1, T // 2 + 1])
    place_T = torch.arange(T)
    ids_BT = torch.where(place_T == ends_B[:, None] - 1, SEP, ids_BT)
    segment_BT = torch.where(place_T <= T // 2, 1, 2).expand(B, T)
    text_BT = place_T < ends_B[:, None]
    return ComparisonInputs(ids_BT.where(text_BT, PAD), segment_BT.where(text_BT, 0))

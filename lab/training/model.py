"""ELECTRA's encoder and heads, with post-norm or pre-norm blocks.

With `norm: post` parameters and forward pass equal those of `transformers.ElectraModel` (a test
compares them), so exported weights give the same outputs there. `norm: pre` moves each LayerNorm
before its sublayer and adds one after the last block; short runs of narrow encoders need it
(reports/LOG.md).

Letters: B examples, T positions, K slots, V vocabulary, e embedding width, h hidden width,
A attention heads, d width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config.architecture import EncoderConfig

_EPS = 1e-12  # modeling.layer_norm and ElectraConfig.layer_norm_eps


class Embeddings(nn.Module):
    """Sum of token, position and token type embeddings. Networks that share it hold one object."""

    def __init__(self, shape: EncoderConfig, vocab: int, length: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, shape.embedding)
        self.position_embeddings = nn.Embedding(length, shape.embedding)
        self.token_type_embeddings = nn.Embedding(2, shape.embedding)
        # No LayerNorm before pre-norm blocks: it would make the residual stream so large that the
        # blocks' outputs are negligible beside it early in training.
        self.norm = (
            nn.LayerNorm(shape.embedding, eps=_EPS) if shape.norm == "post" else nn.Identity()
        )

    def forward(self, ids_BT: Tensor, type_BT: Tensor, offset: int = 0) -> Tensor:
        """Return the embeddings, normalised with `norm: post`, shape (B, T, e).

        Args:
            ids_BT: token ids.
            type_BT: token type ids: 1 in the second segment, 0 elsewhere.
            offset: row of the position table for the first token of each window.
        """
        words_BTe = self.word_embeddings(ids_BT) + self.token_type_embeddings(type_BT)
        positions_Te = self.position_embeddings.weight[offset : offset + ids_BT.shape[1]]
        embedded_BTe: Tensor = self.norm(words_BTe + positions_Te)
        return embedded_BTe

    def table(self) -> Tensor:
        """Return the token embeddings, shape (V, e), for a head tied to them."""
        return self.word_embeddings.weight


class DisentangledEmbeddings(nn.Module):
    """Another network's tables with their gradient stopped, plus a learned difference.

    Gradient-disentangled sharing (DeBERTaV3, section 3.3): E_D = sg(E_G) + E_delta, where E_delta
    starts at zero. With `norm: post` the LayerNorm is not shared.
    """

    def __init__(self, base: Embeddings, shape: EncoderConfig) -> None:
        super().__init__()
        self.base = base
        self.word_delta = nn.Parameter(torch.zeros_like(base.word_embeddings.weight))
        self.position_delta = nn.Parameter(torch.zeros_like(base.position_embeddings.weight))
        self.token_type_delta = nn.Parameter(torch.zeros_like(base.token_type_embeddings.weight))
        self.norm = (
            nn.LayerNorm(shape.embedding, eps=_EPS) if shape.norm == "post" else nn.Identity()
        )

    def forward(self, ids_BT: Tensor, type_BT: Tensor, offset: int = 0) -> Tensor:
        """Return the output of an `Embeddings` that holds the summed tables."""
        base, rows = self.base, slice(offset, offset + ids_BT.shape[1])
        words_BTe = F.embedding(ids_BT, base.word_embeddings.weight.detach())
        words_BTe = words_BTe + F.embedding(ids_BT, self.word_delta)
        types_2e = base.token_type_embeddings.weight.detach() + self.token_type_delta
        positions_Te = base.position_embeddings.weight[rows].detach() + self.position_delta[rows]
        embedded_BTe: Tensor = self.norm(words_BTe + types_2e[type_BT] + positions_Te)
        return embedded_BTe

    def table(self) -> Tensor:
        """Return the token embeddings, shape (V, e), for a head tied to them."""
        return self.base.word_embeddings.weight.detach() + self.word_delta


class Block(nn.Module):
    """Self-attention and a feed-forward network, each with a residual connection.

    Attributes:
        head_width: width of an attention head.
    """

    def __init__(self, shape: EncoderConfig) -> None:
        super().__init__()
        h = shape.hidden
        self.query, self.key, self.value = nn.Linear(h, h), nn.Linear(h, h), nn.Linear(h, h)
        self.attention_output = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=_EPS)
        self.intermediate = nn.Linear(h, shape.ffn)
        self.output = nn.Linear(shape.ffn, h)
        self.output_norm = nn.LayerNorm(h, eps=_EPS)
        self.head_width = h // shape.heads
        self._heads, self._dropout, self._pre = shape.heads, shape.dropout, shape.norm == "pre"

    def forward(self, x_BTh: Tensor, attended_B11T: Tensor | None) -> Tensor:
        """Return the block's output, shape (B, T, h).

        Args:
            x_BTh: the block's input.
            attended_B11T: whether a position may be attended to; None for all positions.
        """
        if self._pre:
            x_BTh = x_BTh + self._attention(self.attention_norm(x_BTh), attended_B11T)
            return x_BTh + self._feed_forward(self.output_norm(x_BTh))
        x_BTh = self.attention_norm(x_BTh + self._attention(x_BTh, attended_B11T))
        normed_BTh: Tensor = self.output_norm(x_BTh + self._feed_forward(x_BTh))
        return normed_BTh

    def _attention(self, x_BTh: Tensor, attended_B11T: Tensor | None) -> Tensor:
        B, T, h = x_BTh.shape
        q, k, v = (
            project(x_BTh).view(B, T, self._heads, -1).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self._dropout if self.training else 0.0
        mixed_BATd = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attended_B11T, dropout_p=dropout
        )
        return self._drop(self.attention_output(mixed_BATd.transpose(1, 2).reshape(B, T, h)))

    def _feed_forward(self, x_BTh: Tensor) -> Tensor:
        return self._drop(self.output(F.gelu(self.intermediate(x_BTh))))

    def _drop(self, x_BTh: Tensor) -> Tensor:
        return F.dropout(x_BTh, self._dropout, self.training)


class Encoder(nn.Module):
    """Embeddings, a projection to the hidden width if the widths differ, and blocks."""

    embeddings: Embeddings | DisentangledEmbeddings

    def __init__(self, shape: EncoderConfig, vocab: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.embeddings = Embeddings(shape, vocab, length)
        self.embeddings_project = (
            nn.Linear(shape.embedding, shape.hidden)
            if shape.embedding != shape.hidden
            else nn.Identity()
        )
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.final_norm = (
            nn.LayerNorm(shape.hidden, eps=_EPS) if shape.norm == "pre" else nn.Identity()
        )
        self._dropout = shape.dropout

    def forward(self, ids_BT: Tensor, segment_BT: Tensor, offset: int = 0) -> Tensor:
        """Return the hidden states of the last layer, shape (B, T, h).

        Args:
            ids_BT: token ids.
            segment_BT: 0 at padding, 1 in the first segment, 2 in the second
                (`data.batches.segment_ids`).
            offset: row of the position table for the first token of each window.
        """
        return self.compute_hidden_states(ids_BT, segment_BT, offset)[-1]

    def compute_hidden_states(
        self, ids_BT: Tensor, segment_BT: Tensor, offset: int = 0
    ) -> list[Tensor]:
        """Return the first block's input and each block's output, each of shape (B, T, h)."""
        text_BT, type_BT = segment_BT > 0, (segment_BT > 1).long()
        # Attention without a mask is faster. On a GPU the check for padding would synchronize.
        unpadded = text_BT.device.type == "cpu" and bool(text_BT.all())
        attended_B11T = None if unpadded else text_BT[:, None, None, :]
        embedded_BTe = self.embeddings(ids_BT, type_BT, offset)
        embedded_BTe = F.dropout(embedded_BTe, self._dropout, self.training)
        states = [self.embeddings_project(embedded_BTe)]
        for layer in self.layers:
            states.append(layer(states[-1], attended_B11T))
        states[-1] = self.final_norm(states[-1])
        return states


class VocabularyHead(nn.Module):
    """Masked language modelling head: dense, gelu, LayerNorm, tied output embeddings, bias.

    The caller passes the embedding table in each forward pass. If the head stored the table, it
    would keep the old one when the embeddings are shared or replaced later.
    """

    def __init__(self, shape: EncoderConfig, vocab: int) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.embedding)
        self.norm = nn.LayerNorm(shape.embedding, eps=_EPS)
        self.bias = nn.Parameter(torch.zeros(vocab))

    def forward(self, hidden_BKh: Tensor, table_Ve: Tensor) -> Tensor:
        """Return logits, shape (B, K, V)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden_BKh))), table_Ve, self.bias)

    def initialize_bias(self, counts_V: Tensor) -> None:
        """Set the bias to the log of the unigram frequencies, with one added to each count."""
        share_V = (counts_V.float() + 1) / (counts_V.sum() + len(counts_V))
        with torch.no_grad():
            self.bias.copy_(share_V.log())


class DetectionHead(nn.Module):
    """Discriminator head: dense, gelu, one logit per token; positive means replaced."""

    def __init__(self, shape: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.hidden)
        self.dense_prediction = nn.Linear(shape.hidden, 1)

    def forward(self, hidden_BTh: Tensor) -> Tensor:
        """Return logits, shape (B, T)."""
        logits_BT1: Tensor = self.dense_prediction(F.gelu(self.dense(hidden_BTh)))
        return logits_BT1[..., 0]


def gather_slots(hidden_BTh: Tensor, slots_BK: Tensor) -> Tensor:
    """Return the hidden states at the masked slots, shape (B, K, h)."""
    return hidden_BTh.gather(1, slots_BK[..., None].expand(-1, -1, hidden_BTh.shape[-1]))

"""How likely a model holds texts that were written down: bits of whole answers, captions and
passages, in one forward pass.

Shape letters: N records, k tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8

from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.text import ByteEncoder, bytes_to_text


@torch.inference_mode()
def text_bits(
    model: Gato,
    steps: StepLayout,
    observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
    texts: UInt8[np.ndarray, "N b"],
) -> Float[np.ndarray, " N"]:
    """Bits that the model needs for each text, and for its end, after what is shown with it.

    Args:
        model: In evaluation mode.
        steps: Of a task that writes text, without a loss on questions.
        observations: By name, each [N, *shape].
        texts: As episodes store them. A text is measured as far as the task's tokens reach.
    """
    rows = RowWriter(num_rows=len(texts), row_tokens=steps.tokens_per_step)
    windows = [
        [Window(observations={k: v[i : i + 1] for k, v in observations.items()}, actions=one[None])]
        for i, one in enumerate(texts)
    ]
    rows.write_rows(range(len(texts)), task_index=0, steps=steps, windows=windows)
    loss = next_token_loss(model, TensorBatch.of(rows.batch(), model.embedding.table.weight.device))
    nats = torch.zeros(len(texts), dtype=torch.float64)
    nats.index_add_(0, loss.rows.cpu(), loss.losses.double().cpu())
    return (nats / math.log(2)).numpy()


def measured_bytes(steps: StepLayout, texts: UInt8[np.ndarray, "N b"]) -> Int[np.ndarray, " N"]:
    """Bytes of each text that `text_bits` measures: those that its tokens write, as far as the
    task's tokens reach. A SentencePiece model may write fewer than the text has, such as one space
    for several."""
    encoder, room = steps.layout.encoder, steps.num_action_tokens
    counts: list[int] = []
    for row in texts:
        ids = encoder.encode(bytes_to_text(row))[:room]
        is_bytes = isinstance(encoder, ByteEncoder)
        counts.append(len(ids) if is_bytes else len(encoder.decode(ids).encode()))
    return np.array(counts, np.int64)

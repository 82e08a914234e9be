"""Which tokens the logits are compared on: the same for every machine, every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BATCH, LENGTH = 2, 64
LONGEST = 512  # what a sliding window may lengthen the probe to
_SEED = 20230403


def probe_tokens(vocabulary: int, context: int, window: int | None = None) -> NDArray[np.int64]:
    """Token ids, int64, shape (2, min(context, 64)), all below ``vocabulary``.

    ``vocabulary`` is the tokenizer's where it is known: rows beyond it were never trained. With a sliding ``window``
    (GPT-NeoX's w) the probe is long enough to see its edge, up to `LONGEST`. The generator's raw bits are used, which
    numpy keeps stable (NEP 19), unlike its distributions.

    Raises:
        ValueError: an empty vocabulary or context.
    """
    if vocabulary < 1 or context < 1:
        raise ValueError(f"a vocabulary of {vocabulary} and a context of {context}")
    length = LENGTH if window is None or window + 16 > LONGEST else max(LENGTH, window + 16)
    length = min(context, length)
    bits = np.random.PCG64(_SEED).random_raw(BATCH * length)
    return (bits % np.uint64(vocabulary)).astype(np.int64).reshape(BATCH, length)

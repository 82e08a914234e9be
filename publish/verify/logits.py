"""The gates of logits: does the converted model compute what GPT-NeoX's network computes?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from publish.convert.hfconfig import canonical_json, hf_config, without_overrides
from publish.convert.plan import ConversionPlan
from publish.errors import GateError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.records.gates import Figure, Gate, could_not_read, failed, passed
from publish.verify.hf_model import LOGITS_LOCK, hf_logits
from publish.verify.neox_forward import FREQUENCIES, Arithmetic, as_tensor, logit_blocks, rotary_frequencies

if TYPE_CHECKING:
    import torch

LOGITS, VALIDATION = "logits", "validation-logits"
BATCH, LENGTH = 2, 64
MAX_LENGTH = 512  # of tokens that are compared where there is a sliding window
ULP = 2.0**-23  # of float32, relative
FLOOR = 16  # ulps of the largest logit: two correct passes may differ by so much before their rounding is measured
MARGIN = 8  # times the measured rounding error that a difference may be
POSITIONS = 64  # of stored logits that are compared: attention is causal, so later tokens change nothing
_SEED = 20230403
_FREQUENCY_ERROR = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20}  # relative: one to two ulps
_STORED_MARGIN = {
    "float16": 1,
    "bfloat16": 8,
    "float32": 8,
}  # times the rounding of bfloat16


def probe_tokens(vocabulary: int, context: int, window: int | None = None) -> NDArray[np.int64]:
    """The token ids on which logits are compared, the same everywhere: int64, shape (2, min(context, 64)).

    All are below ``vocabulary``, which is the tokenizer's where there is one: rows beyond it were never trained. With a
    sliding ``window`` (GPT-NeoX's w) there are enough tokens to reach beyond it, up to `MAX_LENGTH`. They come from the
    generator's raw bits, which numpy keeps stable (NEP 19), unlike its distributions.

    Raises:
        ValueError: an empty vocabulary or context.
    """
    if vocabulary < 1 or context < 1:
        raise ValueError(f"a vocabulary of {vocabulary} and a context of {context}")
    length = LENGTH if window is None or window + 16 > MAX_LENGTH else max(LENGTH, window + 16)
    length = min(context, length)
    bits = np.random.PCG64(_SEED).random_raw(BATCH * length)
    return (bits % np.uint64(vocabulary)).astype(np.int64).reshape(BATCH, length)


def verify_logits(
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    folder: Path,
    vocabulary: int | None = None,
    tokens: NDArray[np.int64] | None = None,
) -> Gate:
    """The converted model's logits equal those of the network that the checkpoint describes, up to float32 rounding.

    The bound is `FLOOR` ulps of the largest logit. Where the difference exceeds it, GPT-NeoX's pass is repeated in
    float64: that measures its float32 rounding error for this very network, and the bound is `MARGIN` times that.

    What a Hugging Face file cannot represent is left out of the comparison, and its effect is the figure ``deviation``:
    frequencies rounded to float16 (2023), an RMSNorm epsilon outside the root (before May 2025), sums of biases before
    they are rounded, a cast. Overrides of ``config.json`` are left out as well; their effect is ``override_effect``.

    ``vocabulary`` is the tokenizer's. ``tokens`` (batch, seq) replace those of :func:`probe_tokens`.
    """
    network = plan.network
    if tokens is None:
        size = min(vocabulary or plan.vocabulary, plan.vocabulary)
        tokens = probe_tokens(size, network.context, network.sliding_window)
    config = canonical_json(hf_config(without_overrides(plan), None, None)) if plan.overrides else None
    representable = replace(network, epsilon_outside_root=False)
    rounded = Arithmetic(rounded_to=plan.dtype)
    figures: dict[str, Figure] = {}
    try:
        with LOGITS_LOCK:
            if wrong := _wrong_frequencies(checkpoint, plan):
                return failed(LOGITS, wrong)
            found = hf_logits(folder, tokens, config)
            if found.shape[-1] != plan.vocabulary:
                return failed(LOGITS, f"{found.shape[-1]:,} logits per token, but a vocabulary of {plan.vocabulary:,}")
            blocks = logit_blocks(checkpoint, representable, tokens, rounded)
            difference, scale, agreement = _compare(found, blocks)
            bound = FLOOR * ULP * scale
            if difference > bound:
                single = logit_blocks(checkpoint, representable, tokens, rounded)
                double = logit_blocks(checkpoint, representable, tokens, replace(rounded, dtype="float64"))
                pairs = zip(single, double, strict=True)
                figures["rounding"] = rounding = _maximum([_distance(left, right) for left, right in pairs])
                bound = max(bound, MARGIN * rounding)
            equal = difference <= bound  # False for NaN
            detail = (
                f"{'equal' if equal else 'NOT equal'} to GPT-NeoX's: largest difference {difference:.2e} "
                f"(allowed: {bound:.2e}), largest logit {scale:.3g}, same top token at {agreement:.1%} of the positions"
            )
            if _unrepresentable(checkpoint, plan):
                blocks = logit_blocks(checkpoint, network, tokens, Arithmetic(stored_frequencies=True))
                figures["deviation"] = deviation = _compare(found, blocks)[0]
                detail += f"; what this format cannot represent changes them by up to {deviation:.2e}"
            if plan.overrides:
                figures["override_effect"] = effect = _distance(hf_logits(folder, tokens), found)
                detail += f"; the overrides of config.json change them by up to {effect:.2e}"
    except GateError as error:
        return could_not_read(LOGITS, error)
    if network.sliding_window is not None and network.sliding_window >= tokens.shape[1]:
        detail += f"; {tokens.shape[1]} tokens do not reach beyond the sliding window of {network.sliding_window}"
    return (passed if equal else failed)(
        LOGITS,
        detail,
        max_abs_diff=difference,
        bound=bound,
        scale=scale,
        argmax_agreement=agreement,
        tokens=int(tokens.size),
        **figures,
    )


def _compare(found: torch.Tensor, blocks: Iterable[torch.Tensor]) -> tuple[float, float, float]:
    """Largest difference, largest logit of ``blocks``, and the share of positions where the top token is the same.

    ``blocks`` are GPT-NeoX's logits, a block of the vocabulary at a time: all at once they would be as large as
    ``found``.
    """
    import torch

    differences, scales, at = [], [], 0
    best = torch.full(found.shape[:-1], -torch.inf, dtype=found.dtype)
    top = torch.zeros(found.shape[:-1], dtype=torch.int64)
    for block in blocks:
        differences.append(_distance(found[..., at : at + block.shape[-1]], block))
        scales.append(float(block.abs().max()))
        value, index = block.max(-1)
        better = value > best
        best[better] = value[better]
        top[better] = index[better] + at
        at += block.shape[-1]
    agreement = float((found.argmax(-1) == top).float().mean())
    return _maximum(differences), _maximum(scales), agreement


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())


def _maximum(numbers: list[float]) -> float:
    """The largest number, NaN where one is NaN."""
    return float(np.max(numbers))


def _unrepresentable(checkpoint: RawCheckpoint, plan: ConversionPlan) -> bool:
    """Whether the files cannot hold all of GPT-NeoX's network."""
    stored_frequencies = f"layers.0.{FREQUENCIES}" in checkpoint.ranks[0]
    summed_biases = plan.network.parallel_residual and checkpoint.tensor_parallel > 1
    cast = plan.dtype != plan.source_dtype
    return stored_frequencies or summed_biases or plan.network.epsilon_outside_root or cast


def _wrong_frequencies(checkpoint: RawCheckpoint, plan: ConversionPlan) -> str | None:
    """The stored rotary frequencies that are not those of the config, rounded."""
    import torch

    expected = rotary_frequencies(plan.network)
    for name, tensor in sorted(checkpoint.ranks[0].items()):
        if name.endswith(FREQUENCIES):
            stored = as_tensor(checkpoint.read(tensor), tensor.dtype).float()
            close = stored.shape == expected.shape and torch.allclose(
                stored, expected, rtol=_FREQUENCY_ERROR.get(tensor.dtype, 0.0), atol=2.0**-24
            )
            if not close:
                fraction, base = plan.network.rotary_fraction, plan.network.rotary_base
                return f"{name} does not match rotary_pct {fraction:g} and rotary_emb_base {base:g}"
    return None


def verify_validation_logits(checkpoint: RawCheckpoint, plan: ConversionPlan, stored: RawTensor) -> Gate:
    """Our forward pass computes the logits that GPT-NeoX stored in the checkpoint when it saved it.

    ``stored`` (positions, vocabulary of rank 0) are the logits of the tokens 0, 1, 2, ..., which GPT-NeoX computed in
    half precision on its own machine. How far that may be from float32 is measured on this very network: by the
    distance between a pass in float32 and one in bfloat16.
    """
    if len(stored.shape) != 2 or not 0 < stored.shape[1] <= plan.vocabulary or stored.dtype not in _STORED_MARGIN:
        return failed(VALIDATION, f"the checkpoint stores logits of {stored.dtype} with shape {list(stored.shape)}")
    length = min(POSITIONS, stored.shape[0], plan.vocabulary)
    tokens = np.arange(length, dtype=np.int64)[None]
    theirs = as_tensor(checkpoint.read(stored, 0, length), stored.dtype)[None]
    exact = Arithmetic(stored_frequencies=True)
    single = logit_blocks(checkpoint, plan.network, tokens, exact)
    half = logit_blocks(checkpoint, plan.network, tokens, replace(exact, dtype="bfloat16"))
    differences, roundings, at = [], [], 0
    try:
        with LOGITS_LOCK:
            for block, rounded in zip(single, half, strict=True):
                mine = theirs[..., at : at + block.shape[-1]].float()
                at += block.shape[-1]
                differences.append((block[..., : mine.shape[-1]] - mine).double().square().sum())
                roundings.append((block - rounded.float()).double().square().mean())
                if at >= stored.shape[1]:
                    break
    except GateError as error:
        return could_not_read(VALIDATION, error)
    difference = float((sum(differences) / (length * stored.shape[1])) ** 0.5)
    bound = _STORED_MARGIN[stored.dtype] * float((sum(roundings) / len(roundings)) ** 0.5)
    equal = difference <= bound  # False for NaN
    detail = (
        f"{'equal' if equal else 'NOT equal'} to those stored in the checkpoint: root mean square difference "
        f"{difference:.2e} (allowed: {bound:.2e}) over {length} positions"
    )
    return (passed if equal else failed)(VALIDATION, detail, rms_diff=difference, bound=bound, positions=length)

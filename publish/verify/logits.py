"""Does the converted model compute what GPT-NeoX's network computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from publish.convert.hfconfig import canonical_json, hf_config, without_overrides
from publish.convert.plan import ConversionPlan
from publish.errors import GateError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.records.gates import Gate, could_not_read, failed, passed
from publish.verify.hf_model import LOGITS_LOCK, hf_logits
from publish.verify.neox_forward import FREQUENCIES, Arithmetic, as_tensor, frequencies, logit_blocks

if TYPE_CHECKING:
    import torch


# Which tokens the logits are compared on: the same for every machine, every time.


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


LOGITS = "logits"
ULP = 2.0**-23  # of float32, relative
FLOOR = 16  # ulps of the largest logit that two correct passes may differ by before rounding is measured
MARGIN = 8  # times the measured rounding error that is still taken for rounding
_STORED = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20}  # relative, one to two ulps


def compare_logits(
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    folder: Path,
    vocabulary: int | None = None,
    tokens: NDArray[np.int64] | None = None,
) -> Gate:
    """The converted model's logits equal, but for float32 rounding, those of the network that the checkpoint describes.

    The bound is `FLOOR` ulps of the largest logit. Where the difference exceeds it, GPT-NeoX's pass is done once more
    in float64: its own float32 rounding error is then known for this very network, and `MARGIN` times that is the
    bound. What no Hugging Face file can hold is left out of the comparison and reported as ``deviation``: frequencies
    rounded to float16 (2023), an RMSNorm epsilon outside the root (before May 2025), sums of biases before rounding.
    A maintainer's overrides of ``config.json`` are left out as well, and their effect is measured.

    ``vocabulary`` is the tokenizer's; ``tokens`` (batch, seq) replace the probe of `tokens.probe_tokens`.
    """
    network = plan.network
    if tokens is None:
        tokens = probe_tokens(
            min(vocabulary or plan.vocabulary, plan.vocabulary), network.context, network.sliding_window
        )
    try:
        if wrong := _other_frequencies(checkpoint, plan):
            return failed(LOGITS, wrong)
        own = canonical_json(hf_config(without_overrides(plan), None, None)) if plan.overrides else None
        with LOGITS_LOCK:
            found = hf_logits(folder, tokens, own)
            comparison = _compare(checkpoint, plan, tokens, found)
            deviation = _deviation(checkpoint, plan, tokens, found)
            effect = _apart(hf_logits(folder, tokens), found) if plan.overrides else None
    except GateError as error:
        return could_not_read(LOGITS, error)
    figures: dict[str, float | int | str] = {**comparison.figures(), "tokens": int(tokens.size)}
    detail = comparison.detail()
    if deviation is not None:
        figures["deviation"] = deviation
        detail += f"; what the format cannot hold makes it deviate from GPT-NeoX by {deviation:.2e}"
    if effect is not None:
        figures["override_effect"] = effect
        detail += f"; what the release overrides in config.json changes them by up to {effect:.2e}"
    if network.sliding_window is not None and network.sliding_window >= tokens.shape[1]:
        detail += f"; a window of {network.sliding_window} is not reached by {tokens.shape[1]} tokens"
    return (passed if comparison.equal else failed)(LOGITS, detail, **figures)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """``bound``: how far apart they may be; ``rounding``: measured, None where `FLOOR` sufficed."""

    difference: float
    scale: float
    bound: float
    agreement: float
    rounding: float | None

    @property
    def equal(self) -> bool:
        return self.difference <= self.bound  # False for NaN

    def figures(self) -> dict[str, float | int | str]:
        measured = {} if self.rounding is None else {"rounding": self.rounding}
        return {
            "max_abs_diff": self.difference,
            "bound": self.bound,
            "scale": self.scale,
            "argmax_agreement": self.agreement,
            **measured,
        }

    def detail(self) -> str:
        verdict = "equal" if self.equal else "NOT equal"
        return (
            f"{verdict} to GPT-NeoX's: largest difference {self.difference:.2e} of at most {self.bound:.2e}, "
            f"logits up to {self.scale:.3g}, the same first choice for {self.agreement:.1%} of the tokens"
        )


def _expressible(plan: ConversionPlan) -> Arithmetic:
    return Arithmetic(held_in=plan.dtype)


def _compare(
    checkpoint: RawCheckpoint, plan: ConversionPlan, tokens: NDArray[np.int64], found: torch.Tensor
) -> _Comparison:
    network = replace(plan.network, epsilon_outside_root=False)
    held = _expressible(plan)
    reference = _Reference(found)
    for block in logit_blocks(checkpoint, network, tokens, held):
        reference.meet(block, plan.where)
    difference, scale = _largest(reference.differences), _largest(reference.scales)
    bound, rounding = FLOOR * ULP * scale, None
    if difference > bound:
        exact = logit_blocks(checkpoint, network, tokens, replace(held, compute="float64"))
        single = logit_blocks(checkpoint, network, tokens, held)
        rounding = _largest([_apart(left, right) for left, right in zip(single, exact, strict=True)])
        bound = max(bound, MARGIN * rounding)
    return _Comparison(difference, scale, bound, reference.agreement(plan.where), rounding)


class _Reference:
    """GPT-NeoX's logits, met block by block of the vocabulary: all of them at once would be as large as ``found``."""

    def __init__(self, found: torch.Tensor) -> None:
        import torch

        self.found, self.width = found, 0
        self.differences: list[float] = []
        self.scales: list[float] = []
        self._best = torch.full(found.shape[:-1], -torch.inf, dtype=found.dtype)
        self._first = torch.zeros(found.shape[:-1], dtype=torch.int64)

    def meet(self, block: torch.Tensor, where: str) -> None:
        start, self.width = self.width, self.width + block.shape[-1]
        mine = self.found[..., start : self.width]
        if mine.shape != block.shape:
            raise self._misfit(where)
        self.differences.append(_apart(mine, block))
        self.scales.append(float(block.abs().max()))
        value, place = block.max(-1)
        better = value > self._best
        self._best[better] = value[better]
        self._first[better] = place[better] + start

    def agreement(self, where: str) -> float:
        """The share of tokens whose first choice is the same."""
        if self.width != self.found.shape[-1]:
            raise self._misfit(where)
        return float((self.found.argmax(-1) == self._first).float().mean())

    def _misfit(self, where: str) -> GateError:
        shape = list(self.found.shape)
        return GateError(f"logits of shape {shape} where GPT-NeoX has {self.width} a token", where, "report this")


def _deviation(
    checkpoint: RawCheckpoint, plan: ConversionPlan, tokens: NDArray[np.int64], found: torch.Tensor
) -> float | None:
    """The distance to GPT-NeoX's own network, where a Hugging Face file cannot hold all of it."""
    stored = f"layers.0.{FREQUENCIES}" in checkpoint.ranks[0]
    sums = plan.network.parallel_residual and checkpoint.tensor_parallel > 1
    if not (stored or sums or plan.network.epsilon_outside_root or plan.dtype != plan.source_dtype):
        return None
    own = _Reference(found)
    for block in logit_blocks(checkpoint, plan.network, tokens, Arithmetic(stored_frequencies=True)):
        own.meet(block, plan.where)
    return _largest(own.differences)


def _apart(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())


def _largest(numbers: list[float]) -> float:
    """The largest, NaN where one is NaN."""
    import torch

    return float(torch.tensor(numbers, dtype=torch.float64).max())


def _other_frequencies(checkpoint: RawCheckpoint, plan: ConversionPlan) -> str | None:
    """What is wrong with the stored rotary frequencies, if they are not the config's, rounded."""
    import torch

    expected = frequencies(plan.network)
    for name, tensor in sorted(checkpoint.ranks[0].items()):
        if name.endswith(FREQUENCIES):
            stored = as_tensor(checkpoint.read(tensor), tensor.dtype).float()
            close = stored.shape == expected.shape and torch.allclose(
                stored, expected, rtol=_STORED.get(tensor.dtype, 0.0), atol=2.0**-24
            )
            if not close:
                fraction, base = plan.network.rotary_fraction, plan.network.rotary_base
                return f"{name} is not what rotary_pct {fraction:g} and rotary_emb_base {base:g} make"
    return None


# Does our forward pass give the logits that GPT-NeoX itself stored in the checkpoint when it saved it.


VALIDATION = "validation-logits"
POSITIONS = 64  # of the stored ones: attention is causal, later tokens change nothing
_MARGIN = {"float16": 1, "bfloat16": 8, "float32": 8}  # times the rounding of bfloat16, 8 times coarser than float16
_EXACT = Arithmetic(stored_frequencies=True)


def validation_logits(checkpoint: RawCheckpoint, plan: ConversionPlan, stored: RawTensor) -> Gate:
    """The logits of ``stored`` (positions, vocabulary of rank 0) and ours of the tokens 0, 1, 2, ... are the same.

    GPT-NeoX computed them in half precision on its own machine. How far that may lie from float32 is measured on this
    very network: the distance between a pass in float32 and one in bfloat16.
    """
    if len(stored.shape) != 2 or not 0 < stored.shape[1] <= plan.vocabulary or stored.dtype not in _MARGIN:
        return failed(VALIDATION, f"the checkpoint stores logits of {stored.dtype}, shape {list(stored.shape)}")
    length = min(POSITIONS, stored.shape[0], plan.vocabulary)
    tokens = np.arange(length, dtype=np.int64)[None]
    theirs = as_tensor(checkpoint.read(stored, 0, length), stored.dtype)[None]
    differences, roundings, at = [], [], 0
    ours = logit_blocks(checkpoint, plan.network, tokens, _EXACT)
    rough = logit_blocks(checkpoint, plan.network, tokens, replace(_EXACT, compute="bfloat16"))
    try:
        with LOGITS_LOCK:
            for exact, rounded in zip(ours, rough, strict=True):
                block = theirs[..., at : at + exact.shape[-1]].float()
                at += exact.shape[-1]
                differences.append((exact[..., : block.shape[-1]] - block).double().square().sum())
                roundings.append((exact - rounded.float()).double().square().mean())
                if at >= stored.shape[1]:
                    break
    except GateError as error:
        return could_not_read(VALIDATION, error)
    difference = float((sum(differences) / (length * stored.shape[1])) ** 0.5)
    bound = _MARGIN[stored.dtype] * float((sum(roundings) / len(roundings)) ** 0.5)
    same = difference <= bound  # False for NaN
    detail = (
        f"{'equal' if same else 'NOT equal'} to those stored in the checkpoint: root mean square of the difference "
        f"{difference:.2e} of at most {bound:.2e}, over {length} positions"
    )
    return (passed if same else failed)(VALIDATION, detail, rms_diff=difference, bound=bound, positions=length)

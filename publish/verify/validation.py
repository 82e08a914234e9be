"""Does our forward pass give the logits that GPT-NeoX itself stored in the checkpoint when it saved it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from publish.convert.recipes import ConversionPlan
from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.torchfile import RawTensor
from publish.verify.forward import logit_blocks
from publish.verify.gate import GateResult, could_not_read, failed, passed
from publish.verify.shards import Arithmetic, as_tensor

VALIDATION = "validation-logits"
POSITIONS = 64  # of the stored ones: attention is causal, later tokens change nothing
_MARGIN = {"float16": 1, "bfloat16": 8, "float32": 8}  # times the rounding of bfloat16, 8 times coarser than float16
_EXACT = Arithmetic(stored_frequencies=True)


def validation_logits(checkpoint: RawCheckpoint, plan: ConversionPlan, stored: RawTensor) -> GateResult:
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
    try:
        ours = logit_blocks(checkpoint, plan.network, tokens, _EXACT)
        rough = logit_blocks(checkpoint, plan.network, tokens, replace(_EXACT, compute="bfloat16"))
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

"""Whether a checkpoint is the step it is named after, and of the run it is released with."""

from __future__ import annotations

from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.neox.options import HARMLESS, MAPPED
from publish.source.checkpoints import CheckpointSource

# what a restart of the same run may change: how work is spread, and how it is saved
MAY_CHANGE = frozenset(
    (
        *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gas", "batch_size"),
        *("extra_save_iters", "checkpoint_factor", "save_interval"),
        *("model_parallel_size", "pipe_parallel_size", "padded_vocab_size"),
    )
)


def check_same_run(first: NeoxConfig, this: NeoxConfig) -> None:
    """Refuse a step whose config says that another model was trained, or otherwise.

    Raises:
        GateError: names the option and both values.
    """
    for name in sorted({*first.options, *this.options} & set(MAPPED) - MAY_CHANGE - set(HARMLESS)):
        one, other = first.get(name), this.get(name)
        if one != other:
            raise GateError(
                f"{name} is {other!r} here and {one!r} in the release's first step",
                this.where,
                "the checkpoint is of another run; fetch the right one",
            )


def check_step(source: CheckpointSource, checkpoint: RawCheckpoint, *, must_say: bool = False) -> None:
    """Refuse, before a weight is read, a checkpoint whose own iteration is not its name's step.

    Raises:
        GateError: names both; or (``must_say``) the checkpoint states no iteration.
    """
    iteration = checkpoint.state.iteration
    if iteration is None and must_say:
        raise GateError(
            f"{source.name} does not say which iteration it is, so nothing proves that it is step {source.step:,}",
            checkpoint.where,
            "fetch its mp_rank_*_model_states.pt files as well",
        )
    if source.step >= 0 and iteration is not None and iteration != source.step:
        raise GateError(
            f"{source.name} holds iteration {iteration:,}: the checkpoint says so itself",
            checkpoint.where,
            "another checkpoint was put there; fetch the right one",
        )

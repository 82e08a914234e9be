"""A training config: its YAML files, its options, all of which must be known, and the network that they describe.

The table of options has the names and defaults of gpt-neox ``megatron/neox_arguments`` (commits c00ce70c, June 2023,
and ea7aefd8, May 2026), with underscores. *Mapped* options shape the network or the facts a card states. *Harmless*
ones change how a model is trained, stored or logged, never what its weights compute. *Refused* ones change the forward
pass in a way that no Hugging Face architecture expresses, unless they have one of the values given. An option outside
the table is an error.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from publish.errors import ConfigError
from publish.sources.files import CheckpointFiles

if TYPE_CHECKING:
    from publish.neox.checkpoint import RawCheckpoint

_MAX_BYTES = 1 << 18  # of a YAML file
_NO_COUNTERPART = "no Hugging Face model computes this; the checkpoint can only be used with GPT-NeoX"
_GATED = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "bilinear": "linear", "glu": "sigmoid"}


@dataclass(frozen=True, slots=True)
class Network:
    """The shape and equations of a network: all that the forward pass of a GPT-NeoX model depends on.

    ``sliding_window`` is GPT-NeoX's own number w: a query attends to itself and the w positions before it.
    ``epsilon_outside_root`` is the RMSNorm of gpt-neox before 4c9f1081 (May 2025): x / (rms + eps).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    context: int
    norm: str  # layernorm, rmsnorm
    norm_epsilon: float
    epsilon_outside_root: bool
    activation: str  # gelu, gelu_tanh, relu, silu, ...
    gated: bool
    parallel_residual: bool
    shared_norm: bool
    tied: bool
    rotary_fraction: float
    rotary_base: float
    sliding_window: int | None
    initializer_range: float

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def rotated(self) -> int:
        """Dimensions of a head that rotary embeddings rotate (gpt-neox ``transformer.py``, ParallelSelfAttention)."""
        return self.head_size if self.rotary_fraction == 1 else int(self.head_size * self.rotary_fraction)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads ``1e-8`` as a number, as GPT-NeoX's users mean it, and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are not used in training configs", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = normal(str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def normal(name: str) -> str:
    """An option's name with underscores."""
    return name.strip().replace("-", "_")


@functools.lru_cache(maxsize=32)
def load(text: bytes, where: str) -> Mapping[str, Any]:
    """One YAML file's options, names with underscores.

    Raises:
        ConfigError: not valid YAML (with line and column), not a mapping, or a key is given twice.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{len(text):,} bytes are too many for a config", where, "check what the file is")
    try:
        tree = yaml.load(text.decode("utf-8"), Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        spot = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(
            f"not valid YAML: {error.problem}",
            spot,
            "fix this line (often a comma is missing in the line above)",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where, "fix the file") from error
    if not isinstance(tree, dict):
        raise ConfigError("expected a mapping of options", where, "check what the file is")
    return MappingProxyType({normal(str(name)): value for name, value in tree.items()})


def config_files(files: CheckpointFiles) -> dict[str, bytes]:
    """The YAML files of a checkpoint by name: those in ``configs/``, else those at its root."""
    yamls = [name for name in files.sizes if name.endswith((".yml", ".yaml"))]
    inside = [name for name in yamls if name.startswith("configs/") and name.count("/") == 1]
    chosen = inside or [name for name in yamls if "/" not in name]
    return {name: bytes(files.open(name).read(0, min(files.sizes[name], _MAX_BYTES + 1))) for name in chosen}


def merge(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """The options of all ``files`` together.

    Raises:
        ConfigError: as :func:`load`, or two files that give one option different values.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name in sorted(files):
        for option, value in load(files[name], name).items():
            if option in merged and merged[option] != value:
                raise ConfigError(
                    f"{option} is {merged[option]!r} in {origin[option]} and {value!r} in {name}",
                    where,
                    "keep the config files of one run only",
                )
            merged[option], origin[option] = value, name
    return merged


@dataclass(frozen=True)
class NeoxConfig:
    """The options of a run, names with underscores, values as in the YAML; and the network that they describe."""

    options: Mapping[str, Any]
    where: str
    files: tuple[str, ...]
    network: Network

    def get(self, name: str) -> Any:
        """The value of an option, or GPT-NeoX's default."""
        value = self.options.get(name)
        return MAPPED.get(name) if value is None else value

    @property
    def vocab_file(self) -> str | None:
        value = self.get("vocab_file")
        return value if isinstance(value, str) else None


def read_config(checkpoint: RawCheckpoint) -> NeoxConfig:
    """The config of ``checkpoint``.

    Raises:
        ConfigError: no YAML, invalid YAML, unknown or refused options, sizes missing or not numbers.
    """
    texts = config_files(checkpoint.files)
    if not texts:
        raise ConfigError(
            "no training config found: expected configs/*.yml, or a YAML file at the root",
            checkpoint.where,
            "put the YAML files that the run was started with into configs/",
        )
    options = merge(texts, checkpoint.where)
    where = f"{checkpoint.where}/{', '.join(sorted(texts))}"
    check_options(options, where)
    return NeoxConfig(options, where, tuple(sorted(texts)), network_of(options, checkpoint, where))


def check_options(options: Mapping[str, Any], where: str) -> None:
    """Refuse options that the table does not have, or that no Hugging Face architecture expresses.

    Raises:
        ConfigError: with the option and the reason.
    """
    for name, value in options.items():
        if name in REFUSED and value not in REFUSED[name].harmless:
            raise ConfigError(
                f"{name}: {value!r} cannot be converted: {REFUSED[name].reason}",
                where,
                _NO_COUNTERPART,
            )
        if name not in MAPPED and name not in HARMLESS and name not in REFUSED:
            raise ConfigError(
                f"unknown option {name}: the forward pass may depend on it",
                where,
                "check the spelling; if GPT-NeoX has the option, add it to publish/neox/config.py with a reason",
            )


def network_of(options: Mapping[str, Any], checkpoint: RawCheckpoint, where: str) -> Network:
    """The network that ``options`` describe. No option tells which RMSNorm it has: the names of the tensors do.

    Raises:
        ConfigError: a size is absent or impossible, or no Hugging Face architecture has these equations.
    """
    reader = _Reader(options, where)
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    if hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is not a multiple of {heads} heads", where, "fix the config")
    reader.choice("pos_emb", ("rotary",), "only rotary positions have a Hugging Face counterpart here")
    norm = reader.choice("norm", ("layernorm", "rmsnorm"), "only layernorm and rmsnorm have a counterpart")
    reader.attention_types()
    activation, gated = reader.activation()
    for name in ("intermediate_size", "mlp_multiple_of", "padded_vocab_size", "make_vocab_size_divisible_by"):
        reader.size_if_given(name)
    reader.number_if_given("expansion_factor")
    parallel = reader.flag("gpt_j_residual")
    if parallel and not reader.flag("use_bias_in_mlp"):
        raise ConfigError(
            "gpt_j_residual without use_bias_in_mlp: GPT-NeoX then leaves the attention out of the sum",
            where,
            _NO_COUNTERPART,
        )
    return Network(
        layers=reader.size("num_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=reader.size("num_kv_heads", heads),
        context=reader.size("max_position_embeddings", options.get("seq_length")),
        norm=norm,
        norm_epsilon=reader.number("layernorm_epsilon" if norm == "layernorm" else "rms_norm_epsilon"),
        epsilon_outside_root=norm == "rmsnorm" and _has_old_mlp_names(checkpoint),
        activation=activation,
        gated=gated,
        parallel_residual=parallel,
        shared_norm=parallel and reader.flag("gpt_j_tied"),
        tied=not reader.flag("no_weight_tying"),
        rotary_fraction=reader.number("rotary_pct"),
        rotary_base=reader.number("rotary_emb_base"),
        sliding_window=reader.size_if_given("sliding_window_width"),
        initializer_range=reader.number("init_method_std"),
    )


def _has_old_mlp_names(checkpoint: RawCheckpoint) -> bool:
    """Whether the MLP has the names that GPT-NeoX wrote before ``linear1`` and ``linear2`` (2023 to 2024)."""
    return any(".mlp.w1." in name or ".mlp.dense_h_to_4h." in name for name in checkpoint.ranks[0])


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads options by kind; errors name the option."""

    options: Mapping[str, Any]
    where: str

    def _value(self, name: str) -> Any:
        value = self.options.get(name)
        return MAPPED[name] if value is None else value

    def size(self, name: str, default: Any = None) -> int:
        value = self.options.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise ConfigError(f"{name} must be a positive integer, got {value!r}", self.where, "fix the config")
        return value

    def size_if_given(self, name: str) -> int | None:
        return None if self.options.get(name) is None else self.size(name)

    def number_if_given(self, name: str) -> float | None:
        return None if self.options.get(name) is None else self.number(name)

    def number(self, name: str) -> float:
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise ConfigError(f"{name} must be a number, got {value!r}", self.where, "fix the config")
        return value

    def flag(self, name: str) -> bool:
        value = self._value(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, got {value!r}", self.where, "fix the config")
        return value

    def choice(self, name: str, allowed: tuple[str, ...], reason: str) -> str:
        value = self._value(name)
        if value not in allowed:
            raise ConfigError(f"{name}: {value!r} cannot be converted: {reason}", self.where, _NO_COUNTERPART)
        return str(value)

    def activation(self) -> tuple[str, bool]:
        """The activation's name, and whether the MLP is gated (``mlp_type: llama`` gates any activation)."""
        name = str(self._value("activation"))
        if self._value("mlp_type") == "llama":
            return _GATED.get(name, name), True
        if name in _GATED:
            return _GATED[name], True
        if name == "gelu" and self.flag("bias_gelu_fusion"):
            return "gelu_tanh", False
        return {"swish": "silu"}.get(name, name), False

    def attention_types(self) -> None:
        """Refuse attention other than full causal attention (gmlp, mamba, rwkv, sparse kinds)."""
        value = self.options.get("attention_config")
        for entry in value if isinstance(value, list) else []:
            kinds = entry[0] if isinstance(entry, list) and entry and isinstance(entry[0], list) else [entry]
            for kind in kinds:
                if kind not in ("global", "flash"):
                    raise ConfigError(
                        f"attention_config: {kind!r} cannot be converted: only full attention has a counterpart",
                        self.where,
                        _NO_COUNTERPART,
                    )


@dataclass(frozen=True, slots=True)
class Refused:
    """An option that stops a conversion unless its value is one of ``harmless``."""

    harmless: tuple[Any, ...]
    reason: str


MAPPED: Mapping[str, Any] = {
    "num_layers": None,
    "hidden_size": None,
    "num_attention_heads": None,
    "num_kv_heads": None,
    "intermediate_size": None,
    "expansion_factor": None,
    "mlp_multiple_of": 1,
    "mlp_type": "regular",
    "max_position_embeddings": None,
    "seq_length": None,
    "make_vocab_size_divisible_by": 128,
    "padded_vocab_size": None,
    "norm": "layernorm",
    "layernorm_epsilon": 1e-5,
    "rms_norm_epsilon": 1e-8,
    "pos_emb": "learned",
    "rotary_pct": 1.0,
    "rotary_emb_base": 10000,
    "rotary_save_freqs_buffer": False,
    "no_weight_tying": False,
    "activation": "gelu",
    "bias_gelu_fusion": False,
    "gpt_j_residual": False,
    "gpt_j_tied": False,
    "use_bias_in_norms": True,
    "use_bias_in_attn_linear": True,
    "use_bias_in_mlp": True,
    "sliding_window_width": None,
    "attention_config": None,
    "init_method": "normal",
    "init_method_std": 0.02,
    "output_layer_init_method": "scaled_normal",
    "model_parallel_size": 1,
    "pipe_parallel_size": 0,
    "precision": None,
    "fp16": None,
    "bf16": None,
    "seed": 1234,
    "optimizer": None,
    "optimizer_type": "Adam",
    "lr": None,
    "min_lr": 0.0,
    "lr_decay_style": "linear",
    "lr_decay_iters": None,
    "lr_decay_fraction": None,
    "warmup": 0.01,
    "weight_decay": 0.1,
    "gradient_clipping": 1.0,
    "train_iters": None,
    "train_epochs": None,
    "train_batch_size": None,
    "train_micro_batch_size_per_gpu": None,
    "gradient_accumulation_steps": 1,
    "gas": 1,
    "batch_size": None,
    "checkpoint_scale": "linear",
    "checkpoint_factor": None,
    "save_interval": None,
    "extra_save_iters": None,
    "data_path": None,
    "train_data_paths": None,
    "train_data_weights": None,
    "tokenizer_type": "GPT2BPETokenizer",
    "vocab_file": None,
    "merge_file": None,
}

REFUSED: Mapping[str, Refused] = {
    "moe_num_experts": Refused((1, None), "mixture-of-experts layers have no counterpart in GPTNeoXForCausalLM"),
    "num_experts": Refused((1, None), "mixture-of-experts layers have no counterpart in GPTNeoXForCausalLM"),
    "use_mup": Refused((False, None), "muP scales attention and logits by its own factors"),
    "use_qk_layernorm": Refused((False, None), "GPT-NeoX normalises over all heads of a rank; no HF model does"),
    "apply_query_key_layer_scaling": Refused((False, None), "scales attention in another precision"),
    "soft_prompt_tuning": Refused((None, False), "a soft prompt is not part of an HF checkpoint"),
    "num_unique_layers": Refused((None,), "layers share parameters"),
    "train_impl": Refused(("normal", "dpo", "kto", "reinforce", None), "a reward model has no language-model head"),
    "output_layer_parallelism": Refused(("column", "row", None), "unknown parallelism of the output layer"),
    "te_fp8_mha": Refused((False, None), "fp8 attention is not what an HF model computes"),
    "onnx_safe": Refused((False, None), "uses a GELU with a rounded constant"),
    "opt_pos_emb_offset": Refused((0, None), "OPT's shifted positions have no counterpart"),
    "dim_att": Refused((None,), "RWKV has no counterpart here"),
    "head_size": Refused((None,), "RWKV has no counterpart here"),
    "ffn_dim": Refused((None,), "RWKV has no counterpart here"),
    "lora": Refused((None, False), "adapters have to be merged before a release"),
}

_HARMLESS_BY_REASON: Mapping[str, str] = {
    "how training is spread over machines": """pipe_partition_method world_size is_pipe_parallel sequence_parallel
        distributed_backend local_rank rank lazy_mpu_init global_num_gpus hostfile include exclude num_nodes num_gpus
        master_port master_addr launcher force_multi no_ssh_check deepspeed_mpi deepspeed_slurm user_script account
        use_shared_fs expert_parallel_size""",
    "a fused kernel of the same function": """layernorm_fusion rmsnorm_fusion use_flashattn_swiglu
        scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion bias_dropout_fusion rope_fusion
        fused_kernels_build_path attention_softmax_in_fp32 fp16_lm_cross_entropy fp32_allreduce
        te_columnparallel te_rowparallel te_layernorm_mlp te_mha te_fp8_format te_fp8_wgrad te_fp8_amax_history_len
        te_fp8_amax_compute_algo te_fp8_margin""",
    "optimisation, not inference": """use_bnb_optimizer zero_stage zero_reduce_scatter zero_contiguous_gradients
        zero_reduce_bucket_size zero_allgather_bucket_size zero_optimization zero_allow_untested_optimizer scheduler
        override_lr_scheduler use_checkpoint_lr_scheduler clip_grad hysteresis dynamic_loss_scale loss_scale
        loss_scale_window min_scale amp prescale_gradients gradient_predivide_factor sparse_gradients deepscale
        deepscale_config communication_data_type curriculum_learning curriculum_seqlen z_loss sgd momentum
        attention_dropout hidden_dropout eod_mask_loss short_seq_prob gradient_noise_scale_n_batches
        gradient_noise_scale_cpu_offload moe_expert_interval moe_top_k moe_router_type moe_lbl_in_fp32 moe_jitter_eps
        moe_token_dropping moe_loss_coeff moe_z_loss moe_weight_parallelism moe_aux_loss_coeff""",
    "logging and profiling": """use_wandb wandb_group wandb_run_name wandb_team wandb_project wandb_host wandb
        wandb_init_all_ranks
        git_hash log_dir tensorboard_dir tensorboard use_comet comet_workspace comet_project comet_experiment_name
        comet_tags comet_others comet_experiment peak_theoretical_tflops log_interval log_grad_pct_zeros
        log_param_norm log_grad_norm log_optimizer_states log_gradient_noise_scale memory_profiling
        memory_profiling_path profile profile_step_start profile_step_stop steps_per_print wall_clock_breakdown
        dump_state flops_profiler csv_monitor comms_logger profile_backward keep_last_n_checkpoints
        autotuning autotuning_run comment adlr_autoresume adlr_autoresume_interval monitor""",
    "data other than its path": """test_data_paths valid_data_paths train_label_data_paths train_reward_data_paths
        test_label_data_paths test_reward_data_paths valid_label_data_paths valid_reward_data_paths
        pos_train_data_paths neg_train_data_paths pos_train_label_data_paths neg_train_label_data_paths
        pos_valid_data_paths neg_valid_data_paths pos_valid_label_data_paths neg_valid_label_data_paths
        pos_test_data_paths neg_test_data_paths pos_test_label_data_paths neg_test_label_data_paths valid_data_weights
        test_data_weights weight_by_num_documents weighted_sampler_alpha data_impl pack_impl dataset_impl
        allow_chopped mmap_warmup split num_workers online_dataserver_ips online_dataserver_ports data_types
        data_efficiency reset_position_ids reset_attention_mask""",
    "saving, loading and evaluating": """save s3_path s3_chunk_size config_files load
        checkpoint_validation_with_forward_pass no_save_optim no_save_rng no_load_optim no_load_rng finetune
        eval_iters eval_interval exit_interval do_train do_valid do_test iteration checkpoint serve_model_weights
        weight_server_port char_level_ppl coord_check save_base_shapes base_shapes_file mup_init_scale mup_attn_temp
        mup_output_temp mup_embedding_mult mup_rp_embedding_mult mup_width_scale""",
    "memory of training": """checkpoint_activations checkpoint_num_layers deepspeed_activation_checkpointing
        contiguous_checkpointing checkpoint_in_cpu synchronize_each_layer partition_activations
        activation_checkpointing elasticity compression_training sparse_attention sparsity_config use_cpu_initialization
        deepspeed deepspeed_extra_args param_sharing_style""",
    "fine-tuning losses": """dpo_fp32 dpo_reference_free dpo_beta kto_fp32 kto_desirable_weight kto_undesirable_weight
        kto_beta fp32_reinforce kl_impl kl_div_beta reinforce_leave_one_out""",
    "text generation": """text_gen_type precompute_model_name temperature top_p top_k return_logits maximum_tokens
        prompt_end sample_input_file sample_output_file num_samples recompute eval_results_prefix eval_tasks""",
    "of layers that are refused by themselves": """rpe_num_buckets rpe_max_distance gmlp_attn_dim scalenorm_epsilon
        mamba_selective_scan_fusion mamba_causal_conv_fusion mamba_inner_func_fusion mamba_selective_fp32_params
        mamba_use_bias_in_conv mamba_use_bias_in_linears""",
}

HARMLESS: Mapping[str, str] = {name: reason for reason, names in _HARMLESS_BY_REASON.items() for name in names.split()}

"""Every option of a GPT-NeoX config: mapped, known to be harmless, or refused. One outside the table is an error.

Names and defaults are those of gpt-neox ``megatron/neox_arguments`` (commits c00ce70c, June 2023, and ea7aefd8,
May 2026), with underscores. *Mapped* options shape the network or the facts a card states. *Harmless* ones change
how a model is trained, stored or logged, never what its weights compute. *Refused* ones change the forward pass in
a way that no Hugging Face architecture expresses, unless they hold one of the values given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refused:
    """An option that stops a conversion unless it holds one of ``harmless`` values."""

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

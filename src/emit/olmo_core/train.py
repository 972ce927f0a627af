"""One stage of a curriculum on OLMo-core, or one soup.

    torchrun --nproc-per-node N train.py --base DIR stages/STAGE.json
    python train.py soups/SOUP.json

Everything that differs between stages is in the JSON files; this file is the same for all. OLMo-core reads
the rows that `midc data --export` wrote, in order and unshuffled, so the data order does not depend on the
number of processes. A stage that is done is left alone; one that was interrupted goes on from OLMo-core's
last checkpoint. Sent SIGTERM or SIGINT, it finishes the step, writes a checkpoint and exits with 143.

    out/STAGE/olmo/stepN     OLMo-core's checkpoints
    out/STAGE/step-N/hf      config.json, model.safetensors, tokenizer files
    logs/STAGE.rankR.jsonl   per step: learning rate, loss, and CRC-32 of the rows this process read

A step is counted from 0 here and from 1 by OLMo-core.
"""

import argparse
import json
import os
import shutil
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import ClassVar

import midc_stage
import midc_versions  # noqa: F401  (ends the run where other packages are installed than it was written for)
import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict as dist_cp_sd
from midc_stage import Log, checkpoint, copy_tokenizer, lasting_steps, origin_keys, read, row_set
from olmo_core.config import DType
from olmo_core.data import TokenizerConfig
from olmo_core.data.composable import ComposableDataLoaderConfig, ConcatAndChunkInstanceSource, NumpyDocumentSource
from olmo_core.data.types import NumpyDatasetDType
from olmo_core.distributed.checkpoint import load_model_and_optim_state
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.nn.attention import AttentionBackendName, SlidingWindowAttentionConfig
from olmo_core.nn.feed_forward import FeedForwardConfig
from olmo_core.nn.hf.config import get_hf_config
from olmo_core.nn.hf.convert import convert_state_from_hf, convert_state_to_hf
from olmo_core.nn.rope import PIRoPEScalingConfig, RotaryEmbedding, StepwiseRoPEScalingConfig, YaRNRoPEScalingConfig, compute_inv_freqs
from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig
from olmo_core.optim import AdamWConfig, OptimGroupOverride
from olmo_core.optim.scheduler import ComposableScheduler, ComposableSchedulerStage, Scheduler
from olmo_core.train import Duration, TrainerConfig, prepare_training_environment, teardown_training_environment
from olmo_core.train.callbacks import Callback, CheckpointerCallback
from olmo_core.train.train_module import TransformerDataParallelConfig, TransformerTrainModuleConfig
from olmo_core.utils import seed_all
from torch.distributed.tensor import DTensor, distribute_tensor

CUDA = torch.cuda.is_available()


def hugging_face_keys(stage, root, base):
    """`config.json` of the model under this stage, and the directory its weights are in (or None)."""
    keys, weights = origin_keys(stage, root, base)
    if keys["model_type"] not in ("olmo2", "olmo3"):
        raise SystemExit(f"OLMo-core exports to Hugging Face only models of the shape `olmo2` or `olmo3`, not `{keys['model_type']}`")
    local = midc_stage.local_rope(keys)
    if stage["config"]:
        for key in ("rope_scaling", "rope_theta", "rope_parameters"):
            keys.pop(key, None)
        keys.update(stage["config"])
    if local:
        full = midc_stage.full_rope(keys, local)
        keys.update(rope_theta=full["rope_theta"], rope_parameters={"full_attention": full, "sliding_attention": local})
        keys["rope_scaling"] = None if full["rope_type"] == "default" else {k: v for k, v in full.items() if k != "rope_theta"}
    return keys, weights


def windows_of(keys):
    """For each layer the tokens it looks back over, -1 for all of them; none where all layers are alike."""
    if keys["model_type"] != "olmo3":
        return []
    count = keys["num_hidden_layers"]
    types = keys.get("layer_types") or ["full_attention" if (i + 1) % 4 == 0 else "sliding_attention" for i in range(count)]
    window = keys.get("sliding_window") or 4096
    windows = [window if kind == "sliding_attention" else -1 for kind in types]
    return windows if max(windows) > 0 else []


def whole(theta):
    return int(theta) if float(theta).is_integer() else theta


def rope_of(keys):
    """Base and OLMo-core's scaling."""
    rope = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    theta = rope.get("rope_theta") or keys.get("rope_theta") or 10_000
    theta = whole(theta)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, PIRoPEScalingConfig(factor=rope["factor"])
    if kind == "yarn":
        fast, slow = rope.get("beta_fast") or 32, rope.get("beta_slow") or 1
        return theta, YaRNRoPEScalingConfig(
            factor=rope["factor"], beta_fast=fast, beta_slow=slow, old_context_len=rope["original_max_position_embeddings"]
        )
    if kind == "llama3":
        return theta, StepwiseRoPEScalingConfig(
            factor=rope["factor"],
            low_freq_proportion=1 - 1 / rope["low_freq_factor"],
            high_freq_proportion=1 / rope["high_freq_factor"],
            old_context_len=rope["original_max_position_embeddings"],
        )
    raise SystemExit(f"OLMo-core has no RoPE scaling `{kind}`")


def model_of(keys, stage):
    theta, scaling = rope_of(keys)
    documents = stage["attention"] == "documents"
    if documents and not CUDA:
        raise SystemExit("attention within documents needs flash-attention on a GPU in OLMo-core")
    windows = windows_of(keys)
    # Those that look back over a window keep plain RoPE.
    local = whole(keys["rope_parameters"]["sliding_attention"]["rope_theta"]) if windows else theta
    config = TransformerConfig.llama_like(
        d_model=keys["hidden_size"],
        vocab_size=keys["vocab_size"],
        n_layers=keys["num_hidden_layers"],
        n_heads=keys["num_attention_heads"],
        n_kv_heads=keys.get("num_key_value_heads"),
        head_dim=keys.get("head_dim"),
        qk_norm=True,
        block_name=TransformerBlockType.reordered_norm,
        layer_norm_eps=keys["rms_norm_eps"],
        rope_theta=local,
        rope_scaling=None if windows else scaling,
        sliding_window=SlidingWindowAttentionConfig(
            pattern=windows, force_full_attention_on_first_layer=False, force_full_attention_on_last_layer=False
        ) if windows else None,
        feed_forward=FeedForwardConfig(hidden_size=keys["intermediate_size"], bias=False),
        tie_word_embeddings=keys.get("tie_word_embeddings", False),
        attn_backend=AttentionBackendName.flash_2 if documents else None,
        init_std=keys.get("initializer_range", 0.02),
        init_seed=stage["init_seed"],
    )
    if not windows or (scaling is None and local == theta):
        return config
    config.block_overrides = {}
    for layer, window in enumerate(windows):
        if window == -1:
            block = config.block.copy()
            block.sequence_mixer.rope = block.sequence_mixer.rope.copy()
            block.sequence_mixer.rope.theta, block.sequence_mixer.rope.scaling = theta, scaling
            config.block_overrides[layer] = block
    return config


def check_rope(model, keys, stage):
    """The frequencies the model rotates by, in layers of full attention, are those of the plan."""
    if not stage["inv_freq"]:
        return
    theta, scaling = rope_of(keys)
    near = {str(layer) for layer, window in enumerate(windows_of(keys)) if window != -1}
    blocks = [block for name, block in model.blocks.items() if name not in near]
    found = [module for block in blocks for module in block.modules() if isinstance(module, RotaryEmbedding)]
    assert found, "the model has no rotary embedding to compare with the plan"
    wanted = torch.tensor(stage["inv_freq"], dtype=torch.float64)
    cpu = torch.device("cpu")
    for rope in found:
        assert rope.theta == theta, f"the model's base is {rope.theta}, not {theta}"
        if rope.scaling is None:
            frequencies, factor = compute_inv_freqs(rope.theta, 2 * len(wanted), cpu), 1.0
        else:
            frequencies, factor = rope.scaling.compute_scaled_inv_freq(rope.theta, 2 * len(wanted), cpu)
        worst = ((frequencies.double() - wanted) / wanted).abs().max().item()
        assert worst < 1e-5, f"inv_freq differs from the plan by {worst:.1e} (relative)"
        assert abs(factor - stage["rope"]["attention_factor"]) < 1e-6, f"the attention factor is {factor}"


# ComposableScheduler walks all its segments at every step: longer tables are looked up.
MOST_SEGMENTS = 10_000


@dataclass
class TableScheduler(Scheduler):
    """The entry of the table for a step."""

    starts: list = field(default_factory=list)
    values: list = field(default_factory=list)

    def get_lr(self, initial_lr, current, t_max):
        return self.values[bisect_right(self.starts, max(current - 1, 0)) - 1]


def scheduler_of(stage):
    """The table as segments of constant rate. OLMo-core counts steps from 1 and asks for the value at that
    number, so a segment of one step stands before the first."""
    runs = stage["lr"]
    if len(runs) > MOST_SEGMENTS:
        return TableScheduler(starts=[step for step, _ in runs], values=[value for _, value in runs])
    ends = [step for step, _ in runs[1:]] + [stage["steps"]]
    segments = [ComposableSchedulerStage(duration=1, start_lr=runs[0][1], end_lr=runs[0][1])]
    for (start, value), end in zip(runs, ends):
        segments.append(ComposableSchedulerStage(duration=end - start, start_lr=value, end_lr=value))
    return ComposableScheduler(stages=segments)


@dataclass
class Recorder(Callback):
    """Writes the log, each step before its checkpoint: one whose step is not in the log would not be whole."""

    priority: ClassVar[int] = CheckpointerCallback.priority + 1

    root: str = ""
    dtype: str = "uint16"
    stage: dict = field(default_factory=dict)

    def pre_train(self):
        module, trainer = self.trainer.train_module, self.trainer
        record_loss, record_metric = module.record_ce_loss, trainer.record_metric
        self.norm = None

        def remember_loss(value, *arguments, **options):
            self.loss = value.detach().double()
            return record_loss(value, *arguments, **options)

        def remember_norm(name, value, *arguments, **options):
            if name == "total grad norm":
                self.norm = value
            return record_metric(name, value, *arguments, **options)

        # OLMo-core gathers its metrics in another thread, some steps late.
        module.record_ce_loss = remember_loss
        trainer.record_metric = remember_norm
        self.log = Log(self.stage, self.root, trainer.global_step, dist.get_rank(), dist.get_world_size())

    def pre_step(self, batch):
        ids = batch["input_ids"].cpu().numpy().astype(self.dtype)
        self.rows = [midc_stage.checksum(row) for row in ids]

    def post_train_batch(self):
        groups = self.trainer.train_module.optim.param_groups
        rates = {float(group["lr"]) for group in groups}
        assert len(rates) == 1, f"parameter groups have different learning rates: {rates}"
        loss = self.loss.clone()
        dist.all_reduce(loss)
        loss = loss.item() / dist.get_world_size()
        norm = None if self.norm is None else float(self.norm)
        self.log.write(self.step - 1, lr=rates.pop(), loss=loss, grad_norm=norm, rows=self.rows)


def load_hugging_face(model, folder):
    """Weights from a Hugging Face directory into a (sharded) OLMo-core model."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    converted = convert_state_from_hf(theirs.config, theirs.state_dict(), model_type=theirs.config.model_type)
    state = dist_cp_sd.get_model_state_dict(model)
    missing = set(state) - set(converted)
    assert not missing, f"the checkpoint has no {sorted(missing)}"
    for name, value in state.items():
        whole = converted[name]
        state[name] = distribute_tensor(whole, value.device_mesh, value.placements) if isinstance(value, DTensor) else whole
    dist_cp_sd.set_model_state_dict(model, state)


def save_hugging_face(model, keys, folder):
    """An OLMo-core model as a Hugging Face directory. OLMo-core's own `save_hf_model` takes a head to be as wide as the
    model divided by their number."""
    from transformers import AutoModelForCausalLM

    config = get_hf_config(model)
    for key in ("head_dim", "initializer_range"):
        if keys.get(key) is not None:
            setattr(config, key, keys[key])
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # In f32 whatever the arithmetic: later stages and soups take their weights from here.
    state = convert_state_to_hf(config, dict(model.state_dict()))
    theirs.load_state_dict({name: value.float().contiguous() for name, value in state.items()})
    theirs.save_pretrained(folder)


def export(stage, root, base, keys):
    """The checkpoints that others start from, as Hugging Face directories. Done by one process."""
    for step in lasting_steps(stage):
        target = checkpoint(root, stage["name"], step)
        if midc_stage.told(target):
            continue
        aside = target + ".partial"
        shutil.rmtree(aside, ignore_errors=True)
        model = model_of(keys, {**stage, "attention": "causal"}).build(init_device="cpu")
        load_model_and_optim_state(os.path.join(root, "out", stage["name"], "olmo", f"step{step}", "model_and_optim"), model)
        folder = os.path.join(aside, "hf")
        save_hugging_face(model, keys, folder)
        path = os.path.join(folder, "config.json")
        written = read(path)
        written["max_position_embeddings"] = stage["context"]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            written[key] = keys.get(key)
        if windows_of(keys):
            # OLMo-core writes the base of its first layer.
            for key in ("rope_theta", "rope_scaling", "rope_parameters"):
                written[key] = keys[key]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(written, file, indent=2)
        copy_tokenizer(stage, root, base, folder)
        midc_stage.publish(aside, target, stage["plan"], stage["stage"], step)


def exported(stage, root):
    return set(lasting_steps(stage)) <= set(midc_stage.done_steps(stage, root))


def group_overrides(constants):
    """The same groups whatever decays, for a stage that decays otherwise than the one before."""
    groups = {"embeddings.weight": "decay_embeddings", "*norm*": "decay_norms"}
    decay = constants["weight_decay"]
    return [OptimGroupOverride(params=[p], opts={"weight_decay": decay if constants[key] else 0.0}) for p, key in groups.items()]


def train(stage, root, options):
    base, micro_rows = options.base, options.micro_rows
    if exported(stage, root):
        return
    folder, rows = row_set(stage, root)
    keys, weights = hugging_face_keys(stage, root, base)
    bf16 = (stage["precision"] or ("bf16" if CUDA else "f32")) == "bf16"
    phase = stage["phases"][0]
    context, count = phase["context"], phase["rows"]

    prepare_training_environment(backend="cpu:gloo,cuda:nccl" if CUDA else "gloo", shared_filesystem=True)
    seed_all(stage["init_seed"])
    world = dist.get_world_size()
    if count % world:
        raise SystemExit(f"OLMo-core wants the {count} rows of a step to be a multiple of the {world} processes")
    micro = max(n for n in range(1, micro_rows + 1) if (count // world) % n == 0)
    work = os.path.join(root, "work", stage["plan"][-12:], stage["name"])
    constants = stage["optimizer"]
    module = TransformerTrainModuleConfig(
        rank_microbatch_size=micro * context,
        max_sequence_length=context,
        optim=AdamWConfig(
            lr=max(value for _, value in stage["lr"]),
            betas=tuple(constants["betas"]),
            eps=constants["eps"],
            weight_decay=constants["weight_decay"],
            group_overrides=group_overrides(constants),
            fused=False,
        ),
        scheduler=scheduler_of(stage),
        max_grad_norm=constants["clip"],
        z_loss_multiplier=constants["z_loss"] or None,
        dp_config=TransformerDataParallelConfig(name=DataParallelType.fsdp, param_dtype=DType.bfloat16 if bf16 else None),
    ).build(model_of(keys, stage).build(init_device="meta"))
    check_rope(module.model, keys, stage)
    decays = [group["weight_decay"] for group in module.optim.param_groups]

    tokenizer = TokenizerConfig(vocab_size=keys["vocab_size"], eos_token_id=rows["eos"], pad_token_id=rows["eos"])
    source = ConcatAndChunkInstanceSource.Config(
        sources=[
            NumpyDocumentSource.Config(
                source_paths=[os.path.join(folder, "tokens.bin")],
                label_mask_paths=[os.path.join(folder, "targets.bin")] if rows["marks"] else None,
                tokenizer=tokenizer,
                dtype=NumpyDatasetDType(rows["dtype"]),
                expand_glob=False,
            )
        ],
        sequence_length=context,
    )
    loader = ComposableDataLoaderConfig(
        tokenizer=tokenizer,
        global_batch_size=count * context,
        seed=0,
        shuffle=False,
        work_dir=work,
        generate_doc_lengths=stage["attention"] == "documents",
        display_source_visualization=False,
    ).build(source.build(work), dp_process_group=module.dp_process_group)
    trainer = TrainerConfig(
        save_folder=os.path.join(root, "out", stage["name"], "olmo"),
        save_overwrite=True,
        max_duration=Duration.steps(stage["steps"]),
        metrics_collect_interval=1,
        cancel_check_interval=1,
        callbacks={
            "checkpointer": CheckpointerCallback(
                save_interval=stage["save_every"] or stage["steps"],
                fixed_steps=lasting_steps(stage),
                max_checkpoints=None,
                pre_train_checkpoint=False,
                save_async=False,
            ),
            "recorder": Recorder(root=root, dtype=rows["dtype"], stage=stage),
        },
    ).build(module, loader)
    if not trainer.maybe_load_checkpoint():
        origin = stage["from"]
        if origin["kind"] == "stage" and stage["state"] == "keep":
            before = os.path.join(root, "out", origin["name"], "olmo", f"step{origin['step']}")
            trainer.load_checkpoint(before, load_trainer_state=False, load_optim_state=True)
        elif weights:
            load_hugging_face(module.model, weights)
    for group, decay in zip(module.optim.param_groups, decays):
        # A loaded state brings the constants of the stage it was written in.
        group.update(betas=tuple(constants["betas"]), eps=constants["eps"], weight_decay=decay)
    trainer.fit()
    if trainer.global_step < stage["steps"]:
        # OLMo-core heard SIGTERM or SIGINT and has written a checkpoint of the step it ended with.
        raise SystemExit(midc_stage.STOPPED)
    first = dist.get_rank() == 0
    dist.barrier()
    teardown_training_environment()
    if first:
        export(stage, root, base, keys)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    midc_stage.run(parser, train)


if __name__ == "__main__":
    main()

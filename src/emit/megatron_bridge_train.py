"""One stage of a curriculum on Megatron-Bridge 0.6: its overrides over settings for a Hugging Face model.

Its names were held to the package's; never run: read before use.
"""

import os
import sys

import midc_versions  # noqa: F401  (ends the run where other packages are installed than it was written for)
import yaml
from megatron.bridge import AutoBridge
from megatron.bridge.training.config import (
    CheckpointConfig,
    ConfigContainer,
    DistributedDataParallelConfig,
    GPTDatasetConfig,
    LoggerConfig,
    OptimizerConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainingConfig,
)
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain
from megatron.bridge.training.utils.checkpoint_utils import get_checkpoint_train_state_filename, read_train_state


def expanded(value):
    """Paths in the directory of the curriculum or in that of the data."""
    if isinstance(value, dict):
        return {key: expanded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [expanded(inner) for inner in value]
    for name in ("BASE", "DATA"):
        start = "${" + name + "}/"
        if isinstance(value, str) and value.startswith(start):
            return os.path.join(os.environ[name], value[len(start) :])
    return value


def apply(target, values):
    for key, value in values.items():
        if isinstance(value, dict):
            apply(getattr(target, key), value)
        elif hasattr(target, key):
            setattr(target, key, value)
        elif value is not None:
            raise SystemExit(f"Megatron-Bridge has no setting `{key}` in {type(target).__name__}")


def rope_of(model, settings):
    """The settings of the model, with those of its RoPE under the names that its provider has for them."""
    settings = dict(settings)
    if "rotary_base" not in settings:
        return settings
    keys = ("position_embedding_type", "rotary_base", "seq_len_interpolation_factor", "rope_scaling", "rope_scaling_factor")
    rope = {key: settings.pop(key) for key in list(settings) if key in keys or key.startswith("yarn_")}
    kind = model.position_embedding_type
    plain = rope["position_embedding_type"] == "rope" and not rope["rope_scaling"]
    if getattr(model, "multi_latent_attention", False):
        # Its settings stay: they have to be these already.
        factor = rope["yarn_rotary_scaling_factor"] or rope["seq_len_interpolation_factor"] or 1
        if model.rotary_base != rope["rotary_base"] or model.rotary_scaling_factor != factor or rope["rope_scaling"]:
            raise SystemExit("with latent attention the RoPE is the checkpoint's: leave `rope` out")
        rope = {}
    elif isinstance(model.rotary_base, tuple):
        # Gemma 3: layers with a window have a base of their own, and the others are interpolated by this factor.
        if not plain:
            raise SystemExit("Megatron-Bridge has `rope`, `abf` and `pi` for this model, and no other RoPE")
        factor = rope["seq_len_interpolation_factor"] or 1.0
        rope = {"rotary_base": (model.rotary_base[0], rope["rotary_base"]), "rope_scaling_factor": factor}
    elif kind not in ("rope", "yarn"):
        raise SystemExit(f"Megatron-Bridge has `{kind}` for the positions of this model, and no RoPE that could be set")
    return {**settings, **rope}


def configuration(overrides):
    overrides = dict(overrides)
    own = overrides.pop("hf")
    hf = os.environ.get("HF") or own
    config = ConfigContainer(
        model=AutoBridge.from_hf_pretrained(hf).to_megatron_provider(load_weights=False),
        train=TrainingConfig(micro_batch_size=int(os.environ.get("MICRO_BATCH", "1"))),
        optimizer=OptimizerConfig(optimizer="adam", use_distributed_optimizer=True),
        scheduler=SchedulerConfig(),
        # The mean over the targets of a step, which averages in the collective would be none of.
        ddp=DistributedDataParallelConfig(use_distributed_optimizer=True, average_in_collective=False),
        dataset=GPTDatasetConfig(
            seq_length=overrides["dataset"]["seq_length"],
            random_seed=overrides["dataset"]["random_seed"],
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            # Attention is causal of itself; a mask would be of the row's length squared, and thrown away.
            create_attention_mask=False,
            split="1,0,0",
            dataloader_type="single",
        ),
        logger=LoggerConfig(log_interval=1),
        tokenizer=TokenizerConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=hf),
        checkpoint=CheckpointConfig(ckpt_format="torch_dist"),
        mixed_precision="bf16_mixed",
    )
    overrides["model"] = rope_of(config.model, overrides["model"])
    apply(config, overrides)
    return config


def done(overrides):
    """Whether the last iteration of the stage is saved: Megatron-Bridge cannot go on from there."""
    train = overrides["train"]
    tracker = get_checkpoint_train_state_filename(overrides["checkpoint"]["load"], prefix="latest")
    last = train["train_samples"] // train["global_batch_size"]
    return os.path.isfile(tracker) and read_train_state(tracker).step >= last


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        overrides = expanded(yaml.safe_load(file))
    if done(overrides):
        print(f"{sys.argv[1]} is done")
        return
    pretrain(config=configuration(overrides), forward_step_func=forward_step)


if __name__ == "__main__":
    main()

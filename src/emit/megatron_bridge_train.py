"""One stage of a curriculum on Megatron-Bridge 0.6: its overrides over settings for a Hugging Face model.

Its names were held to the package's; never run: read before use.
"""

import os
import sys

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
        else:
            raise SystemExit(f"Megatron-Bridge has no setting `{key}` in {type(target).__name__}")


def configuration(overrides):
    model = os.environ["HF"]
    config = ConfigContainer(
        model=AutoBridge.from_hf_pretrained(model).to_megatron_provider(load_weights=False),
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
            split="1,0,0",
            dataloader_type="single",
        ),
        logger=LoggerConfig(log_interval=1),
        tokenizer=TokenizerConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=model),
        checkpoint=CheckpointConfig(ckpt_format="torch_dist"),
        mixed_precision="bf16_mixed",
    )
    apply(config, overrides)
    return config


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        overrides = expanded(yaml.safe_load(file))
    pretrain(config=configuration(overrides), forward_step_func=forward_step)


if __name__ == "__main__":
    main()

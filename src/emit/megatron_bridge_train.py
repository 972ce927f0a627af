"""One stage of a curriculum on Megatron-Bridge: its overrides over the recipe of a Hugging Face model.

Written from Megatron-Bridge's interfaces and never run: read before use.
"""

import os
import sys

import yaml
from megatron.bridge import AutoBridge
from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain


def apply(target, values):
    for key, value in values.items():
        if isinstance(value, dict):
            apply(getattr(target, key), value)
        elif hasattr(target, key):
            setattr(target, key, value)
        else:
            raise SystemExit(f"Megatron-Bridge has no setting `{key}` in {type(target).__name__}")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        overrides = yaml.safe_load(os.path.expandvars(file.read()))
    config = ConfigContainer(model=AutoBridge.from_hf_pretrained(os.environ["HF"]).get_model_config())
    apply(config, overrides)
    pretrain(config=config, forward_step_func=forward_step)


if __name__ == "__main__":
    main()

"""What torchtitan 0.3.0 has no setting for: rows in the planned order and a table of learning rates.

Written from torchtitan's interfaces and never run: read before use.
"""

import dataclasses
import json
import os
from bisect import bisect_right

import numpy as np
import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.lr_scheduler import LRSchedulersContainer


class RowLoader(BaseDataLoader):
    """Rows of `midc data --export`, dealt to the data-parallel ranks in turn."""

    @dataclasses.dataclass(kw_only=True)
    class Config(BaseDataLoader.Config):
        folder: str
        context: int

    def __init__(self, config, *, dp_rank, dp_world_size, **_):
        with open(os.path.join(config.folder, "rows.json"), encoding="utf-8") as file:
            about = json.load(file)
        tokens = np.memmap(os.path.join(config.folder, "tokens.bin"), dtype=about["dtype"], mode="r")
        self.rows = tokens.reshape(-1, config.context)
        self.rank, self.world, self.next = dp_rank, dp_world_size, dp_rank

    def __iter__(self):
        while self.next < len(self.rows):
            row = torch.from_numpy(self.rows[self.next].astype(np.int64))
            self.next += self.world
            labels = torch.cat([row[1:], torch.tensor([-100])])
            yield {"input": row[None]}, labels[None]

    def state_dict(self):
        return {"next": self.next - self.rank}

    def load_state_dict(self, state):
        self.next = state["next"] + self.rank


class TableSchedulers(LRSchedulersContainer):
    """The learning rate of each step from `stages/STAGE.json`."""

    @dataclasses.dataclass(kw_only=True)
    class Config(LRSchedulersContainer.Config):
        path: str

    def __init__(self, config, *, optimizers, **_):
        with open(config.path, encoding="utf-8") as file:
            runs = json.load(file)["lr"]
        steps, values = [step for step, _ in runs], [value for _, value in runs]
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step, base=optimizer.param_groups[0]["lr"]: values[bisect_right(steps, step) - 1] / base,
            )
            for optimizer in optimizers
        ]


def stretched(spec, rope, context):
    """The model with another rotary embedding in every layer."""
    layers = []
    for layer in spec.model.layers:
        changes = {"max_context_length": context, **(rope or {})}
        attention = dataclasses.replace(layer.attention, rope=dataclasses.replace(layer.attention.rope, **changes))
        layers.append(dataclasses.replace(layer, attention=attention))
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, layers=layers))

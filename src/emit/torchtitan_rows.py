"""What torchtitan 0.3.0 has no setting for: rows in the planned order, a table of learning rates, and stages that
go on from one another."""

import dataclasses
import json
import os
from bisect import bisect_right

import midc_versions  # noqa: F401  (ends the run where other packages are installed than it was written for)
import numpy as np
import torch
from torchtitan.components.checkpoint import DATALOADER, LR_SCHEDULER, OPTIMIZER, TRAIN_STATE, CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig
from torchtitan.components.tokenizer import BaseTokenizer


class NoTokenizer(BaseTokenizer):
    """Rows are tokens already."""

    @dataclasses.dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config, **_):
        super().__init__()

    def encode(self, *_, **__):
        raise NotImplementedError

    def decode(self, *_, **__):
        raise NotImplementedError

    def get_vocab_size(self):
        raise NotImplementedError


class RowLoader(BaseDataLoader):
    """Rows of `midc data --export`, dealt to the data-parallel ranks in turn."""

    @dataclasses.dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        folder: str

    def __init__(self, config, *, dp_rank, dp_world_size, seq_len, local_batch_size, **_):
        with open(os.path.join(config.folder, "rows.json"), encoding="utf-8") as file:
            about = json.load(file)
        tokens = np.memmap(os.path.join(config.folder, "tokens.bin"), dtype=about["dtype"], mode="r")
        self.rows = tokens.reshape(-1, seq_len)
        self.rank, self.world, self.batch, self.read = dp_rank, dp_world_size, local_batch_size, 0

    def __iter__(self):
        each = self.world * self.batch
        while self.read + each <= len(self.rows):
            rows = self.rows[self.read + self.rank : self.read + each : self.world].astype(np.int64)
            self.read += each
            tokens = torch.from_numpy(rows)
            labels = torch.full_like(tokens, -100)
            labels[:, :-1] = tokens[:, 1:]
            positions = torch.arange(tokens.shape[1]).expand_as(tokens).contiguous()
            yield {"input": tokens, "positions": positions}, labels

    def state_dict(self):
        return {"read": self.read}

    def load_state_dict(self, state):
        self.read = state["read"]


class TableSchedulers(LRSchedulersContainer):
    """The learning rate of each step from `stages/STAGE.json`; the optimizer was made with the highest."""

    @dataclasses.dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        path: str
        peak: float

        def build(self, *, optimizers, training_steps):
            with open(self.path, encoding="utf-8") as file:
                runs = json.load(file)["lr"]
            steps, values, peak = [step for step, _ in runs], [value for _, value in runs], self.peak
            return TableSchedulers(optimizers, lambda step: values[bisect_right(steps, step) - 1] / peak)


class StageCheckpoints(CheckpointManager):
    """A stage begins with the weights and moments of another, not with its steps, rows and rates."""

    @dataclasses.dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        pass

    def _load(self, step=-1):
        begins = step == -1 and self._find_load_step() == -1
        if not begins:
            return super()._load(step)
        optimizers = list(self.states[OPTIMIZER])
        constants = [[{k: group[k] for k in ("lr", "betas", "eps", "weight_decay")} for group in o.param_groups] for o in optimizers]
        self.exclude_from_loading = [DATALOADER, LR_SCHEDULER, TRAIN_STATE]
        loaded = super()._load(step)
        self.exclude_from_loading = []
        for optimizer, groups in zip(optimizers, constants):
            for group, kept in zip(optimizer.param_groups, groups):
                group.update(kept)
        return loaded


def adamw(lr, weight_decay, spared, **constants):
    """AdamW; no weight decay where a name has one of `spared` in it."""

    def group(pattern, weight_decay):
        kwargs = dict(constants, lr=lr, weight_decay=weight_decay)
        return ParamGroupConfig(pattern=pattern, optimizer_name="AdamW", optimizer_kwargs=kwargs)

    groups = [group("|".join(spared), 0.0)] if spared else []
    return OptimizersContainer.Config(param_groups=[*groups, group(".*", weight_decay)])


def llama(folder):
    """The folder of a checkpoint, unless it is of a model that this launch does not build."""
    path = os.path.join(folder, "config.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            kind = json.load(file).get("model_type")
        if kind != "llama":
            raise SystemExit(f"the launch trains Llama 3's flavors, and {folder} is a `{kind}`")
    return folder


def stretched(spec, rope, context):
    """The model with another rotary embedding in every layer."""
    layers = []
    for layer in spec.model.layers:
        changes = {"max_seq_len": context, **(rope or {})}
        attention = dataclasses.replace(layer.attention, rope=dataclasses.replace(layer.attention.rope, **changes))
        layers.append(dataclasses.replace(layer, attention=attention))
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, layers=layers))

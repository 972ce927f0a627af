"""One stage of a curriculum on Hugging Face transformers and PyTorch, or one soup.

    torchrun --nproc-per-node N train.py --base DIR stages/STAGE.json
    python train.py soups/SOUP.json

Everything that differs between stages is in the JSON files; this file is the same for all. It reads the
rows that `midc data --export` wrote, in order, so the data order does not depend on the number of
processes. A stage that is done is left alone; one that was interrupted goes on from its last checkpoint.

    out/STAGE/step-N/hf      config.json, model.safetensors, tokenizer files
    out/STAGE/step-N/state   weights and optimizer, sharded (torch.distributed.checkpoint)
    logs/STAGE.rankR.jsonl   per step: learning rate, loss, and CRC-32 of the rows this process read

A step is counted from 0 and uses the learning rate, rows and mixture of that number.
"""

import argparse
import contextlib
import json
import os
import shutil
import zlib
from bisect import bisect_right

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from transformers import AutoConfig, AutoModelForCausalLM

CUDA = torch.cuda.is_available()


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Table:
    """Values that hold from a step on: [[step, value], …]."""

    def __init__(self, runs):
        self.steps = [step for step, _ in runs]
        self.values = [value for _, value in runs]

    def __getitem__(self, step):
        return self.values[bisect_right(self.steps, step) - 1]


class Rows:
    """The planned rows of a stage, by step."""

    def __init__(self, stage, root):
        folder = os.path.join(root, "rows", stage["name"])
        if not os.path.exists(os.path.join(folder, "rows.json")):
            raise SystemExit(f"no rows of stage `{stage['stage']}`: run `midc data FILE --export {root}/rows`")
        about = read(os.path.join(folder, "rows.json"))
        if about["plan"] != stage["plan"]:
            raise SystemExit(f"the rows in {folder} are of another plan: export them again")
        self.phases = stage["phases"]
        self.starts = [phase["step"] for phase in self.phases]
        self.tokens = np.memmap(os.path.join(folder, "tokens.bin"), dtype=about["dtype"], mode="r")
        self.targets = self.marks = None
        if about["marks"]:
            self.targets = np.memmap(os.path.join(folder, "targets.bin"), dtype=np.uint8, mode="r")
            self.marks = np.memmap(os.path.join(folder, "starts.bin"), dtype=np.uint8, mode="r")

    def shape(self, step):
        """Tokens of the stage before the step, rows of the step, tokens of a row."""
        phase = self.phases[bisect_right(self.starts, step) - 1]
        done = (step - phase["step"]) * phase["rows"] * phase["context"]
        return phase["tokens"] + done, phase["rows"], phase["context"]

    def row(self, step, row):
        """Token ids, which of them are targets, where documents begin, and the CRC-32 of the ids."""
        before, _, context = self.shape(step)
        at = slice(before + row * context, before + (row + 1) * context)
        tokens = np.asarray(self.tokens[at])
        if self.targets is not None:
            targets, starts = np.asarray(self.targets[at]), np.asarray(self.marks[at])
        else:
            targets, starts = np.ones(context, dtype=np.uint8), np.zeros(context, dtype=np.uint8)
        return tokens, targets, starts, zlib.crc32(tokens.tobytes())


def configuration(stage, root, base):
    """The model's configuration under this stage, and the directory its weights are in (or None)."""
    origin = stage["from"]
    weights = None
    if origin["kind"] == "model":
        model = read(os.path.join(root, "models", origin["name"] + ".json"))
        if model["checkpoint"]:
            weights = os.path.join(base, model["checkpoint"])
            keys = read(os.path.join(weights, "config.json"))
        else:
            keys = dict(model["config"])
    else:
        weights = os.path.join(root, "out", origin["name"], f"step-{origin['step']}", "hf")
        keys = read(os.path.join(weights, "config.json"))
    if stage["config"]:
        for key in ("rope_scaling", "rope_theta", "rope_parameters", "original_max_position_embeddings"):
            keys.pop(key, None)
        keys.update(stage["config"])
    else:
        keys["max_position_embeddings"] = max(keys.get("max_position_embeddings") or 0, stage["context"])
    keys.pop("torch_dtype", None)
    keys["dtype"] = "float32"
    keys["use_cache"] = False
    return AutoConfig.for_model(keys.pop("model_type"), **keys), weights


def check_rope(model, stage):
    """The frequencies the model rotates by are those of the plan."""
    if not stage["inv_freq"]:
        return
    found = [buffer for name, buffer in model.named_buffers() if name.endswith("rotary_emb.inv_freq")]
    wanted = torch.tensor(stage["inv_freq"], dtype=torch.float64)
    for buffer in found:
        worst = ((buffer.double().cpu() - wanted) / wanted).abs().max().item()
        assert worst < 1e-5, f"inv_freq differs from the plan by {worst:.1e} (relative)"
    assert found, "the model has no rotary embedding to compare with the plan"


def build(stage, root, base, device):
    config, weights = configuration(stage, root, base)
    if weights:
        model = AutoModelForCausalLM.from_pretrained(weights, config=config, dtype=torch.float32)
    else:
        torch.manual_seed(stage["init_seed"])
        model = AutoModelForCausalLM.from_config(config)
    model = model.float().to(device).train()
    check_rope(model, stage)
    return model


def distribute(model, parallel, device, bf16):
    if parallel == "fsdp":
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
        layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
        for layer in layers:
            fully_shard(layer, mp_policy=policy)
        return fully_shard(model, mp_policy=policy)
    if dist.get_world_size() > 1:
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    return model


def optimizer_of(model, constants):
    """AdamW; weight decay on every matrix and on no norm."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": constants["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=tuple(constants["betas"]), eps=constants["eps"])


def restore_constants(optimizer, constants):
    """A loaded state brings the constants of the stage it was written in."""
    for group, decay in zip(optimizer.param_groups, (constants["weight_decay"], 0.0)):
        group.update(betas=tuple(constants["betas"]), eps=constants["eps"], weight_decay=decay)


def load_state(model, optimizer, folder):
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optim": moments}
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"])


def save(stage, root, base, step, model, optimizer, export):
    """Written aside and renamed: a checkpoint is there whole or not at all."""
    target = os.path.join(root, "out", stage["name"], f"step-{step}")
    aside = target + ".partial"
    if dist.get_rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(aside)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optim": moments}, checkpoint_id=os.path.join(aside, "state"))
    full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)) if export else None
    if dist.get_rank() == 0:
        if export:
            plain = model.module if hasattr(model, "module") else model
            if plain.config.tie_word_embeddings:
                for name in getattr(plain, "_tied_weights_keys", None) or ():
                    full.pop(name, None)
            # In f32 whatever the arithmetic: later stages and soups take their weights from here.
            plain.save_pretrained(os.path.join(aside, "hf"), state_dict=full)
            copy_tokenizer(stage, root, base, os.path.join(aside, "hf"))
        with open(os.path.join(aside, "step.json"), "w") as file:
            json.dump({"plan": stage["plan"], "stage": stage["stage"], "step": step}, file)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(aside, target)
        prune(stage, root)
    dist.barrier()


def copy_tokenizer(stage, root, base, target):
    model = read(os.path.join(root, "models", stage["root"] + ".json"))
    source = os.path.join(base, model["tokenizer"] or model["checkpoint"] or "")
    source = source if os.path.isdir(source) else os.path.dirname(source)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if os.path.exists(os.path.join(source, name)):
            shutil.copy(os.path.join(source, name), target)


def done_steps(stage, root):
    """Steps of the complete checkpoints, in order."""
    folder = os.path.join(root, "out", stage["name"])
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = [int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit()]
    for step in steps:
        found = read(os.path.join(folder, f"step-{step}", "step.json"))["plan"]
        if found != stage["plan"]:
            raise SystemExit(f"{folder} holds checkpoints of another plan")
    return sorted(steps)


def prune(stage, root):
    """Of the periodic checkpoints the last `keep` stay; the others that are named or last always do."""
    if not stage["keep"]:
        return
    lasting = {stage["steps"], *stage["checkpoints"].values()}
    periodic = [s for s in done_steps(stage, root) if s not in lasting]
    for step in periodic[: -stage["keep"]]:
        shutil.rmtree(os.path.join(root, "out", stage["name"], f"step-{step}"))


class Log:
    """One line per step; lines past the checkpoint a stage resumes from are dropped."""

    def __init__(self, stage, root, resumed):
        os.makedirs(os.path.join(root, "logs"), exist_ok=True)
        self.path = os.path.join(root, "logs", f"{stage['name']}.rank{dist.get_rank()}.jsonl")
        kept = []
        if resumed and os.path.exists(self.path):
            with open(self.path, encoding="utf-8") as file:
                kept = [line for line in file if line.endswith("\n") and json.loads(line)["step"] < resumed]
        with open(self.path, "w", encoding="utf-8") as file:
            file.writelines(kept)

    def write(self, entry):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def clear_other_ranks(stage, root):
    """A stage begun anew may have been begun before by more processes."""
    folder = os.path.join(root, "logs")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith(stage["name"] + ".rank"):
            os.remove(os.path.join(folder, name))


def tensors(rows, device):
    """Token ids, targets (-100 where there is none) and positions of a micro-batch."""
    tokens = torch.from_numpy(np.stack([row[0].astype(np.int64) for row in rows]))
    predicted = torch.from_numpy(np.stack([row[1] for row in rows]))
    starts = torch.from_numpy(np.stack([row[2] for row in rows]))
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = torch.where(predicted[:, 1:] > 0, tokens[:, 1:], -100)
    index = torch.arange(tokens.shape[1]).expand_as(tokens)
    begins = torch.where(starts > 0, index, 0).cummax(dim=1).values
    return tokens.to(device), targets.to(device), (index - begins).to(device)


def train_step(model, optimizer, stage, rows, step, micro, device, bf16, autocast):
    """One update. Returns the mean loss over all targets, the gradient norm and this process's rows."""
    rank, world = dist.get_rank(), dist.get_world_size()
    _, count, _ = rows.shape(step)
    mine = [rows.row(step, r) for r in range(rank, count, world)]
    # Every process sends the same number of micro-batches; a missing row is one without targets.
    share = -(-count // world)
    tokens, targets, starts, _ = rows.row(step, 0)
    padded = mine + [(tokens, np.zeros_like(targets), starts, 0)] * (share - len(mine))
    batches = [tensors(padded[i : i + micro], device) for i in range(0, share, micro)]
    totals = torch.tensor([sum(int((t != -100).sum()) for _, t, _ in batches), 0.0], dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    predicted, nll = totals[0].item(), 0.0
    documents = stage["attention"] == "documents"
    for i, (tokens, targets, positions) in enumerate(batches):
        last = i + 1 == len(batches)
        wait = contextlib.nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
        with wait:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and autocast):
                logits = model(input_ids=tokens, position_ids=positions if documents else None, use_cache=False).logits
            logits, targets = logits.float().flatten(0, 1), targets.flatten()
            loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
            nll += loss.detach().double()
            if stage["optimizer"]["z_loss"]:
                normaliser = torch.logsumexp(logits, dim=-1)[targets != -100]
                loss = loss + stage["optimizer"]["z_loss"] * normaliser.square().sum()
            # Gradients are averaged over processes; the mean is over all targets of the step.
            (loss * (world / predicted)).backward()
    totals[1] = nll
    dist.all_reduce(totals[1:])
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), stage["optimizer"]["clip"] or float("inf"))
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return (totals[1] / predicted).item(), norm.item(), [row[3] for row in mine]


def train(stage, root, base, options):
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if CUDA else torch.device("cpu")
    if CUDA:
        torch.cuda.set_device(device)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    world = int(os.environ.get("WORLD_SIZE", 1))
    dist.init_process_group("cpu:gloo,cuda:nccl" if CUDA else "gloo", rank=int(os.environ.get("RANK", 0)), world_size=world)
    if dist.get_rank() == 0 and not done_steps(stage, root):
        clear_other_ranks(stage, root)
    dist.barrier()
    done = done_steps(stage, root)
    first = done[-1] if done else 0
    if first >= stage["steps"]:
        return
    precision = stage["precision"] or ("bf16" if CUDA else "f32")
    bf16 = precision == "bf16"
    rows = Rows(stage, root)
    lr = Table(stage["lr"])
    model = distribute(build(stage, root, base, device), options.parallel, device, bf16)
    optimizer = optimizer_of(model, stage["optimizer"])
    origin = stage["from"]
    before = os.path.join(root, "out", origin["name"], f"step-{origin.get('step')}", "state")
    if done:
        load_state(model, optimizer, os.path.join(root, "out", stage["name"], f"step-{first}", "state"))
    elif stage["state"] == "keep" and origin["kind"] == "stage":
        load_state(model, optimizer, before)
    restore_constants(optimizer, stage["optimizer"])
    log = Log(stage, root, first)
    lasting = {stage["steps"], *stage["checkpoints"].values()}
    for step in range(first, stage["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = lr[step]
        used = optimizer.param_groups[0]["lr"]
        before_step, count, context = rows.shape(step)
        autocast = options.parallel != "fsdp"
        loss, norm, crcs = train_step(model, optimizer, stage, rows, step, options.micro_rows, device, bf16, autocast)
        entry = {"stage": stage["stage"], "step": step, "tokens": before_step, "lr": used, "context": context, "rows": crcs}
        log.write({**entry, "loss": loss, "grad_norm": norm})
        if dist.get_rank() == 0:
            print(f"{stage['stage']} {step + 1}/{stage['steps']} loss {loss:.4f} lr {used:.3e} norm {norm:.3f}", flush=True)
        after = step + 1
        if after in lasting or (stage["save_every"] and after % stage["save_every"] == 0):
            save(stage, root, base, after, model, optimizer, after in lasting)
    dist.destroy_process_group()


def soup(recipe, root):
    """The weighted mean of checkpoints, in f32, kept like a stage of no steps."""
    from safetensors.torch import load_file, save_file

    target = os.path.join(root, "out", recipe["name"], "step-0")
    if os.path.isdir(target):
        return
    parts = [os.path.join(root, "out", i["name"], f"step-{i['step']}", "hf") for i in recipe["ingredients"]]
    shards = sorted(n for n in os.listdir(parts[0]) if n.endswith(".safetensors"))
    aside = target + ".partial"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(parts[0], os.path.join(aside, "hf"), ignore=shutil.ignore_patterns("*.safetensors"))
    for shard in shards:
        states = [load_file(os.path.join(part, shard)) for part in parts]
        assert all(state.keys() == states[0].keys() for state in states), "the ingredients are of different shape"
        mean = {
            name: sum(w * state[name].double() for w, state in zip(recipe["weights"], states)).to(states[0][name].dtype)
            for name in states[0]
        }
        save_file(mean, os.path.join(aside, "hf", shard), metadata={"format": "pt"})
    with open(os.path.join(aside, "step.json"), "w") as file:
        json.dump({"plan": recipe["plan"], "stage": recipe["soup"], "step": 0}, file)
    os.rename(aside, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="stages/STAGE.json or soups/SOUP.json")
    parser.add_argument("--base", default=".", help="directory of the curriculum, which paths of models start from")
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default=os.environ.get("PARALLEL", "ddp"))
    parser.add_argument("--micro-rows", type=int, default=int(os.environ.get("MICRO_ROWS", 1)), help="rows a process sends through the model at once")
    options = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(options.file)))
    recipe = read(options.file)
    if "ingredients" in recipe:
        soup(recipe, root)
    else:
        train(recipe, root, options.base, options)


if __name__ == "__main__":
    main()

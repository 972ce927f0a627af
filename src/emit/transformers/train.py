"""One stage of a curriculum on Hugging Face transformers and PyTorch, or one soup.

    torchrun --nproc-per-node N train.py --base DIR stages/STAGE.json
    python train.py soups/SOUP.json

Everything that differs between stages is in the JSON files; this file is the same for all. It reads the
rows that `midc data --export` wrote, in order, so the data order does not depend on the number of
processes. A stage that is done is left alone; one that was interrupted goes on from its last checkpoint.
Sent SIGTERM or SIGINT, it finishes the step, writes a checkpoint and exits with 143.

    out/STAGE/step-N/hf      config.json, model.safetensors, tokenizer files
    out/STAGE/step-N/state   weights and optimizer, sharded (torch.distributed.checkpoint)
    logs/STAGE.rankR.jsonl   per step: learning rate, loss, and CRC-32 of the rows this process read
"""

import argparse
import contextlib
import os
import shutil

import midc_stage
import midc_versions  # noqa: F401  (ends the run where other packages are installed than it was written for)
import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
import transformers
from midc_stage import Log, Rows, StopRequest, Table, checkpoint, copy_tokenizer, done_steps, lasting_steps, origin_keys
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from transformers import AutoConfig, AutoModelForCausalLM

CUDA = torch.cuda.is_available()


def configuration(stage, root, base):
    """The model's configuration under this stage, and the directory its weights are in (or None)."""
    keys, weights = origin_keys(stage, root, base)
    local = midc_stage.local_rope(keys)
    if stage["config"]:
        for key in ("rope_scaling", "rope_theta", "rope_parameters", "original_max_position_embeddings"):
            keys.pop(key, None)
        keys.update(stage["config"])
    else:
        keys["max_position_embeddings"] = max(keys.get("max_position_embeddings") or 0, stage["context"])
    if local:
        # By type of layer: from `rope_theta` transformers 5 gives those with a window a base of its own.
        keys["rope_parameters"] = {"full_attention": midc_stage.full_rope(keys, local), "sliding_attention": local}
        keys.pop("rope_scaling", None)
    keys.pop("torch_dtype", None)
    keys["dtype"] = "float32"
    keys["use_cache"] = False
    return AutoConfig.for_model(keys.pop("model_type"), **keys), weights


def check_rope(model, stage):
    """The frequencies the model rotates by, in layers of full attention, are those of the plan."""
    if not stage["inv_freq"]:
        return
    ends = ("rotary_emb.inv_freq", "rotary_emb.full_attention_inv_freq")
    found = [buffer for name, buffer in model.named_buffers() if name.endswith(ends)]
    wanted = torch.tensor(stage["inv_freq"], dtype=torch.float64)
    for buffer in found:
        worst = ((buffer.double().cpu() - wanted) / wanted).abs().max().item()
        assert worst < 1e-5, f"inv_freq differs from the plan by {worst:.1e} (relative)"
    assert found, "the model has no rotary embedding to compare with the plan"


def check_documents(model, stage, rows, device):
    """No text reaches the document after it. transformers learns where documents begin from the positions alone, and not
    every architecture heeds those. Where nothing passes, the gradient of the later document's logits by the embeddings
    of the earlier one is zero to the last bit."""
    if stage["attention"] != "documents":
        return
    length = 8
    tokens = (torch.arange(2 * length, device=device) % model.config.vocab_size).repeat(rows, 1)
    positions = torch.arange(length, device=device).repeat(rows, 2)
    embedded = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: embedded.append(output))
    logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, length:].float().sum(), embedded[0])
    if gradient[:, :length].any():
        raise SystemExit(
            f"stage `{stage['stage']}` has `attention = documents`, but in `{model.config.model_type}` as transformers"
            f" {transformers.__version__} computes it, text reaches the documents after it: write `attention = causal`"
        )


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


def parts_of(model, constants):
    """Parameters with their weight decay: matrices, the embedding and norms, and those that Muon moves.

    The parts are the same whatever decays, for a stage that decays otherwise than the one before."""
    plain = getattr(model, "module", model)
    embedding, head = plain.get_input_embeddings().weight, plain.get_output_embeddings().weight
    parts = {"matrices": [], "embedding": [], "norms": [], "moved": []}
    for p in model.parameters():
        if p is embedding:
            parts["embedding"].append(p)
        elif p.ndim < 2:
            parts["norms"].append(p)
        elif p.ndim > 2 and constants["muon"]:
            raise SystemExit("the experts of this model are no matrices, which is all that Muon moves here: use `optimizer = adamw(…)`")
        else:
            parts["moved" if constants["muon"] and p is not head else "matrices"].append(p)
    decay = constants["weight_decay"]
    decays = {"embedding": decay if constants["decay_embeddings"] else 0.0, "norms": decay if constants["decay_norms"] else 0.0}
    return {name: (part, decays.get(name, decay)) for name, part in parts.items() if part}


def optimizers_of(model, constants):
    """AdamW and, where the stage has it, Muon for the matrices within layers."""
    parts = parts_of(model, constants)
    moved, decay = parts.pop("moved", (None, None))
    groups = [{"params": part, "weight_decay": decay, "lr_scale": 1.0} for part, decay in parts.values()]
    optimizers = [torch.optim.AdamW(groups, lr=0.0, betas=tuple(constants["betas"]), eps=constants["eps"])]
    if moved:
        muon = constants["muon"]
        # A step of PyTorch's has a root mean square of 0.2 times the learning rate; decay goes by the latter alone.
        scale = muon["update_rms"] / 0.2
        group = {"params": moved, "weight_decay": decay / scale, "lr_scale": scale}
        fixed = {name: muon[name] for name in ("momentum", "nesterov", "ns_steps")}
        optimizers.append(torch.optim.Muon([group], lr=0.0, adjust_lr_fn="match_rms_adamw", **fixed))
    return optimizers


def constants_of(optimizers):
    """What a loaded state would replace by the constants of the stage it was written in."""
    return [[{k: v for k, v in group.items() if k not in ("params", "lr")} for group in o.param_groups] for o in optimizers]


def restore_constants(optimizers, constants):
    for optimizer, groups in zip(optimizers, constants):
        for group, kept in zip(optimizer.param_groups, groups):
            group.update(kept)


def load_state(model, optimizers, folder):
    weights, moments = get_state_dict(model, optimizers)
    state = {"model": weights, "optim": moments}
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(model, optimizers, model_state_dict=state["model"], optim_state_dict=state["optim"])


def save(stage, root, base, step, model, optimizers, export):
    """Written aside and renamed: a checkpoint is there whole or not at all."""
    target = checkpoint(root, stage["name"], step)
    aside = target + ".partial"
    if dist.get_rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(aside)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizers)
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
        midc_stage.publish(aside, target, stage["plan"], stage["stage"], step)
        prune(stage, root)
    dist.barrier()


def saves_after(stage, rows, step):
    """Whether a checkpoint is periodically due after so many steps."""
    tokens = stage["save_every_tokens"]
    if tokens:
        return rows.shape(step)[0] // tokens > rows.shape(step - 1)[0] // tokens
    return bool(stage["save_every"]) and step % stage["save_every"] == 0


def prune(stage, root):
    """Of the periodic checkpoints the last `keep` stay; the others that are named or last always do."""
    if not stage["keep"]:
        return
    lasting = lasting_steps(stage)
    periodic = [s for s in done_steps(stage, root) if s not in lasting]
    for step in periodic[: -stage["keep"]]:
        # Set aside first: cut short, a deletion would leave the half of a checkpoint.
        target = checkpoint(root, stage["name"], step)
        aside = target + ".partial"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(target, aside)
        shutil.rmtree(aside)


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


def balance_of(model):
    """How much the loss that keeps the experts of a mixture equally busy weighs, where the model's configuration asks for it."""
    config = getattr(model, "module", model).config
    return getattr(config, "router_aux_loss_coef", 0.0) if getattr(config, "output_router_logits", False) else 0.0


def train_step(model, optimizers, stage, rows, step, micro, device, bf16, autocast, stopping):
    """One update. Returns what the log has of it, and whether any process is to stop."""
    rank, world = dist.get_rank(), dist.get_world_size()
    _, count, _ = rows.shape(step)
    mine = [rows.row(step, r) for r in range(rank, count, world)]
    # Every process sends the same number of micro-batches; a missing row is one without targets.
    share = -(-count // world)
    tokens, targets, starts, _ = rows.row(step, 0)
    padded = mine + [(tokens, np.zeros_like(targets), starts, 0)] * (share - len(mine))
    batches = [tensors(padded[i : i + micro], device) for i in range(0, share, micro)]
    predicted = torch.cat([(t != -100).sum(dim=1) for _, t, _ in batches]).tolist()
    totals = torch.tensor([sum(predicted), stopping], dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    targets_of_step, stopping = totals[0].item(), totals[1].item() > 0
    nll = []
    documents = stage["attention"] == "documents"
    balance = balance_of(model)
    for i, (tokens, targets, positions) in enumerate(batches):
        last = i + 1 == len(batches)
        wait = contextlib.nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
        with wait:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and autocast):
                out = model(input_ids=tokens, position_ids=positions if documents else None, use_cache=False)
            logits, targets = out.logits.float().flatten(0, 1), targets.flatten()
            losses = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
            nll.append(losses.detach().double().view(len(tokens), -1).sum(dim=1))
            loss = losses.sum()
            if stage["optimizer"]["z_loss"]:
                normaliser = torch.logsumexp(logits, dim=-1)[targets != -100]
                loss = loss + stage["optimizer"]["z_loss"] * normaliser.square().sum()
            if balance:
                loss = loss + balance * (targets != -100).sum() * out.aux_loss.to(loss.device)
            # Gradients are averaged over processes; the mean is over all targets of the step.
            (loss * (world / max(targets_of_step, 1))).backward()
    nll = torch.cat(nll)
    total = nll.sum()
    dist.all_reduce(total)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), stage["optimizer"]["clip"] or float("inf"))
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    for optimizer in optimizers:
        # Rows within one long prompt may have no target: such a step changes nothing.
        if torch.isfinite(norm) and targets_of_step > 0:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    own = len(mine)
    loss = total.item() / targets_of_step if targets_of_step else float("nan")
    entry = {"rows": [row[3] for row in mine], "nll": nll.tolist()[:own], "targets": predicted[:own]}
    return {**entry, "loss": loss, "grad_norm": norm.item()}, stopping


def train(stage, root, options):
    base = options.base
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if CUDA else torch.device("cpu")
    if CUDA:
        torch.cuda.set_device(device)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    world = int(os.environ.get("WORLD_SIZE", 1))
    dist.init_process_group("cpu:gloo,cuda:nccl" if CUDA else "gloo", rank=int(os.environ.get("RANK", 0)), world_size=world)
    done = done_steps(stage, root)
    first = done[-1] if done else 0
    if first >= stage["steps"]:
        return
    precision = stage["precision"] or ("bf16" if CUDA else "f32")
    bf16 = precision == "bf16"
    rows = Rows(stage, root)
    lr = Table(stage["lr"])
    model = build(stage, root, base, device)
    check_documents(model, stage, options.micro_rows, device)
    model = distribute(model, options.parallel, device, bf16)
    optimizers = optimizers_of(model, stage["optimizer"])
    constants = constants_of(optimizers)
    origin = stage["from"]
    if done:
        load_state(model, optimizers, os.path.join(checkpoint(root, stage["name"], first), "state"))
    elif stage["state"] == "keep" and origin["kind"] == "stage":
        load_state(model, optimizers, os.path.join(checkpoint(root, origin["name"], origin["step"]), "state"))
    restore_constants(optimizers, constants)
    log = Log(stage, root, first, dist.get_rank(), world)
    lasting = lasting_steps(stage)
    stop = StopRequest()
    for step in range(first, stage["steps"]):
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group in groups:
            group["lr"] = lr[step] * group["lr_scale"]
        used = groups[0]["lr"]
        before_step, count, context = rows.shape(step)
        autocast = options.parallel != "fsdp"
        entry, stopping = train_step(model, optimizers, stage, rows, step, options.micro_rows, device, bf16, autocast, stop.asked)
        log.write(step, tokens=before_step, lr=used, context=context, **entry)
        if dist.get_rank() == 0:
            print(f"{stage['stage']} {step + 1}/{stage['steps']} loss {entry['loss']:.4f} lr {used:.3e} norm {entry['grad_norm']:.3f}", flush=True)
        after = step + 1
        if after in lasting or stopping or saves_after(stage, rows, after):
            save(stage, root, base, after, model, optimizers, after in lasting)
        if stopping and after < stage["steps"]:
            print(f"{stage['stage']}: stopped after step {after}, which is kept", flush=True)
            raise SystemExit(midc_stage.STOPPED)
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default=os.environ.get("PARALLEL", "ddp"))
    midc_stage.run(parser, train)


if __name__ == "__main__":
    main()

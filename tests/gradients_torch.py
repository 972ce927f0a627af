"""Compare midc's training with PyTorch autograd over transformers' models.

usage: gradients_torch.py PATH_OF_MIDC     (see tests/gradients.sh)

For every architecture, head grouping, mask and RoPE method, on a small model with the same weights:
1. loss and the gradient of every tensor equal PyTorch's in f64, for midc's f64 reference, its f32
   backend and (more loosely) its bf16 backend;
2. fifty steps of AdamW, or of Muon for the matrices within layers, with clipping and weight decay track
   PyTorch's loss within 1e-3 relative, PyTorch's Muon with its products in f32 instead of bf16.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from transformers import (
    Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Olmo2Config, Olmo2ForCausalLM,
    Olmo3Config, Olmo3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, SmolLM3Config, SmolLM3ForCausalLM,
)

transformers.utils.logging.set_verbosity_error()
MIDC = sys.argv[1]
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
    "olmo3": (Olmo3Config, Olmo3ForCausalLM),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
# Largest relative error of the loss, and of a gradient tensor in the Frobenius norm.
TOLERANCE = {"reference": (1e-6, 1e-5), "f32": (1e-6, 1e-5), "bf16": (5e-3, 8e-2)}
DOCUMENTS = [1, 7, 1, 12, 40, 3]


def model_of(case):
    config_class, model_class = CLASSES[case["model_type"]]
    head_dim = case.get("head_dim", 16)
    heads, kv_heads = case["heads"]
    rope = dict(case.get("rope") or {"rope_type": "default"})
    rope.setdefault("rope_theta", 10000.0)
    keys = dict(
        vocab_size=case.get("vocab", 96), hidden_size=case.get("hidden", 48), intermediate_size=72,
        num_hidden_layers=2, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        max_position_embeddings=case.get("max_position", 64), rms_norm_eps=1e-5,
        tie_word_embeddings=case.get("tied", True), attention_bias=False, attention_dropout=0.0,
        rope_parameters=rope, pad_token_id=None, bos_token_id=None, eos_token_id=None, use_cache=False,
    )
    if case["model_type"] in ("olmo2", "olmo3"):
        # transformers takes the head dimension of OLMo from hidden_size.
        keys["hidden_size"], head_dim = heads * 16, 16
        del keys["head_dim"]
    if case["model_type"] == "gemma3_text":
        keys["query_pre_attn_scalar"] = head_dim
    if case["model_type"] in ("olmo3", "gemma3_text"):
        keys["rope_parameters"] = dict(
            full_attention=rope, sliding_attention=dict(rope_type="default", rope_theta=case["local_theta"]))
    keys.update(case.get("keys", {}))
    config = config_class(**keys)
    config._attn_implementation = "eager"
    torch.manual_seed(case.get("seed", 0))
    model = model_class(config).float()
    # Gemma's norms multiply by 1 + w, and its embeddings are scaled.
    gemma = case["model_type"] == "gemma3_text"
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_((0 if gemma or name.endswith("bias") else 1) + 0.3 * torch.randn_like(p))
            else:
                p.normal_(0, 0.15 if gemma or "embed" not in name else 0.5)
    architecture = dict(
        model_type=case["model_type"], num_hidden_layers=2, hidden_size=config.hidden_size,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        intermediate_size=72, vocab_size=config.vocab_size,
        tie_word_embeddings=config.tie_word_embeddings, rms_norm_eps=1e-5, initializer_range=0.02,
    )
    types = getattr(config, "layer_types", None) or ["full_attention"] * 2
    if case["model_type"] == "mistral":
        architecture["model_type"], types = "llama", ["sliding_attention"] * 2
    if "sliding_attention" in types:
        architecture.update(layer_types=types, sliding_window=config.sliding_window)
    if case["model_type"] == "smollm3":
        architecture["no_rope_layers"] = config.no_rope_layers
    return model, architecture


def batch_of(case, vocab):
    rows, context = case.get("rows", 2), case.get("context", 64)
    g = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, vocab, (rows, context), generator=g)
    targets = torch.cat([tokens[:, 1:], torch.full((rows, 1), -1)], 1)
    targets[:, 5:6] = -1
    start = torch.zeros(rows, context, dtype=torch.long)
    if case.get("documents"):
        at, i = 0, 0
        while at < context:
            end = min(at + DOCUMENTS[i % len(DOCUMENTS)], context)
            start[:, at:end] = at
            at, i = end, i + 1
    positions = torch.arange(context).expand(rows, -1) - start
    j = torch.arange(context)
    seen = (j[None, None, :] <= j[None, :, None]) & (j[None, None, :] >= start[:, :, None])
    return tokens, targets, start, positions, seen


def loss_of(model, batch):
    tokens, targets, start, positions, seen = batch
    dtype = next(model.parameters()).dtype
    full = lambda seen: torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    mask, config = full(seen), model.config
    if "sliding_attention" in (getattr(config, "layer_types", None) or []):
        j = torch.arange(tokens.shape[1])
        near = seen & (j[None, None, :] > j[None, :, None] - config.sliding_window)
        mask = {"full_attention": mask, "sliding_attention": full(near)}
    if not start.any():
        # Whatever transformers makes of its own configuration.
        mask = None
    logits = model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def midc(directory, engine, case, architecture, model, rotary, batch, weights, steps):
    tokens, targets, start, positions, _ = batch
    names = list(weights)
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(dict(
            architecture=architecture, inv_freq=rotary[0], attention_factor=rotary[1], plain_inv_freq=rotary[2],
            rows=tokens.shape[0], context=tokens.shape[1], tokens=tokens.flatten().tolist(),
            targets=targets.flatten().tolist(), attend_from=start.flatten().tolist(),
            positions=positions.flatten().tolist(),
            weights=[dict(name=n, shape=list(weights[n].shape)) for n in names], steps=steps, lr=1e-3,
            muon=bool(case.get("muon")),
        ), f)
    np.concatenate([weights[n].numpy().ravel() for n in names]).astype("<f4").tofile(
        os.path.join(directory, "weights.f32"))
    subprocess.run([MIDC, "bench", "gradients", directory, "--engine", engine], check=True)
    result = json.load(open(os.path.join(directory, "result.json")))
    values = np.fromfile(os.path.join(directory, "gradients.f32"), "<f4")
    gradients, at = {}, 0
    for n in names:
        size = weights[n].numel()
        gradients[n] = torch.from_numpy(values[at:at + size].astype("f8")).reshape(weights[n].shape)
        at += size
    assert at == len(values)
    return result, gradients


def orthogonal(matrix, coefficients, steps, eps):
    """In the place of PyTorch's own, which is in bf16."""
    a, b, c = coefficients
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


torch.optim._muon._zeropower_via_newtonschulz = orthogonal


def train(model, batch, steps, muon):
    matrices = {n for n, p in model.named_parameters() if p.ndim > 1}
    moved = {n for n in matrices if muon and ".layers." in n}
    group = lambda names: [p for n, p in model.named_parameters() if n in names]
    norms = {n for n, _ in model.named_parameters()} - matrices
    optimizers = [torch.optim.AdamW(
        [dict(params=group(matrices - moved), weight_decay=0.1), dict(params=group(norms), weight_decay=0.0)],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8)]
    if muon:
        optimizers.append(torch.optim.Muon(group(moved), lr=1e-3, adjust_lr_fn="match_rms_adamw"))
    losses = []
    for _ in range(steps):
        loss = loss_of(model, batch)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return losses


def check(name, case, failures):
    model, architecture = model_of(case)
    batch = batch_of(case, architecture["vocab_size"])
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    exact = model.double()
    loss = loss_of(exact, batch)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in exact.named_parameters()}
    # After the pass: the dynamic methods set their frequencies in it.
    embedding = exact.model.rotary_emb
    frequencies = lambda name: [float(x) for x in getattr(embedding, name)]
    if hasattr(embedding, "full_attention_inv_freq"):
        rotary = (frequencies("full_attention_inv_freq"), float(embedding.full_attention_attention_scaling),
                  frequencies("sliding_attention_inv_freq"))
    else:
        rotary = (frequencies("inv_freq"), float(embedding.attention_scaling), None)
    steps = case.get("steps", 0)
    worst = []
    for engine, (loss_limit, gradient_limit) in TOLERANCE.items():
        with tempfile.TemporaryDirectory() as directory:
            result, gradients = midc(
                directory, engine, case, architecture, exact, rotary, batch, weights,
                steps if engine == "f32" else 0)
        error = abs(result["loss"] - loss.item()) / loss.item()
        if not error <= loss_limit:
            failures.append(f"{name}: {engine}: loss {result['loss']} instead of {loss.item()}")
        largest = 0.0
        for n, e in expected.items():
            relative = float((gradients[n] - e).norm() / e.norm())
            largest = max(largest, relative if relative == relative else float("inf"))
            if not relative <= gradient_limit:
                failures.append(f"{name}: {engine}: gradient of {n} off by {relative:.1e}")
        worst.append(f"{engine} loss {error:.0e} gradient {largest:.0e}")
        if steps and engine == "f32":
            model.load_state_dict({n: w for n, w in weights.items()}, strict=False)
            torch_losses = train(model.float(), batch, steps, case.get("muon"))
            apart = max(abs(a - b) / b for a, b in zip(result["steps"], torch_losses))
            worst.append(f"{steps} steps {apart:.0e} ({torch_losses[0]:.2f} to {torch_losses[-1]:.2f})")
            if not apart <= 1e-3 or not torch_losses[-1] < 0.9 * torch_losses[0]:
                failures.append(f"{name}: losses of {steps} steps apart by {apart:.1e}")
    print(f"{name}: {', '.join(worst)}", flush=True)


def cases():
    for heads in [(2, 2), (3, 1), (4, 1), (8, 2)]:
        for documents in (False, True):
            yield dict(model_type="llama", heads=heads, documents=documents)
    yield dict(model_type="llama", heads=(4, 2), tied=False, documents=True, steps=50)
    yield dict(model_type="llama", heads=(4, 2), tied=False, documents=True, steps=50, muon=True)
    yield dict(model_type="qwen3", heads=(8, 2), head_dim=32, steps=50, muon=True)
    yield dict(model_type="llama", heads=(4, 2), vocab=97)
    yield dict(model_type="llama", heads=(4, 2), context=3, rows=7)
    yield dict(model_type="llama", heads=(2, 1), context=257, rows=1, documents=True, head_dim=32)
    for heads in [(3, 1), (4, 4), (8, 2)]:
        yield dict(model_type="qwen3", heads=heads, documents=True, head_dim=32, steps=50 * (heads[0] == 8))
        yield dict(model_type="olmo2", heads=heads, documents=True, tied=False, steps=50 * (heads[0] == 8))
    yield dict(model_type="qwen3", heads=(4, 1), head_dim=24)
    yield dict(model_type="olmo2", heads=(4, 1))
    half = 8
    for rope in [
        dict(rope_type="default", rope_theta=500000.0),
        dict(rope_type="linear", factor=4.0),
        dict(rope_type="dynamic", factor=2.0, max_position=16),
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
        dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=16, attention_factor=1.3),
        dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=16),
        dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
             short_factor=[1.0 + 0.1 * i for i in range(half)],
             long_factor=[1.5 + 0.4 * i for i in range(half)]),
    ]:
        position = rope.pop("max_position", 64)
        yield dict(model_type="llama", heads=(4, 2), rope=rope, max_position=position)
    # Layers that differ: windows, with RoPE scaled in the others only, and none of it.
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    windows = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=5)
    for documents in (False, True):
        yield dict(model_type="olmo3", heads=(4, 2), documents=documents, tied=False, rope=dict(yarn),
                   local_theta=10000.0, keys=windows, steps=50 * documents)
        yield dict(model_type="smollm3", heads=(4, 1), documents=documents, keys=dict(no_rope_layers=[1, 0]),
                   steps=50 * documents)
    yield dict(model_type="olmo3", heads=(2, 2), rope=dict(rope_type="default", rope_theta=500000.0),
               local_theta=1000.0, keys=windows, context=130, max_position=256)
    yield dict(model_type="smollm3", heads=(4, 2), keys=dict(
        no_rope_layers=[1, 0], use_sliding_window=True, sliding_window=9))
    yield dict(model_type="qwen3", heads=(4, 2), keys=dict(
        use_sliding_window=True, sliding_window=33, max_window_layers=1))
    for documents in (False, True):
        yield dict(model_type="qwen2", heads=(4, 2), documents=documents, hidden=64, steps=50 * documents)
        yield dict(model_type="gemma3_text", heads=(4, 2), documents=documents, rope=dict(rope_type="linear", factor=4.0, rope_theta=50000.0),
                   local_theta=10000.0, keys=windows, steps=50 * documents)
    yield dict(model_type="gemma3_text", heads=(4, 1), head_dim=32, tied=False, local_theta=1000.0, keys=windows)
    yield dict(model_type="mistral", heads=(4, 2), keys=dict(sliding_window=7))


failures = []
count = 0
for case in cases():
    rope = (case.get("rope") or {}).get("rope_type", "default")
    name = " ".join(str(x) for x in (
        case["model_type"], "heads", case["heads"], "documents" if case.get("documents") else "causal",
        "tied" if case.get("tied", True) else "untied", rope, "muon" if case.get("muon") else "adamw"))
    check(name, case, failures)
    count += 1
for failure in failures:
    print("FAILED", failure)
print(f"{count} models compared, {len(failures)} failures")
sys.exit(1 if failures else 0)

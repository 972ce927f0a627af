"""PyTorch beside our kernels and our training, comparison of two runs, and the report of scripts/gpu-check.

    gpu_peers.py time OURS.jsonl PEERS.jsonl      cuBLAS and scaled_dot_product_attention on the same shapes
    gpu_peers.py train GEOMETRY OUT.json STEPS    a geometry of `midc bench train`, compiled, bf16
    gpu_peers.py agree A.jsonl B.jsonl            losses of two runs over the steps both did, within 1%
    gpu_peers.py report FOLDER
"""

import json
import os
import re
import statistics
import sys
import time

# Dense bf16 FLOP/s of one H100 or H200 SXM on the data sheet.
SHEET = 989e12
# layers, hidden, heads, key-value heads, feed-forward, vocabulary, rows, context: as in `midc bench train`.
GEOMETRIES = {
    "b": (30, 576, 9, 3, 1536, 49152, 2, 1024),
    "d": (16, 2048, 32, 8, 8192, 128256, 4, 4096),
    "quickstart": (4, 160, 5, 5, 448, 4096, 16, 256),
}


def rows(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def seconds(work, device, repeats):
    import torch

    work()
    if device == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e-3 / repeats


def peer(row, device, repeats):
    """Seconds PyTorch takes for the operation of a row, or None when it has no counterpart."""
    import torch
    import torch.nn.functional as F

    def random(*shape):
        return torch.randn(*shape, device=device, dtype=torch.bfloat16)

    if match := re.fullmatch(r"gemm_(?:sm90_)?(nt|nn|tn)_.*", row["op"]):
        m, n, k = (int(x) for x in row["shape"].split("x"))
        a = random(m, k) if match[1] != "tn" else random(k, m).t()
        b = random(n, k).t() if match[1] == "nt" else random(k, n)
        return seconds(lambda: a @ b, device, repeats)
    if match := re.fullmatch(r"attention_(forward|backward)_.*", row["op"]):
        batch, context, heads, kv_heads, d = (int(x) for x in re.fullmatch(r"(\d+)x(\d+) h(\d+)/(\d+) d(\d+)", row["shape"]).groups())
        q, k, v = random(batch, heads, context, d), random(batch, kv_heads, context, d), random(batch, kv_heads, context, d)
        options = {"is_causal": True, "enable_gqa": heads != kv_heads}
        if match[1] == "forward":
            with torch.no_grad():
                return seconds(lambda: F.scaled_dot_product_attention(q, k, v, **options), device, repeats)
        for x in (q, k, v):
            x.requires_grad_()
        out = F.scaled_dot_product_attention(q, k, v, **options)
        grad = torch.randn_like(out)
        return seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), device, repeats)
    if row["op"] == "narrow_copy":
        tokens, width = (int(x) for x in row["shape"].split("x"))
        x = torch.randn(tokens, width, device=device)
        return seconds(lambda: x.to(torch.bfloat16), device, repeats)
    return None


def time_peers(ours, peers):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    known = {}
    with open(peers, "w") as file:
        for row in rows(ours):
            key = re.sub(r"_sm90|_(128|256)$", "", row["op"]), row["shape"]
            if key not in known:
                known[key] = peer(row, device, 20)
            if known[key] is not None:
                file.write(json.dumps({"op": row["op"], "shape": row["shape"], "seconds": known[key], "device": device}) + "\n")
                file.flush()


def decoder(geometry, device):
    """A Llama with tied embeddings: RMSNorm, RoPE, grouped heads through scaled_dot_product_attention, SwiGLU."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    layers, hidden, heads, kv_heads, ffn, vocab, _, context = GEOMETRIES[geometry]
    head_dim = hidden // heads
    angles = torch.outer(torch.arange(context), 10_000.0 ** -(torch.arange(0, head_dim, 2) / head_dim))
    cos, sin = torch.cat([angles, angles], -1).cos().to(device), torch.cat([angles, angles], -1).sin().to(device)

    def rotate(x):
        a, b = x.chunk(2, -1)
        return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.RMSNorm(hidden, eps=1e-6) for _ in range(2)])
            self.qkv = nn.Linear(hidden, (heads + 2 * kv_heads) * head_dim, bias=False)
            self.out = nn.Linear(hidden, hidden, bias=False)
            self.gate_up = nn.Linear(hidden, 2 * ffn, bias=False)
            self.down = nn.Linear(ffn, hidden, bias=False)

        def forward(self, x):
            rows, tokens, _ = x.shape
            qkv = self.qkv(self.norms[0](x)).view(rows, tokens, -1, head_dim).transpose(1, 2)
            q, k, v = qkv.split([heads, kv_heads, kv_heads], 1)
            o = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=heads != kv_heads)
            x = x + self.out(o.transpose(1, 2).reshape(rows, tokens, hidden))
            gate, up = self.gate_up(self.norms[1](x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, hidden)
            self.layers = nn.ModuleList([Layer() for _ in range(layers)])
            self.norm = nn.RMSNorm(hidden, eps=1e-6)

        def forward(self, ids, targets):
            x = self.embedding(ids)
            for layer in self.layers:
                x = layer(x)
            logits = F.linear(self.norm(x), self.embedding.weight)
            return F.cross_entropy(logits.float().view(-1, vocab), targets.view(-1))

    torch.manual_seed(0)
    return Decoder().to(device)


def train_peer(geometry, out, steps):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, _, _, _, _, vocab, rows, context = GEOMETRIES[geometry]
    model = decoder(geometry, device)
    run = torch.compile(model) if device == "cuda" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step():
        ids = torch.randint(0, vocab, (rows, context + 1), device=device)
        start = wait()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = run(ids[:, :-1], ids[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return wait() - start

    for _ in range(3):
        step()
    seconds = [step() for _ in range(steps)]
    median = statistics.median(seconds)
    value = {"tokens_per_second": rows * context / median, "step_seconds": seconds, "torch": torch.__version__}
    if device == "cuda":
        value["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    with open(out, "w") as file:
        json.dump(value, file)


def agree(ours, theirs):
    """Mean loss over windows of ten steps that both runs have, no further apart than 1%."""
    a, b = ({(r["stage"], r["step"]): r["loss"] for r in rows(path)} for path in (ours, theirs))
    common = sorted(a.keys() & b.keys())
    if not common:
        sys.exit("the runs have no step in common")
    worst = 0.0
    for i in range(0, len(common), 10):
        window = common[i : i + 10]
        x, y = (statistics.mean(run[k] for k in window) for run in (a, b))
        worst = max(worst, abs(x / y - 1))
        print(f"{window[0][0]} from step {window[0][1]}: {x:.4f} beside {y:.4f}")
    print(f"{len(common)} steps in common, at most {100 * worst:.2f}% apart")
    sys.exit(1 if worst > 0.01 else 0)


def training_rows(folder):
    """What `midc bench train` and PyTorch did on each geometry."""
    found = []
    for name in sorted(os.listdir(folder)):
        if not (match := re.fullmatch(r"midc-(.*)\.json|(long)\.json", name)):
            continue
        ours = rows(os.path.join(folder, name))
        if not ours:
            continue
        row = {"geometry": match[1] or match[2], "ours": ours[0]}
        row["mfu"] = ours[0]["gflops"] * 1e9 / SHEET
        peer = rows(os.path.join(folder, f"torch-{match[1]}.json")) if match[1] else []
        if peer:
            row["peer"] = peer[0]
        found.append(row)
    return found


def report(folder):
    peers = {(r["op"], r["shape"]): r["seconds"] for r in rows(os.path.join(folder, "peers.jsonl"))}
    with open(os.path.join(folder, "parts")) as file:
        parts = [dict(zip(("part", "outcome", "seconds"), line.rstrip("\n").split("\t"))) for line in file]
    times = rows(os.path.join(folder, "times.jsonl"))
    for row in times:
        other = peers.get((row["op"], row["shape"]))
        if other is not None:
            row["peer_seconds"] = other
    with open(os.path.join(folder, "report.json"), "w") as file:
        json.dump({"parts": parts, "times": times, "training": training_rows(folder)}, file, indent=1)
    for row in training_rows(folder):
        ours, peer = row["ours"], row.get("peer")
        line = f"train {row['geometry']:11} {ours['tokens_per_second']:10.0f} tokens/s, {100 * row['mfu']:.1f}% of {SHEET / 1e12:.0f} TFLOP/s"
        if peer:
            line += f"; PyTorch {peer['tokens_per_second']:.0f}, ours {ours['tokens_per_second'] / peer['tokens_per_second']:.2f} of it"
        print(line)
    if times:
        print(f"\n{'operation':34} {'shape':26} {'ours':>16} {'PyTorch':>16} {'ratio':>6}")
    for row in times:
        amount, unit, scale = (row["flops"], "TFLOP/s", 1e12) if "flops" in row else (row["bytes"], "GB/s", 1e9)
        ours = f"{amount / row['seconds'] / scale:.4g} {unit}"
        other = row.get("peer_seconds")
        theirs, ratio = (f"{amount / other / scale:.4g} {unit}", f"{other / row['seconds']:.2f}") if other else ("", "")
        print(f"{row['op']:34} {row['shape']:26} {ours:>16} {theirs:>16} {ratio:>6}")
    failed = [p["part"] for p in parts if p["outcome"].startswith("failed")]
    print("\nfailed: " + ", ".join(failed) if failed else "\nnothing failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["time"] and len(sys.argv) == 4:
        time_peers(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["train"] and len(sys.argv) == 5:
        train_peer(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["agree"] and len(sys.argv) == 4:
        agree(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["report"] and len(sys.argv) == 3:
        report(sys.argv[2])
    else:
        sys.exit(__doc__)

"""Times PyTorch (cuBLAS, scaled_dot_product_attention) on the shapes our kernels were timed on, and writes the report.

    gpu_peers.py time OURS.jsonl PEERS.jsonl
    gpu_peers.py report FOLDER
"""

import json
import os
import re
import sys


def rows(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def seconds(work, device, repeats):
    import torch

    work()
    if device == "cpu":
        import time

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
        json.dump({"parts": parts, "times": times}, file, indent=1)
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
    elif sys.argv[1:2] == ["report"] and len(sys.argv) == 3:
        report(sys.argv[2])
    else:
        sys.exit(__doc__)

"""PyTorch beside our kernels and our training, comparison of two runs, and the report of scripts/gpu-check.

    gpu_peers.py time OURS.jsonl PEERS.jsonl      cuBLAS and scaled_dot_product_attention on the same shapes
    gpu_peers.py train GEOMETRY OUT.json STEPS    a geometry of `midc bench train`, compiled, bf16
    gpu_peers.py agree A.jsonl B.jsonl [CAP]      losses of two runs over the steps both did, within CAP (0.01), and within
                                                  0.01 over the first fifty
    gpu_peers.py trace NCU.csv OUT.txt            the launches of a profiled program, summed by kernel
    gpu_peers.py losses METRICS.jsonl OUT.jsonl   what `agree` needs of a run's metrics, and nothing else
    gpu_peers.py cache ROOT FOLDER                the cubins of ROOT/target under the names `midc` keeps kernels by
    gpu_peers.py report FOLDER                    FOLDER/report.json and FOLDER/table.txt from what is there so far
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
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e-3 / repeats


def backends(device):
    """Ways PyTorch has to compute attention, by name. cuDNN's is the fastest on Hopper where it takes the shape."""
    from torch.nn.attention import SDPBackend

    if device == "cpu":
        return {"default": None}
    return {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def within(backend):
    import contextlib

    from torch.nn.attention import sdpa_kernel

    return contextlib.nullcontext() if backend is None else sdpa_kernel(backend)


def attention_seconds(shape, forward, device, repeats):
    """Seconds by backend that takes the shape: rows, context, heads, key-value heads, values of a head."""
    import torch
    import torch.nn.functional as F

    rows, context, heads, kv_heads, d = shape
    found = {}
    for name, backend in backends(device).items():
        q, k, v = (
            torch.randn(rows, n, context, d, device=device, dtype=torch.bfloat16, requires_grad=not forward)
            for n in (heads, kv_heads, kv_heads)
        )

        def attend():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)

        try:
            with within(backend):
                if forward:
                    with torch.no_grad():
                        found[name] = seconds(attend, device, repeats)
                else:
                    out = attend()
                    grad = torch.randn_like(out)
                    found[name] = seconds(
                        lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), device, repeats
                    )
        except RuntimeError as refused:
            print(f"{name} {shape}: {str(refused).splitlines()[0]}", flush=True)
    return found


def peer(row, device, repeats):
    """Seconds PyTorch takes for the operation of a row, by what did it; empty when it has no counterpart."""
    import torch

    def random(*shape, dtype=torch.bfloat16):
        return torch.randn(*shape, device=device, dtype=dtype)

    def sizes():
        return (int(x) for x in row["shape"].split("x"))

    if match := re.fullmatch(r"gemm_(?:sm90_)?(nt|nn|tn)_.*", row["op"]):
        m, n, k = sizes()
        a = random(m, k) if match[1] != "tn" else random(k, m).t()
        b = random(n, k).t() if match[1] == "nt" else random(k, n)
        return {"cublas": seconds(lambda: a @ b, device, repeats)}
    if match := re.fullmatch(r"attention_(forward|backward)_.*", row["op"]):
        shape = [int(x) for x in re.fullmatch(r"(\d+)x(\d+) h(\d+)/(\d+) d(\d+)", row["shape"]).groups()]
        return attention_seconds(shape, match[1] == "forward", device, repeats)
    if row["op"] == "narrow_copy":
        x = random(*sizes(), dtype=torch.float32)
        return {"to": seconds(lambda: x.to(torch.bfloat16), device, repeats)}
    if row["op"] == "adamw_f32":
        x = torch.nn.Parameter(random(*sizes(), dtype=torch.float32))
        x.grad = torch.randn_like(x)
        return {"fused AdamW": seconds(torch.optim.AdamW([x], fused=True).step, device, repeats)}
    return {}


def time_peers(ours, peers):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    known = {}
    with open(peers, "w") as file:

        def write(op, shape, found, **more):
            by = min(found, key=found.get)
            value = {"op": op, "shape": shape, "seconds": found[by], "by": by, "all": found, "device": device, **more}
            file.write(json.dumps(value) + "\n")
            file.flush()

        # What memory gives at all, to hold kernels that are bound by it against: bytes read and bytes written.
        n = 1 << (28 if device == "cuda" else 20)
        a, b = torch.ones(n, device=device), torch.ones(n, device=device)
        write("copy", f"{n}", {"copy_": seconds(lambda: b.copy_(a), device, 20)}, bytes=8.0 * n)
        del a, b
        for row in rows(ours):
            key = re.sub(r"_fused|_sm90|_(128|256)$", "", row["op"]), row["shape"]
            if key not in known:
                try:
                    known[key] = peer(row, device, 20)
                except torch.OutOfMemoryError as full:
                    print(f"{key}: {full}", flush=True)
                    known[key] = {}
            if known[key]:
                write(row["op"], row["shape"], known[key])


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
    # Made where it stays: a billion random numbers take a CPU half a minute.
    with torch.device(device):
        model = Decoder()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.02)
    return model


def fastest_attention(geometry, device):
    """The backend whose forward and backward pass take the least at a geometry's shape."""
    _, hidden, heads, kv_heads, _, _, rows, context = GEOMETRIES[geometry]
    if device == "cpu":
        return "default"
    shape = rows, context, heads, kv_heads, hidden // heads
    passes = [attention_seconds(shape, forward, device, 5) for forward in (True, False)]
    total = {name: sum(p[name] for p in passes) for name in passes[0].keys() & passes[1].keys()}
    return min(total, key=total.get)


def train_peer(geometry, out, steps):
    """bf16 products by autocast over f32 weights, as ours keeps them; the whole model and its loss in one compiled graph,
    so that RoPE, SwiGLU, norms and the softmax over the vocabulary are fused; fused AdamW. Small steps also replay as CUDA
    graphs, and the better of both counts."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, _, _, _, _, vocab, rows, context = GEOMETRIES[geometry]
    torch.set_float32_matmul_precision("high")
    backend = fastest_attention(geometry, device)
    best = None
    tries = [(None, backend)] if device == "cpu" else [("default", backend)]
    if device != "cpu" and rows * context < 8192:
        tries.append(("reduce-overhead", backend))
    for mode, backend in tries:
        former = best
        model = decoder(geometry, device)
        run = torch.compile(model, dynamic=False, mode=mode) if mode else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

        def wait():
            if device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        def step():
            ids = torch.randint(0, vocab, (rows, context + 1), device=device)
            inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            start = wait()
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = run(inputs, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return wait() - start

        try:
            with within(backends(device)[backend]):
                began = time.perf_counter()
                for _ in range(3):
                    step()
                warm, spent = time.perf_counter() - began, []
                for _ in range(steps):
                    spent.append(step())
                    # At once: what is measured stays when the time is over.
                    median = statistics.median(spent)
                    value = {
                        "tokens_per_second": rows * context / median, "step_seconds": spent, "torch": torch.__version__,
                        "attention": backend, "mode": mode, "warm_up_seconds": warm,
                    }
                    if device == "cuda":
                        value["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
                    best = max((value, former or value), key=lambda v: v["tokens_per_second"])
                    with open(out + ".new", "w") as file:
                        json.dump(best, file)
                    os.replace(out + ".new", out)
            print(f"{mode}, attention by {backend}: {value['tokens_per_second']:.0f} tokens/s, {warm:.0f} s to warm up", flush=True)
        except RuntimeError as broken:
            print(f"{mode}, attention by {backend}: {broken}", flush=True)
            if device != "cpu" and best is None and ("default", "flash") not in tries:
                tries.append(("default", "flash"))
        del model, run, optimizer
        if mode:
            torch.compiler.reset()
    if best is None:
        sys.exit("PyTorch did not get through a step")


def losses(metrics, out):
    with open(out, "w") as file:
        for r in rows(metrics):
            file.write(json.dumps({"stage": r["stage"], "step": r["step"], "loss": round(r["loss"], 5)}) + "\n")


def cache(root, folder):
    """As src/runtime/backend/cuda/cache.rs names them. A name that is off costs a compilation where it is looked for."""
    import glob

    import blake3

    def read(path):
        with open(os.path.join(root, path), "rb") as file:
            return file.read()

    headers = sorted(os.path.relpath(h, f"{root}/kernels") for h in glob.glob(f"{root}/kernels/dev/*.cuh"))
    options = ["--std=c++17", "--ptxas-options=-v", "-default-device", "-lineinfo"]
    os.makedirs(folder, exist_ok=True)
    for cubin in sorted(glob.glob(f"{root}/target/kernels/cubin/*/*.cubin")):
        arch, stem = os.path.basename(os.path.dirname(cubin)), os.path.basename(cubin)[: -len(".cubin")]
        if not os.path.exists(f"{root}/kernels/{stem}.cu"):
            continue
        parts = [f"{stem}.cu".encode(), read(f"kernels/{stem}.cu")]
        for header in headers:
            parts += [header.encode(), read(f"kernels/{header}")]
        # The version of the compiler that made them.
        parts += [o.encode() for o in options] + [arch.encode(), b"13.0"]
        hasher = blake3.blake3()
        for part in parts:
            hasher.update(len(part).to_bytes(8, "little"))
            hasher.update(part)
        with open(f"{folder}/{stem}-{arch}-{hasher.hexdigest()[:32]}.cubin", "wb") as file:
            file.write(read(os.path.relpath(cubin, root)))


def trace(log, out):
    """Where the time of a step goes: a profiler's list of launches, summed by kernel."""
    import csv

    with open(log, newline="", errors="replace") as file:
        lines = [line for line in file if line.startswith('"')]
    table = list(csv.reader(lines))
    if not table:
        sys.exit("the profiler listed nothing")
    head = table[0]
    name, time_at, grid = head.index("Kernel Name"), head.index("gpu__time_duration.sum"), head.index("Grid Size")
    # The row behind the head has units.
    unit = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1.0, "second": 1.0}[table[1][time_at]]
    sums = {}
    for row in table[2:]:
        if len(row) <= time_at or not row[time_at]:
            continue
        for key in ((row[name].split("(")[0], ""), (row[name].split("(")[0], row[grid])):
            count, total = sums.get(key, (0, 0.0))
            sums[key] = count + 1, total + float(row[time_at].replace(",", "")) * unit
    with open(out, "w") as file:
        whole = sum(total for (_, g), (_, total) in sums.items() if not g)
        print(f"{1e3 * whole:.1f} ms in kernels", file=file)
        for (kernel, g), (count, total) in sorted(sums.items(), key=lambda item: -item[1][1]):
            indent = "    " if g else ""
            print(f"{indent}{kernel:34} {g:20} {count:6} launches {1e3 * total:9.2f} ms {100 * total / whole:5.1f}%", file=file)


def agree(ours, theirs, cap=0.01):
    """Mean loss over windows of ten steps that both runs have, no further apart than `cap`.

    A model that learns from nothing at a high rate carries a rounding on and on: in bf16 on a CPU quickstart comes to be 2%
    away from f32. A fault of a kernel shows before that can."""
    a, b = ({(r["stage"], r["step"]): r["loss"] for r in rows(path)} for path in (ours, theirs))
    # As they were run; stages need not be in the order of their names.
    common = [key for key in b if key in a]
    if not common:
        sys.exit("the runs have no step in common")
    worst, where, wrong = 0.0, common[0], False
    for i in range(0, len(common), 10):
        window = common[i : i + 10]
        x, y = (statistics.mean(run[k] for k in window) for run in (a, b))
        # Not a number is as far apart as can be.
        apart = abs(x / y - 1) if x == x and y == y else float("inf")
        wrong |= apart > (min(cap, 0.01) if i < 50 else cap)
        if apart > worst:
            worst, where = apart, window[0]
        print(f"{window[0][0]} from step {window[0][1]}: {x:.4f} beside {y:.4f}")
    first = common[0]
    print(f"first step: {a[first]:.5f} beside {b[first]:.5f}")
    print(f"{len(common)} steps in common of {len(b)}, at most {100 * worst:.2f}% apart, from {where[0]} step {where[1]}")
    sys.exit(1 if wrong else 0)


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


def faults(folder):
    """The lines of the logs that say what is wrong."""
    found = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".log"):
            continue
        with open(os.path.join(folder, name), errors="replace") as file:
            for line in file:
                if re.match(r"(FAIL|HANG|CRASH|LIMIT|STOPPED|NOT RUN|========= (Error|Invalid|Barrier|Race)|\S*Error\b|\s+× )", line):
                    found.append(f"{name[:-4]}: {line.rstrip()[:200]}")
    return found


def report(folder):
    peer_rows = rows(os.path.join(folder, "peers.jsonl"))
    peers = {(r["op"], r["shape"]): r for r in peer_rows}
    parts = [dict(zip(("part", "outcome", "seconds"), line.split("\t"))) for line in read_lines(folder, "parts")]
    machine = read_lines(folder, "machine.log")
    times = rows(os.path.join(folder, "times.jsonl"))
    for row in times:
        other = peers.get((row["op"], row["shape"]))
        if other is not None:
            row["peer_seconds"], row["peer_by"] = other["seconds"], other["by"]
    copied = next((r["bytes"] / r["seconds"] for r in peer_rows if r["op"] == "copy"), None)
    training, wrong = training_rows(folder), faults(folder)
    wrong += [f"times: {r['op']} {r['shape']}: error {r['error']:.3g} (cap {r['cap']:g})" for r in times if r.get("error", 0) > r.get("cap", 0)]
    agreements = {
        name[len("agree-") : -len(".log")]: read_lines(folder, name)[-1:] for name in sorted(os.listdir(folder))
        if re.fullmatch(r"agree-.*\.log", name)
    }
    value = {
        "machine": machine[:6], "parts": parts, "faults": wrong, "copy_bytes_per_second": copied, "times": times, "training": training,
        "agreement": agreements, "clocks": clocks(folder),
    }
    with open(os.path.join(folder, "report.json"), "w") as file:
        json.dump(value, file, indent=1)
    with open(os.path.join(folder, "table.txt"), "w") as file:
        table(file, value)


def clocks(folder):
    """Clock in MHz and power in W of the seconds in which the GPU was busy."""
    busy = []
    for line in read_lines(folder, "clocks.csv"):
        fields = [field.strip() for field in line.split(",")]
        try:
            if float(fields[5]) >= 50:
                busy.append((float(fields[1]), float(fields[3])))
        except (IndexError, ValueError):
            continue
    if not busy:
        return None
    mhz, watts = zip(*busy)
    return {
        "busy_seconds": len(busy), "sm_mhz_least": min(mhz), "sm_mhz_median": statistics.median(mhz), "sm_mhz_most": max(mhz),
        "watts_most": max(watts),
    }


def read_lines(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as file:
        return file.read().splitlines()


def table(file, value):
    def say(line=""):
        print(line, file=file)

    for line in value["machine"][:3]:
        say(line)
    for part in value["parts"]:
        say(f"{part['part']:16} {part['outcome']}, {part['seconds']} s")
    for name, line in value["agreement"].items():
        say(f"losses {name}: {''.join(line)}")
    for row in value["training"]:
        ours, peer = row["ours"], row.get("peer")
        line = f"train {row['geometry']:11} {ours['tokens_per_second']:10.0f} tokens/s, {100 * row['mfu']:.1f}% of {SHEET / 1e12:.0f} TFLOP/s"
        if peer:
            line += f"; PyTorch {peer['tokens_per_second']:.0f}, ours {ours['tokens_per_second'] / peer['tokens_per_second']:.2f} of it"
        say(line)
    if value["clocks"]:
        say("clocks while busy: {sm_mhz_least:.0f} to {sm_mhz_most:.0f} MHz, {sm_mhz_median:.0f} at the median; {watts_most:.0f} W at most".format(**value["clocks"]))
    copied = value["copy_bytes_per_second"]
    if copied:
        say(f"a copy: {copied / 1e9:.4g} GB/s, read and written")
    if value["times"]:
        say(f"\n{'operation':34} {'shape':22} {'us':>8} {'ours':>13} {'PyTorch':>13} {'ratio':>5} {'error':>8}")
    for row in value["times"]:
        amount, unit, scale = (row["flops"], "TFLOP/s", 1e12) if "flops" in row else (row["bytes"], "GB/s", 1e9)
        other = row.get("peer_seconds")
        theirs, ratio = (f"{amount / other / scale:.4g} {row['peer_by'][:6]}", f"{other / row['seconds']:.2f}") if other else ("", "")
        if not other and copied and unit == "GB/s":
            # Beside a copy, where PyTorch has no counterpart.
            theirs, ratio = "copy", f"{amount / row['seconds'] / copied:.2f}"
        error = "" if "error" not in row else f"{row['error']:.1e}" + ("!" if row["error"] > row["cap"] else "")
        ours = f"{amount / row['seconds'] / scale:.4g} {unit}"
        say(f"{row['op'][:34]:34} {row['shape']:22} {1e6 * row['seconds']:8.0f} {ours:>13} {theirs:>13} {ratio:>5} {error:>8}")
    if value["faults"]:
        say("\nfaults:")
    for line in value["faults"][:25]:
        say(line)
    if len(value["faults"]) > 25:
        say(f"and {len(value['faults']) - 25} more, in the logs")
    for word in ("failed", "skipped"):
        named = [p["part"] for p in value["parts"] if p["outcome"].startswith(word)]
        if named:
            say(f"\n{word}: " + ", ".join(named))
    if not value["faults"] and not any(p["outcome"].startswith("failed") for p in value["parts"]):
        say("\nnothing failed")


if __name__ == "__main__":
    if sys.argv[1:2] == ["time"] and len(sys.argv) == 4:
        time_peers(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["train"] and len(sys.argv) == 5:
        train_peer(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["trace"] and len(sys.argv) == 4:
        trace(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["agree"] and len(sys.argv) in (4, 5):
        agree(sys.argv[2], sys.argv[3], *map(float, sys.argv[4:]))
    elif sys.argv[1:2] == ["losses"] and len(sys.argv) == 4:
        losses(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["cache"] and len(sys.argv) == 4:
        cache(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["report"] and len(sys.argv) == 3:
        report(sys.argv[2])
    else:
        sys.exit(__doc__)

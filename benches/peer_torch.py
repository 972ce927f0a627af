"""One geometry of `midc bench train` in PyTorch and transformers; prints one JSON line.

usage: peer_torch.py --geometry A|B|C|D|quickstart --mode f32|bf16|compile|compile-f32 [--steps N] [--warmup N]

A step is forward, cross-entropy, backward, fused AdamW and zero_grad on fresh random tokens.
"""

import argparse
import json
import os
import statistics
import time

# layers, hidden, heads, key-value heads, feed-forward, vocabulary, rows, context
GEOMETRIES = {
    "A": (6, 256, 8, 4, 704, 4096, 8, 512),
    "B": (30, 576, 9, 3, 1536, 49152, 2, 1024),
    "C": (6, 256, 8, 4, 704, 4096, 1, 16384),
    "D": (16, 2048, 32, 8, 8192, 128256, 4, 4096),
    "quickstart": (4, 160, 5, 5, 448, 4096, 16, 256),
}
parser = argparse.ArgumentParser()
parser.add_argument("--geometry", default="A", choices=GEOMETRIES)
parser.add_argument("--mode", default="f32", choices=["f32", "bf16", "compile", "compile-f32"])
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--warmup", type=int, default=2)
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(args.threads)
layers, hidden, heads, kv_heads, ffn, vocab, rows, context = GEOMETRIES[args.geometry]
config = transformers.LlamaConfig(
    vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
    num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=max(context, 2048),
    tie_word_embeddings=True, use_cache=False, attn_implementation="sdpa")
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(config).train()
run = torch.compile(model) if args.mode.startswith("compile") else model
optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def peak_mib():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024


def step():
    ids = torch.randint(0, config.vocab_size, (rows, context))
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not args.mode.endswith("f32")):
        loss = run(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - wall, (time.process_time() - cpu) / args.threads


for _ in range(args.warmup):
    step()
try:
    open("/proc/self/clear_refs", "w").write("5")
except OSError:
    pass
times = [step() for _ in range(args.steps)]
wall, cpu = (statistics.median(t[i] for t in times) for i in (0, 1))
print(json.dumps(dict(
    tokens_per_second=rows * context / wall, tokens_per_second_cpu=rows * context / cpu,
    peak_rss_mib=peak_mib(), step_seconds=[t[0] for t in times], mode=args.mode,
    torch=torch.__version__)))

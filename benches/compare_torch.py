"""midc beside PyTorch, in turns on the same machine; prints a table and the ratios.

usage: compare_torch.py MIDC [--geometries ABC] [--rounds N] [--steps N] [--clock wall|cpu] [--modes f32,bf16,compile]

Each round runs every contestant once, so that whatever else the machine does touches all of them. A
figure is the median over rounds of each run's median step. `--clock cpu` counts processor time over
the number of threads instead of the wall: for machines that are not quiet. Needs torch and
transformers in the Python that runs it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("midc")
parser.add_argument("--geometries", default="ABC")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
parser.add_argument("--modes", default="f32,bf16,compile")
args = parser.parse_args()
here = os.path.dirname(os.path.abspath(__file__))


def run(command):
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def midc(geometry, precision):
    r = run([args.midc, "bench", "train", "--geometry", geometry, "--precision", precision,
             "--steps", str(args.steps), "--clock", args.clock, "--format", "json"])
    return r["tokens_per_second"], r["peak_rss_mib"]


def torch(geometry, mode):
    r = run([sys.executable, os.path.join(here, "peer_torch.py"), "--geometry", geometry, "--mode", mode,
             "--steps", str(args.steps)])
    return r["tokens_per_second" + ("_cpu" if args.clock == "cpu" else "")], r["peak_rss_mib"]


modes = args.modes.split(",")
for geometry in args.geometries:
    contestants = [("midc", p) for p in ("f32", "bf16")] + [("torch", m) for m in modes]
    results = {c: [] for c in contestants}
    for _ in range(args.rounds):
        for name, mode in contestants:
            results[name, mode].append((midc if name == "midc" else torch)(geometry, mode))
    speed = {c: statistics.median(r[0] for r in v) for c, v in results.items()}
    memory = {c: max(r[1] or 0 for r in v) for c, v in results.items()}
    for c in contestants:
        print(f"{geometry} {c[0]:5} {c[1]:8} {speed[c]:9.0f} tokens/s {memory[c]:7.0f} MiB", flush=True)
    best = max((c for c in contestants if c[0] == "torch"), key=speed.get)
    eager = speed.get(("torch", "f32"))
    line = f"{geometry} bf16 / best of PyTorch ({best[1]}): {speed['midc', 'bf16'] / speed[best]:.2f}"
    if eager:
        line += f"; f32 / PyTorch eager f32: {speed['midc', 'f32'] / eager:.2f}"
    print(f"{line}; memory {memory['midc', 'bf16'] / memory[best]:.2f} ({args.clock})", flush=True)

"""midc beside PyTorch, in turns on the same machine; prints a table and the ratios.

usage: compare_torch.py MIDC [--geometries A,B,C,quickstart] [--rounds N] [--steps N] [--clock wall|cpu]
                        [--modes f32,bf16,compile,compile-f32,tuned-bf16,…] [--memory MIB]

Each round runs every contestant once, so that whatever else the machine does touches all of them. A
figure is the median over rounds of each run's median step; the range over rounds stands beside it.
`--memory` adds midc within a budget, where it recomputes layers. `--clock cpu` counts processor time
over the number of threads instead of the wall: for machines that are not quiet. Needs torch and
transformers in the Python that runs it.

The modes of PyTorch are as installed (`compile` is in bf16; where the processor has no product of bf16, f32
and `compile-f32` are the ones to beat), except `tuned-*`: there the allocator keeps freed memory (PyTorch
otherwise pays for page faults in every step) and MKL takes its AVX-512 path on processors not made by
Intel, by a preloaded function of one line (needs gcc; without it only the allocator is tuned).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("midc")
parser.add_argument("--geometries", default="A,B,C")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--warmup", type=int, default=2)
parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
parser.add_argument("--modes", default="f32,bf16,compile")
parser.add_argument("--memory", type=int, help="midc in bf16 once more, within so many MiB")
args = parser.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
scratch = tempfile.TemporaryDirectory()


def tuned_environment():
    environment = dict(os.environ, MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="100000000000")
    library = os.path.join(scratch.name, "avx512.so")
    source = "int mkl_serv_intel_cpu_true(void) { return 1; }"
    build = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    try:
        subprocess.run(build, input=source, text=True, check=True)
        environment["LD_PRELOAD"] = library
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"MKL stays as it is: {error}", file=sys.stderr)
    return environment


def run(command, environment=None):
    lines = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()
    return json.loads(lines[-1])


def midc(geometry, mode):
    precision, _, memory = mode.partition("@")
    command = [args.midc, "bench", "train", "--geometry", geometry, "--precision", precision, "--steps",
               str(args.steps), "--warmup", str(args.warmup), "--clock", args.clock, "--format", "json"]
    r = run(command + (["--memory", memory] if memory else []))
    return r["tokens_per_second"], r["peak_rss_mib"]


def torch(geometry, mode):
    tuned, plain = mode.startswith("tuned-"), mode.removeprefix("tuned-")
    r = run([sys.executable, os.path.join(here, "peer_torch.py"), "--geometry", geometry, "--mode", plain,
             "--steps", str(args.steps), "--warmup", str(args.warmup)],
            tuned_environment() if tuned else None)
    return r["tokens_per_second" + ("_cpu" if args.clock == "cpu" else "")], r["peak_rss_mib"]


modes = args.modes.split(",")
for geometry in args.geometries.split(","):
    ours = ["f32", "bf16"] + ([f"bf16@{args.memory}"] if args.memory else [])
    contestants = [("midc", p) for p in ours] + [("torch", m) for m in modes]
    results = {c: [] for c in contestants}
    for _ in range(args.rounds):
        for name, mode in contestants:
            result = (midc if name == "midc" else torch)(geometry, mode)
            print(f"{geometry} {name} {mode}: {result[0]:.0f} tokens/s, {result[1]:.0f} MiB", file=sys.stderr)
            results[name, mode].append(result)
    speed = {c: statistics.median(r[0] for r in v) for c, v in results.items()}
    memory = {c: max(r[1] or 0 for r in v) for c, v in results.items()}
    for c in contestants:
        low, high = (f(r[0] for r in results[c]) for f in (min, max))
        print(f"{geometry} {c[0]:5} {c[1]:13} {speed[c]:9.0f} tokens/s ({low:.0f} to {high:.0f}) "
              f"{memory[c]:7.0f} MiB", flush=True)

    def ratio(text, ours, theirs):
        if theirs:
            best = max(theirs, key=speed.get)
            print(f"{geometry} midc {ours} / {text} ({best[1]}): {speed['midc', ours] / speed[best]:.2f}, "
                  f"memory {memory['midc', ours] / memory[best]:.2f} ({args.clock})", flush=True)

    peers = [c for c in contestants if c[0] == "torch"]
    for mode in ours[1:]:
        ratio("best of PyTorch as installed", mode, [c for c in peers if not c[1].startswith("tuned-")])
        ratio("best of PyTorch tuned", mode, [c for c in peers if c[1].startswith("tuned-")])
    ratio("PyTorch eager f32", "f32", [c for c in peers if c[1] == "f32"])

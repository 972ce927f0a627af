"""Train a curriculum by `midc exec` and by the launch that `midc emit torchtitan` writes, and compare.

usage: emit_torchtitan.py MIDC PYTHON_OF_TORCHTITAN [WORK]      (see tests/emit_engines.sh)

torchtitan trains on accelerators only. Here it is told that the CPU is one, and that its attention, FlexAttention,
which a CPU cannot train, is PyTorch's own; everything else is torchtitan's and the launch's: the model, the loss,
checkpoints, the optimizer's groups, rows and learning rates. Two stages from one Llama, the second stretched as Llama 3.1
is and going on from the first one's moments but for the weight decay of norms and of the embedding. Losses are those of
`midc exec` within 1e-3 at every step, in f32, before and after the launch was killed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from emit_engines import check, make_start, processes_of, results

CURRICULUM = """
model base {
  checkpoint = "start"
  context    = 128
  lr         = 3e-3
}

source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }
source code { path = "data/code.train.jsonl", kind = code, tokens = 101k }

mix both { prose = 60%, code = rest }

stage main {
  from       = base
  steps      = 16
  context    = 128
  batch      = 8 seqs
  mix        = both
  lr         = 0 then linear(to: 3e-3, over: 4 steps) then cosine(to: 1e-3)
  data_seed  = 1
  optimizer  = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 1)
  precision  = f32
  save_every = 6 steps
}

stage long {
  from      = main
  steps     = 10
  context   = 256
  batch     = 4 seqs
  rope      = llama3(factor: 2, low: 1, high: 4, original: 128)
  lr        = inherit then linear(to: 0)
  data_seed = 2
  optimizer = adamw(betas: [0.9, 0.9], eps: 1e-8, weight_decay: 2, decay_embeddings: no, decay_norms: yes)
  precision = f32
}
"""
# Lints about a run this small, and what torchtitan has by agreement only.
QUIET = ["-A", "anneal_too_short", "-A", "decay_too_short", "-A", "target_drops"]

# Found by Python when it starts, in torchrun and its workers.
SITE = '''
import types

import torch
import torch._utils


class Cpu(types.ModuleType):
    """What torchtitan asks of an accelerator's module."""

    def __getattr__(self, name):
        return getattr(torch.cpu, name)

    def set_device(self, device):
        pass

    def current_device(self):
        return 0

    def get_device_name(self, device=None):
        return "cpu"

    def get_device_properties(self, device=None):
        return types.SimpleNamespace(total_memory=1 << 34, name="cpu")

    def memory_stats(self, device=None):
        return {}

    def reset_peak_memory_stats(self):
        pass

    def empty_cache(self):
        pass


CPU = Cpu("cpu_as_accelerator")
torch._utils._get_available_device_type = lambda: "cpu"
torch._utils._get_device_module = lambda kind: CPU


def tiny():
    """The shape of the checkpoint in torchtitan's words, and an attention that a CPU trains."""
    from torchtitan.models import llama3
    from torchtitan.models.common.attention import FlexAttention

    def plain(self, q_BLNH, k_BLNH, v_BLNH, *, attention_masks=None, **_):
        q, k, v = (x.transpose(1, 2) for x in (q_BLNH, k_BLNH, v_BLNH))
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    FlexAttention.forward = plain

    def shape(attn_backend, tp_gemm_backend="default"):
        dim, vocab = 64, 4096
        return llama3.Llama3Model.Config(
            dim=dim,
            vocab_size=vocab,
            tok_embeddings=llama3.Embedding.Config(num_embeddings=vocab, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT),
            norm=llama3.RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
            lm_head=llama3.Linear.Config(in_features=dim, out_features=vocab, param_init=llama3._output_linear_init(dim)),
            layers=llama3._build_llama3_layers(
                n_layers=2,
                dim=dim,
                n_heads=4,
                n_kv_heads=2,
                hidden_dim=256,
                rope=llama3.ComplexRoPE.Config(dim=16, max_seq_len=128, theta=10000.0, scaling="none"),
                attn_backend=attn_backend,
                tp_gemm_backend=tp_gemm_backend,
            ),
        )

    llama3.llama3_configs["tiny"] = shape


import importlib.abc
import sys


class Hook(importlib.abc.MetaPathFinder):
    """Before the launch's stages are imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "midc_stages":
            sys.meta_path.remove(self)
            tiny()


sys.meta_path.insert(0, Hook())
'''


def start(launch, work, python, log):
    environment = {
        **os.environ,
        "FLAVOR": "tiny",
        "NPROC": "1",
        "LOCAL_BATCH": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.path.join(work, "site"),
        "PYTHON": python,
        "MASTER_PORT": str(29500 + os.getpid() % 1000),
    }
    arguments = ["--metrics.log-freq", "1", "--metrics.disable-color-printing", "--training.disable-cuda-graphs"]
    return subprocess.Popen([os.path.join(launch, "run.sh"), *arguments], env=environment, stdout=log, stderr=log, start_new_session=True)


def train(launch, work, python):
    """How the launch ended, and what it printed."""
    path = os.path.join(work, "torchtitan.log")
    with open(path, "w") as log:
        code = start(launch, work, python, log).wait()
    with open(path) as log:
        text = log.read()
    return code, text


def steps_of(text):
    """The stages' lists of (step, loss)."""
    stages = []
    for line in text.splitlines():
        if "Training starts at step" in line:
            stages.append([])
        found = re.search(r"step:\s*(\d+)\s+loss:\s*([\d.]+)", line)
        if found and stages:
            stages[-1].append((int(found[1]), float(found[2])))
    return stages


def main():
    midc, python = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    with tempfile.TemporaryDirectory() as temporary:
        work = sys.argv[3] if len(sys.argv) > 3 else temporary
        os.makedirs(os.path.join(work, "site"), exist_ok=True)
        with open(os.path.join(work, "site", "sitecustomize.py"), "w") as out:
            out.write(SITE)
        file, launch, run = (os.path.join(work, name) for name in ("run.curriculum", "launch", "run"))
        with open(file, "w") as out:
            out.write(CURRICULUM)
        if not os.path.exists(os.path.join(work, "start")):
            make_start(python, work, model_type="llama", intermediate_size=256, num_key_value_heads=2, rms_norm_eps=1e-5)
        for folder in (launch, run):
            shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([midc, "emit", "torchtitan", file, "-o", launch, "--data", "--quiet", *QUIET], check=True)
        subprocess.run([midc, "exec", file, "--run-dir", run, "--quiet", *QUIET], check=True)
        ours = {}
        with open(os.path.join(run, "metrics.jsonl")) as lines:
            for record in map(json.loads, lines):
                ours.setdefault(record["stage"], []).append(record)

        code, text = train(launch, work, python)
        check("torchtitan: two stages train", code == 0)
        if code != 0:
            print(text[-8000:])
            return 1
        before = steps_of(text)
        for (name, records), theirs in zip(ours.items(), before):
            same = [r["step"] + 1 for r in records] == [step for step, _ in theirs]
            worst = max(abs(r["loss"] - loss) for r, (_, loss) in zip(records, theirs))
            ends = f"{records[0]['loss']:.3f} to {records[-1]['loss']:.3f}"
            check(f"torchtitan: losses of `{name}` are those of midc exec", same and worst < 1e-3, f"worst {worst:.1e} over {len(theirs)} steps, {ends}")

        # Killed behind its first periodic checkpoint, the launch goes on with the rows, rates and moments it had.
        shutil.rmtree(os.path.join(launch, "out"))
        reached = os.path.join(launch, "out", "main", "checkpoints", "step-6", ".metadata")
        with open(os.path.join(work, "killed.log"), "w") as log:
            child = start(launch, work, python, log)
            while child.poll() is None and not os.path.exists(reached):
                time.sleep(0.02)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        # torchrun puts its workers into sessions of their own.
        for pid in processes_of(launch):
            os.kill(pid, signal.SIGKILL)
        ended = os.path.exists(os.path.join(launch, "out", "main", "checkpoints", "step-16"))
        check("torchtitan: killed in the middle of a stage", os.path.exists(reached) and not ended)
        code, text = train(launch, work, python)
        after = steps_of(text)
        rest = before[0][-len(after[0]) :]
        same = [step for step, _ in rest] == [step for step, _ in after[0]] and after[0][0][0] > 6
        worst = max(abs(a - b) for (_, a), (_, b) in zip(rest, after[0]))
        check("torchtitan: the same command goes on with the same steps", code == 0 and same and worst < 1e-4, f"from step {after[0][0][0]}, within {worst:.1e}")
        check("torchtitan: and the next stage is the same", after[1] == before[1])
    print(f"{results['passed']} passed, {results['failed']} failed")
    return int(results["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())

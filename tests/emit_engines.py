"""Train one curriculum by `midc exec` and by the launches that `midc emit` writes, and compare.

usage: emit_engines.py MIDC ENGINE PYTHON_OF_ENGINE [WORK]      (see tests/emit_engines.sh)

The curriculum has a mixture that moves, a fan-out of two data orders, YaRN, a learning rate of several
shapes and a soup, and for transformers attention within documents and dialogues; all start from the same random OLMo 2 weights. Two processes train over gloo. `midc
verify` must find nothing wrong with the logs and exports, and must find each of several mistakes put in on
purpose. Losses are those of `midc exec` within 1e-3 at every step, in f32.
"""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
results = {"passed": 0, "failed": 0}

CURRICULUM = """
model base {
  checkpoint = "start"
  context    = 128
  lr         = 3e-3
}

source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }
source code { path = "data/code.train.jsonl", kind = code, tokens = 101k }
source math { path = "data/math.train.jsonl", kind = math, tokens = 109k }

mix broad { prose = 50%, code = 25%, math = rest }
mix fine { prose = 20%, code = 20%, math = rest }

stage main {
  from       = base
  steps      = 18
  context    = 128
  batch      = 8 seqs
  mix        = broad then hold(over: 9 steps) then step(to: fine) then hold
  lr         = 0 then linear(to: 3e-3, over: 4 steps) then cosine(to: 1e-3, over: 8 steps) then hold
  data_seed  = 1
  optimizer  = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1)
  precision  = f32
  save_every = 7 steps
}

stage long[order in [11, 12]] {
  from      = main
  steps     = 12
  context   = 256
  batch     = 4 seqs
  mix       = fine
  rope      = yarn(factor: 2, original: 128)
  lr        = inherit then exp(to: 1e-4, over: 8 steps) then linear(to: 0)
  data_seed = order
  precision = f32
}

soup final = average(long)

stage after {
  from      = final
  steps     = 4
  lr        = 0 then linear(to: 5e-4, over: 1 steps) then linear(to: 0)
  data_seed = 3
  precision = f32
}
"""
# What only transformers has: attention within documents on a CPU, and the mean over unequal targets.
ASIDE = """
source qa { path = "data/qa.train.jsonl", kind = instruct, tokens = 63k, loss_on = ["assistant"] }

stage aside {
  from      = base
  steps     = 8
  context   = 128
  batch     = 8 seqs
  mix       = upsample(dialogues, prose: 2)
  lr        = 3e-3 then linear(to: 0)
  data_seed = 4
  attention = documents
  packing   = best_fit
  optimizer = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, z_loss: 1e-4)
  precision = f32
}

mix dialogues { prose = 40%, qa = rest }
"""
# Lints about a run this small.
QUIET = ["-A", "anneal_too_short", "-A", "lr_jump", "-A", "decay_too_short", "-A", "optimizer_reset_without_warmup"]


def check(name, holds, detail=""):
    results["passed" if holds else "failed"] += 1
    print(f"{'ok    ' if holds else 'FAILED'} {name} {detail}", flush=True)


class Case:
    def __init__(self, midc, engine, python, work):
        self.midc, self.engine, self.python, self.work = midc, engine, python, work
        self.launch = os.path.join(work, engine)
        self.file = os.path.join(work, "run.curriculum")

    def run(self, *arguments, **options):
        return subprocess.run([self.midc, *arguments], capture_output=True, text=True, cwd=self.work, **options)

    def must(self, *arguments):
        done = self.run(*arguments)
        if done.returncode != 0:
            sys.exit(f"midc {' '.join(arguments)}:\n{done.stderr}{done.stdout}")
        return done

    def prepare(self):
        if not os.path.exists(self.file):
            os.makedirs(self.work, exist_ok=True)
            os.symlink(os.path.join(ROOT, "examples", "data"), os.path.join(self.work, "data"))
            subprocess.run([self.python, "-c", MAKE_START, os.path.join(self.work, "start"), os.path.join(ROOT, "examples", "data")], check=True)
        with open(self.file, "w") as out:
            out.write(CURRICULUM + (ASIDE if self.engine == "transformers" else ""))

    def emit(self):
        shutil.rmtree(self.launch, ignore_errors=True)
        self.must("emit", self.engine, self.file, "-o", self.launch, "--data", "--quiet", *QUIET)

    def start(self, **more):
        environment = {**os.environ, "NPROC": "2", "PYTHON": self.python, "OMP_NUM_THREADS": "1", "MICRO_ROWS": "2", **more}
        environment["MASTER_PORT"] = str(29500 + os.getpid() % 1000)
        log = open(os.path.join(self.work, self.engine + ".log"), "a")
        return subprocess.Popen([os.path.join(self.launch, "run.sh")], env=environment, stdout=log, stderr=log, start_new_session=True)

    def train(self, **more):
        return self.start(**more).wait()

    def verify(self):
        return self.run("verify", self.launch)

    def logs(self, stage):
        with open(os.path.join(self.launch, "logs", f"{stage}.rank0.jsonl")) as file:
            return [json.loads(line) for line in file]


MAKE_START = """
import shutil, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(0)
config = AutoConfig.for_model("olmo2", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, vocab_size=4096, max_position_embeddings=128, initializer_range=0.05, rms_norm_eps=1e-6,
    pad_token_id=None, bos_token_id=None, eos_token_id=0, tie_word_embeddings=False,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[1])
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"{sys.argv[2]}/{name}", sys.argv[1])
"""


def negative(case, name, path, edit):
    """`midc verify` finds the mistake that `edit` makes in a file of the launch."""
    backup = path + ".backup"
    shutil.copy(path, backup)
    try:
        with open(path) as file:
            text = file.read()
        changed = edit(text)
        assert changed != text, f"{name}: nothing was changed"
        with open(path, "w") as file:
            file.write(changed)
        found = case.verify()
        first = next((line for line in found.stdout.splitlines() if line.startswith("WRONG")), "")
        check(f"{case.engine}: verify finds {name}", found.returncode == 1 and first != "", first)
    finally:
        shutil.move(backup, path)


def lines(text, edit):
    rows = [json.loads(line) for line in text.splitlines()]
    edit(rows)
    return "".join(json.dumps(row) + "\n" for row in rows)


def swap(rows, key, one, other):
    rows[one][key], rows[other][key] = rows[other][key], rows[one][key]


def repeat(rows):
    rows[3]["rows"][0] = rows[2]["rows"][0]


def shift(rows):
    for row in reversed(range(1, len(rows))):
        rows[row]["lr"] = rows[row - 1]["lr"]


def mistakes(case):
    log = os.path.join(case.launch, "logs", "main.rank0.jsonl")
    negative(case, "two learning rates swapped", log, lambda t: lines(t, lambda r: swap(r, "lr", 6, 8)))
    negative(case, "learning rates one step late", log, lambda t: lines(t, shift))
    negative(case, "a row read twice", log, lambda t: lines(t, repeat))
    negative(case, "a step that is missing", log, lambda t: "".join(t.splitlines(True)[:-1]))
    config = os.path.join(case.launch, "out", "long-11", "step-12", "hf", "config.json")
    negative(case, "a RoPE factor lost in the export", config, lambda t: t.replace('"factor": 2.0', '"factor": 1.0'))

    # The same launch trained on a mixture with another weight: rows of another plan.
    other = Case(case.midc, case.engine, case.python, case.work)
    other.file = os.path.join(case.work, "other.curriculum")
    with open(other.file, "w") as out:
        out.write(CURRICULUM.replace("broad { prose = 50%, code = 25%", "broad { prose = 40%, code = 35%"))
    other.launch = case.launch + "-other"
    other.emit()
    expected = os.path.join(case.launch, "expected.json")
    with open(os.path.join(other.launch, "expected.json")) as file:
        changed = file.read()
    negative(case, "a changed weight", expected, lambda _: changed)
    kept = os.path.join(case.launch, "expected.json")
    shutil.copy(kept, kept + ".backup")
    shutil.copy(os.path.join(other.launch, "expected.json"), kept)
    found = case.verify().stdout
    shutil.move(kept + ".backup", kept)
    check(f"{case.engine}: and says of which source", "rows of `prose`, not" in found)


def keep_stages(case, *stages):
    """Leave only these stages in the launch's `run.sh`."""
    script = os.path.join(case.launch, "run.sh")
    with open(script) as file:
        kept = [line for line in file if not line.startswith(("stage stages/", "soup soups/"))]
    with open(script, "w") as file:
        file.writelines([*kept, *(f"stage stages/{stage}.json\n" for stage in stages)])


def sharded(case):
    """The same losses under FSDP as under DDP."""
    before = [row["loss"] for row in case.logs("aside")]
    for folder in ("out", "logs"):
        shutil.rmtree(os.path.join(case.launch, folder))
    keep_stages(case, "aside")
    check(f"{case.engine}: two processes train with FSDP", case.train(PARALLEL="fsdp") == 0)
    worst = max(abs(a - row["loss"]) for a, row in zip(before, case.logs("aside")))
    check(f"{case.engine}: to the same losses", worst < 1e-5, f"within {worst:.1e}")


def trained_wrong(case):
    """Mistakes made in what the engine reads, not in its logs: trained again, the first stage only."""
    keep_stages(case, "main")

    def swapped(text):
        stage = json.loads(text)
        lr = stage["lr"]
        lr[6][1], lr[7][1] = lr[7][1], lr[6][1]
        return json.dumps(stage)

    cases = [("two entries of the table swapped", "stages/main.json", swapped)]
    if case.engine == "olmo-core":
        dummy = "segments = [ComposableSchedulerStage(duration=1, start_lr=runs[0][1], end_lr=runs[0][1])]"
        cases.append(("the segment before the first step dropped", "train.py", lambda text: text.replace(dummy, "segments = []")))
    for name, path, edit in cases:
        path = os.path.join(case.launch, path)
        with open(path) as file:
            text = file.read()
        changed = edit(text)
        assert changed != text, f"{name}: nothing was changed"
        for folder in ("out", "logs"):
            shutil.rmtree(os.path.join(case.launch, folder))
        with open(path, "w") as file:
            file.write(changed)
        assert case.train() == 0
        with open(path, "w") as file:
            file.write(text)
        found = case.run("verify", case.launch, "--stage", "main")
        first = next((line for line in found.stdout.splitlines() if line.startswith("WRONG")), "")
        check(f"{case.engine}: trained with {name}, verify says so", found.returncode == 1 and "learning rate" in first, first)


def compare(case):
    """Losses against `midc exec`."""
    run = os.path.join(case.work, "run")
    if not os.path.isdir(run):
        case.must("exec", case.file, "--run-dir", run, "--quiet", *QUIET)
    ours = {}
    with open(os.path.join(run, "metrics.jsonl")) as file:
        for line in file:
            record = json.loads(line)
            ours.setdefault(record["stage"], []).append(record)
    for stage in ours:
        name = stage.replace("[", "-").replace("]", "")
        theirs = case.logs(name)
        same_length = len(theirs) == len(ours[stage])
        worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(ours[stage], theirs))
        fell = ours[stage][0]["loss"], theirs[-1]["loss"]
        check(f"{case.engine}: losses of `{stage}` are those of midc exec", same_length and worst < 1e-3, f"worst {worst:.1e} over {len(theirs)} steps, {fell[0]:.3f} to {fell[1]:.3f}")
        rates = max(abs(a["lr"] - b["lr"]) for a, b in zip(ours[stage], theirs))
        check(f"{case.engine}: learning rates of `{stage}` are those of midc exec", rates == 0.0)


def interrupted(case):
    """Killed after its first periodic checkpoint, the launch goes on to the same logs."""
    before = case.logs("main")
    for name in ("out", "logs"):
        shutil.rmtree(os.path.join(case.launch, name))
    reached = {"transformers": "step-7", "olmo-core": "olmo/step7/.metadata.json"}[case.engine]
    reached = os.path.join(case.launch, "out", "main", reached)
    child = case.start()
    while child.poll() is None and not os.path.exists(reached):
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    check(f"{case.engine}: killed in the middle of a stage", os.path.exists(reached) and not os.path.isdir(os.path.join(case.launch, "out", "main", "step-18")))
    check(f"{case.engine}: the same command goes on", case.train() == 0)
    after = case.logs("main")
    same = [(r["step"], r["lr"], r["rows"]) for r in before] == [(r["step"], r["lr"], r["rows"]) for r in after]
    worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(before, after))
    check(f"{case.engine}: with the same steps", same and worst < 1e-5, f"losses within {worst:.1e}")
    check(f"{case.engine}: and verify finds nothing wrong", case.verify().returncode == 0)


def main():
    midc, engine, python = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as temporary:
        case = Case(midc, engine, python, sys.argv[4] if len(sys.argv) > 4 else temporary)
        case.prepare()
        case.emit()
        begin = time.time()
        code = case.train()
        check(f"{engine}: two processes train", code == 0, f"{time.time() - begin:.0f} s")
        if code != 0:
            print(open(os.path.join(case.work, engine + ".log")).read()[-6000:])
            return 1
        found = case.verify()
        check(f"{engine}: verify finds nothing wrong", found.returncode == 0)
        print(found.stdout + found.stderr, end="")
        compare(case)
        mistakes(case)
        interrupted(case)
        if engine == "transformers":
            sharded(case)
        trained_wrong(case)
    print(f"{results['passed']} passed, {results['failed']} failed")
    return int(results["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())

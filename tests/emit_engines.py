"""Train one curriculum by `midc exec` and by the launches that `midc emit` writes, and compare.

usage: emit_engines.py MIDC ENGINE PYTHON_OF_ENGINE [WORK]      (see tests/emit_engines.sh)

The curriculum has a mixture that moves, a fan-out of two data orders that decay other weights than the stage before
them, YaRN, a learning rate of several shapes and a soup, a model with windows, and for transformers attention within
documents, dialogues, Muon, layers without RoPE and a mixture of experts; all start from the same random weights. Two processes train over gloo. `midc verify` must find
nothing wrong with the logs and exports, and must find each of several mistakes put in on purpose. Losses are those of
`midc exec` within 1e-3 at every step, in f32. Then the same under `midc exec --engine`, killed and stopped on the way,
and under `slurm.sbatch`.
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
  optimizer = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 2, decay_embeddings: no, decay_norms: yes)
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
# A model with windows, and YaRN over another base in its layers of full attention.
WINDOWS = """
model windows { checkpoint = "start-olmo3", context = 128 }

stage near {
  from      = windows
  steps     = 4
  context   = 128
  batch     = 4 seqs
  mix       = fine
  lr        = 3e-3
  data_seed = 6
  precision = f32
}

stage far {
  from      = near
  steps     = 4
  context   = 256
  batch     = 4 seqs
  mix       = fine
  rope      = yarn(factor: 2, original: 128, theta: 40_000)
  lr        = inherit then linear(to: 0)
  data_seed = 7
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

stage moved {
  from       = base
  steps      = 10
  context    = 128
  batch      = 8 seqs
  mix        = fine
  lr         = 3e-3 then linear(to: 0)
  data_seed  = 5
  optimizer  = muon(update_rms: 0.25, weight_decay: 0.5)
  precision  = f32
  save_every = 4 steps
}

mix dialogues { prose = 40%, qa = rest }

model unturned { checkpoint = "start-smollm3", context = 128 }

stage nope {
  from      = unturned
  steps     = 4
  context   = 128
  batch     = 4 seqs
  mix       = fine
  lr        = 3e-3 then linear(to: 0)
  data_seed = 8
  precision = f32
}

model around { checkpoint = "start-gemma3_text", context = 128 }

stage gemma {
  from      = around
  steps     = 4
  context   = 256
  batch     = 4 seqs
  mix       = fine
  rope      = pi(factor: 2, theta: 60_000)
  lr        = 3e-3 then linear(to: 0)
  data_seed = 9
  precision = f32
}
"""
# Of two layers, one that differs: with a window and a RoPE of its own, or without RoPE.
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
DIFFERING = {
    "olmo3": dict(
        intermediate_size=128, num_key_value_heads=2, sliding_window=24, layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": PLAIN, "full_attention": PLAIN}),
    "smollm3": dict(intermediate_size=128, num_key_value_heads=2, no_rope_layers=[1, 0]),
    "gemma3_text": dict(
        intermediate_size=128, num_key_value_heads=2, sliding_window=24, layer_types=["sliding_attention", "full_attention"],
        head_dim=16, query_pre_attn_scalar=16, rope_parameters={
            "sliding_attention": PLAIN, "full_attention": {"rope_type": "default", "rope_theta": 50000.0}}),
}
# PyTorch makes the products of Muon in bf16 whatever the precision of the rest.
WITHIN = {"moved": 1e-2}
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
            make_start(self.python, self.work, model_type="olmo2", intermediate_size=128, num_key_value_heads=4, rms_norm_eps=1e-6)
            for model_type, keys in DIFFERING.items():
                make_start(self.python, self.work, name=f"start-{model_type}", model_type=model_type, **keys)
        with open(self.file, "w") as out:
            out.write(CURRICULUM + WINDOWS + (ASIDE if self.engine == "transformers" else ""))

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
import json, shutil, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(0)
config = AutoConfig.for_model(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=4096,
    max_position_embeddings=128, initializer_range=0.05, pad_token_id=None, bos_token_id=None, eos_token_id=0,
    tie_word_embeddings=False, **{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, **json.loads(sys.argv[3])})
AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[1])
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"{sys.argv[2]}/{name}", sys.argv[1])
"""


def make_start(python, work, name="start", **architecture):
    """A small model with random weights in `name`, and the examples' texts in `data`."""
    data = os.path.join(ROOT, "examples", "data")
    if not os.path.exists(os.path.join(work, "data")):
        os.symlink(data, os.path.join(work, "data"))
    subprocess.run([python, "-c", MAKE_START, os.path.join(work, name), data, json.dumps(architecture)], check=True)


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
    before = {stage: [row["loss"] for row in case.logs(stage)] for stage in ("aside", "moved")}
    for folder in ("out", "logs"):
        shutil.rmtree(os.path.join(case.launch, folder))
    keep_stages(case, *before)
    check(f"{case.engine}: two processes train with FSDP", case.train(PARALLEL="fsdp") == 0)
    for stage, losses in before.items():
        worst = max(abs(a - row["loss"]) for a, row in zip(losses, case.logs(stage)))
        check(f"{case.engine}: to the same losses in `{stage}`", worst < WITHIN.get(stage, 1e-5), f"within {worst:.1e}")


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
        check(f"{case.engine}: losses of `{stage}` are those of midc exec", same_length and worst < WITHIN.get(stage, 1e-3), f"worst {worst:.1e} over {len(theirs)} steps, {fell[0]:.3f} to {fell[1]:.3f}")
        rates = max(abs(a["lr"] - b["lr"]) for a, b in zip(ours[stage], theirs))
        check(f"{case.engine}: learning rates of `{stage}` are those of midc exec", rates == 0.0)


def interrupted(case):
    """Killed after its first periodic checkpoint, the launch goes on to the same logs."""
    before = case.logs("main")
    # The others stay as they are; `supervised` goes on through all of them.
    keep_stages(case, "main")
    shutil.rmtree(os.path.join(case.launch, "out", "main"))
    for log in glob.glob(os.path.join(case.launch, "logs", "main.*")):
        os.remove(log)
    reached = {"transformers": "step-7", "olmo-core": "olmo/step7/.metadata.json"}[case.engine]
    reached = os.path.join(case.launch, "out", "main", reached)
    child = case.start()
    while child.poll() is None and not os.path.exists(reached):
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    # torchrun puts its workers into sessions of their own.
    for pid in processes_of(case.launch):
        os.kill(pid, signal.SIGKILL)
    # What a deletion that was cut short leaves.
    os.makedirs(os.path.join(case.launch, "out", "main", "step-3", "state"))
    check(f"{case.engine}: killed in the middle of a stage", os.path.exists(reached) and not os.path.isdir(os.path.join(case.launch, "out", "main", "step-18")))
    check(f"{case.engine}: the same command goes on", case.train() == 0)
    after = case.logs("main")
    same = [(r["step"], r["lr"], r["rows"]) for r in before] == [(r["step"], r["lr"], r["rows"]) for r in after]
    worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(before, after))
    check(f"{case.engine}: with the same steps", same and worst < 1e-5, f"losses within {worst:.1e}")
    check(f"{case.engine}: and verify finds nothing wrong", case.verify().returncode == 0)


def processes_of(launch, *variables):
    """The processes that run in a launch's directory and have these variables."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            directory = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if os.path.realpath(directory) == os.path.realpath(launch) and all(v.encode() in environment for v in variables):
            found.append(int(pid))
    return found


def wait_for(child, holds):
    """Whether it held before the child ended."""
    while child.poll() is None:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


def supervised(case):
    """`midc exec --engine`: a worker killed in one stage, midc told to stop in the next, resumed to the end."""
    run = os.path.join(case.work, case.engine + "-run")
    launch = os.path.join(run, "launch")
    arguments = ["exec", case.file, "-o", run, "--engine", case.engine, "--nproc", "2", "--python", case.python, *QUIET]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MICRO_ROWS": "2", "NO_COLOR": "1"}

    def begin(*more):
        return subprocess.Popen([case.midc, *arguments, *more], cwd=case.work, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def metrics():
        path = os.path.join(run, "metrics.jsonl")
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    child = begin()
    wait_for(child, lambda: processes_of(launch, "RANK=1"))
    worker = processes_of(launch, "RANK=1")[0]
    reached = {"transformers": "step-7/step.json", "olmo-core": "olmo/step7/.metadata.json"}[case.engine]
    wait_for(child, lambda: os.path.exists(os.path.join(launch, "out", "main", reached)))
    os.kill(worker, signal.SIGKILL)
    said = child.communicate()[1]
    check(f"{case.engine}: exec names the failed stage and the log", child.returncode == 2 and "in `main`" in said and "main.log" in said)
    done = [row["step"] for row in metrics()]
    check(f"{case.engine}: exec keeps the metrics up to there", done == list(range(len(done))) and 7 <= len(done) <= 18, f"{len(done)} steps")

    child = begin("--resume")
    wait_for(child, lambda: any(row["stage"] == "long[11]" and row["step"] >= 2 for row in metrics()))
    child.send_signal(signal.SIGTERM)
    said = child.communicate()[1]
    check(f"{case.engine}: exec passes SIGTERM on and ends with 130", child.returncode == 130, said.splitlines()[-1])
    kept = {"transformers": "step-", "olmo-core": "olmo/step"}[case.engine]
    names = glob.glob(os.path.join(launch, "out", "long-11", kept + "*"))
    stopped = len([row for row in metrics() if row["stage"] == "long[11]"])
    check(f"{case.engine}: with a checkpoint of the step it was in", [n.endswith(f"{kept}{stopped}") for n in names] == [True], f"step {stopped}")

    child = begin("--resume")
    said = child.communicate()[1]
    check(f"{case.engine}: exec resumes to the end", child.returncode == 0, "" if child.returncode == 0 else said)
    check(f"{case.engine}: and passes over what is done", "stage `main` is done" in said)
    check(f"{case.engine}: and verifies by itself", said.count("\nok ") == len(read_json(launch, "expected.json")["stages"]))
    check(f"{case.engine}: midc verify agrees", case.run("verify", launch).returncode == 0)
    compare_metrics(case, metrics(), launch)
    with open(os.path.join(run, "report.html")) as file:
        page = file.read()
    check(f"{case.engine}: the report is there", "long[11]" in page and "after" in page)
    check(f"{case.engine}: midc report reads the run", case.run("report", run).returncode == 0)
    kept = ["main/step-18", "long[11]/step-12", "long[12]/step-12", "final/step-0", "after/step-4"]
    held = [os.path.join(run, "checkpoints", name) for name in kept]
    names = ("config.json", "model.safetensors", "tokenizer.json", "checksums.json")
    check(f"{case.engine}: checkpoints are where midc has them", all(os.path.exists(os.path.join(folder, name)) for folder in held for name in names))
    loss = [json.loads(case.must("eval", folder, "--data", "data/prose.test.jsonl", "--context", "128", "--format", "json").stdout)["loss"] for folder in held[:1]]
    check(f"{case.engine}: and midc reads them", 0 < loss[0] < 9, f"held-out loss {loss[0]:.3f}")


def read_json(*path):
    with open(os.path.join(*path)) as file:
        return json.load(file)


def compare_metrics(case, found, launch):
    """The metrics of a supervised run against the plan and against those of `midc exec`."""
    keys = [(row["stage"], row["step"]) for row in found]
    wanted = [(s["stage"], step) for s in read_json(launch, "expected.json")["stages"] for step in range(s["steps"])]
    check(f"{case.engine}: metrics have every step once", sorted(keys) == sorted(wanted), f"{len(keys)} steps")
    ours = {}
    with open(os.path.join(case.work, "run", "metrics.jsonl")) as file:
        for line in file:
            row = json.loads(line)
            ours[row["stage"], row["step"]] = row
    pairs = [(ours[key], row) for key, row in zip(keys, found) if key in ours]
    planned = {s["stage"]: s["lr"] for s in read_json(launch, "expected.json")["stages"]}
    table = lambda stage, step: [value for start, value in planned[stage] if start <= step][-1]
    check(f"{case.engine}: their learning rates are the plan's", all(row["lr"] == table(*key) for key, row in zip(keys, found)))
    same = ("lr", "tokens", "batch_tokens", "context", "mix", "rows")
    check(f"{case.engine}: and all but the losses those of midc exec", bool(pairs) and all(a[key] == b[key] for a, b in pairs for key in same))
    for key in ["loss", "grad_norm"] + (["loss_by_source"] if case.engine == "transformers" else []):
        flat = lambda row: row[key].items() if isinstance(row[key], dict) else [("", row[key])]
        worst = max((abs(dict(flat(a))[name] - value) for a, b in pairs for name, value in flat(b)), default=1)
        check(f"{case.engine}: {key} within 1e-3", worst < 1e-3, f"worst {worst:.1e} over {len(pairs)} steps")


STUBS = {
    "srun": """#!/usr/bin/env bash
# Two nodes, both this machine.
shift
for id in 0 1; do SLURM_NODEID=$id "$@" & tasks+=($!); done
echo "${tasks[@]}" >"$STUBS/tasks"
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit $code
""",
    "scancel": """#!/usr/bin/env bash
echo "scancel $*" >>"$STUBS/calls"
kill -TERM $(cat "$STUBS/tasks")
""",
    "scontrol": """#!/usr/bin/env bash
case $1 in
    show) echo 127.0.0.1; echo 127.0.0.1 ;;
    *) echo "scontrol $*" >>"$STUBS/calls" ;;
esac
""",
}


def under_slurm(case):
    """`slurm.sbatch` with stand-ins for Slurm's commands: two nodes, and the time limit in the middle."""
    stubs = os.path.join(case.work, case.engine + "-slurm")
    os.makedirs(stubs)
    for name, text in STUBS.items():
        with open(os.path.join(stubs, name), "w") as file:
            file.write(text)
        os.chmod(os.path.join(stubs, name), 0o755)
    for name in ("out", "logs"):
        shutil.rmtree(os.path.join(case.launch, name))
    keep_stages(case, "main")
    environment = {**os.environ, "PATH": stubs + ":" + os.environ["PATH"], "STUBS": stubs, "SLURM_SUBMIT_DIR": case.launch,
        "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_JOB_ID": "7", "NPROC": "1", "PYTHON": case.python,
        "OMP_NUM_THREADS": "1", "MICRO_ROWS": "2", "MASTER_PORT": str(29500 + os.getpid() % 1000)}
    log = open(os.path.join(case.work, case.engine + ".log"), "a")
    job = lambda: subprocess.Popen(["bash", os.path.join(case.launch, "slurm.sbatch")], env=environment, stdout=log, stderr=log)
    steps = lambda: len(case.logs("main")) if os.path.exists(os.path.join(case.launch, "logs", "main.rank0.jsonl")) else 0
    first = job()
    wait_for(first, lambda: steps() >= 2)
    first.send_signal(signal.SIGUSR1)
    code, done = first.wait(), steps()
    with open(os.path.join(stubs, "calls")) as file:
        calls = file.read().splitlines()
    check(f"{case.engine}: at its time limit the job stops its tasks and requeues itself", code == 0 and calls == ["scancel --signal=TERM 7", "scontrol requeue 7"], str(calls))
    kept = os.path.join("out", "main", f"step-{done}" if case.engine == "transformers" else f"olmo/step{done}")
    check(f"{case.engine}: with a checkpoint of the step it was in", 2 <= done < 18 and os.path.isdir(os.path.join(case.launch, kept)), f"step {done}")
    check(f"{case.engine}: two nodes go on to the end", job().wait() == 0)
    found = case.run("verify", case.launch, "--stage", "main")
    check(f"{case.engine}: and verify finds nothing wrong", found.returncode == 0, found.stdout.strip())


EXPERTS = """
model sparse { checkpoint = "start-qwen3_moe", context = 128 }
source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }

stage balanced {
  from      = sparse
  steps     = 6
  context   = 128
  batch     = 4 seqs
  mix       = prose
  lr        = 1e-2 then linear(to: 0)
  data_seed = 1
  optimizer = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0)
  clip      = 1e9
  precision = f32
}
"""
# transformers' own loss, which has the balance of the experts in it where `labels` are given.
BY_ITSELF = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from midc_stage import Rows, Table, read
from transformers import AutoModelForCausalLM
stage = read(sys.argv[1] + "/stages/balanced.json")
rows, lr = Rows(stage, sys.argv[1]), Table(stage["lr"])
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float32).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
for step in range(stage["steps"]):
    tokens = torch.tensor([rows.row(step, row)[0].tolist() for row in range(rows.shape(step)[1])])
    out = model(input_ids=tokens, labels=tokens)
    balance = model.config.router_aux_loss_coef * out.aux_loss if model.config.output_router_logits else 0.0
    out.loss.backward()
    optimizer.param_groups[0]["lr"] = lr[step]
    optimizer.step()
    optimizer.zero_grad()
    print(float(out.loss - balance))
"""


def experts(case):
    """A mixture of experts, which only the engine trains: with the balance of its experts where it is asked for."""
    sparse = Case(case.midc, case.engine, case.python, case.work)
    sparse.file, sparse.launch = os.path.join(case.work, "experts.curriculum"), case.launch + "-experts"
    with open(sparse.file, "w") as out:
        out.write(EXPERTS)
    first = {}
    for weight in (0.0, 0.5):
        make_start(
            case.python, case.work, name="start-qwen3_moe", model_type="qwen3_moe", intermediate_size=128, num_key_value_heads=2,
            head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1,
            router_aux_loss_coef=weight, output_router_logits=weight > 0)
        sparse.emit()
        code = sparse.train(NPROC="1", MICRO_ROWS="4")
        alone = subprocess.run(
            [case.python, "-c", BY_ITSELF, sparse.launch, os.path.join(case.work, "start-qwen3_moe")],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        ours, theirs = [row["loss"] for row in sparse.logs("balanced")], [float(loss) for loss in alone.stdout.split()]
        worst = max((abs(a - b) for a, b in zip(ours, theirs)), default=1.0)
        check(f"{case.engine}: experts train as by transformers' own loss, balance {weight}", code == 0 and len(ours) == len(theirs) == 6 and worst < 1e-4, f"worst {worst:.1e}, {ours[0]:.3f} to {ours[-1]:.3f}{alone.stderr[-500:] if alone.returncode else ''}")
        first[weight] = ours
    apart = max(abs(a - b) for a, b in zip(*first.values()))
    check(f"{case.engine}: and the balance makes a difference", apart > 1e-3, f"{apart:.1e}")


WIDE = """
model wide {
  init      = olmo2(layers: 2, hidden: 48, heads: 4, kv_heads: 2, head_dim: 24, ffn: 96, vocab: 4096, init_std: 0.005)
  tokenizer = "data/tokenizer.json"
  context   = 64
}
source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }

stage first { from = wide, steps = 2, context = 64, batch = 4 seqs, mix = prose, lr = 1e-6, data_seed = 1 }
stage then { from = first, state = weights_only, steps = 2, lr = 1e-6, data_seed = 2 }
"""
SHAPE = """
import sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
matrix = model.model.layers[0].self_attn.q_proj.weight
print(model.config.head_dim, list(matrix.shape), round(matrix.std().item(), 3), round(model.get_input_embeddings().weight.std().item(), 3))
"""


def wide(case):
    """A fresh model whose heads are wider than their share of the model, with weights smaller than usual."""
    other = Case(case.midc, case.engine, case.python, case.work)
    other.file, other.launch = os.path.join(case.work, "wide.curriculum"), case.launch + "-wide"
    with open(other.file, "w") as out:
        out.write(WIDE)
    other.emit()
    code = other.train(NPROC="1")
    folder = os.path.join(other.launch, "out", "then", "step-2", "hf")
    found = subprocess.run([case.python, "-c", SHAPE, folder], capture_output=True, text=True)
    check(f"{case.engine}: heads and weights are as wide as planned", code == 0 and found.stdout == "24 [96, 48] 0.005 0.005\n", found.stdout + found.stderr[-500:])


LEAKING = """
model base { checkpoint = "start-gpt_oss", context = 128 }
source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }

stage cut { from = base, steps = 2, context = 128, batch = 2 seqs, mix = prose, lr = 1e-4, data_seed = 1, attention = documents }
"""


def leaking(case):
    """An architecture in which transformers does not heed where documents begin is not trained within them."""
    other = Case(case.midc, case.engine, case.python, case.work)
    other.file, other.launch = os.path.join(case.work, "leaking.curriculum"), case.launch + "-leaking"
    with open(other.file, "w") as out:
        out.write(LEAKING)
    make_start(
        case.python, case.work, name="start-gpt_oss", model_type="gpt_oss", intermediate_size=64, num_key_value_heads=2, head_dim=16,
        num_local_experts=4, num_experts_per_tok=2, sliding_window=32)
    other.emit()
    code = other.train(NPROC="1")
    with open(os.path.join(case.work, case.engine + ".log")) as file:
        said = "text reaches the documents after it" in file.read()
    check(f"{case.engine}: refuses documents that are not kept apart", code != 0 and said and not os.path.exists(os.path.join(other.launch, "out")))


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
        supervised(case)
        if engine == "transformers":
            sharded(case)
            experts(case)
            leaking(case)
        wide(case)
        trained_wrong(case)
        under_slurm(case)
    print(f"{results['passed']} passed, {results['failed']} failed")
    return int(results["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())

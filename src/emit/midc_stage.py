"""What the runners of a launch share: the planned rows, the log, checkpoints' names and soups. Knows no engine.

    out/NAME/step-N/hf          config.json, model.safetensors, tokenizer files
    out/NAME/step-N/step.json   written with the checkpoint, which is there whole or not at all
    logs/NAME.rankR.jsonl       per step what `midc verify` and `midc exec --engine` read

A step is counted from 0 and uses the learning rate, rows and mixture of that number.
"""

import errno
import json
import math
import os
import shutil
import signal
import time
import zlib
from bisect import bisect_right

# Exit code of a stage that was asked to stop and kept what it had, as shells report SIGTERM.
STOPPED = 128 + signal.SIGTERM


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Table:
    """Values that hold from a step on: [[step, value], …]."""

    def __init__(self, runs):
        self.steps = [step for step, _ in runs]
        self.values = [value for _, value in runs]

    def __getitem__(self, step):
        return self.values[bisect_right(self.steps, step) - 1]


def row_set(stage, root):
    """The directory of a stage's rows and what `rows.json` says of them."""
    folder = os.path.join(root, "rows", stage["name"])
    if not os.path.exists(os.path.join(folder, "rows.json")):
        raise SystemExit(f"no rows of stage `{stage['stage']}`: run `midc data FILE --export {root}/rows`")
    about = read(os.path.join(folder, "rows.json"))
    if about["plan"] != stage["plan"]:
        raise SystemExit(f"the rows in {folder} are of another plan: export them again")
    return folder, about


class Rows:
    """The planned rows of a stage, by step."""

    def __init__(self, stage, root):
        import numpy as np

        folder, about = row_set(stage, root)
        self.np = np
        self.phases = stage["phases"]
        self.starts = [phase["step"] for phase in self.phases]
        self.tokens = np.memmap(os.path.join(folder, "tokens.bin"), dtype=about["dtype"], mode="r")
        self.targets = self.marks = None
        if about["marks"]:
            self.targets = np.memmap(os.path.join(folder, "targets.bin"), dtype=np.uint8, mode="r")
            self.marks = np.memmap(os.path.join(folder, "starts.bin"), dtype=np.uint8, mode="r")

    def shape(self, step):
        """Tokens of the stage before the step, rows of the step, tokens of a row."""
        phase = self.phases[bisect_right(self.starts, step) - 1]
        done = (step - phase["step"]) * phase["rows"] * phase["context"]
        return phase["tokens"] + done, phase["rows"], phase["context"]

    def row(self, step, row):
        """Token ids, which of them are targets, where documents begin, and the CRC-32 of the ids."""
        np = self.np
        before, _, context = self.shape(step)
        at = slice(before + row * context, before + (row + 1) * context)
        tokens = np.asarray(self.tokens[at])
        if self.targets is not None:
            targets, starts = np.asarray(self.targets[at]), np.asarray(self.marks[at])
        else:
            targets, starts = np.ones(context, dtype=np.uint8), np.zeros(context, dtype=np.uint8)
        return tokens, targets, starts, checksum(tokens)


def checksum(tokens):
    """CRC-32 of a row as it stands in `tokens.bin`."""
    return zlib.crc32(tokens.tobytes())


def origin_keys(stage, root, base):
    """`config.json` of what the stage starts from, and the directory its weights are in (or None)."""
    origin = stage["from"]
    if origin["kind"] == "model":
        model = read(os.path.join(root, "models", origin["name"] + ".json"))
        if not model["checkpoint"]:
            return dict(model["config"]), None
        weights = os.path.join(base, model["checkpoint"])
    else:
        weights = os.path.join(checkpoint(root, origin["name"], origin["step"]), "hf")
    return read(os.path.join(weights, "config.json")), weights


def local_rope(keys):
    """RoPE of layers with a window, which keep theirs whatever a stage does to the others', or None."""
    by_type = keys.get("rope_parameters") or {}
    if keys["model_type"] == "olmo3":
        theta = (by_type.get("sliding_attention") or by_type).get("rope_theta") or keys.get("rope_theta") or 500_000.0
    elif keys["model_type"] == "gemma3_text":
        theta = (by_type.get("sliding_attention") or {}).get("rope_theta") or keys.get("rope_local_base_freq") or 10_000.0
    else:
        return None
    return {"rope_type": "default", "rope_theta": theta}


def full_rope(keys, local):
    """RoPE of the other layers of such a model, whichever way its configuration spells it."""
    by_type = keys.get("rope_parameters") or {}
    usual = 1_000_000.0 if keys["model_type"] == "gemma3_text" else local["rope_theta"]
    flat = {"rope_type": "default", "rope_theta": keys.get("rope_theta") or usual}
    full = {**flat, **by_type.get("full_attention", by_type), **(keys.get("rope_scaling") or {})}
    if "type" in full:
        full["rope_type"] = full.pop("type")
    return full


def checkpoint(root, name, step):
    """The directory of a stage's or soup's checkpoint."""
    return os.path.join(root, "out", name, f"step-{step}")


def lasting_steps(stage):
    """Steps whose checkpoints stay and are exported: the last one and the named ones."""
    return sorted({stage["steps"], *stage["checkpoints"].values()})


def publish(aside, target, plan, name, step):
    """Give a finished checkpoint its name, once it is on the disk: a power cut leaves all of it or none."""
    with open(os.path.join(aside, "step.json"), "w", encoding="utf-8") as file:
        json.dump({"plan": plan, "stage": name, "step": step}, file)
    for folder, _, names in os.walk(aside):
        for path in [os.path.join(folder, name) for name in names] + [folder]:
            sync(path)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(aside, target)
    sync(os.path.dirname(target))


def sync(path):
    """Force a file, or the names in a directory, to the disk. Some file systems cannot do the latter."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not os.path.isdir(path) or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def told(folder):
    """What `step.json` of a checkpoint says, or None where there is no whole one: it is then made again."""
    try:
        return read(os.path.join(folder, "step.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def done_steps(stage, root):
    """Steps of the complete checkpoints, in order."""
    folder = os.path.join(root, "out", stage["name"])
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = []
    for step in sorted(int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit()):
        found = told(os.path.join(folder, f"step-{step}"))
        if found and found["plan"] != stage["plan"]:
            raise SystemExit(f"{folder} holds checkpoints of another plan")
        if found:
            steps.append(step)
    return steps


def copy_tokenizer(stage, root, base, target):
    model = read(os.path.join(root, "models", stage["root"] + ".json"))
    source = os.path.join(base, model["tokenizer"] or model["checkpoint"] or "")
    source = source if os.path.isdir(source) else os.path.dirname(source)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if os.path.exists(os.path.join(source, name)):
            shutil.copy(os.path.join(source, name), target)


class Log:
    """One line per step; lines past the checkpoint a stage goes on from are dropped.

    The stage may have been begun before by another number of processes: a process also looks after the
    files of those that come `world`, `2·world`, … after it.
    """

    def __init__(self, stage, root, first, rank, world):
        self.stage = stage["stage"]
        folder = os.path.join(root, "logs")
        os.makedirs(folder, exist_ok=True)
        path = lambda r: os.path.join(folder, f"{stage['name']}.rank{r}.jsonl")
        self.path = path(rank)
        self.cut(self.path, first)
        rank += world
        while os.path.exists(path(rank)):
            self.cut(path(rank), first)
            rank += world
        self.last = time.monotonic()

    @staticmethod
    def cut(path, first):
        """Keep the lines of the steps before `first`. A new file takes the old one's place at once."""
        kept = []
        if first and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                kept = [line for line in file if line.endswith("\n") and json.loads(line)["step"] < first]
        with open(path + ".partial", "w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".partial", path)

    def write(self, step, **entry):
        now = time.monotonic()
        entry = {"stage": self.stage, "step": step, **entry, "seconds": now - self.last}
        self.last = now
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(plain(entry), allow_nan=False) + "\n")


def plain(value):
    """JSON has no NaN and no infinity: `null` stands for them."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class StopRequest:
    """Whether this process was sent SIGTERM or SIGINT, as schedulers and ctrl-C do."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, *_):
        self.asked = True


def soup(recipe, root):
    """The weighted mean of exported checkpoints, in f64, kept like a stage of no steps."""
    from safetensors.torch import load_file, save_file

    target = checkpoint(root, recipe["name"], 0)
    if told(target):
        return
    parts = [os.path.join(checkpoint(root, i["name"], i["step"]), "hf") for i in recipe["ingredients"]]
    aside = target + ".partial"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(parts[0], os.path.join(aside, "hf"), ignore=shutil.ignore_patterns("*.safetensors"))
    for shard in sorted(name for name in os.listdir(parts[0]) if name.endswith(".safetensors")):
        states = [load_file(os.path.join(part, shard)) for part in parts]
        assert all(state.keys() == states[0].keys() for state in states), "the ingredients are of different shape"
        mean = {
            name: sum(w * state[name].double() for w, state in zip(recipe["weights"], states)).to(states[0][name].dtype)
            for name in states[0]
        }
        save_file(mean, os.path.join(aside, "hf", shard), metadata={"format": "pt"})
    publish(aside, target, recipe["plan"], recipe["soup"], 0)


def run(parser, train):
    """Parse the command line of a runner and do what its file describes. `train` takes the stage, the
    launch's directory and the options."""
    micro = int(os.environ.get("MICRO_ROWS", 1))
    parser.add_argument("file", help="stages/STAGE.json or soups/SOUP.json")
    parser.add_argument("--base", default=".", help="directory of the curriculum, which paths of models start from")
    parser.add_argument("--micro-rows", type=int, default=micro, help="rows a process sends through the model at once")
    options = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(options.file)))
    recipe = read(options.file)
    if "ingredients" in recipe:
        soup(recipe, root)
    else:
        train(recipe, root, options)

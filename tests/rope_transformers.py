"""Compare midc's RoPE with transformers' ROPE_INIT_FUNCTIONS.

usage: rope_transformers.py PATH_OF_ROPE_TABLE     (see tests/rope_transformers.sh)

For every method over a grid of head dimensions, bases, factors and original lengths:
1. inv_freq and attention factor equal transformers' to 1e-12 relative with its arithmetic switched
   to f64: the formulas are the same;
2. the same to 1e-6 as it ships (f32), save where its f32 result is itself further than that from its
   f64 result (a few ramps with a factor of 40, where 1 - ramp cancels); those are counted;
3. the config.json that midc writes, loaded by transformers (LlamaConfig), saved by it and loaded
   again, gives the same frequencies, and midc reads the saved file back to the same method.
"""

import itertools
import json
import math
import subprocess
import sys
import tempfile

import torch
from transformers import LlamaConfig, logging
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HEAD_DIMS = [16, 32, 64, 80, 96, 128, 256]
THETAS = [1e4, 1e5, 5e5, 1e6, 8e6]
FACTORS = [1.0, 1.5, 4.0, 8.0, 40.0]
ORIGINALS = [512, 4096, 8192, 32768]


def cases():
    for dim, theta in itertools.product(HEAD_DIMS, THETAS):
        yield dim, theta, {"method": "default"}, 4096
        for s in FACTORS:
            yield dim, theta, {"method": "pi", "factor": s}, 4096
            yield dim, theta, {"method": "ntk", "factor": s}, 4096
            for original in ORIGINALS:
                for length in (original // 2, original, original * 3):
                    yield dim, theta, {"method": "dynamic_ntk", "factor": s, "original": original}, length
                by_parts = {"factor": s, "original": original, "beta_fast": 32.0, "beta_slow": 1.0}
                yield dim, theta, {"method": "ntk_by_parts", **by_parts}, original
                nothing = {"mscale": None, "mscale_all_dim": None, "attention_factor": None}
                for more in (
                    {},
                    {"mscale": 1.0, "mscale_all_dim": 1.0},
                    {"mscale": 0.707, "mscale_all_dim": 1.2},
                    {"mscale": 0.707},
                    {"mscale": 0.0, "mscale_all_dim": 1.0},
                    {"attention_factor": 1.25},
                    {"truncate": False},
                    {"beta_fast": 16.0, "beta_slow": 2.0},
                    {"beta_fast": 1.0, "beta_slow": 1.0},
                ):
                    yield dim, theta, {"method": "yarn", **by_parts, **nothing, **more}, original
                for low, high in ((1.0, 4.0), (2.0, 3.0)):
                    scaling = {"method": "llama3", "factor": s, "low": low, "high": high, "original": original}
                    yield dim, theta, scaling, original
                short = [1.0 + d / dim for d in range(dim // 2)]
                long = [1.0 + s * d / dim for d in range(dim // 2)]
                for length, attention in ((original, None), (original + 1, None), (original * 2, 1.1)):
                    scaling = {"method": "longrope", "short": short, "long": long, "original": original, "factor": s}
                    if attention is not None:
                        scaling["attention_factor"] = attention
                    yield dim, theta, scaling, length


def config_of(dim, keys):
    return LlamaConfig(
        hidden_size=2 * dim, num_attention_heads=2, num_key_value_heads=1, head_dim=dim, num_hidden_layers=1,
        intermediate_size=8, vocab_size=16, **json.loads(json.dumps(keys)),
    )


def theirs(config, seq_len):
    """inv_freq and attention factor as transformers' own modelling code picks them."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        return LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    return ROPE_INIT_FUNCTIONS[kind](config, seq_len=seq_len)


class Double:
    """transformers spells its precision `torch.float`, `torch.float32` and `.float()`."""

    def __enter__(self):
        self.saved = torch.float, torch.float32, torch.Tensor.float
        torch.float = torch.float32 = torch.float64
        torch.Tensor.float = torch.Tensor.double
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.float, torch.float32, torch.Tensor.float = self.saved
        torch.set_default_dtype(self.default)


def difference(ours, theirs):
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))


def expected_reading(scaling, theta, dim):
    """What midc should read back: methods no reader has a name for come back as what they amount to."""
    scaling = dict(scaling)
    if scaling["method"] == "ntk":
        return theta * scaling["factor"] ** (dim / (dim - 2)), {"method": "default"}
    if scaling["method"] == "ntk_by_parts":
        return theta, {**scaling, "method": "yarn", "mscale": None, "mscale_all_dim": None, "attention_factor": 1.0}
    return theta, scaling


def close(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return a == b


def main(table):
    logging.set_verbosity_error()  # it warns of max_position_embeddings == original, which the grid has
    grid = list(cases())
    lines = [
        {"head_dim": dim, "theta": theta, "scaling": scaling, "seq_len": length, "context": length}
        for dim, theta, scaling, length in grid
    ]
    run = lambda lines: [
        json.loads(line)
        for line in subprocess.run(
            [table], input="".join(json.dumps(line) + "\n" for line in lines), stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()
    ]
    answers = run(lines)
    assert len(answers) == len(grid)
    worst = {}
    failures = []
    rounded = 0
    saved = []
    with tempfile.TemporaryDirectory() as directory:
        for (dim, theta, scaling, length), answer in zip(grid, answers):
            config = config_of(dim, answer["config"])
            config.save_pretrained(directory)
            again = LlamaConfig.from_pretrained(directory)
            saved.append(json.load(open(f"{directory}/config.json")))
            with Double():
                double, factor = theirs(config, length)
            single, factor_single = theirs(config, length)
            reread, factor_reread = theirs(again, length)
            row = (
                max(difference(answer["inv_freq"], single.tolist()), difference(answer["inv_freq"], reread.tolist())),
                difference(answer["inv_freq"], double.tolist()),
                max(abs(answer["attention_factor"] / f - 1) for f in (factor, factor_single, factor_reread)),
            )
            worst[scaling["method"]] = tuple(map(max, row, worst.get(scaling["method"], row)))
            own_rounding = difference(single.tolist(), double.tolist())
            rounded += row[0] > 1e-6
            if row[0] > max(1e-6, 1.001 * own_rounding) or row[1] > 1e-12 or row[2] > 1e-12:
                failures.append(((dim, theta, scaling, length), row))
    for (dim, theta, scaling, length), answer, back in zip(grid, answers, run([{"config": c} for c in saved])):
        base, method = expected_reading(scaling, theta, dim)
        for reading in (answer.get("read_back"), back.get("read_back")):
            if reading is None or not close(reading["theta"], base) or not close(reading["scaling"], method):
                failures.append(((dim, theta, scaling, length), reading or answer.get("error") or back.get("error")))
    print(f"{len(grid)} cases; worst relative differences (f32 as shipped, f64, attention factor):")
    for method, row in worst.items():
        print(f"  {method:14}", *(f"{value:.2e}" for value in row))
    print(f"{rounded} cases where transformers' own f32 rounding exceeds 1e-6")
    for failure in failures[:20]:
        print("FAILED", *failure)
    print(f"{len(grid) - len(failures)} passed, {len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

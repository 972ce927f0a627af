"""Compare midc with Hugging Face transformers.

usage: transformers_compare.py DIR_OF_BINARIES [CHECKPOINT…]     (see tests/transformers.sh)

For each model: it loads with from_pretrained, nothing missing and nothing unexpected; a copy through midc
(read, written as a checkpoint) gives the same logits bit for bit; and `midc eval` gives the mean NLL
that transformers gives, within 1e-4 relative in f32. And soups equal numpy.average.
"""

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "examples", "data")
TOLERANCE = 1e-4
results = {"passed": 0, "failed": 0}


def check(name, holds, detail=""):
    results["passed" if holds else "failed"] += 1
    print(f"{'ok    ' if holds else 'FAILED'} {name} {detail}", flush=True)


def ids_of(row, tokenizer):
    """A record's tokens as transformers makes them: `text`, else the dialogue through the chat template."""
    if row.get("text") is not None:
        return tokenizer(row["text"])["input_ids"]
    return tokenizer.apply_chat_template(row["messages"], return_dict=False)


def windows(path, tokenizer, context):
    for line in open(path, encoding="utf-8"):
        ids = ids_of(json.loads(line), tokenizer)
        for start in range(0, len(ids), context):
            yield ids[start : start + context]


@torch.no_grad()
def mean_nll(model, path, tokenizer, context):
    """(mean NLL in nats, predicted tokens) over non-overlapping windows."""
    total, count = 0.0, 0
    for window in windows(path, tokenizer, context):
        if len(window) < 2:
            continue
        ids = torch.tensor([window])
        logits = model(input_ids=ids).logits[0, :-1].double()
        total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += len(window) - 1
    return total / count, count


def load(directory):
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    problems = {k: v for k, v in info.items() if v}
    check(f"{directory_name(directory)} loads", not problems, problems or "")
    return model.eval()


def directory_name(path):
    return os.path.relpath(path, ROOT) if path.startswith(ROOT) else "/".join(path.rstrip("/").split("/")[-2:])


class Midc:
    def __init__(self, binaries):
        self.binaries = binaries

    def copy(self, source, target, dtype="f32"):
        subprocess.run([f"{self.binaries}/examples/checkpoint_copy", source, target, dtype], check=True, stderr=subprocess.DEVNULL)

    def eval(self, model, data, context):
        """The JSON of `midc eval`, or None if this build has no such command."""
        command = [f"{self.binaries}/midc", "eval", model, "--data", data, "--context", str(context), "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stderr.strip(), file=sys.stderr)
            return None
        return json.loads(done.stdout)


def compare_loss(midc, name, source, model, tokenizer, data, context):
    ours = midc.eval(source, data, context)
    theirs, count = mean_nll(model, data, tokenizer, context)
    what = f"{name} on {os.path.basename(data)}, context {context}"
    if ours is None:
        return check(what, False, "midc eval failed")
    difference = abs(ours["loss"] / theirs - 1)
    check(what, difference <= TOLERANCE, f"midc {ours['loss']:.6f} transformers {theirs:.6f} ({difference:.1e}), {count} tokens")


def same_logits(name, one, other):
    ids = torch.arange(7, 7 + 48).remainder(one.config.vocab_size)[None]
    with torch.no_grad():
        check(f"{name}: same logits", torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits))


ROPES = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "longrope": {
        "rope_type": "longrope", "factor": 4.0, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0], "original_max_position_embeddings": 64,
    },
}
FAMILIES = {
    "llama": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "llama-untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
    "mistral": {"sliding_window": None, "num_key_value_heads": 2},
    "qwen2": {"tie_word_embeddings": True, "num_key_value_heads": 2},
    "qwen3": {"tie_word_embeddings": True, "num_key_value_heads": 2},
    "olmo2": {"num_key_value_heads": 4, "rms_norm_eps": 1e-6},
    "mistral-window": {"sliding_window": 40, "num_key_value_heads": 2},
    "qwen3-window": {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1, "num_key_value_heads": 2},
    # By their own defaults: every layer but the fourth has a window, every fourth has no RoPE.
    "olmo3": {"num_key_value_heads": 2, "sliding_window": 40, "num_hidden_layers": 4},
    "smollm3": {"num_key_value_heads": 2, "num_hidden_layers": 4},
    "gemma3_text": {"num_key_value_heads": 1, "sliding_window": 40, "num_hidden_layers": 6, "query_pre_attn_scalar": 16},
}


def small_models(midc, work):
    torch.set_num_threads(1)  # matrices this small only make threads wait for each other
    data = os.path.join(work, "sample.jsonl")
    with open(data, "w", encoding="utf-8") as out:
        for path in sorted(glob.glob(f"{DATA}/*.test.jsonl")):
            out.writelines([line for line in open(path, encoding="utf-8") if 500 < len(line) < 4_000][:2])
    cases = [(family, "default") for family in FAMILIES] + [("llama", rope) for rope in ROPES if rope != "default"]
    cases += [("olmo3", "yarn"), ("olmo3", "another base"), ("smollm3", "yarn"), ("gemma3_text", "linear"), ("gemma3_text", "another base")]
    for family, rope in cases:
        torch.manual_seed(0)
        scaling = {"rope_theta": 10_000.0, "rope_type": "default", **ROPES.get(rope, {})}
        if family in ("olmo3", "gemma3_text"):
            base = 700.0 if rope == "another base" else 10_000.0
            scaling = {"full_attention": scaling, "sliding_attention": {"rope_theta": base, "rope_type": "default"}}
        keys = {"num_hidden_layers": 3, "head_dim": 16, **FAMILIES[family], "rope_parameters": scaling}
        config = AutoConfig.for_model(
            family.split("-")[0], hidden_size=64, intermediate_size=96, num_attention_heads=4, vocab_size=4096,
            max_position_embeddings=256, initializer_range=0.2, pad_token_id=None, bos_token_id=None, eos_token_id=0, **keys,
        )
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name:  # 1 everywhere would hide a norm in the wrong place
                torch.nn.init.normal_(parameter, 0.0 if family == "gemma3_text" else 1.0, 0.3)
            if "bias" in name:  # 0 everywhere, a bias that is left out
                torch.nn.init.normal_(parameter, 0.0, 0.3)
        name = f"{family}, {rope} RoPE"
        source = os.path.join(work, f"{family}-{rope}")
        model.save_pretrained(source)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(DATA, file), source)
        # From where there is no `config.json`: for `qwen2` transformers splits by a rule of its own, whatever the file says.
        tokenizer = AutoTokenizer.from_pretrained(DATA)
        midc.copy(source, source + "-copy")
        same_logits(name, model, load(source + "-copy"))
        # The lengths at which dynamic and longrope change: transformers recomputes per call there.
        context = 64 if rope in ("dynamic", "longrope") else 128
        compare_loss(midc, name, source, model, tokenizer, data, context)

    sharded = os.path.join(work, "sharded")
    model.save_pretrained(sharded, max_shard_size="200KB")
    check("shards were written", os.path.exists(os.path.join(sharded, "model.safetensors.index.json")))
    midc.copy(sharded, sharded + "-copy")
    same_logits("shards", model, load(sharded + "-copy"))
    midc.copy(sharded, sharded + "-bf16", "bf16")
    rounded = load_file(os.path.join(sharded + "-bf16", "model.safetensors"))
    state = model.state_dict()
    check("bf16 rounds as PyTorch does", all(torch.equal(rounded[k], state[k].bfloat16()) for k in rounded))
    check("bf16 is the dtype transformers sees", AutoConfig.from_pretrained(sharded + "-bf16").dtype == torch.bfloat16)


def soups(midc, work):
    """`midc soup` against numpy.average, bit for bit."""
    paths, states = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            "llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=512, max_position_embeddings=256, initializer_range=0.2,
        )
        model = AutoModelForCausalLM.from_config(config)
        paths.append(os.path.join(work, f"ingredient-{seed}"))
        model.save_pretrained(paths[-1])
        states.append(load_file(os.path.join(paths[-1], "model.safetensors")))
    weights = np.array([0.1, 3, 1, 0.7], dtype=np.float32)
    for name, flags, expected in [
        ("mean", [], lambda stack: np.average(stack, axis=0)),
        ("weighted", ["--weights", "0.1,3,1,0.7"], lambda stack: np.average(stack, axis=0, weights=weights)),
    ]:
        out = os.path.join(work, f"soup-{name}")
        subprocess.run([f"{midc.binaries}/midc", "soup", *paths, "-o", out, *flags], check=True, stderr=subprocess.DEVNULL)
        soup = load_file(os.path.join(out, "model.safetensors"))
        same = all(
            np.array_equal(soup[k].numpy().view(np.uint32), expected(np.stack([s[k].numpy() for s in states])).view(np.uint32))
            for k in soup
        )
        check(f"soup ({name}) equals numpy.average bit for bit", same and soup.keys() == states[0].keys())
        load(out)


def smollm2(midc, work, gguf, tokens):
    """From GGUF, and from a Hugging Face directory: midc's own and one converted elsewhere."""
    directory = os.path.join(work, "smollm2")
    midc.copy(gguf, directory)
    model = load(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    plain = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    sources = [gguf, directory]
    converted = os.environ.get("MIDC_SMOLLM2_HF")
    if converted:
        ours, theirs = (load_file(os.path.join(d, "model.safetensors")) for d in (directory, converted))
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        check("weights from GGUF equal the converted directory's", same)
        sources.append(converted)
    for path in sorted(glob.glob(f"{DATA}/*.test.jsonl")):
        head = os.path.join(work, os.path.basename(path))
        count = 0
        with open(head, "w", encoding="utf-8") as out:
            for line in open(path, encoding="utf-8"):
                row = json.loads(line)
                ids = ids_of(row, tokenizer)
                if "text" in row and plain.encode(row["text"]).ids != ids:
                    check(f"{os.path.basename(path)} tokenised alike", False)
                if count + len(ids) > tokens and "text" in row:  # part of a long document will do
                    row["text"] = tokenizer.decode(ids[: tokens - count])
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += len(ids)
                if count >= tokens:
                    break
        for source in sources:
            compare_loss(midc, directory_name(source), source, model, tokenizer, head, 1024)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries")
    parser.add_argument("checkpoints", nargs="*")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per domain for SmolLM2")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    midc = Midc(args.binaries)
    with tempfile.TemporaryDirectory() as work:
        for checkpoint in args.checkpoints:
            model = load(checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            for data in sorted(glob.glob(f"{DATA}/*.test.jsonl")):
                compare_loss(midc, directory_name(checkpoint), checkpoint, model, tokenizer, data, args.context)
        if not args.checkpoints:
            threads = torch.get_num_threads()
            small_models(midc, work)
            soups(midc, work)
            torch.set_num_threads(threads)
            gguf = os.environ.get("MIDC_SMOLLM2", f"{ROOT}/examples/models/SmolLM2-135M-Instruct.Q4_1.gguf")
            if os.path.exists(gguf):
                smollm2(midc, work, gguf, args.tokens)
            else:
                print("skipped: SmolLM2-135M: run examples/fetch_smollm2.sh first", file=sys.stderr)
    print(f"{results['passed']} passed, {results['failed']} failed")
    return int(results["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())

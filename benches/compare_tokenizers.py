"""midc's tokenising of a JSONL file beside the tokenizers library's own, in turns on the same machine.

usage: compare_tokenizers.py MIDC TOKENIZER [--megabytes N] [--rounds N] [--data DIR]

midc reads, parses, tokenises and writes its cache (`midc data` with an empty cache directory); the
library has the parsed texts in memory and calls `encode_batch_fast` on all cores in batches of 4 MB of
text. TOKENIZER is a `tokenizer.json`. The file is made of shuffled lines of DIR/*.train.jsonl. Needs
`tokenizers` in the Python that runs it. Prints MB of text per second, medians with their range over
rounds, midc's peak resident memory, and the ratio; checks that both count the same tokens.
"""

import argparse
import glob
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tokenizers import Tokenizer  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("midc")
parser.add_argument("tokenizer")
parser.add_argument("--megabytes", type=int, default=200)
parser.add_argument("--rounds", type=int, default=3)
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
parser.add_argument("--data", default=os.path.join(root, "examples", "data"))
args = parser.parse_args()

CURRICULUM = """model m {{
  init = llama(layers: 1, hidden: 64, heads: 1, kv_heads: 1, ffn: 64, vocab: {vocab}, tie_embeddings: yes)
  tokenizer = "{tokenizer}"
  context = 256
  rope = rope(theta: 10_000)
}}
source s {{ path = "text.jsonl", kind = web }}
mix all {{ s = 100% }}
stage a {{
  from = m
  tokens = 100 * 4096
  data_seed = 1
  batch = 16 seqs
  mix = all
  lr = 1e-3 then linear(to: 0)
}}
"""


def write_text(path, size):
    """Documents of 5 to 120 lines, at least `size` bytes of JSONL in all."""
    chosen = random.Random(1)
    lines = []
    for name in sorted(glob.glob(os.path.join(args.data, "*.train.jsonl"))):
        for line in open(name, encoding="utf-8"):
            lines += [part for part in json.loads(line).get("text", "").split("\n") if part.strip()]
    written = 0
    with open(path, "w", encoding="utf-8") as out:
        while written < size:
            text = "\n".join(chosen.choice(lines) for _ in range(chosen.randint(5, 120)))
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            out.write(line)
            written += len(line.encode())


def midc(folder):
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        command = [args.midc, "data", os.path.join(folder, "m.curriculum"), "--cache-dir", cache,
                   "--format", "json", "--quiet"]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        elapsed = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"midc data ended with status {status}")
        return elapsed, json.loads(out), usage.ru_maxrss / 1024


def library(tokenizer, batches):
    start = time.perf_counter()
    tokens = 0
    for batch in batches:
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            tokens += len(encoding)
    return time.perf_counter() - start, tokens


def batched(texts, size=4 << 20):
    batches, held = [[]], 0
    for text in texts:
        batches[-1].append(text)
        held += len(text)
        if held >= size:
            batches.append([])
            held = 0
    return batches


with tempfile.TemporaryDirectory() as folder:
    tokenizer = Tokenizer.from_file(args.tokenizer)
    write_text(os.path.join(folder, "text.jsonl"), args.megabytes * 1_000_000)
    with open(os.path.join(folder, "m.curriculum"), "w", encoding="utf-8") as out:
        out.write(CURRICULUM.format(vocab=tokenizer.get_vocab_size(True), tokenizer=os.path.abspath(args.tokenizer)))
    with open(os.path.join(folder, "text.jsonl"), encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    batches = batched(texts)
    speeds, memory = {"midc": [], "tokenizers": []}, 0
    for _ in range(args.rounds):
        elapsed, counts, rss = midc(folder)
        speeds["midc"].append(megabytes / elapsed)
        memory = max(memory, rss)
        elapsed, tokens = library(tokenizer, batches)
        speeds["tokenizers"].append(megabytes / elapsed)
        source = counts["sources"][0]
        # midc ends every document with a token of its own.
        if source["tokens"] != tokens + len(texts):
            raise SystemExit(f"midc counts {source['tokens']} tokens, the library {tokens} + {len(texts)}")
    for name, values in speeds.items():
        print(f"{name:11} {statistics.median(values):7.2f} MB/s ({min(values):.2f} to {max(values):.2f})")
    ratio = statistics.median(speeds["midc"]) / statistics.median(speeds["tokenizers"])
    print(f"midc / tokenizers: {ratio:.2f}; midc's peak resident memory {memory:.0f} MiB, "
          f"{megabytes:.0f} MB of text, {tokens} tokens, {os.cpu_count()} cores")

"""Write the example rows in every format with the usual tools; midc must count the same documents,
tokens and bytes in each, and write dialogues by a chat template as transformers does. Called by
readers.sh with the binary and an empty directory."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys

import numpy
import pyarrow
import pyarrow.parquet
import zstandard
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

MIDC, DIR = sys.argv[1], pathlib.Path(sys.argv[2])
DATA = pathlib.Path("examples/data").resolve()
TOKENIZER = Tokenizer.from_file(str(DATA / "tokenizer.json"))
EOS = 0

# In the manner of ChatML, of Llama 3 and of Mistral: what templates do with blanks, methods, loops,
# macros and special tokens.
TEMPLATES = {
    "chatml": """{%- if messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message.content.strip() + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "headers": """{{ bos_token }}
{% set ns = namespace(n=0) %}
{% macro head(role) %}<|{{ role | upper }}|>{% endmacro %}
{% for m in messages %}
    {% set ns.n = ns.n + 1 %}
{{ head(m.role) }} {{ ns.n }}/{{ messages | length }}: {{ m['content'] | trim }}
{% if loop.last %}{{ eos_token }}{% endif %}
{% endfor %}""",
    "pairs": """{% for m in messages if m.role in ['user', 'assistant'] %}
{% if m.role == 'user' %}[INST] {{ m.content[:200] }} [/INST]{% else %} {{ m.content.replace('  ', ' ').split('\\n')[0] }}{{ eos_token }}{% endif %}
{% endfor %}{{ {"roles": messages | map(attribute='role') | list} | tojson }}""",
}


def rows(*names):
    for name in names:
        with (DATA / f"{name}.train.jsonl").open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines)


def text(row):
    if "text" in row:
        return row["text"]
    return "\n".join(f"{m['role']}: {m['content']}" for m in row["messages"])


def main():
    plain, chat = list(rows("prose", "code")), list(rows("qa"))
    encoded = {k: [TOKENIZER.encode(text(r)).ids + [EOS] for r in v] for k, v in (("plain", plain), ("chat", chat))}
    files = {}

    def add(path, kind):
        files[path.name] = (path, kind)

    for kind, content in (("plain", plain), ("chat", chat)):
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in content).encode()
        path = DIR / f"{kind}.jsonl"
        path.write_bytes(lines)
        add(path, kind)
        (DIR / f"{kind}.jsonl.gz").write_bytes(gzip.compress(lines))
        add(DIR / f"{kind}.jsonl.gz", kind)
        half = lines.index(b"\n", len(lines) // 2) + 1
        (DIR / f"{kind}.members.jsonl.gz").write_bytes(gzip.compress(lines[:half]) + gzip.compress(lines[half:]))
        add(DIR / f"{kind}.members.jsonl.gz", kind)
        frames = [zstandard.ZstdCompressor(level=3).compress(part) for part in (lines[:half], lines[half:])]
        (DIR / f"{kind}.frames.jsonl.zst").write_bytes(b"".join(frames))
        add(DIR / f"{kind}.frames.jsonl.zst", kind)
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-q", "-19", "--long=27", str(path), "-o", f"{path}.zst"], check=True)
            add(DIR / f"{kind}.jsonl.zst", kind)
        table = pyarrow.Table.from_pylist(content)
        for codec in ("none", "snappy", "gzip", "zstd"):
            path = DIR / f"{kind}.{codec}.parquet"
            pyarrow.parquet.write_table(
                table, path, compression=codec, row_group_size=50, use_dictionary=codec != "zstd",
                data_page_version="2.0" if codec == "gzip" else "1.0",
            )
            add(path, kind)
        large = pyarrow.schema(
            [f.with_type(pyarrow.large_string()) if f.type == pyarrow.string() else f for f in table.schema]
        )
        pyarrow.parquet.write_table(table.cast(large), DIR / f"{kind}.large.parquet")
        add(DIR / f"{kind}.large.parquet", kind)
        for encoding in ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"):
            for version in ("1.0", "2.0"):
                path = DIR / f"{kind}.{encoding.lower()}.{version[0]}.parquet"
                leaves = pyarrow.parquet.ParquetFile(DIR / f"{kind}.zstd.parquet").schema
                paths = [leaves.column(i).path for i in range(len(leaves)) if leaves.column(i).physical_type == "BYTE_ARRAY"]
                pyarrow.parquet.write_table(
                    table, path, use_dictionary=False, column_encoding=dict.fromkeys(paths, encoding),
                    data_page_version=version, data_page_size=1000,
                )
                add(path, kind)
        # One page of 20 MiB in next to no bytes, of a column that `where` reads.
        pad = pyarrow.array([str(i) * (20 * 2**20 // len(content)) for i in range(10)] * (len(content) // 10 + 1))
        padded = table.append_column("pad", pad[: len(content)])
        for codec in ("none", "snappy", "gzip", "zstd"):
            for version in ("1.0", "2.0"):
                path = DIR / f"{kind}.pad.{codec}.{version[0]}.parquet"
                pyarrow.parquet.write_table(
                    padded, path, compression=codec, use_dictionary=False, data_page_size=2**26,
                    data_page_version=version, write_batch_size=2**20,
                )
                add(path, kind)
        flat = [t for ids in encoded[kind] for t in ids]
        for dtype in ("uint16", "uint32", "int32", "int64"):
            numpy.save(DIR / f"{kind}.{dtype}.npy", numpy.array(flat, dtype=dtype))
            add(DIR / f"{kind}.{dtype}.npy", kind)
        for dtype in ("uint16", "uint32"):
            numpy.array(flat, dtype=dtype).tofile(DIR / f"{kind}.{dtype}.bin")
            add(DIR / f"{kind}.{dtype}.bin", kind)

    sources = [(path.name, ', where = pad != "x"' if ".pad." in name else "") for name, (path, _) in files.items()]
    wrong = 0
    # Without the template that lies beside it: lines `role: content`.
    bare = DIR / "bare"
    bare.mkdir()
    shutil.copy(DATA / "tokenizer.json", bare)
    for summary, (name, (_, kind)) in zip(measure(bare, sources), files.items(), strict=True):
        size = 0
        if not name.endswith(("npy", "bin")):
            size = sum(len(text(r).encode()) for r in (plain if kind == "plain" else chat))
        got = (summary["documents"], summary["tokens"], summary["bytes"])
        want = (len(encoded[kind]), sum(map(len, encoded[kind])), size)
        if got != want:
            wrong += 1
            print(f"{name}: documents, tokens, bytes are {got}, not {want}")
    print(f"{len(files) - wrong} of {len(files)} files read as written")

    special = TOKENIZER.id_to_token(EOS)
    for name, template in TEMPLATES.items():
        theirs = PreTrainedTokenizerFast(
            tokenizer_file=str(DATA / "tokenizer.json"), chat_template=template, eos_token=special, bos_token=special)
        at = DIR / name
        at.mkdir()
        theirs.save_pretrained(at)
        texts = [theirs.apply_chat_template(r["messages"], tokenize=False) for r in chat]
        ids = [theirs.apply_chat_template(r["messages"], return_dict=False) for r in chat]
        lengths = sum(len(i) + (i[-1] != EOS) for i in ids)
        want = (len(chat), lengths, sum(len(t.encode()) for t in texts))
        for file in ("chat.jsonl", "chat.zstd.parquet"):
            [summary] = measure(at, [(file, "")])
            got = (summary["documents"], summary["tokens"], summary["bytes"])
            wrong += got != want
            print(f"{'ok' if got == want else 'WRONG'}: {file} by the template {name}: {got}, transformers {want}")
    sys.exit(wrong > 0)


def measure(tokenizer, sources):
    """What midc counts in files of a directory, in their order, with the tokenizer at a place."""
    lines = [f'model m {{ init = smollm2_135m, tokenizer = "{tokenizer}" }}']
    for i, (path, where) in enumerate(sources):
        lines.append(f'source s{i} {{ path = "{path}", max_epochs = 1_000_000{where} }}')
    lines += ["mix all {", "  weights = relative"] + [f"  s{i} = 1" for i in range(len(sources))] + ["}"]
    lines += [
        "stage s {", "  from = m", "  steps = 2", "  batch = 1 seqs", "  context = 1Ki", "  mix = all",
        "  lr = 1e-3 then linear(to: 0)", "  data_seed = 1", "}",
    ]
    (DIR / "readers.curriculum").write_text("\n".join(lines) + "\n")
    out = subprocess.run(
        [MIDC, "data", str(DIR / "readers.curriculum"), "--cache-dir", str(DIR / "cache"), "--format", "json", "--quiet"],
        check=True, capture_output=True,
    )
    return json.loads(out.stdout)["sources"]


if __name__ == "__main__":
    main()

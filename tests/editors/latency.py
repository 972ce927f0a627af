"""How long the server takes to answer, on a file of about LINES lines, as a client sees it.

usage: latency.py MIDC LINES [ROUNDS]       prints medians and 95th percentiles in milliseconds
"""

import json
import statistics
import subprocess
import sys
import time


def curriculum(lines: int) -> str:
    """Sources, mixes over them and a chain of stages, in proportion."""
    parts = ["lints { missing_files = allow, same_order = allow, epochs_over_cap = allow }\n"]
    parts.append('model base { checkpoint = "b", init = olmo2_7b, context = 4Ki, lr = 6e-5 }\n')
    n = 0
    size = 2
    while size < lines:
        n += 1
        block = [
            f"source web{n} {{\n  path   = \"web{n}/*.jsonl\"\n  kind   = web\n  tokens = 500B\n}}\n",
            f"source math{n} {{\n  path   = \"math{n}/*.jsonl\"\n  kind   = math\n  tokens = 50B\n}}\n",
            f"mix quality{n} {{\n  web{n}  = 85%\n  math{n} = rest\n}}\n",
            f"stage s{n} {{\n  from      = {'base' if n == 1 else f's{n - 1}'}\n  tokens    = 20B\n"
            f"  context   = 4Ki\n  batch     = 1024 seqs\n  mix       = quality{n}\n"
            f"  lr        = inherit then linear(to: 6e-5)\n  data_seed = {n}\n"
            f"  checkpoint half {{ at = 50% of stage }}\n}}\n",
        ]
        text = "\n".join(block)
        parts.append(text)
        size += text.count("\n") + 1
    return "\n".join(parts)


class Client:
    def __init__(self, midc: str):
        self.process = subprocess.Popen([midc, "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.id = 0

    def send(self, message: dict):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def receive(self) -> dict:
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        return json.loads(self.process.stdout.read(length))

    def ask(self, method: str, params: dict) -> dict:
        self.id += 1
        self.send({"id": self.id, "method": method, "params": params})
        while (message := self.receive()).get("id") != self.id:
            pass
        return message

    def until(self, method: str) -> dict:
        while (message := self.receive()).get("method") != method:
            pass
        return message


def main():
    midc, lines = sys.argv[1], int(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    text = curriculum(lines)
    uri = "file:///latency/main.curriculum"
    client = Client(midc)
    client.ask("initialize", {"capabilities": {"general": {"positionEncodings": ["utf-8"]}}})
    client.send({"method": "initialized", "params": {}})
    document = {"uri": uri, "languageId": "curriculum", "version": 1, "text": text}
    client.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
    first = client.until("textDocument/publishDiagnostics")
    shown = len(first["params"]["diagnostics"])
    middle = text[: text.index("lr ", len(text) // 2)].count("\n")
    place = {"textDocument": {"uri": uri}, "position": {"line": middle, "character": 16}}
    whole = {"start": {"line": 0, "character": 0}, "end": {"line": 10**6, "character": 0}}
    took = {}
    memory = []

    def timed(name, work):
        begin = time.perf_counter()
        work()
        took.setdefault(name, []).append((time.perf_counter() - begin) * 1000)

    def key(version, letter):
        # A key in a value and the one that takes it back.
        at = {"line": middle, "character": 14}
        end = at if letter else {"line": middle, "character": 15}
        change = [{"range": {"start": at, "end": end}, "text": letter}]
        client.send({"method": "textDocument/didChange", "params": {"textDocument": {"uri": uri, "version": version}, "contentChanges": change}})
        client.until("textDocument/publishDiagnostics")

    for i in range(rounds):
        timed("key to diagnostics (error)", lambda: key(2 * i + 2, "x"))
        timed("completion while broken", lambda: client.ask("textDocument/completion", place))
        timed("key to diagnostics (clean)", lambda: key(2 * i + 3, ""))
        timed("completion", lambda: client.ask("textDocument/completion", place))
        timed("hover", lambda: client.ask("textDocument/hover", place))
        timed("inlay hints, whole file", lambda: client.ask("textDocument/inlayHint", {"textDocument": {"uri": uri}, "range": whole}))
        timed("semantic tokens, whole file", lambda: client.ask("textDocument/semanticTokens/full", {"textDocument": {"uri": uri}}))
        if i % 10 == 0:
            with open(f"/proc/{client.process.pid}/statm") as statm:
                memory.append(int(statm.read().split()[1]) * 4 // 1024)
    client.ask("shutdown", {})
    client.send({"method": "exit"})
    print(f"{text.count(chr(10))} lines, {len(text)} bytes, {shown} diagnostics, {rounds} rounds; resident MiB over time: {memory}")
    for name, times in took.items():
        times.sort()
        print(f"  {name:30} median {statistics.median(times):7.2f} ms   95% {times[int(len(times) * 0.95)]:7.2f} ms")


main()

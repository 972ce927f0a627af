"""Compiles every kernel with NVRTC and checks registers, spills, instructions and warnings.

The same sources, headers and options as src/runtime/backend/cuda/nvrtc.rs. Writes the cubins to
target/kernels/cubin/ARCH/, where scripts/gpu-check takes them from.
"""

import ctypes as C
import glob
import multiprocessing
import os
import re
import subprocess
import sys
import sysconfig
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WHEEL = os.path.join(sysconfig.get_path("purelib"), "nvidia/cu13")
OPTIONS = ["--std=c++17", "--ptxas-options=-v", "-default-device", "-lineinfo"]

# The mma.sync tier runs everywhere from Ampere on; files that end in _sm90 on Hopper alone.
ARCHES = os.environ.get("MIDC_ARCHES", "sm_80 sm_90a sm_100a sm_120").split()

# Instructions that must appear in the machine code of kernels whose name begins so, per architecture family.
HGMMA = r"\bHGMMA\.64x\d+x16\.F32\.BF16"
HMMA = r"\bHMMA\.16816\.F32\.BF16\b"
EXPECTED = {
    # Stores of 16 bytes; what is added is fetched ahead.
    "gemm_sm90_nt_f32": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bSTG\.E\.128", r"\bLDG\.E\.128", r"\bUBLKPF\.L2"],
    "gemm_sm90_tn_f32": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bSTG\.E\.128", r"\bLDG\.E\.128", r"\bUBLKPF\.L2"],
    "gemm_sm90_nt_exponentials": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bSTG\.E\.128", r"\bMUFU\.EX2"],
    "gemm_sm90": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bSTG\.E\.128"],
    "attention_forward_sm90": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bMUFU\.EX2", r"\bSTG\.E\.128"],
    "attention_backward_fused_sm90_begin": [r"\bLDG\.E\.128"],
    "attention_backward_fused_sm90_end": [r"\bLDG\.E\.128", r"\bSTG\.E\.128"],
    "attention_backward_fused_sm90": [r"\bUBLKRED", r"\bUBLKCP", HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bMUFU\.EX2", r"\bSTG\.E\.128"],
    "attention_backward_sm90": [HGMMA, r"\bUTMALDG\.2D", r"\bUSETMAXREG", r"\bSYNCS", r"\bMUFU\.EX2", r"\bSTG\.E\.128"],
    "wrapper_sm90_wgmma": [HGMMA, r"\bUTMALDG\.2D"],
    "gemm_nt_exponentials": [HMMA, r"\bLDSM\.", r"\bLDGSTS\..*128", r"\bSTG\.E\.(ENL2\.)?128", r"\bMUFU\.EX2"],
    "gemm_": [HMMA, r"\bLDSM\.", r"\bLDGSTS\..*128"],
    "attention_forward_": [HMMA, r"\bLDSM\.", r"\bLDGSTS\..*128", r"\bMUFU\.EX2"],
    "attention_backward_": [HMMA, r"\bLDSM\.", r"\bLDGSTS\..*128", r"\bMUFU\.EX2"],
    "cross_entropy_backward": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
    "rmsnorm_heads": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
    "rope": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
    "copy_columns": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
    "swiglu": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
    "geglu": [r"\bLDG\.E\.(ENL2\.)?128", r"\bSTG\.E\.(ENL2\.)?128"],
}
# Never: local memory (spills), f64 arithmetic outside the reductions.
LOCAL = r"\b(LDL|STL)\b"


def nvrtc():
    C.CDLL(os.path.join(WHEEL, "lib/libnvrtc-builtins.so.13.0"), mode=C.RTLD_GLOBAL)
    return C.CDLL(os.path.join(WHEEL, "lib/libnvrtc.so.13"))


def compile_one(job):
    path, arch = job
    start = time.time()
    lib = nvrtc()
    headers = {
        os.path.relpath(h, os.path.join(ROOT, "kernels")).encode(): open(h, "rb").read()
        for h in sorted(glob.glob(os.path.join(ROOT, "kernels/dev/*.cuh")))
    }
    contents = (C.c_char_p * len(headers))(*headers.values())
    names = (C.c_char_p * len(headers))(*headers.keys())
    program = C.c_void_p()
    source = open(path, "rb").read()
    assert lib.nvrtcCreateProgram(C.byref(program), source, os.path.basename(path).encode(), len(headers), contents, names) == 0
    options = [o.encode() for o in [f"--gpu-architecture={arch}", *OPTIONS]]
    failed = lib.nvrtcCompileProgram(program, len(options), (C.c_char_p * len(options))(*options))
    size = C.c_size_t()
    lib.nvrtcGetProgramLogSize(program, C.byref(size))
    log = C.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    log = log.value.decode(errors="replace")
    if failed:
        return path, arch, log, None, None, time.time() - start
    lib.nvrtcGetCUBINSize(program, C.byref(size))
    cubin = C.create_string_buffer(size.value)
    lib.nvrtcGetCUBIN(program, cubin)
    folder = os.path.join(ROOT, "target/kernels/cubin", arch)
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, os.path.basename(path)[:-3] + ".cubin")
    with open(name, "wb") as file:
        file.write(cubin.raw)
    sass = subprocess.run([os.path.join(WHEEL, "bin/nvdisasm"), "-c", name], capture_output=True, text=True, check=True).stdout
    return path, arch, log, name, sass, time.time() - start


def functions(sass):
    """The machine code of each kernel."""
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+)", sass, flags=re.M)
    return {parts[i]: parts[i + 1] for i in range(1, len(parts) - 1, 2)}


def beyond_share(code):
    """Where a warpgroup uses more registers than its `setmaxnreg` leaves it."""
    lines = code.splitlines()
    changes = [i for i, line in enumerate(lines) if "USETMAXREG" in line]
    for i, end in zip(changes, changes[1:] + [len(lines)]):
        share = int(re.search(r"(0x[0-9a-f]+)\s*;", lines[i])[1], 16)
        used = 1 + max((int(r) for line in lines[i:end] for r in re.findall(r"\bR(\d+)\b", line)), default=0)
        if used > share:
            yield f"uses {used} registers where setmaxnreg leaves {share}"


def beyond_pool(code, registers, threads):
    """Whether a block could wait for ever: its warpgroups ask for more registers than it was launched with."""
    shares = [int(re.search(r"(0x[0-9a-f]+)\s*;", line)[1], 16) for line in code.splitlines() if "USETMAXREG" in line]
    if not shares:
        return
    # One warpgroup loads, the others multiply.
    wanted = 128 * min(shares) + (threads - 128) * max(shares)
    if wanted > registers * threads:
        yield f"asks for {wanted} registers of {registers * threads}"


def check(path, arch, log, cubin, sass):
    """What is wrong with one compilation, and a row for every kernel."""
    file = os.path.basename(path)
    if cubin is None:
        return [f"{file} {arch}: does not compile\n{log}"], []
    wrong, rows = [], []
    for line in log.splitlines():
        if re.search(r"warning|C75\d\d|serialized", line, re.I):
            wrong.append(f"{file} {arch}: {line.strip()}")
    declared = {
        m[1]: (int(m[2]), int(m[3]))
        for m in re.finditer(r"^KERNEL\((\w+), (\d+), (\d+)\)", open(path).read(), re.M)
    }
    report = {}
    for m in re.finditer(r"Compiling entry function '(\w+)' for '\w+'(.*?)Used (\d+) registers([^\n]*)", log, re.S):
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", m[2])
        report[m[1]] = (int(m[3]), tuple(int(x) for x in frame.groups()) if frame else (0, 0, 0))
    code = functions(sass)
    for name, (threads, blocks) in declared.items():
        if name not in report or name not in code:
            wrong.append(f"{file} {arch}: {name} is missing from the cubin")
            continue
        registers, (frame, stores, loads) = report[name]
        if frame or stores or loads:
            wrong.append(f"{file} {arch}: {name} has {frame} bytes of stack, spills {stores} + {loads} bytes")
        if registers * threads * blocks > 65536:
            wrong.append(f"{file} {arch}: {name} needs {registers} registers, more than {blocks} blocks of {threads} can have")
        if re.search(LOCAL, code[name]):
            wrong.append(f"{file} {arch}: {name} uses local memory")
        wrong += [f"{file} {arch}: {name} {what}" for what in beyond_share(code[name])]
        wrong += [f"{file} {arch}: {name} {what}" for what in beyond_pool(code[name], registers, threads)]
        expected = next((e for prefix, e in EXPECTED.items() if name.startswith(prefix)), [])
        if file.endswith("_sm90.cu") or arch in ("sm_80", "sm_90a", "sm_100a", "sm_120"):
            for pattern in expected:
                if not re.search(pattern, code[name]):
                    wrong.append(f"{file} {arch}: {name} has no instruction like {pattern}")
        rows.append((arch, file, name, registers, threads, blocks))
    return wrong, rows


def main():
    wanted = [os.path.abspath(p) for p in sys.argv[1:]] or sorted(
        glob.glob(os.path.join(ROOT, "kernels/*.cu")) + glob.glob(os.path.join(ROOT, "tests/kernels/wrappers/*.cu")))
    jobs = [(p, a) for p in wanted for a in (["sm_90a"] if p.endswith("_sm90.cu") else ARCHES)]
    wrong, rows = [], []
    with multiprocessing.Pool(int(os.environ.get("MIDC_JOBS", "2"))) as pool:
        for path, arch, log, cubin, sass, seconds in pool.imap(compile_one, jobs):
            w, r = check(path, arch, log, cubin, sass)
            wrong += w
            rows += r
            print(f"{'FAIL' if w else 'ok':4} {arch:8} {os.path.basename(path):26} {seconds:5.1f} s  "
                  + " ".join(f"{name}:{registers}" for _, _, name, registers, _, _ in r), flush=True)
    for w in wrong:
        print("FAIL", w)
    print(f"{len(rows)} kernels compiled, {len(wrong)} complaints")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

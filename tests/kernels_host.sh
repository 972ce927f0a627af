#!/usr/bin/env bash
# Runs every kernel on the host model of the device: against f64 references with three seeds, once under
# ThreadSanitizer and once under AddressSanitizer, and checks that bugs planted on purpose are caught.
#
#   tests/kernels_host.sh [quick]      quick: the references only
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/target/kernels
jobs=${MIDC_JOBS:-2}
build() { make -s -C "$root/kernels/host" -j"$jobs" "$@"; }
say() { printf '== %s\n' "$*"; }

# A check takes one core: `beside COMMAND…` runs it while others are built and checked, as many at a time as there are
# jobs, and prints what it said when it is done. `together WHAT` waits for all; unless each has succeeded, it says WHAT
# and ends.
owed=$out/owed
rm -rf "$owed"
mkdir -p "$owed"
begun=0
beside() {
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
  begun=$((begun + 1))
  touch "$owed/$begun"
  { if said=$("$@" 2>&1); then rm "$owed/$begun"; fi; printf '%s\n' "$said"; } &
}
together() {
  wait
  [ -z "$(ls "$owed")" ] || { echo "$1" >&2; exit 1; }
}
trap 'kill $(jobs -rp) 2>/dev/null || true' EXIT

command -v g++ >/dev/null || { echo "g++ is not here: the kernels were NOT checked on the host model" >&2; exit 3; }

say "sources"
# Inline PTX belongs into kernels/dev; the device sources need no header that the run-time compiler would lack.
if grep -nE '\basm\b' "$root"/kernels/*.cu; then echo "inline PTX outside kernels/dev" >&2; exit 1; fi
if grep -nE '#[[:space:]]*include[[:space:]]*<' "$root"/kernels/*.cu "$root"/kernels/dev/*.cuh; then
  echo "a device source includes a system header" >&2; exit 1
fi

say "references, three seeds"
build
golden=$root/tests/kernels/golden.txt
if [ -f "$golden" ]; then export MIDC_GOLDEN="$golden"; else echo "no outputs of a GPU are recorded yet: scripts/gpu-check records them"; fi
if [ "${1:-}" = quick ]; then
  "$out/o2/kernel-check"
  exit 0
fi
beside "$out/o2/kernel-check"

say "ThreadSanitizer and AddressSanitizer"
build MODE=tsan
beside "$out/tsan/kernel-check" --small --seeds 2
# The sanitizers watch the kernels: what runs them is compiled alike for both.
mkdir -p "$out/asan"
cp -p "$out"/tsan/model_*.o "$out"/tsan/host_*.o "$out"/tsan/check_*.o "$out/asan"
build MODE=asan
beside "$out/asan/kernel-check" --small --seeds 2
for mode in o2 tsan asan; do build MODE=$mode planted; done
together "a kernel is wrong on the host model"

say "planted bugs"
# caught MODE PATTERN COMMAND…: fails, and says what is expected.
caught() {
  local mode=$1 pattern=$2 text status=0
  shift 2
  text=$("$out/$mode/$@" 2>&1) || status=$?
  if [ $status -ne 0 ] && grep -qE "$pattern" <<<"$text"; then
    printf '  caught %-28s %s\n' "$mode" "$*"
  else
    printf '  MISSED %-28s %s (status %s)\n' "$mode" "$*" "$status"
    return 1
  fi
}
beside caught o2 'wrong result' planted missing_syncwarp
beside caught tsan 'data race' planted missing_syncwarp
beside caught o2 'wrong result' planted reused_scratch
beside caught tsan 'data race' planted reused_scratch
beside caught o2 'divergent barrier' planted divergent_barrier
beside caught o2 'exited' planted exited_lane
beside caught o2 'deadlock' planted barrier_after_exit
beside caught o2 'not 16-byte aligned' planted misaligned_ldmatrix
beside caught o2 'wrong result' planted read_before_wait
beside caught o2 'never waited' planted never_waited
beside caught asan 'heap-buffer-overflow' planted global_overrun
beside caught asan 'use-after-poison' planted shared_overrun
beside caught o2 'of shared memory is written' planted shared_overrun
beside caught tsan 'data race' planted cross_block_race
beside caught o2 'before it is initialised' planted uninitialised_mbarrier
beside caught o2 'deadlock' planted mbarrier_deadlock
beside caught o2 'without wgmma.fence' planted wgmma_without_fence
beside caught o2 'wrong result' planted wgmma_read_early
beside caught o2 'wrong result' planted wgmma_overwritten
beside caught tsan 'data race' planted wgmma_overwritten
beside caught o2 'initialised twice' planted mbarrier_twice
beside caught o2 'ended with' planted unfinished_barrier
beside caught asan 'not there' planted wild_prefetch

# unchanged MODE NAME: what the line of that name does not touch is there already, built without it.
unchanged() {
  local from=$out/$1 to=$out/$1-$2 object name
  mkdir -p "$to"
  cp -p "$from"/model_*.o "$from"/host_*.o "$from"/check_*.o "$to" || return
  # In a header it may be in any kernel.
  if grep -q "$2" "$root"/kernels/dev/*.cuh; then return; fi
  for object in "$from"/kernel_*.o; do
    name=${object##*/kernel_}
    grep -q "$2" "$root/kernels/${name%.o}.cu" || cp -p "${object%.o}.cpp" "$object" "$to" || return
  done
}
# bug MODE NAME KERNEL CHECKS PATTERN ARGUMENTS…: a real kernel with one line changed.
bug() { beside changed "$@"; }
changed() {
  local mode=$1 name=$2 kernel=$3 checks=$4 pattern=$5
  shift 5
  unchanged "$mode" "$name" || return
  jobs=1 build MODE="$mode" BUG="$name" KERNELS="$kernel" CHECKS="main timing $checks" "$out/$mode-$name/kernel-check" || return
  caught "$mode-$name" "$pattern" kernel-check "$@"
}
bug o2 BUG_GEMM_BARRIER "gemm gemm_sm90 glu" gemm 'NaN' --seeds 1 gemm
bug tsan BUG_GEMM_BARRIER "gemm gemm_sm90 glu" gemm 'data race' --small --seeds 1 gemm
bug o2 BUG_ATTENTION_MASK "attention_forward attention_backward" attention 'FAIL' --seeds 1 attention
bug o2 BUG_ATTENTION_RING "attention_forward attention_backward" attention 'FAIL' attention
bug tsan BUG_ATTENTION_RING "attention_forward attention_backward" attention 'data race' --small --seeds 1 attention
bug o2 BUG_GEMM_SM90_EMPTY "gemm gemm_sm90 glu" gemm 'too many arrivals|FAIL' gemm_sm90
bug o2 BUG_GEMM_SM90_RELEASE "gemm gemm_sm90 glu" gemm 'FAIL' gemm_sm90
bug tsan BUG_GEMM_SM90_RELEASE "gemm gemm_sm90 glu" gemm 'data race' --small --seeds 1 gemm_sm90
hopper="attention_forward_sm90 attention_backward_sm90 attention_backward_fused_sm90 attention_forward attention_backward"
bug o2 BUG_ATTENTION_SM90_EMPTY "$hopper" attention 'too many arrivals|FAIL' attention_sm90
bug tsan BUG_ATTENTION_SM90_STATISTICS "$hopper" attention 'data race' --small --seeds 1 attention_sm90
bug tsan BUG_ATTENTION_SM90_MEET "$hopper" attention 'data race' --small --seeds 1 attention_sm90
bug o2 BUG_RMSNORM_BARRIER "rmsnorm glu rope embedding elementwise bias" rows 'FAIL' --seeds 3 rmsnorm
bug o2 BUG_EXPONENTIALS_QUAD "gemm gemm_sm90 glu cross_entropy" gemm 'FAIL gemm_sm90_nt_exponentials_256' --seeds 1 gemm_fused
bug o2 BUG_EXPONENTIALS_BARRIER "gemm gemm_sm90 glu cross_entropy" gemm 'FAIL gemm_nt_exponentials' --seeds 1 gemm_fused
bug tsan BUG_EXPONENTIALS_BARRIER "gemm gemm_sm90 glu cross_entropy" gemm 'data race' --small --seeds 1 gemm_fused
together "planted bugs went unseen"
if command -v cargo >/dev/null; then
  say "the backend on the host model"
  (cd "$root" && MIDC_REQUIRE_DEVICE_MODEL=1 cargo test --release --lib backend::cuda)
fi
say "all kernels are right on the host model"

#!/usr/bin/env bash
# Stands in for the Python of an engine in tests/exec_engine.rs: answers midc's question about packages, and
# "trains" by copying the logs and exports prepared below $STANDIN, with a checkpoint every six steps.
# $STANDIN/mode says what goes wrong: `fail N`, `hang N` (until SIGTERM), `deaf N` (SIGTERM too), `wrong N`.
set -u
if [ "$1" = -c ]; then
    [ -z "${STANDIN_BROKEN:-}" ] || { echo "ImportError: libcudart.so.13" >&2; exit 1; }
    echo "{\"missing\": [${STANDIN_MISSING:-}], \"gpus\": 0, \"versions\": \"stand-in 1.0\"}"
    exit 0
fi
file=${!#}
name=$(basename "$file" .json)
echo "$*" >>"$STANDIN/calls"
read -r mode at <"$STANDIN/mode" || true

checkpoint() { # STEP EXPORTS_OF STEP_OF_THEM
    local aside=out/$name/step-$1.partial
    mkdir -p "$aside/hf"
    cp "$STANDIN/out/$2/step-$3/hf/config.json" "$aside/hf/"
    echo "weights of $name after $1" >"$aside/hf/model.safetensors"
    echo '{}' >"$aside/step.json"
    rm -rf "out/$name/step-$1"
    mv "$aside" "out/$name/step-$1"
}

case $file in
    soups/*)
        checkpoint 0 long-11 10
        exit 0
        ;;
esac
logs=("$STANDIN/logs/$name".rank*.jsonl)
last=$(wc -l <"${logs[0]}")
done=0
for step in $(ls "out/$name" 2>/dev/null | sed -n 's/^step-\([0-9]*\)$/\1/p' | sort -n); do
    [ ! -s "out/$name/step-$step/step.json" ] || done=$step
done
mkdir -p logs
for log in "${logs[@]}"; do
    own=logs/$(basename "$log")
    head -n "$done" "$own" 2>/dev/null >"$own.partial"
    mv "$own.partial" "$own"
done
for ((step = done; step < last; step++)); do
    for log in "${logs[@]}"; do
        line=$(sed -n "$((step + 1))p" "$log")
        [ "${mode:-} ${at:-}" = "wrong $step" ] && line=${line/\"lr\":/\"lr\":1}
        echo "$line" >>"logs/$(basename "$log")"
    done
    echo "$name $((step + 1))/$last"
    if [ "${at:-}" = "$step" ]; then
        case $mode in
            fail)
                printf 'Traceback (most recent call last):\n  File "train.py", line 1\nRuntimeError: out of luck\n' >&2
                echo "E1 torch/elastic/api.py:1] failed (exitcode: 3) local_rank: 0" >&2
                echo "what torchrun says about it" >&2
                exit 3
                ;;
            hang)
                trap 'checkpoint $((step + 1)) "$name" "$last"; exit 143' TERM INT
                touch "$STANDIN/waiting"
                while :; do sleep 0.05; done
                ;;
            deaf)
                trap '' TERM INT
                # Like torchrun's workers: in a session of its own, out of reach of a process group, with this standard
                # input, where bash would give it none.
                setsid bash -c 'trap "" TERM INT; echo $$ >"$STANDIN/worker"; while :; do sleep 0.05; done' <&0 &
                while [ ! -s "$STANDIN/worker" ]; do sleep 0.05; done
                touch "$STANDIN/waiting"
                while :; do sleep 0.05; done
                ;;
        esac
    fi
    case $((step + 1)) in
        6 | "$last") checkpoint $((step + 1)) "$name" "$last" ;;
    esac
done

//! The stages, soups and models of a plan as the plain data that the runners for transformers and
//! OLMo-core read.

use serde_json::{Map, Value, json};

use super::expected::{self, learning_rates};
use super::{CountRows, Engine, File, Job, hf};
use crate::plan::{Attention, Origin, Plan, Precision, StagePlan, State, file_name};

/// What both runners read, rows and learning rates and soups, beside each of them.
const SHARED: &str = include_str!("midc_stage.py");

/// Every file of a launch for `engine`, whose runner is `runner` and whose packages are `requirements`.
pub(super) fn launch(
    engine: Engine,
    plan: &Plan,
    base: &str,
    count: &CountRows<'_>,
    runner: &str,
    requirements: &str,
) -> Vec<File> {
    let mut files = files(plan);
    files.push(File::json("expected.json", &expected::expected(engine, plan, count)));
    files.push(File::new("requirements.txt", requirements));
    files.push(File::new("midc_stage.py", SHARED));
    files.push(File::new("midc_versions.py", super::VERSIONS));
    files.push(File::new("train.py", runner));
    files.push(run_sh(plan, base, "train.py"));
    files.push(slurm(plan));
    files
}

/// `stages/NAME.json`, `soups/NAME.json` and `models/NAME.json`.
pub(super) fn files(plan: &Plan) -> Vec<File> {
    let mut files = Vec::new();
    for stage in &plan.stages {
        files.push(File::json(format!("stages/{}.json", file_name(&stage.name)), &description(plan, stage)));
    }
    for soup in &plan.soups {
        let ingredients: Vec<Value> =
            soup.ingredients.iter().filter_map(|name| plan.stage_point(name)).map(point).collect();
        let description = json!({
            "v": 1,
            "plan": plan.hash,
            "soup": soup.name,
            "name": file_name(&soup.name),
            "ingredients": ingredients,
            "weights": soup.weights,
        });
        files.push(File::json(format!("soups/{}.json", file_name(&soup.name)), &description));
    }
    for model in &plan.models {
        let description = json!({
            "checkpoint": model.checkpoint,
            "tokenizer": model.tokenizer,
            "config": model.init.as_ref().map(|init| hf::fresh(model, init)),
        });
        files.push(File::json(format!("models/{}.json", file_name(&model.name)), &description));
    }
    files
}

/// The stages and soups in an order in which each comes after what it needs.
pub(super) fn order(plan: &Plan) -> Vec<Job<'_>> {
    let mut done: Vec<&str> = Vec::new();
    let mut out = Vec::new();
    let mut soups: Vec<_> = plan.soups.iter().collect();
    for stage in &plan.stages {
        done.push(&stage.name);
        out.push(Job::Stage(stage));
        soups.retain(|soup| {
            let ready = soup.ingredients.iter().all(|name| {
                plan.stage_point(name).is_some_and(|(stage, _)| done.contains(&stage.name.as_str()))
            });
            if ready {
                out.push(Job::Soup(soup));
            }
            !ready
        });
    }
    out
}

fn point((stage, step): (&StagePlan, u64)) -> Value {
    json!({ "name": file_name(&stage.name), "step": step })
}

fn description(plan: &Plan, stage: &StagePlan) -> Value {
    let from = match plan.origin(stage) {
        Some(Origin::Model(model)) => json!({ "kind": "model", "name": file_name(&model.name) }),
        Some(Origin::Stage(before, step)) => {
            json!({ "kind": "stage", "name": file_name(&before.name), "step": step })
        }
        Some(Origin::Soup(soup)) => json!({ "kind": "soup", "name": file_name(&soup.name), "step": 0 }),
        None => Value::Null,
    };
    let phases: Vec<Value> = stage
        .phases
        .iter()
        .map(|p| json!({ "step": p.step, "tokens": p.tokens, "rows": p.sequences, "context": p.context }))
        .collect();
    let checkpoints: Map<String, Value> =
        stage.checkpoints.iter().map(|c| (c.name.clone(), json!(c.step))).collect();
    let optimizer = &stage.optimizer;
    json!({
        "v": 1,
        "plan": plan.hash,
        "stage": stage.name,
        "name": file_name(&stage.name),
        "from": from,
        "root": plan.lineage(stage).map(|(model, _)| file_name(&model.name)),
        "steps": stage.steps,
        "phases": phases,
        "context": hf::reach(plan, stage),
        "lr": learning_rates(stage),
        "config": hf::rope_keys(plan, stage),
        "rope": stage.rope,
        "inv_freq": stage.rope.as_ref().map(|r| &r.inv_freq),
        "optimizer": {
            "muon": optimizer.muon,
            "betas": optimizer.betas,
            "eps": optimizer.eps,
            "weight_decay": optimizer.weight_decay,
            "decay_embeddings": optimizer.decay_embeddings,
            "decay_norms": optimizer.decay_norms,
            "clip": optimizer.clip,
            "z_loss": optimizer.z_loss,
        },
        "state": match stage.state {
            State::Keep => "keep",
            State::WeightsOnly => "weights_only",
        },
        "attention": match stage.attention {
            Attention::Causal => "causal",
            Attention::Documents => "documents",
        },
        "precision": stage.precision.map(|p| match p {
            Precision::Bf16 => "bf16",
            Precision::F32 => "f32",
        }),
        "init_seed": stage.init_seed,
        "save_every": stage.save_every,
        "save_every_tokens": stage.save_every_tokens,
        "keep": stage.keep,
        "checkpoints": checkpoints,
    })
}

/// `run.sh`: every stage in order, on one machine or as one node of several. `runner` is the Python
/// file; `base` the directory of the curriculum.
pub(super) fn run_sh(plan: &Plan, base: &str, runner: &str) -> File {
    let mut text = format!(
        r#"#!/usr/bin/env bash
# Runs the curriculum `{name}` stage by stage. What is done is left alone, so after an interruption the
# same command goes on.
#
#   ./run.sh                                   one process
#   NPROC=8 ./run.sh                           eight on this machine
#   NNODES=4 NODE_RANK=0 MASTER_ADDR=node0 NPROC=8 ./run.sh      on each node, with its own NODE_RANK
#   sbatch slurm.sbatch                        the same under Slurm
#
# MICRO_ROWS is how many rows a process sends through the model at once, BASE the directory of the
# curriculum. The directory of this file must be shared by all nodes.
set -euo pipefail
export BASE=${{BASE:-{base}}}
cd "$(dirname "$0")"
: "${{NPROC:=1}}" "${{NNODES:=1}}" "${{NODE_RANK:=0}}" "${{MASTER_ADDR:=127.0.0.1}}" "${{MASTER_PORT:=29500}}"
PYTHON=${{PYTHON:-python}}
export TOKENIZERS_PARALLELISM=false

# A signal is passed on and its effect waited for: the runner writes a checkpoint and ends.
child=
stopping=
pass_on() {{
    stopping=1
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :
}}
trap pass_on TERM INT
run() {{
    local code=0
    "$PYTHON" "$@" &
    child=$!
    wait "$child" || code=$?
    # A signal ends `wait` before the child has ended.
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code=$?
    done
    child=
    [ "$code" = 0 ] || exit "$code"
    [ -z "$stopping" ] || exit 143
}}
stage() {{
    run -m torch.distributed.run --nnodes "$NNODES" --nproc-per-node "$NPROC" --node-rank "$NODE_RANK" \
        --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" {runner} --base "$BASE" "$1"
}}
soup() {{
    # The next stage waits for this node, and with it the others.
    [ "$NODE_RANK" != 0 ] || run {runner} --base "$BASE" "$1"
}}

"#,
        name = plan.curriculum,
        base = quoted(base),
    );
    for job in order(plan) {
        let command = match job {
            Job::Stage(_) => "stage",
            Job::Soup(_) => "soup",
        };
        text.push_str(&format!("{command} {}\n", job.file()));
    }
    File::program("run.sh", text)
}

/// `slurm.sbatch`.
pub(super) fn slurm(plan: &Plan) -> File {
    let text = format!(
        r#"#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# One task per node starts one process per GPU. What is done is left alone and a stage that was interrupted
# goes on from its last checkpoint, so the job may be requeued at any time: by Slurm after preemption or the
# loss of a node, and by itself three minutes before its time limit, when the runners write a checkpoint.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export NNODES=$SLURM_JOB_NUM_NODES NPROC=${{NPROC:-${{SLURM_GPUS_ON_NODE:-8}}}}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export MASTER_ADDR MASTER_PORT=${{MASTER_PORT:-29500}}

late=
# shellcheck disable=SC2329  # called by the trap
on_time_limit() {{
    late=1
    # To the tasks; this script is not one of them.
    scancel --signal=TERM "$SLURM_JOB_ID" || :
}}
trap on_time_limit USR1
# shellcheck disable=SC2016  # expands on each node
srun --ntasks-per-node=1 bash -c 'NODE_RANK=$SLURM_NODEID exec ./run.sh' &
tasks=$!
code=0
wait "$tasks" || code=$?
while kill -0 "$tasks" 2>/dev/null; do
    code=0
    wait "$tasks" || code=$?
done
if [ -n "$late" ] && [ "$code" != 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"#,
        name = job_name(&plan.curriculum),
    );
    File::program("slurm.sbatch", text)
}

/// The name of a curriculum for sbatch, which takes what follows a blank for another option.
fn job_name(curriculum: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
    curriculum.chars().map(plain).collect()
}

/// For a shell, between single quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

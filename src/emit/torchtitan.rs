//! Launches for torchtitan 0.3.0: one Python module with a configuration per stage, and another with what
//! torchtitan has no settings for. It reads the rows that midc exported; learning rates are a table. Trained on
//! one CPU process that passes for an accelerator, with another attention (`tests/emit_torchtitan.py`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{File, hf, stage};
use crate::plan::{OptimizerPlan, Plan, Precision, RopePlan, StagePlan, State, file_name};
use crate::rope::RopeScaling;

const SUPPORT: &str = include_str!("torchtitan_rows.py");

/// The files of the launch.
pub(super) fn files(plan: &Plan, base: &str) -> Vec<File> {
    let mut files = stage::files(plan);
    files.retain(|file| !file.path.starts_with("soups/"));
    files.push(File::new("midc_stages.py", module(plan)));
    files.push(File::new("midc_rows.py", SUPPORT));
    files.push(File::new("midc_versions.py", super::VERSIONS));
    files.push(File::new("requirements.txt", "torchtitan==0.3.0\nnumpy\n"));
    files.push(run_sh(plan, base));
    files
}

fn module(plan: &Plan) -> String {
    let mut out = String::from(
        "\"\"\"Stages for torchtitan 0.3.0.\n\n\
         FLAVOR names the model of the registry; the checkpoint's shape must be that.\n\"\"\"\n\n\
         import os\n\n\
         from midc_rows import NoTokenizer, RowLoader, StageCheckpoints, TableSchedulers, adamw, llama, stretched\n\
         from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss\n\
         from torchtitan.config import TrainingConfig\n\
         from torchtitan.models.common.config_utils import decoder_vocab_size\n\
         from torchtitan.models.llama3 import model_registry\n\
         from torchtitan.trainer import Trainer\n\n\
         FLAVOR = os.environ[\"FLAVOR\"]\n\
         LOCAL_BATCH = int(os.environ.get(\"LOCAL_BATCH\", \"1\"))\n\
         BASE = os.path.abspath(os.environ.get(\"BASE\", \".\"))\n\
         HERE = os.path.dirname(os.path.abspath(__file__))\n",
    );
    for (stage, function) in plan.stages.iter().zip(functions(plan)) {
        write_stage(plan, stage, &function, &mut out);
    }
    out
}

/// What the function of each stage is called in Python: `stage_anneal_42` for `anneal[42]`. Where that is taken, by a
/// stage that is called so itself, a number follows. The prefix: a stage may be called `lambda`, or `os`, as something
/// else in the module is.
fn functions(plan: &Plan) -> Vec<String> {
    let plain = |stage: &StagePlan| format!("stage_{}", file_name(&stage.name).replace(['-', '.'], "_"));
    let mut used = BTreeSet::new();
    let own = |stage: &StagePlan| plain(stage) == format!("stage_{}", stage.name);
    let itself: Vec<bool> = plan.stages.iter().map(|s| own(s) && used.insert(plain(s))).collect();
    let name = |(stage, itself): (&StagePlan, bool)| {
        let plain = plain(stage);
        if itself || used.insert(plain.clone()) {
            return plain;
        }
        let numbered = (2u64..).map(|n| format!("{plain}_{n}"));
        numbered.filter(|name| used.insert(name.clone())).take(1).collect()
    };
    plan.stages.iter().zip(itself).map(name).collect()
}

fn write_stage(plan: &Plan, stage: &StagePlan, function: &str, out: &mut String) {
    let name = file_name(&stage.name);
    let Some(phase) = stage.phases.first() else { return };
    let optimizer = &stage.optimizer;
    let (initial, from_hf) = initial(plan, stage);
    // Always: a flavor has a RoPE of its own, whatever the checkpoint's is.
    let rope = hf::effective_rope(plan, stage).map_or("None".to_owned(), rope);
    let model_only = from_hf == "True" || stage.state == State::WeightsOnly;
    let _ = write!(
        out,
        "\n\ndef {function}():\n    \
         model = stretched(model_registry(FLAVOR), {rope}, {context})\n    \
         return Trainer.Config(\n        \
         model_spec=model,\n        \
         hf_assets_path={assets},\n        \
         tokenizer=NoTokenizer.Config(),\n        \
         loss=ChunkedLossWrapper.Config(\n            \
         loss_fn=CrossEntropyLoss.Config(global_vocab_size=decoder_vocab_size(model)),\n        \
         ),\n        \
         dataloader=RowLoader.Config(folder=os.path.join(HERE, \"rows\", \"{name}\")),\n        \
         optimizer=adamw(\n            \
         lr={peak:e},\n            \
         betas=({b1}, {b2}),\n            \
         eps={eps:e},\n            \
         weight_decay={decay},\n            \
         spared=[{spared}],\n        \
         ),\n        \
         lr_scheduler=TableSchedulers.Config(\n            \
         path=os.path.join(HERE, \"stages\", \"{name}.json\"),\n            \
         peak={peak:e},\n        \
         ),\n        \
         training=TrainingConfig(\n            \
         local_batch_size=LOCAL_BATCH,\n            \
         global_batch_size={rows},\n            \
         seq_len={context},\n            \
         steps={steps},\n            \
         max_norm={clip},\n            \
         mixed_precision_param=\"{precision}\",\n        \
         ),\n        \
         dump_folder=os.path.join(HERE, \"out\", \"{name}\"),\n        \
         checkpoint=StageCheckpoints.Config(\n            \
         enable=True,\n            \
         folder=\"checkpoints\",\n            \
         interval={interval},\n            \
         initial_load_path={initial},\n            \
         initial_load_in_hf={from_hf},\n            \
         initial_load_model_only={model_only},\n            \
         keep_latest_k=0,\n            \
         last_save_model_only=False,\n        \
         ),\n    )\n",
        assets = assets(plan, stage),
        context = phase.context,
        peak = stage.lr.peak,
        b1 = optimizer.betas[0],
        b2 = optimizer.betas[1],
        eps = optimizer.eps,
        decay = optimizer.weight_decay,
        spared = spared(optimizer),
        rows = phase.sequences,
        steps = stage.steps,
        clip = optimizer.clip.map_or("float(\"inf\")".to_owned(), |c| c.to_string()),
        precision = match stage.precision {
            Some(Precision::F32) => "float32",
            Some(Precision::Bf16) | None => "bfloat16",
        },
        interval = stage.save_every.unwrap_or(stage.steps),
        model_only = if model_only { "True" } else { "False" },
    );
}

/// The checkpoint that the stage comes from in the end, which lists its files, as a Python expression.
fn assets(plan: &Plan, stage: &StagePlan) -> String {
    let path = plan.lineage(stage).and_then(|(model, _)| model.checkpoint.as_ref());
    path.map_or("HERE".to_owned(), |path| format!("llama(os.path.join(BASE, {}))", text(path)))
}

/// A string of Python's, whose escapes are those of JSON.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Parts of the names of parameters without weight decay, as Python strings.
fn spared(optimizer: &OptimizerPlan) -> String {
    let mut names = Vec::new();
    if !optimizer.decay_norms {
        names.push("\"norm\"");
    }
    if !optimizer.decay_embeddings {
        names.push("\"tok_embeddings\"");
    }
    names.join(", ")
}

/// Where the weights come from, as a Python expression, and whether that is a Hugging Face directory.
fn initial(plan: &Plan, stage: &StagePlan) -> (String, &'static str) {
    use crate::plan::Origin;
    match plan.origin(stage) {
        Some(Origin::Model(model)) => match &model.checkpoint {
            Some(path) => (format!("os.path.join(BASE, {})", text(path)), "True"),
            None => ("None".to_owned(), "False"),
        },
        Some(Origin::Stage(before, step)) => {
            let folder = file_name(&before.name);
            let path = format!("os.path.join(HERE, \"out\", \"{folder}\", \"checkpoints\", \"step-{step}\")");
            (path, "False")
        }
        _ => ("None".to_owned(), "False"),
    }
}

/// Arguments of torchtitan's rotary embedding.
fn rope(rope: &RopePlan) -> String {
    match &rope.scaling {
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => format!(
            "dict(theta={}, scaling=\"yarn\", rope_factor={factor}, original_seq_len={original}, \
             beta_fast={beta_fast}, beta_slow={beta_slow}, truncate={})",
            rope.theta,
            if *truncate { "True" } else { "False" }
        ),
        RopeScaling::Llama3 { factor, low, high, original } => format!(
            "dict(theta={}, scaling=\"llama\", scaling_factor={factor}, low_freq_factor={low}, \
             high_freq_factor={high}, original_max_position_embeddings={original})",
            rope.theta
        ),
        // `ntk` is a larger base; twice the frequencies are the head's dimensions.
        RopeScaling::Ntk { factor } => {
            let dim = 2.0 * rope.inv_freq.len() as f64;
            format!("dict(theta={}, scaling=\"none\")", rope.theta * factor.powf(dim / (dim - 2.0)))
        }
        _ => format!("dict(theta={}, scaling=\"none\")", rope.theta),
    }
}

fn run_sh(plan: &Plan, base: &str) -> File {
    let mut text = format!(
        "#!/usr/bin/env bash\n\
         # Runs `{}` stage by stage with torchtitan: a stage that has ended is over at once, one that was interrupted\n\
         # goes on. LOCAL_BATCH rows at once on each GPU; arguments are torchtitan's.\n\
         #   FLAVOR=8B NPROC=8 LOCAL_BATCH=2 ./run.sh --compile.enable\n\
         set -euo pipefail\n\
         export BASE=${{BASE:-{}}}\n\
         cd \"$(dirname \"$0\")\"\n\
         : \"${{NPROC:=1}}\" \"${{NNODES:=1}}\" \"${{NODE_RANK:=0}}\" \"${{MASTER_ADDR:=127.0.0.1}}\" \"${{MASTER_PORT:=29500}}\"\n\
         export PYTHONPATH=$PWD${{PYTHONPATH:+:$PYTHONPATH}}\n\
         stage() {{\n    \
         \"${{PYTHON:-python}}\" -m torch.distributed.run --nnodes \"$NNODES\" --nproc-per-node \"$NPROC\" --node-rank \"$NODE_RANK\" \\\n        \
         --master-addr \"$MASTER_ADDR\" --master-port \"$MASTER_PORT\" \\\n        \
         -m torchtitan.train --module midc_stages --config \"$@\"\n}}\n\n",
        plan.curriculum,
        stage::quoted(base),
    );
    for function in functions(plan) {
        let _ = writeln!(text, "stage {function} \"$@\"");
    }
    File::program("run.sh", text)
}

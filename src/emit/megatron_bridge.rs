//! Launches for NVIDIA Megatron-Bridge 0.6.2, whose settings they were held to, and never run: one file of
//! overrides per stage. Megatron draws from its own indexed data by weights, so the order of rows is its own.

use std::fmt::Write as _;
use std::path::Path;

use super::{File, hf, stage};
use crate::curve::{Segment, Shape};
use crate::plan::{Origin, Plan, RopePlan, SourcePlan, StagePlan, file_name};
use crate::rope::RopeScaling;

/// The files of the launch.
pub(super) fn files(plan: &Plan, base: &str) -> Vec<File> {
    let mut files: Vec<File> = plan
        .stages
        .iter()
        .map(|s| File::new(format!("stages/{}.yaml", file_name(&s.name)), overrides(plan, s)))
        .collect();
    files.push(File::new("train.py", include_str!("megatron_bridge_train.py")));
    files.push(File::new("midc_versions.py", super::VERSIONS));
    files.push(File::new("requirements.txt", "megatron-bridge[te]==0.6.2\nmegatron-core==0.19.2\n"));
    files.push(run_sh(plan, base));
    files
}

/// Settings of Megatron's scheduler for a learning rate; `None` when it has no words for the curve.
/// It knows a linear warm-up, then one decay to the end, or a plateau and then one decay.
pub(super) fn schedule(stage: &StagePlan) -> Option<Vec<(&'static str, String)>> {
    // Its clock counts rows, those of a step at once; a place inside a step is as good as any.
    let context = stage.phases.first().map_or(1, |p| p.context);
    let rows = |tokens: u64| (tokens + context / 2) / context;
    let mut segments: &[Segment] = &stage.lr.curve.segments;
    let total = rows(stage.tokens);
    let mut out: Vec<(&'static str, String)> = Vec::new();
    let mut peak = stage.lr.start;
    if let [first, rest @ ..] = segments
        && first.shape == Shape::Linear
        && first.to > first.from
        && !rest.is_empty()
    {
        out.push(("lr_warmup_init", number(first.from)));
        out.push(("lr_warmup_samples", rows(first.end).to_string()));
        peak = first.to;
        segments = rest;
    }
    let cut = segments.iter().any(|s| s.horizon.is_some_and(|h| h != s.end));
    let end = segments.last().map(|s| s.to)?;
    let style = match segments {
        _ if cut => return None,
        [only] if only.shape == Shape::Hold => "constant",
        [only] if only.shape == Shape::Linear && only.to < only.from => "linear",
        [only] if only.shape == Shape::Cosine && only.to < only.from => "cosine",
        [hold, decay] if hold.shape == Shape::Hold && decay.to < decay.from => {
            let style = match decay.shape {
                Shape::Linear => "linear",
                Shape::Cosine => "cosine",
                Shape::OneMinusSqrt => "minus_sqrt",
                // Its `exponential` is min + (max − min)·(2·0.5^u − 1), which is no shape of ours.
                _ => return None,
            };
            out.push(("lr_wsd_decay_style", style.to_owned()));
            out.push(("lr_wsd_decay_samples", (total - rows(decay.start)).to_string()));
            "WSD"
        }
        _ => return None,
    };
    out.push(("lr_decay_style", style.to_owned()));
    out.push(("lr_decay_samples", total.to_string()));
    out.push(("lr", number(peak)));
    out.push(("min_lr", number(end)));
    Some(out)
}

/// Without an exponent: YAML takes `1e-5` for a string.
fn number(value: f64) -> String {
    value.to_string()
}

fn overrides(plan: &Plan, stage: &StagePlan) -> String {
    let Some(phase) = stage.phases.first() else { return String::new() };
    let mut out = String::from(
        "# Overrides for Megatron-Bridge 0.6.2. Written from its settings and never run: read before use.\n",
    );
    let optimizer = &stage.optimizer;
    let schedule = schedule(stage).unwrap_or_default();
    let (rates, scheduler): (Vec<_>, Vec<_>) =
        schedule.iter().partition(|(key, _)| matches!(*key, "lr" | "min_lr"));
    if let Some(path) = root(plan, stage) {
        let _ = writeln!(out, "hf: {}", text(&path));
    }
    let _ = write!(
        out,
        "model:\n  seq_length: {context}\n  calculate_per_token_loss: true\n{rope}dataset:\n  seq_length: {context}\n  random_seed: {seed}\n  blend:\n",
        context = phase.context,
        rope = hf::effective_rope(plan, stage).map(rope).unwrap_or_default(),
        seed = stage.data_seed,
    );
    let names: Vec<String> = stage
        .mix
        .iter()
        .map(|m| text(&format!("${{DATA}}/{}_text_document", file_name(&m.source))))
        .collect();
    let weights: Vec<String> = stage.mix.iter().map(|m| m.weight_mean.to_string()).collect();
    let _ = writeln!(out, "  - [{}]\n  - [{}]", names.join(", "), weights.join(", "));
    let _ = writeln!(
        out,
        "train:\n  train_samples: {}\n  global_batch_size: {}",
        stage.steps * phase.sequences,
        phase.sequences
    );
    let _ = writeln!(
        out,
        "optimizer:\n  adam_beta1: {}\n  adam_beta2: {}\n  adam_eps: {}\n  weight_decay: {}\n  clip_grad: {}",
        optimizer.betas[0],
        optimizer.betas[1],
        number(optimizer.eps),
        optimizer.weight_decay,
        optimizer.clip.unwrap_or(0.0)
    );
    for (key, value) in rates {
        let _ = writeln!(out, "  {key}: {value}");
    }
    // The scheduler sets the weight decay of every step, from its own constants.
    let decay = optimizer.weight_decay;
    let _ = writeln!(out, "scheduler:\n  start_weight_decay: {decay}\n  end_weight_decay: {decay}");
    for (key, value) in scheduler {
        let _ = writeln!(out, "  {key}: {value}");
    }
    let folder = text(&format!("out/{}", file_name(&stage.name)));
    let start = match plan.origin(stage) {
        Some(Origin::Model(_)) => root(plan, stage),
        Some(Origin::Stage(before, step)) => Some(format!("out/{}/iter_{step:07}", file_name(&before.name))),
        _ => None,
    };
    let _ = writeln!(
        out,
        "checkpoint:\n  pretrained_checkpoint: {}\n  save: {folder}\n  load: {folder}\n  save_interval: {}",
        start.map_or("null".to_owned(), |path| text(&path)),
        stage.save_every.unwrap_or(stage.steps)
    );
    out
}

/// The Hugging Face directory of the model that a stage descends from, whose shape and tokenizer it has.
fn root(plan: &Plan, stage: &StagePlan) -> Option<String> {
    let path = plan.lineage(stage)?.0.checkpoint.as_ref()?;
    Some(if Path::new(path).is_absolute() { path.clone() } else { format!("${{BASE}}/{path}") })
}

/// A string of YAML's, which may hold blanks, colons and what begins a comment. Its escapes are those of JSON.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Lines of the `model` section: every setting, since those that the checkpoint's configuration came to would stay.
fn rope(rope: &RopePlan) -> String {
    let mut theta = rope.theta;
    let mut kind = "rope";
    let mut interpolation = "null".to_owned();
    let mut llama3 = None;
    let mut yarn = [
        "rotary_scaling_factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "correction_range_round_to_int",
    ]
    .map(|key| (key, "null".to_owned()));
    match &rope.scaling {
        RopeScaling::Pi { factor } => interpolation = factor.to_string(),
        RopeScaling::Llama3 { factor, .. } => llama3 = Some(factor),
        RopeScaling::Yarn {
            factor,
            original,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            truncate,
            ..
        } => {
            kind = "yarn";
            // One alone says nothing to transformers, and would to Megatron.
            let both = mscale.zip(*mscale_all_dim);
            let values = [
                Some(factor.to_string()),
                Some(original.to_string()),
                Some(beta_fast.to_string()),
                Some(beta_slow.to_string()),
                both.map(|(mscale, _)| mscale.to_string()),
                both.map(|(_, all)| all.to_string()),
                Some(truncate.to_string()),
            ];
            for ((_, written), value) in yarn.iter_mut().zip(values) {
                if let Some(value) = value {
                    *written = value;
                }
            }
        }
        // `ntk` is a larger base; twice the frequencies are the head's dimensions.
        RopeScaling::Ntk { factor } => {
            let dim = 2.0 * rope.inv_freq.len() as f64;
            theta *= factor.powf(dim / (dim - 2.0));
        }
        _ => {}
    }
    let mut out = format!(
        "  position_embedding_type: {kind}\n  rotary_base: {theta}\n  seq_len_interpolation_factor: {interpolation}\n  \
         rope_scaling: {}\n  rope_scaling_factor: {}\n",
        llama3.is_some(),
        llama3.unwrap_or(&1.0)
    );
    for (key, value) in yarn {
        let _ = writeln!(out, "  yarn_{key}: {value}");
    }
    out
}

fn run_sh(plan: &Plan, base: &str) -> File {
    let mut text = format!(
        "#!/usr/bin/env bash\n\
         # Runs `{}` stage by stage with Megatron-Bridge, on Python 3.12: a stage that is done is left alone. Never run:\n\
         # read before use. MICRO_BATCH is the rows a GPU takes at once, DATA the directory of the data sets, and HF stands\n\
         # in for the Hugging Face directory of every stage's model, which `hf` in its file names.\n\
         #\n\
         # The data sets, with the tool of github.com/NVIDIA/Megatron-LM; every document ends with the tokenizer's EOD:\n\
         #\n",
        plan.curriculum,
    );
    for (source, model) in sources(plan) {
        for line in data_commands(source, model) {
            let _ = writeln!(text, "#   {line}");
        }
    }
    let _ = write!(
        text,
        "set -euo pipefail\n\
         export BASE=${{BASE:-{}}}\n\
         : \"${{DATA:?}}\"\n\
         export DATA\n\
         cd \"$(dirname \"$0\")\"\n\
         : \"${{NPROC:=1}}\" \"${{NNODES:=1}}\" \"${{NODE_RANK:=0}}\" \"${{MASTER_ADDR:=127.0.0.1}}\" \"${{MASTER_PORT:=29500}}\"\n\
         stage() {{\n    \
         torchrun --nnodes \"$NNODES\" --nproc-per-node \"$NPROC\" --node-rank \"$NODE_RANK\" \\\n        \
         --master-addr \"$MASTER_ADDR\" --master-port \"$MASTER_PORT\" train.py \"$1\"\n}}\n\n",
        stage::quoted(base),
    );
    for stage in &plan.stages {
        let _ = writeln!(text, "stage stages/{}.yaml", file_name(&stage.name));
    }
    File::program("run.sh", text)
}

/// The sources that some stage draws from, each with the directory of the model whose tokens it is made of.
fn sources(plan: &Plan) -> Vec<(&SourcePlan, String)> {
    let reader =
        |source: &SourcePlan| plan.stages.iter().find(|s| s.mix.iter().any(|m| m.source == source.name));
    let read = plan.sources.iter().filter_map(|source| Some((source, root(plan, reader(source)?)?)));
    read.collect()
}

/// What makes the data set of a source, a line each. Megatron's tool reads one file of JSON lines.
fn data_commands(source: &SourcePlan, model: String) -> Vec<String> {
    let name = file_name(&source.name);
    let plain = |path: &str| path.ends_with(".jsonl") && !path.contains(['*', '?', '[', '{']);
    let mut out = Vec::new();
    let input = match &source.path[..] {
        [path] if plain(path) => shell(&rooted(path)),
        paths => {
            let made = shell(&format!("${{DATA}}/{name}.jsonl"));
            let lines = paths.iter().all(|path| path.ends_with(".jsonl"));
            let deep = if paths.iter().any(|path| path.contains("**")) { "shopt -s globstar; " } else { "" };
            let paths: Vec<String> = paths.iter().map(|path| shell(&rooted(path))).collect();
            if lines {
                out.push(format!("{deep}cat {} > {made}", paths.join(" ")));
            } else {
                out.push(format!("(make {made} of {}, a JSON object per document)", paths.join(" ")));
            }
            made
        }
    };
    let named = |t: &&str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let field = source.text.as_deref().filter(named).unwrap_or("text");
    let prefix = shell(&format!("${{DATA}}/{name}"));
    out.push(format!(
        "python tools/preprocess_data.py --input {input} --json-keys {field} --append-eod --workers 8 \
         --tokenizer-type HuggingFaceTokenizer --tokenizer-model {} --output-prefix {prefix}",
        shell(&model)
    ));
    if field != "text" {
        let ends = ["bin", "idx"]
            .map(|end| format!("mv {prefix}_{field}_document.{end} {prefix}_text_document.{end}"));
        out.push(ends.join(" && "));
    }
    out
}

/// A path from the curriculum's directory.
fn rooted(path: &str) -> String {
    if Path::new(path).is_absolute() { path.to_owned() } else { format!("${{BASE}}/{path}") }
}

/// A path for a shell, which may begin with a variable and be a pattern.
fn shell(path: &str) -> String {
    let (variable, rest) = match path.strip_prefix("${").and_then(|p| p.split_once("}/")) {
        Some((name, rest)) => (format!("\"${name}\"/"), rest),
        None => (String::new(), path),
    };
    let plain = |c: char| c.is_alphanumeric() || "/._-+=@,*?[]{}".contains(c);
    let escaped = rest.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c]));
    variable + &escaped.collect::<String>()
}

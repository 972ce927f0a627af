//! `midc bench gradients`: loss and gradients of one batch, for comparison with other software.

use std::path::PathBuf;
use std::process::ExitCode;

use miette::{Context, IntoDiagnostic};
use serde::Deserialize;
use serde_json::json;

use crate::plan::Architecture;
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{EngineKind, EngineOptions, Hyper, Muon, RopeTable, engine};
use crate::runtime::model::tensor::{StateDict, Tensor};

/// Loss and gradients of one batch, read from and written to a directory
///
/// Reads `case.json` and the weights it lists from `weights.f32`; writes the loss, the losses of the
/// steps if any were asked for, and the gradients to `result.json` and `gradients.f32`.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Where the case lies
    directory: PathBuf,
    /// Arithmetic
    #[arg(long, default_value = "f32")]
    engine: Kind,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Reference,
    F32,
    Bf16,
}

/// A tensor in a file of f32, little-endian, end to end.
#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
}

#[derive(Debug, Deserialize)]
struct Case {
    architecture: Architecture,
    inv_freq: Vec<f64>,
    attention_factor: f64,
    /// Of layers that take no part in the scaling.
    #[serde(default)]
    plain_inv_freq: Option<Vec<f64>>,
    rows: usize,
    context: usize,
    tokens: Vec<u32>,
    /// −1 where there is no target.
    targets: Vec<i64>,
    attend_from: Vec<u32>,
    positions: Vec<u32>,
    /// Order of the tensors in `weights.f32` and `gradients.f32`.
    weights: Vec<Entry>,
    /// Steps to train on the same batch after the gradients.
    #[serde(default)]
    steps: u64,
    #[serde(default)]
    lr: f64,
    /// Train by Muon.
    #[serde(default)]
    muon: bool,
}

pub(super) fn run(args: &Args) -> miette::Result<ExitCode> {
    let read = |name: &str| {
        let file = args.directory.join(name);
        std::fs::read(&file).into_diagnostic().wrap_err_with(|| format!("cannot read {}", file.display()))
    };
    let write = |name: &str, bytes: &[u8]| {
        let file = args.directory.join(name);
        std::fs::write(&file, bytes)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", file.display()))
    };
    let case: Case = serde_json::from_slice(&read("case.json")?).into_diagnostic()?;
    let weights = weights(&case.weights, &read("weights.f32")?)?;
    let targets = case.targets.iter().map(|t| u32::try_from(*t).unwrap_or(IGNORE)).collect();
    let positions = case.positions.iter().max().map_or(0, |p| *p as usize + 1);
    let batch = Batch {
        context: case.context,
        tokens: case.tokens,
        targets,
        attend_from: case.attend_from,
        positions: case.positions,
        source: vec![0; case.rows],
    };
    let mut table = RopeTable::new(&case.inv_freq, case.attention_factor, positions);
    if let Some(plain) = &case.plain_inv_freq {
        table = table.with_plain(plain);
    }
    let kind = match args.engine {
        Kind::Reference => EngineKind::Reference,
        Kind::F32 => EngineKind::CpuF32,
        Kind::Bf16 => EngineKind::CpuBf16,
    };
    let mut engine = engine(kind, &case.architecture, &weights, EngineOptions::default())?;
    let result = engine.gradients(&batch, &table)?;
    let mut bytes = Vec::new();
    for entry in &case.weights {
        let tensor = result.gradients.get(&entry.name);
        let tensor = tensor.ok_or_else(|| miette::miette!("the model has no tensor `{}`", entry.name))?;
        bytes.extend(tensor.data.iter().flat_map(|x| x.to_le_bytes()));
    }
    write("gradients.f32", &bytes)?;
    let mut losses = Vec::new();
    for step in 1..=case.steps {
        let muon = case.muon.then(Muon::default);
        let hyper = Hyper { lr: case.lr, optimizer_step: step, muon, ..Hyper::default() };
        losses.push(engine.train_step(&batch, &table, &hyper)?.loss);
    }
    let result = json!({ "loss": result.loss, "steps": losses });
    write("result.json", result.to_string().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn weights(entries: &[Entry], bytes: &[u8]) -> miette::Result<StateDict> {
    let mut values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let mut state = StateDict::new();
    for entry in entries {
        let len: usize = entry.shape.iter().product();
        let data: Vec<f32> = values.by_ref().take(len).collect();
        if data.len() != len {
            return Err(miette::miette!("weights.f32 ends within `{}`", entry.name));
        }
        state.insert(entry.name.clone(), Tensor { shape: entry.shape.clone(), data });
    }
    Ok(state)
}

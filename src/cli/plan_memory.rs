//! `midc plan --device`: what training will hold in memory, before anything is allocated.

use std::path::Path;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use super::device::{DeviceArg, precision};
use crate::plan::Plan;
use crate::runtime::backend::cuda;
use crate::runtime::engine::{Device, TrainingMemory};
use crate::runtime::exec::{StageMemory, memory};
use crate::sema::show;

/// One line per stage and length of rows, and what it was held against.
///
/// # Errors
/// When a stage does not fit, when a configuration cannot be read, when the GPU does not answer.
pub(super) fn table(
    plan: &Plan,
    base_dir: &Path,
    device: DeviceArg,
    budget: Option<u64>,
) -> miette::Result<String> {
    let device = match device {
        DeviceArg::Auto | DeviceArg::Cpu => Device::Cpu,
        DeviceArg::Cuda(ordinal) => Device::Cuda(ordinal),
    };
    let (budget, against) = match (device, budget) {
        (_, Some(bytes)) => (Some(bytes), format!("within {}", size(bytes))),
        (Device::Cpu, None) => (None, "no limit: `--memory` sets one".to_string()),
        (Device::Cuda(ordinal), None) => match cuda::available(ordinal) {
            Ok(bytes) => (Some(bytes), format!("within {}, free on `cuda:{ordinal}`", size(bytes))),
            Err(_) => (None, "no GPU here to hold it against: `--memory 80GiB` stands for one".to_string()),
        },
    };
    let stages = memory(plan, base_dir, device, precision(None, device), budget)?;
    Ok(format!("{}\n{against}\n", draw(&stages)))
}

fn draw(stages: &[StageMemory]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "stage",
        "rows",
        "context",
        "at once",
        "recomputed",
        "parameters",
        "activations",
        "backend",
        "memory",
    ]);
    for s in stages {
        let m = &s.memory;
        let mut row = vec![Cell::new(&s.stage)];
        let numbers = [
            s.rows.to_string(),
            show::length(s.context as u64),
            m.rows_at_once.to_string(),
            recomputed(m),
            size(m.parameters_bytes),
            size(m.activations_bytes),
            size(m.backend_bytes),
            size(m.total()),
        ];
        row.extend(numbers.into_iter().map(|n| Cell::new(n).set_alignment(CellAlignment::Right)));
        table.add_row(row);
    }
    table
}

/// `4`, `30 ffn` or `4 + 26 ffn`.
fn recomputed(m: &TrainingMemory) -> String {
    match (m.layers_recomputed, m.feed_forwards_recomputed) {
        (layers, 0) => layers.to_string(),
        (0, feed_forwards) => format!("{feed_forwards} ffn"),
        (layers, feed_forwards) => format!("{layers} + {feed_forwards} ffn"),
    }
}

fn size(bytes: u64) -> String {
    let gib = bytes as f64 / (1u64 << 30) as f64;
    if gib >= 1.0 {
        format!("{gib:.1} GiB")
    } else {
        format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
    }
}

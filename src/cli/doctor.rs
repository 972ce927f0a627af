//! `midc doctor`: what this machine can run, and what to install for the rest.

use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::lines;
use crate::runtime::backend::cpu::multiplies_bf16;
use crate::runtime::backend::cuda::probe::{CudaReport, probe};

/// Say what this machine can run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `text` or `json`
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let cpu = cpu();
    let cuda = probe();
    if args.format == "json" {
        lines::output(&format!("{}\n", json(&cpu, &cuda)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_string(), value]);
    };
    row("midc", env!("CARGO_PKG_VERSION").to_string());
    row("cpu", format!("{} cores, {}", cpu.cores, cpu.path()));
    row("memory", cpu.memory_mib.map_or("unknown".into(), |m| format!("{:.1} GiB", m as f64 / 1024.0)));
    row("cuda driver", cuda.driver.map_or("not found".into(), |(a, b)| format!("CUDA {a}.{b}")));
    row("nvrtc", cuda.nvrtc.map_or("not found".into(), |(a, b)| format!("{a}.{b}")));
    for (i, d) in cuda.devices.iter().enumerate() {
        row(
            &format!("cuda:{i}"),
            format!(
                "{}, compute capability {}.{}, {:.0} GiB, {} multiprocessors",
                d.name,
                d.capability.0,
                d.capability.1,
                d.memory as f64 / (1u64 << 30) as f64,
                d.multiprocessors
            ),
        );
    }
    let mut text = format!("{table}\n");
    if let Some(problem) = &cuda.problem {
        text.push_str(&format!("\n`--device cuda` is not available: {problem}\n{}\n", advice(&cuda)));
    }
    lines::output(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What to install so that `--device cuda` works.
fn advice(cuda: &CudaReport) -> &'static str {
    match (cuda.driver, cuda.nvrtc) {
        (None, _) => "install the NVIDIA driver, version 580 or newer; training runs on the CPU meanwhile",
        (Some(_), None) => {
            "install the CUDA toolkit 13, or `pip install nvidia-cuda-nvrtc` and put its `lib` on LD_LIBRARY_PATH"
        }
        _ => "check `nvidia-smi`",
    }
}

struct Cpu {
    cores: usize,
    features: Vec<&'static str>,
    memory_mib: Option<u64>,
}

impl Cpu {
    /// The arithmetic the CPU backend picks here.
    fn path(&self) -> &'static str {
        let has = |f| self.features.contains(&f);
        match () {
            () if multiplies_bf16() => "AVX-512 with bf16 dot products: f32 and bf16",
            () if has("avx512f") => "AVX-512: f32; bf16 is as fast and takes less memory",
            () if has("avx2") => "AVX2: f32; bf16 is as fast and takes less memory",
            () => "portable: f32; bf16 takes less memory",
        }
    }
}

fn cpu() -> Cpu {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            features.push("avx2");
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            features.push("avx512f");
        }
        if std::arch::is_x86_feature_detected!("avx512bf16") {
            features.push("avx512bf16");
        }
    }
    let memory_mib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
    });
    Cpu { cores: std::thread::available_parallelism().map_or(1, |n| n.get()), features, memory_mib }
}

fn json(cpu: &Cpu, cuda: &CudaReport) -> serde_json::Value {
    let version = |v: Option<(i32, i32)>| v.map(|(a, b)| format!("{a}.{b}"));
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cpu": { "cores": cpu.cores, "features": cpu.features, "memory_mib": cpu.memory_mib },
        "cuda": {
            "driver": version(cuda.driver),
            "nvrtc": version(cuda.nvrtc),
            "problem": cuda.problem,
            "devices": cuda.devices.iter().map(|d| serde_json::json!({
                "name": d.name,
                "compute_capability": format!("{}.{}", d.capability.0, d.capability.1),
                "memory_bytes": d.memory,
                "multiprocessors": d.multiprocessors,
            })).collect::<Vec<_>>(),
        },
    })
}

//! Test support: prints what `midc::rope` computes, for `tests/rope_transformers.py`.
//!
//! Reads one JSON object per line, `{"head_dim", "theta", "scaling", "seq_len", "context"}`, and
//! writes one per line: `{"inv_freq", "attention_factor", "config", "read_back"}`, where `config`
//! are the keys for a `config.json` and `read_back` is what `rope::from_hf` makes of them.
//! `{"config": {…}}` instead only reads: `{"read_back"}` or `{"error"}`.

use std::io::{BufRead, Write};

use midc::rope::{self, RopeScaling};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Compute { head_dim: usize, theta: f64, scaling: RopeScaling, seq_len: u64, context: u64 },
    Read { config: Map<String, Value> },
}

fn read_back(config: &Map<String, Value>) -> (&'static str, Value) {
    match rope::from_hf(config) {
        Ok(rope) => ("read_back", json!({ "theta": rope.theta, "scaling": rope.scaling })),
        Err(error) => ("error", json!(error.to_string())),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Case::Compute { head_dim, theta, scaling, seq_len, context } => {
                let rope = rope::inv_freq(head_dim, theta, &scaling, seq_len);
                let config = rope::to_hf(head_dim, theta, &scaling, context);
                let (key, value) = read_back(&config);
                json!({
                    "inv_freq": rope.inv_freq,
                    "attention_factor": rope.attention_factor,
                    "config": config,
                    key: value,
                })
            }
            Case::Read { config } => {
                let (key, value) = read_back(&config);
                json!({ key: value })
            }
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

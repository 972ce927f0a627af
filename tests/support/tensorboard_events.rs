//! Test support: writes event files for `tests/tensorboard_reader.py` into the directory it is given: a
//! run killed after step 6 with a torn last record, resumed from step 4.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use midc::runtime::journal::{EvalRecord, StepRecord};
use midc::runtime::tensorboard::TensorBoard;

fn record(step: u64, loss: f64) -> StepRecord {
    StepRecord {
        stage: "anneal[42]".into(),
        step,
        tokens: step * 1000,
        lr: 1e-3,
        batch_tokens: 1000,
        context: 256,
        loss,
        loss_by_source: BTreeMap::from([("s.wéb".into(), loss + 0.5)]),
        grad_norm: 0.25,
        gns: None,
        tokens_per_second: 5e4,
        data_seconds: None,
        mfu: None,
        mix: BTreeMap::from([("s.wéb".into(), 0.75), ("code".into(), 0.25)]),
        rows: BTreeMap::from([("s.wéb".into(), 3), ("code".into(), 1)]),
        skipped: false,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: tensorboard_events DIR")?;
    let dir = Path::new(&dir);
    let mut board = TensorBoard::open(dir, 0)?;
    board.text(0, "plan", "| stage | tokens |\n|---|---|\n| anneal | 50B |")?;
    for step in 0..7 {
        board.step(&record(step, 10.0 - step as f64))?;
    }
    drop(board);
    for entry in std::fs::read_dir(dir)? {
        let mut file = std::fs::OpenOptions::new().append(true).open(entry?.path())?;
        file.write_all(&[57, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])?;
    }
    let mut board = TensorBoard::open(dir, 4)?;
    for step in 4..9 {
        board.step(&record(step, 20.0 - step as f64))?;
    }
    board.eval(&EvalRecord {
        stage: "anneal[42]".into(),
        step: 9,
        tokens: 9000,
        eval: "reach".into(),
        measure: "needle".into(),
        subject: "32768".into(),
        value: 0.875,
        count: 40,
    })?;
    Ok(())
}

//! Training: data, model, optimizer, checkpoints, metrics, over a `Backend`.
//!
//! Reads the plan; knows neither the syntax tree nor the checker.

pub mod backend;
pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod engine;
pub mod eval;
pub mod exec;
pub mod journal;
pub mod model;
pub mod model_text;
pub mod optim;
pub mod random;
pub mod rehearse;
pub mod run_dir;
pub mod soup;
pub mod tensorboard;
pub mod whole;

//! midc: the compiler for training curricula.
//!
//! ```text
//! text ─ syntax ─▶ ast ─ sema ─▶ curriculum (typed, spanned) ─ plan ─▶ plan (plain numbers, serde, hashed)
//!                                                                        ├─▶ runtime: data ▸ model ▸ backend ▸ checkpoints, metrics
//!                                                                        ├─▶ emit ─ launch ─▶ other engines, under supervision
//!                                                                        └─▶ plot, report
//! ```
//!
//! Dependencies point down only; `tests/layering.rs` enforces the list:
//! `main → cli → {lsp → ide, launch → {runtime, emit}, plot, fmt} → plan → sema → {schema, curve, rope, layers} → syntax →
//! diag → source`, where `runtime`, `emit` and `plot` use `plan`, `curve`, `rope` and `layers` and never `syntax`
//! or `sema`, and `fmt` uses only `syntax`.

#[cfg(feature = "native")]
pub mod cli;
pub mod curve;
pub mod diag;
pub mod emit;
pub mod fmt;
pub mod ide;
#[cfg(feature = "native")]
pub mod launch;
pub mod layers;
pub mod lsp;
pub mod plan;
pub mod plot;
pub mod rope;
#[cfg(feature = "native")]
pub mod runtime;
pub mod schema;
pub mod sema;
pub mod source;
pub mod syntax;

//! Test support: loads a model (Hugging Face directory or GGUF) and writes it as a checkpoint.
//!
//! usage: checkpoint_copy MODEL OUT [f32|bf16|f16]

use std::path::Path;

use midc::runtime::checkpoint::{CheckpointContents, write};
use midc::runtime::model::{Dtype, load};

fn main() -> miette::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, rest @ ..] = args.as_slice() else {
        return Err(miette::miette!("usage: checkpoint_copy MODEL OUT [f32|bf16|f16]"));
    };
    let dtype = match rest.first().map(String::as_str) {
        None | Some("f32") => Dtype::F32,
        Some("bf16") => Dtype::Bf16,
        Some("f16") => Dtype::F16,
        Some(other) => return Err(miette::miette!("`{other}` is not f32, bf16 or f16")),
    };
    let began = std::time::Instant::now();
    let loaded = load(Path::new(model))?;
    let read = began.elapsed();
    let contents = CheckpointContents {
        config: &loaded.config,
        state: &loaded.weights,
        dtype,
        tokenizer: &loaded.tokenizer,
        trainer: None,
    };
    write(&contents, Path::new(out))?;
    eprintln!("read in {read:.2?}, written in {:.2?}", began.elapsed().saturating_sub(read));
    Ok(())
}

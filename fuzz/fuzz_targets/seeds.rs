//! `seeds TARGET DIR`: the valid files that a target of a binary format begins with.

#[path = "../../tests/hostile/formats.rs"]
mod formats;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, dir] = arguments.as_slice() else { panic!("seeds TARGET DIR") };
    let names: &[&str] = match target.as_str() {
        "tokens" => &["npy", "bin", "llmc"],
        "checkpoint" => &["config", "index", "optimizer", "trainer", "checksums"],
        one => &[one],
    };
    let formats = formats::formats();
    for (i, name) in names.iter().enumerate() {
        let Some(format) = formats.iter().find(|f| f.name == *name) else { continue };
        // The first byte of a checkpoint's seed says which file it is.
        let which = if target == "checkpoint" { vec![i as u8] } else { Vec::new() };
        let seed = [&which, format.valid()].concat();
        std::fs::write(format!("{dir}/{name}"), seed).expect("a seed");
    }
}

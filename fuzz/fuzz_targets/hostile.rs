//! What the targets of binary formats share: the file is written out, as midc maps files, and read;
//! asking for much memory at once is a finding.

#[path = "../../tests/hostile/formats.rs"]
mod formats;
#[path = "../../tests/hostile/memory.rs"]
mod memory;

use std::cell::OnceCell;

use formats::Format;
use memory::Watching;

#[global_allocator]
static MEMORY: Watching = Watching::new();

/// No request is larger for files of some kilobytes.
const LARGEST: usize = 64 << 20;

struct Laid {
    format: Format,
    dir: tempfile::TempDir,
}

thread_local! {
    static LAID: OnceCell<Vec<Laid>> = const { OnceCell::new() };
}

fn lay() -> Vec<Laid> {
    let laid = |format: Format| {
        let dir = tempfile::tempdir().expect("a directory");
        format.lay(dir.path());
        Laid { format, dir }
    };
    formats::formats().into_iter().map(laid).collect()
}

/// Read `bytes` as a file of the format `name`.
pub(crate) fn read(name: &str, bytes: &[u8]) {
    LAID.with(|laid| {
        let laid = laid.get_or_init(lay);
        let it = laid.iter().find(|l| l.format.name == name).expect("a format");
        MEMORY.reset();
        // Records or an error.
        let _ = it.format.read(it.dir.path(), bytes);
        let largest = MEMORY.largest();
        assert!(largest <= LARGEST, "{largest} bytes asked for at once");
    });
}

/// Lay the valid files that the target `target` begins with in `seeds/TARGET`, each behind the byte of
/// its number where `numbered`.
pub(crate) fn seed(target: &str, names: &[&str], numbered: bool) {
    let dir = std::path::Path::new("seeds").join(target);
    std::fs::create_dir_all(&dir).expect("a directory for seeds");
    let formats = formats::formats();
    for (i, name) in names.iter().enumerate() {
        let format = formats.iter().find(|f| f.name == *name).expect("a format");
        let number = if numbered { vec![i as u8] } else { Vec::new() };
        std::fs::write(dir.join(name), [&number, format.valid()].concat()).expect("a seed");
    }
}

//! Files on disk for the checker, and lists of example files.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use midc::diag::Diagnostic;
use midc::plan::{Plan, Precision};
use midc::runtime::data::{OnBad, Progress, Quiet};
use midc::runtime::engine::Device;
use midc::runtime::exec::{Event, ExecError, ExecOptions, NotFinite, Observer, Outcome, Selection, exec};
use midc::runtime::run_dir::Resume;
use midc::sema::{self, Curriculum, Options, Setting};
use midc::source::MemoryFiles;

/// The package.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `*.curriculum` directly in these directories of the package, sorted.
pub(crate) fn curricula(directories: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(root().join(directory)).expect("the directory is there");
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.extension().is_some_and(|e| e == "curriculum") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// The graph of `tests/kill_resume`, to lie anywhere.
pub(crate) fn graph() -> String {
    let graph = root().join("tests/kill_resume/graph.curriculum");
    let data = root().join("examples/data");
    let data = data.to_str().expect("a path in UTF-8");
    std::fs::read_to_string(graph).expect("the graph can be read").replace("../../examples/data", data)
}

/// A run of one stage of the graph on this processor, below `dir`.
pub(crate) fn options(dir: &Path, run: &str, until: &str) -> ExecOptions {
    ExecOptions {
        base_dir: dir.to_owned(),
        run_dir: dir.join(run),
        cache_dir: dir.join("cache"),
        resume: Resume::Same,
        device: Device::Cpu,
        precision: Precision::F32,
        threads: None,
        memory: None,
        on_bad: OnBad::Skip,
        selection: Selection::Until(until.to_owned()),
        jobs: 1,
        noise_every: None,
        on_not_finite: NotFinite::Skip,
        gates_halt: true,
    }
}

/// Hears the notes of a run, and stops it after so many steps; after none where they are 0.
pub(crate) struct Watch {
    notes: Mutex<Vec<String>>,
    steps: Mutex<u64>,
    stop_after: u64,
    stop: AtomicBool,
}

impl Watch {
    pub(crate) fn new(stop_after: u64) -> Self {
        Watch { notes: Mutex::default(), steps: Mutex::default(), stop_after, stop: AtomicBool::new(false) }
    }

    /// How a run ended, and its notes.
    pub(crate) fn run(self, plan: &Plan, options: &ExecOptions) -> (Result<Outcome, ExecError>, String) {
        let ended = exec(plan, options, &self.stop, &self);
        (ended, self.notes.into_inner().expect("a lock").join("\n"))
    }

    /// The same of a run that ends without an error.
    pub(crate) fn ended(self, plan: &Plan, options: &ExecOptions) -> (Outcome, String) {
        let (ended, notes) = self.run(plan, options);
        (ended.unwrap_or_else(|error| panic!("{error}")), notes)
    }
}

impl Observer for Watch {
    fn on(&self, event: Event<'_>) {
        match event {
            Event::Note(text) => self.notes.lock().expect("a lock").push(text.to_owned()),
            Event::Step { .. } => {
                let mut steps = self.steps.lock().expect("a lock");
                *steps += 1;
                if *steps == self.stop_after {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    fn reading(&self) -> &dyn Progress {
        &Quiet
    }
}

/// Check a file of the package; what it uses is loaded with it.
pub(crate) fn check(path: &Path) -> (Option<Curriculum>, Vec<Diagnostic>) {
    let mut files = MemoryFiles::new();
    // Everything beside and below, under its path from the file's directory.
    let directory = path.parent().expect("a file has a directory");
    add(&mut files, directory, directory);
    let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("the file can be read");
    let file = files.add(&name, text);
    sema::check(&mut files, file, &Options::default())
}

fn add(files: &mut MemoryFiles, directory: &Path, root: &Path) {
    for entry in std::fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            add(files, &path, root);
        } else if path.extension().is_some_and(|e| e == "curriculum") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            files.add(&name, std::fs::read_to_string(&path).expect("the file can be read"));
        }
    }
}

/// Check a text.
pub(crate) fn check_text(text: &str) -> (Option<Curriculum>, Vec<Diagnostic>) {
    check_with(text, &[])
}

/// Check a text with `--set`.
pub(crate) fn check_with(text: &str, set: &[(&str, &str)]) -> (Option<Curriculum>, Vec<Diagnostic>) {
    let mut files = MemoryFiles::new();
    let file = files.add("test.curriculum", text);
    let options = Options { set: set.iter().map(|(k, v)| Setting::new(*k, *v)).collect() };
    sema::check(&mut files, file, &options)
}

//! `midc emit`: a plan as launches of an existing distributed engine, one engine per directory.
//!
//! ```text
//! plan ─ capability ─▶ findings (what the engine has no word for, and where)
//!      ├ stage, expected ─▶ stages/*.json, soups/*.json, models/*.json, expected.json
//!      └ engine ─▶ its fixed runner, run.sh, requirements.txt
//! logs of the engine + expected.json ─ verify ─▶ what differs
//! ```
//! Pure: texts in, texts out. Knows no curriculum file, only names of stages and fields; who holds
//! the file turns those into places.

pub mod capability;
mod expected;
mod hf;
mod json;
mod megatron_bridge;
mod olmo_core;
mod stage;
mod torchtitan;
mod transformers;
pub mod verify;

pub use expected::{Expected, ExpectedPhase, ExpectedRope, ExpectedStage, Runs};

use crate::plan::{Plan, SoupPlan, StagePlan, file_name};

/// What every runner begins with: it holds the installed packages to the launch's `requirements.txt`.
const VERSIONS: &str = include_str!("midc_versions.py");

/// A training engine midc writes launches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Hugging Face transformers with plain PyTorch (DDP or FSDP).
    Transformers,
    /// `ai2-olmo-core`.
    OlmoCore,
    /// PyTorch's torchtitan.
    Torchtitan,
    /// NVIDIA Megatron-Bridge.
    MegatronBridge,
}

impl Engine {
    /// Every engine with its name on the command line.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Transformers, "transformers"),
        (Self::OlmoCore, "olmo-core"),
        (Self::Torchtitan, "torchtitan"),
        (Self::MegatronBridge, "megatron-bridge"),
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(engine, _)| *engine == self).map_or("", |(_, name)| name)
    }

    /// Whether its launches read the rows that `midc data --export` writes.
    pub fn reads_rows(self) -> bool {
        self != Self::MegatronBridge
    }

    /// What was tried with it and what was not, a sentence.
    pub fn checked(self) -> &'static str {
        match self {
            Self::Transformers => {
                "checked by training on two CPU processes, with DDP and with FSDP; GPUs are not checked"
            }
            Self::OlmoCore => {
                "checked with ai2-olmo-core 3.0.0 by training on two CPU processes; GPUs are not checked"
            }
            Self::Torchtitan => {
                "checked with torchtitan 0.3.0 by training on one CPU process in place of a GPU, without its \
                 FlexAttention; GPUs are not checked"
            }
            Self::MegatronBridge => {
                "written from the settings of Megatron-Bridge 0.6.2 and never run: read the files before you use them"
            }
        }
    }
}

/// One file of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the directory of the launch, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
    /// Whether it is a program.
    pub executable: bool,
}

impl File {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), executable: false }
    }

    fn program(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { executable: true, ..Self::new(path, text) }
    }

    fn json(path: impl Into<String>, value: &impl serde::Serialize) -> Self {
        Self::new(path, json::pretty(value))
    }
}

/// Where in a curriculum something is: an item and a field of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of a stage; the empty string is the stage itself.
    Stage(String, &'static str),
    /// A field of a model.
    Model(String, &'static str),
    /// A soup.
    Soup(String),
}

/// One call of a launch's runner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job<'a> {
    /// Train a stage, on as many processes as there are.
    Stage(&'a StagePlan),
    /// Average checkpoints, in one process.
    Soup(&'a SoupPlan),
}

impl<'a> Job<'a> {
    /// All of a plan, each after what it needs. For the engines whose launches have stage files.
    pub fn all(plan: &'a Plan) -> Vec<Self> {
        stage::order(plan)
    }

    /// Name of the stage or soup.
    pub fn name(self) -> &'a str {
        match self {
            Self::Stage(stage) => &stage.name,
            Self::Soup(soup) => &soup.name,
        }
    }

    /// The runner's argument: `stages/main.json`, `soups/final.json`.
    pub fn file(self) -> String {
        match self {
            Self::Stage(stage) => format!("stages/{}.json", file_name(&stage.name)),
            Self::Soup(soup) => format!("soups/{}.json", file_name(&soup.name)),
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The engine cannot do it: what was launched would be another run.
    Lacks,
    /// The engine's formula gives other RoPE frequencies.
    RopeMismatch,
    /// The run is the same without it, but something is not measured.
    Drops,
    /// The run is the same as long as nothing fails that the engine does not judge.
    Unjudged,
}

impl Kind {
    /// Whether files can mean what the plan means in spite of it.
    fn is_faithful(self) -> bool {
        matches!(self, Self::Drops | Self::Unjudged)
    }
}

/// Something the engine has no word for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What sort.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// Headline: lower case, no full stop.
    pub message: String,
    /// What is to be seen at the place.
    pub label: String,
    /// The nearest thing the engine has.
    pub help: String,
}

/// The files of a launch and what they leave out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    /// In order of path within a kind.
    pub files: Vec<File>,
    /// In the order of the plan. With a [`Kind::Lacks`] or [`Kind::RopeMismatch`] among them the
    /// files do not mean what the plan means.
    pub findings: Vec<Finding>,
}

impl Launch {
    /// Whether the files mean what the plan means.
    pub fn faithful(&self) -> bool {
        self.findings.iter().all(|f| f.kind.is_faithful())
    }
}

/// Rows per source of every step of a stage, in the order of its mixture; `None` when not counted.
pub type CountRows<'a> = dyn Fn(&StagePlan) -> Option<Vec<Vec<u64>>> + 'a;

/// Lower `plan` for `engine`. `base` is the directory that paths of the plan start from, as the
/// launch will name it; `count` counts the planned rows where that is worth the time.
pub fn emit(engine: Engine, plan: &Plan, base: &str, count: &CountRows<'_>) -> Launch {
    let findings = capability::findings(engine, plan);
    if findings.iter().any(|f| !f.kind.is_faithful()) {
        return Launch { files: Vec::new(), findings };
    }
    let files = match engine {
        Engine::Transformers => transformers::files(plan, base, count),
        Engine::OlmoCore => olmo_core::files(plan, base, count),
        Engine::Torchtitan => torchtitan::files(plan, base),
        Engine::MegatronBridge => megatron_bridge::files(plan, base),
    };
    Launch { files, findings }
}

//! Which Python an engine runs on, and whether it has what the launch needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{LaunchError, process};
use crate::emit::Engine;

/// An interpreter that has the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// As it is called.
    pub path: PathBuf,
    /// GPUs that its PyTorch sees.
    pub gpus: u32,
    /// Versions of the packages, a sentence for the log.
    pub versions: String,
}

/// Modules of an engine's launch with the packages they come in; `torch` first.
fn needs(engine: Engine) -> &'static [(&'static str, &'static str)] {
    match engine {
        Engine::OlmoCore => &[
            ("torch", "torch"),
            ("olmo_core", "ai2-olmo-core"),
            ("transformers", "transformers"),
            ("safetensors", "safetensors"),
            ("numpy", "numpy"),
        ],
        _ => &[
            ("torch", "torch"),
            ("transformers", "transformers"),
            ("safetensors", "safetensors"),
            ("numpy", "numpy"),
        ],
    }
}

/// Prints a line of JSON. Arguments: `module=package`….
const PROBE: &str = r#"
import importlib.metadata, importlib.util, json, platform, sys
pairs = [pair.split("=") for pair in sys.argv[1:]]
missing = [package for module, package in pairs if importlib.util.find_spec(module) is None]
gpus, versions = 0, ["Python " + platform.python_version()]
if not missing:
    import torch
    gpus = torch.cuda.device_count()
    for _, package in pairs:
        try:
            versions.append(package + " " + importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            pass
print("\n" + json.dumps({"missing": missing, "gpus": gpus, "versions": ", ".join(versions)}))
"#;

#[derive(Deserialize)]
struct Answer {
    missing: Vec<String>,
    gpus: u32,
    versions: String,
}

/// The interpreter of `--python`, else of MIDC_PYTHON, of the active virtual environment, or
/// `python3` and `python` on the path; it must have what `engine` needs. `requirements` is the
/// launch's `requirements.txt`.
///
/// # Errors
/// There is none, it does not work, or packages are missing; each says what to do.
pub fn find(engine: Engine, given: Option<&Path>, requirements: &str) -> Result<Python, LaunchError> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let active = || variable("VIRTUAL_ENV").map(|v| v.join("bin").join("python"));
    let named = given.map(Path::to_path_buf).or_else(|| variable("MIDC_PYTHON")).or_else(active);
    let candidates = named.map_or_else(|| vec!["python3".into(), "python".into()], |path| vec![path]);
    for path in &candidates {
        // A path with a directory is meant from here, not from the directory the child starts in.
        let path = if path.components().count() > 1 {
            std::path::absolute(path).unwrap_or_else(|_| path.clone())
        } else {
            path.clone()
        };
        let mut command = Command::new(&path);
        command.arg("-c").arg(PROBE);
        command.args(needs(engine).iter().map(|(module, package)| format!("{module}={package}")));
        match process::probe(&mut command) {
            Ok(output) => return answer(path, &output, requirements),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(LaunchError::Python { python: path, why: error.to_string() }),
        }
    }
    let looked: Vec<String> = candidates.iter().map(|path| format!("`{}`", path.display())).collect();
    Err(LaunchError::NoPython { looked: looked.join(" and ") })
}

fn answer(path: PathBuf, output: &std::process::Output, requirements: &str) -> Result<Python, LaunchError> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    match serde_json::from_str::<Answer>(last) {
        Ok(Answer { missing, gpus, versions }) if missing.is_empty() => Ok(Python { path, gpus, versions }),
        Ok(Answer { missing, .. }) => {
            let packages = missing.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ");
            let requirements = requirements.lines().map(|line| format!("'{line}'")).collect::<Vec<_>>();
            Err(LaunchError::Packages { python: path, packages, requirements: requirements.join(" ") })
        }
        Err(_) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let why = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
            Err(LaunchError::Python { python: path, why: why.trim().to_owned() })
        }
    }
}

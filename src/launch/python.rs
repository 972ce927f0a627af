//! Which Python an engine runs on, and whether it has what the launch needs.

use std::collections::BTreeMap;
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
gpus, versions, found = 0, ["Python " + platform.python_version()], {}
if not missing:
    import torch
    gpus = torch.cuda.device_count()
    for _, package in pairs:
        try:
            found[package] = importlib.metadata.version(package)
            versions.append(package + " " + found[package])
        except importlib.metadata.PackageNotFoundError:
            pass
print("\n" + json.dumps({"missing": missing, "gpus": gpus, "versions": ", ".join(versions), "found": found}))
"#;

#[derive(Deserialize)]
struct Answer {
    missing: Vec<String>,
    gpus: u32,
    versions: String,
    /// The version of each package that says one.
    #[serde(default)]
    found: BTreeMap<String, String>,
}

/// The interpreter of `--python`, else of MIDC_PYTHON, of the active virtual environment, or
/// `python3` and `python` on the path; it must have what `engine` needs. `requirements` is the
/// launch's `requirements.txt`.
///
/// # Errors
/// There is none, it does not work, or packages are missing or of other versions; each says what to do.
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
        Ok(Answer { missing, gpus, versions, found }) => {
            let mut lacks: Vec<String> = missing.iter().map(|p| format!("`{p}`")).collect();
            lacks.extend(requirements.lines().filter_map(|line| other_version(line, &found)));
            if lacks.is_empty() {
                return Ok(Python { path, gpus, versions });
            }
            let packages = lacks.join(", ");
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

/// What a line of `requirements.txt` asks for, where another version is there.
fn other_version(line: &str, found: &BTreeMap<String, String>) -> Option<String> {
    let (package, wanted, exact) = match (line.split_once("=="), line.split_once(">=")) {
        (Some((package, wanted)), _) => (package, wanted, true),
        (None, Some((package, wanted))) => (package, wanted, false),
        (None, None) => return None,
    };
    let version = found.get(package.split('[').next()?.trim())?;
    let (has, asks) = (release(version), release(wanted));
    let enough = has == asks || (!exact && has > asks);
    (!enough).then(|| format!("`{}` (there is {version})", line.trim()))
}

/// The numbers of a version up to what follows the release: of `2.9.0rc1+cu130` those of `2.9`.
fn release(version: &str) -> Vec<u64> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let mut numbers: Vec<u64> = version[..end].split('.').map_while(|n| n.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_held_to_the_requirements() {
        let found = |version: &str| BTreeMap::from([("ai2-olmo-core".to_owned(), version.to_owned())]);
        let differs = |line: &str, version: &str| other_version(line, &found(version));
        assert_eq!(differs("ai2-olmo-core==3.0.0", "3.0.0"), None);
        assert_eq!(differs("ai2-olmo-core==3.0.0", "3.0"), None);
        assert_eq!(differs("ai2-olmo-core==3.0.0", "3.0.0+local"), None);
        let told = "`ai2-olmo-core==3.0.0` (there is 2.11.0)";
        assert_eq!(differs("ai2-olmo-core==3.0.0", "2.11.0").as_deref(), Some(told));
        assert!(differs("ai2-olmo-core==3.0.0", "3.1.0").is_some());
        assert_eq!(differs("ai2-olmo-core[all]>=3.9", "3.10.0rc1"), None);
        assert!(differs("ai2-olmo-core>=3.9", "3.8.7").is_some());
        assert_eq!(differs("numpy", "1"), None);
        assert_eq!(differs("torch>=2.6", "1"), None);
    }
}

//! The files of a launch on disk: all of one launch, or all of that before it. Knows nothing of what is in them.
//!
//! A marker is there while they take their places, so that what a kill leaves of that is known for midc's own.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use miette::{IntoDiagnostic as _, WrapErr as _};

use super::plan_file;
use super::write::{self, WriteError};
use crate::emit::Launch;
use crate::plan::{self, Plan};
use crate::runtime::whole::{self, Pending};

/// Names, one a line, the files that midc has put there or was about to.
const MARKER: &str = ".midc-emit";

/// What lies in `dir` of a launch that `launch` of `plan` takes the place of and has not itself: it would be taken for
/// a part of it.
///
/// # Errors
/// Something is there that is no launch; a launch of another plan that has been started, which stays as it is.
pub(crate) fn obsolete(launch: &Launch, plan: &Plan, dir: &Path) -> miette::Result<Vec<String>> {
    let mut files = unfinished(dir);
    match launched(dir) {
        Some(before) if before.hash != plan.hash && dir.join("out").exists() => {
            return Err(miette::miette!(
                code = "midc::emit::started",
                help = "name another directory, or move this one away",
                "`{}` holds a launch of another plan, `{}`, that has been started",
                dir.display(),
                before.curriculum
            ));
        }
        Some(before) => files.extend(named_by(&before)),
        None if files.is_empty() => {
            if let Some(file) = launch.files.iter().find(|file| dir.join(&file.path).exists()) {
                return Err(miette::miette!(
                    code = "midc::emit::occupied",
                    help = "name another directory",
                    "`{}` is there already, and `{}` holds no launch that it would be of",
                    dir.join(&file.path).display(),
                    dir.display()
                ));
            }
        }
        None => {}
    }
    files.retain(|file| file != PLAN && !launch.files.iter().any(|f| f.path == *file));
    Ok(files.into_iter().filter(|file| dir.join(file).is_file()).collect())
}

/// The plan beside the files.
const PLAN: &str = "plan.json";

/// Of the folders of a launch only what its plan named: somebody may keep files of their own there.
fn named_by(plan: &Plan) -> impl Iterator<Item = String> {
    let stages = plan.stages.iter().map(|s| ("stages", &s.name));
    let soups = plan.soups.iter().map(|s| ("soups", &s.name));
    let models = plan.models.iter().map(|m| ("models", &m.name));
    let all = stages.chain(soups).chain(models);
    all.flat_map(|(folder, name)| {
        ["json", "yaml"].map(|extension| format!("{folder}/{}.{extension}", plan::file_name(name)))
    })
}

/// The plan of the launch in `dir`, if one is there. A plan alone is none: `midc plan -o` writes one, too.
fn launched(dir: &Path) -> Option<Plan> {
    let plan = plan_file::read(&dir.join(PLAN)).ok()?;
    let program = std::fs::read_to_string(dir.join("run.sh")).ok()?;
    (program.starts_with("#!/usr/bin/env bash\n# Runs ")
        && program.contains(&format!("`{}`", plan.curriculum)))
    .then_some(plan)
}

/// The files of a launch that was being written when its process was killed; none where there is no marker.
fn unfinished(dir: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(dir.join(MARKER)).unwrap_or_default();
    let within = |file: &&str| Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    text.lines().filter(|file| !file.is_empty()).filter(within).map(str::to_owned).collect()
}

/// Make `dir` hold `launch` and its `plan`, and not the `obsolete` files of the one before. All are written before the
/// first takes its place: where that fails, a launch that was there is as it was.
///
/// # Errors
/// A full disk or another failure of the machine.
pub(crate) fn put(launch: &Launch, plan: &Plan, dir: &Path, obsolete: &[String]) -> miette::Result<()> {
    let json = serde_json::to_string_pretty(plan).into_diagnostic()? + "\n";
    let marker = dir.join(MARKER);
    let mut names = unfinished(dir);
    for name in &names {
        let path = dir.join(name);
        whole::clean_beside(&path).into_diagnostic().wrap_err_with(|| cannot("clean up beside", &path))?;
    }
    // What an earlier one left half done stays marked until all is well.
    let marked = marker.exists();
    names.extend(launch.files.iter().map(|file| file.path.clone()).chain([PLAN.to_owned()]));
    names.extend(obsolete.iter().cloned());
    std::fs::create_dir_all(dir).into_diagnostic().wrap_err_with(|| cannot("create", dir))?;
    let lines: Vec<String> = names.into_iter().collect();
    write::replace(&marker, &(lines.join("\n") + "\n"))?;
    let pending = match written(launch, &json, dir) {
        Ok(pending) => pending,
        Err(error) => {
            if !marked {
                // The error to report is the first one.
                let _ = std::fs::remove_file(&marker);
            }
            return Err(error);
        }
    };
    for (name, file) in pending {
        file.put().into_diagnostic().wrap_err_with(|| cannot("write", &dir.join(name)))?;
    }
    for path in obsolete.iter().map(|file| dir.join(file)) {
        std::fs::remove_file(&path).into_diagnostic().wrap_err_with(|| cannot("remove", &path))?;
    }
    std::fs::remove_file(&marker).into_diagnostic().wrap_err_with(|| cannot("remove", &marker))
}

/// Every file, beside its place.
fn written<'l>(launch: &'l Launch, plan: &str, dir: &Path) -> miette::Result<Vec<(&'l str, Pending)>> {
    let mut pending = Vec::with_capacity(launch.files.len() + 1);
    let files = launch.files.iter().map(|file| (file.path.as_str(), file.text.as_str(), file.executable));
    for (name, text, executable) in files.chain([(PLAN, plan, false)]) {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).into_diagnostic().wrap_err_with(|| cannot("create", parent))?;
        }
        let failed = |source| WriteError::new(&path, source);
        let file = Pending::new(&path, text.as_bytes()).map_err(failed)?;
        if executable {
            file.make_program().map_err(failed)?;
        }
        pending.push((name, file));
    }
    Ok(pending)
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} `{}`", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::emit::File;
    use crate::sema::{Options, check};
    use crate::source::MemoryFiles;

    /// A plan of one stage.
    fn plan(name: &str) -> Plan {
        let text = format!(
            "lints {{\n  missing_files = allow\n}}\nmodel base {{\n  init    = llama3_8b\n  context = 4Ki\n}}\n\
             source web {{\n  kind = web\n}}\n\
             stage {name} {{\n  from = base\n  tokens = 1B\n  batch = 1024 seqs\n  mix = web\n  data_seed = 1\n\
             \x20 lr = 0 then linear(to: 3e-4, over: 100M) then hold\n}}\n"
        );
        let mut files = MemoryFiles::new();
        let file = files.add("test.curriculum", text);
        let (curriculum, found) = check(&mut files, file, &Options::default());
        let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
        plan::build(&curriculum.unwrap_or_else(|| panic!("{messages:?}")))
    }

    /// A launch of a plan of one stage, whose files say `what`.
    fn launch(plan: &Plan, what: &str) -> Launch {
        let file = |path: &str, text: String, executable| File { path: path.into(), text, executable };
        let program = format!("#!/usr/bin/env bash\n# Runs `{}`: {what}\n", plan.curriculum);
        let stage = format!("stages/{}.json", plan.stages[0].name);
        Launch {
            files: vec![file("run.sh", program, true), file(&stage, what.into(), false)],
            findings: vec![],
        }
    }

    fn emitted(plan: &Plan, what: &str, dir: &Path) -> miette::Result<()> {
        let launch = launch(plan, what);
        put(&launch, plan, dir, &obsolete(&launch, plan, dir)?)
    }

    /// The names below `dir`, and whether each file speaks of `what`, plans aside.
    fn held(dir: &Path, what: &str) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                names.extend(held(&entry.path(), what).into_iter().map(|below| format!("{name}/{below}")));
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(name == PLAN || text.contains(what), "{name}: {text}");
            names.push(name);
        }
        names.sort();
        names
    }

    #[test]
    fn a_launch_takes_the_place_of_another_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (plan("one"), plan("other"));
        emitted(&one, "first", dir.path()).unwrap();
        assert_eq!(held(dir.path(), "first"), ["plan.json", "run.sh", "stages/one.json"]);
        emitted(&other, "second", dir.path()).unwrap();
        assert_eq!(held(dir.path(), "second"), ["plan.json", "run.sh", "stages/other.json"]);
        assert_eq!(launched(dir.path()).unwrap().hash, other.hash);
    }

    #[test]
    fn a_launch_stays_where_another_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let one = plan("one");
        emitted(&one, "first", dir.path()).unwrap();
        let mut second = launch(&one, "second");
        // A file is where this one wants a directory.
        second.files.push(File { path: "run.sh/below".into(), text: "second".into(), executable: false });
        assert!(put(&second, &one, dir.path(), &[]).is_err());
        assert_eq!(held(dir.path(), "first"), ["plan.json", "run.sh", "stages/one.json"]);
    }

    /// Killed at any point, it leaves what the next one makes whole.
    #[test]
    fn what_a_kill_left_is_made_whole() {
        let (one, other) = (plan("one"), plan("other"));
        for renamed in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let half = launch(&one, "half");
            fs::create_dir_all(root.join("stages")).unwrap();
            fs::write(root.join(MARKER), "plan.json\nrun.sh\nstages/one.json\n../elsewhere\n").unwrap();
            for (i, file) in half.files.iter().enumerate() {
                let name = file.path.rsplit('/').next().unwrap();
                let left = root.join(&file.path).with_file_name(format!(".{name}.{}.tmp", u32::MAX));
                fs::write(if i < renamed { root.join(&file.path) } else { left }, &file.text).unwrap();
            }
            emitted(&other, "whole", root).unwrap();
            if cfg!(target_os = "linux") {
                assert_eq!(held(root, "whole"), ["plan.json", "run.sh", "stages/other.json"], "{renamed}");
            }
        }
    }

    #[test]
    fn files_of_somebody_else_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run.sh"), "mine").unwrap();
        assert!(
            emitted(&plan("one"), "first", dir.path()).unwrap_err().to_string().contains("is there already")
        );
        assert_eq!(held(dir.path(), "mine"), ["run.sh"]);
    }
}

//! `NAME.data.json`, the counts that `midc data --save` keeps beside a curriculum.

use std::path::{Path, PathBuf};

use super::lines::tell;
use crate::plan::{ModelPlan, Plan};
use crate::runtime::data::{DataError, Summary, stamp_of};
use crate::runtime::model_text::ModelText;

/// Where those of `curriculum` are kept: without `.curriculum`, and with whatever else it is called.
pub(super) fn path(curriculum: &Path) -> PathBuf {
    let own = curriculum.extension().is_some_and(|extension| extension == "curriculum");
    let stem = if own { curriculum.with_extension("") } else { curriculum.to_owned() };
    let mut name = stem.into_os_string();
    name.push(".data.json");
    name.into()
}

/// The text of the first of `models` that has a tokenizer: what sources are counted by.
///
/// # Errors
/// What a model says of its text cannot be read.
pub(super) fn model_text(models: &[ModelPlan], base_dir: &Path) -> Result<Option<ModelText>, DataError> {
    models.iter().find_map(|model| ModelText::of(model, base_dir).transpose()).transpose()
}

/// Tell of sources of `plan` whose size is taken from counts of other files than there are now, or by another tokenizer.
pub(super) fn tell_of_stale(curriculum: &Path, plan: &Plan) {
    let path = path(curriculum);
    let base_dir = curriculum.parent().unwrap_or(Path::new(""));
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    // Of another version, or made by hand: what the size is taken from, if from anything, cannot be told.
    let Ok(counts) = serde_json::from_str::<Summary>(&text) else { return };
    // What cannot be read now is for those to say who need it.
    let tokenizer = || model_text(&plan.models, base_dir).ok()??.stamp().ok();
    let other_tokenizer =
        !counts.tokenizer.is_empty() && tokenizer().is_some_and(|now| now != counts.tokenizer);
    for source in &plan.sources {
        let Some(count) = counts.sources.iter().find(|count| count.name == source.name) else { continue };
        if source.tokens != Some(count.tokens) {
            continue;
        }
        // Of tokens in files, the tokenizer makes no difference.
        if other_tokenizer && count.bytes > 0 {
            tell!(
                "note: `{}` counts source `{}` by another tokenizer than the model's; `midc data {} --save` counts it again",
                path.display(),
                source.name,
                curriculum.display()
            );
        }
        if !count.stamp.is_empty() && stamp_of(source, base_dir).is_some_and(|now| now != count.stamp) {
            tell!(
                "note: the files of source `{}` are not those that `{}` counts; `midc data {} --save` counts them again",
                source.name,
                path.display(),
                curriculum.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lie_where_the_checker_looks() {
        for (curriculum, counts) in [
            ("a/run.curriculum", "a/run.data.json"),
            ("run.v2.curriculum", "run.v2.data.json"),
            ("run.txt", "run.txt.data.json"),
            ("run", "run.data.json"),
        ] {
            assert_eq!(path(Path::new(curriculum)), Path::new(counts));
        }
    }
}

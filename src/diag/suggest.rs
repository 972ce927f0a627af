//! "Did you mean": the nearest of a set of names. Knows no vocabulary of its own.

/// The candidate that `word` was most likely meant to be: equal but for case or `_`/`-`, or within
/// an edit distance (insert, delete, replace, swap of neighbours) of about a third of its length.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    let limit = (folded.len() / 3).max(1);
    let reach = folded.len().saturating_sub(limit)..=folded.len() + limit;
    candidates
        .into_iter()
        .filter_map(|candidate| {
            // Most are too short or too long, and that is seen at once.
            if candidate.is_ascii() && !reach.contains(&letters(candidate).min(LONGEST)) {
                return None;
            }
            let distance = distance(&folded, &fold(candidate), limit)?;
            Some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters beyond this are not compared.
const LONGEST: usize = 64;

fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).take(LONGEST).collect()
}

/// How many letters of an ASCII word are compared.
fn letters(word: &str) -> usize {
    word.bytes().filter(|c| !matches!(c, b'_' | b'-')).count()
}

/// Optimal string alignment distance (Damerau 1964, each pair of neighbours swapped at most once);
/// `None` above `limit`.
fn distance(a: &[char], b: &[char], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut row = vec![0; b.len() + 1];
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        std::mem::swap(&mut before, &mut above);
        std::mem::swap(&mut above, &mut row);
    }
    Some(above[b.len()]).filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let names = ["tokens", "steps", "seqs", "epochs", "gpu_hours"];
        for (word, meant) in [
            ("token", Some("tokens")),
            ("tokesn", Some("tokens")),
            ("Steps", Some("steps")),
            ("gpuhours", Some("gpu_hours")),
            ("gpu-hours", Some("gpu_hours")),
            ("furlongs", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
    }
}

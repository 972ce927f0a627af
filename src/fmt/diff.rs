//! Line differences in the unified format, for `fmt --diff`.

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Above this many edits the rest of the file is shown as one change: the search is quadratic in it.
const MAX_EDITS: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Remove,
    Insert,
}

/// `old` and `new` as a unified diff under `name`; empty if they are equal.
pub fn unified_diff(name: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (a, b): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let steps = steps(&a, &b);
    let mut out = format!("--- {name}\n+++ {name} (formatted)\n");
    // Positions in the steps that are near a change, as half-open runs.
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for (i, _) in steps.iter().enumerate().filter(|(_, step)| **step != Step::Keep) {
        let (from, to) = (i.saturating_sub(CONTEXT), (i + CONTEXT + 1).min(steps.len()));
        match hunks.last_mut() {
            Some((_, end)) if *end >= from => *end = to,
            _ => hunks.push((from, to)),
        }
    }
    let (mut at, mut x, mut y) = (0, 0, 0);
    for (from, to) in hunks {
        while at < from {
            advance(steps[at], &mut x, &mut y);
            at += 1;
        }
        let (start_x, start_y) = (x, y);
        let mut body = String::new();
        while at < to {
            let (sign, line) = match steps[at] {
                Step::Keep => (' ', a[x]),
                Step::Remove => ('-', a[x]),
                Step::Insert => ('+', b[y]),
            };
            body.push(sign);
            body.push_str(line);
            if !line.ends_with('\n') {
                body.push_str("\n\\ No newline at end of file\n");
            }
            advance(steps[at], &mut x, &mut y);
            at += 1;
        }
        // A run of no lines is placed after the line before it.
        let place =
            |start: usize, count: usize| format!("{},{count}", if count == 0 { start } else { start + 1 });
        out.push_str(&format!("@@ -{} +{} @@\n", place(start_x, x - start_x), place(start_y, y - start_y)));
        out.push_str(&body);
    }
    out
}

fn advance(step: Step, x: &mut usize, y: &mut usize) {
    *x += usize::from(step != Step::Insert);
    *y += usize::from(step != Step::Remove);
}

/// A shortest edit script (Myers, "An O(ND) Difference Algorithm", 1986, greedy form).
fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a_rest, b_rest) = (&a[head..], &b[head..]);
    let foot = a_rest.iter().rev().zip(b_rest.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a_mid, b_mid) = (&a_rest[..a_rest.len() - foot], &b_rest[..b_rest.len() - foot]);
    let mut steps = vec![Step::Keep; head];
    steps.extend(middle(a_mid, b_mid));
    steps.extend(std::iter::repeat_n(Step::Keep, foot));
    steps
}

fn middle(a: &[&str], b: &[&str]) -> Vec<Step> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let most = (a.len() + b.len()).min(MAX_EDITS);
    let offset = most as isize + 1;
    let mut furthest = vec![0_isize; 2 * most + 3];
    let mut trace: Vec<Vec<isize>> = Vec::new();
    for d in 0..=most as isize {
        trace.push(furthest.clone());
        for k in (-d..=d).step_by(2) {
            let at = |k: isize| (k + offset) as usize;
            let down = k == -d || (k != d && furthest[at(k - 1)] < furthest[at(k + 1)]);
            let mut x = if down { furthest[at(k + 1)] } else { furthest[at(k - 1)] + 1 };
            while x < n && x - k < m && x - k >= 0 && a[x as usize] == b[(x - k) as usize] {
                x += 1;
            }
            furthest[at(k)] = x;
            if x >= n && x - k >= m {
                return walk_back(&trace, n, m, offset);
            }
        }
    }
    let mut steps = vec![Step::Remove; a.len()];
    steps.extend(std::iter::repeat_n(Step::Insert, b.len()));
    steps
}

fn walk_back(trace: &[Vec<isize>], n: isize, m: isize, offset: isize) -> Vec<Step> {
    let (mut x, mut y) = (n, m);
    let mut steps = Vec::new();
    for (d, furthest) in trace.iter().enumerate().rev() {
        let d = d as isize;
        let k = x - y;
        let at = |k: isize| furthest[(k + offset) as usize];
        let down = k == -d || (k != d && at(k - 1) < at(k + 1));
        let previous_k = if down { k + 1 } else { k - 1 };
        let (previous_x, previous_y) =
            if d == 0 { (0, 0) } else { (at(previous_k), at(previous_k) - previous_k) };
        while x > previous_x && y > previous_y {
            steps.push(Step::Keep);
            x -= 1;
            y -= 1;
        }
        if d > 0 {
            steps.push(if down { Step::Insert } else { Step::Remove });
            (x, y) = (previous_x, previous_y);
        }
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::unified_diff;

    #[test]
    fn changes_have_context_and_places() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let new = "a\nb\nc\nX\ne\nf\ng\nh\ni";
        let expected = "--- f\n+++ f (formatted)\n@@ -1,8 +1,9 @@\n a\n b\n c\n-d\n+X\n e\n f\n g\n h\n+i\n\
                        \\ No newline at end of file\n";
        assert_eq!(unified_diff("f", old, new), expected);
        assert_eq!(unified_diff("f", old, old), "");
        let far: String = (0..30).map(|i| format!("{i}\n")).collect();
        let changed = far.replace("\n2\n", "\ntwo\n").replace("\n15\n", "\n").replace("\n27\n", "\n27!\n");
        assert_eq!(unified_diff("f", &far, &changed).matches("@@ -").count(), 3);
    }
}

//! Which documents are kept out of training: a share of them by the hash of their text, so that a
//! document is held out in every run, every source and every file it appears in.

use std::collections::HashSet;

/// The documents that no source of a run trains on, by the hash of their text.
#[derive(Debug, Default)]
pub(crate) struct HeldOut {
    share: f64,
    /// Of sources for validation.
    validation: HashSet<u128>,
    /// Held out although the share alone would not.
    also: HashSet<u128>,
    /// Trained on although the share would hold them out.
    never: HashSet<u128>,
}

impl HeldOut {
    /// All documents of the sources that are `for_validation`, and a share of those of the others: at least one of two
    /// or more of each, and never all of one. What one source makes an exception of, all do: a document that is
    /// measured in one is trained on in none.
    pub(crate) fn choose<'s, S, I>(
        share: f64,
        sources: &'s [S],
        for_validation: impl Fn(&S) -> bool,
        hashes: impl Fn(&'s S) -> I,
    ) -> Self
    where
        I: Iterator<Item = u128>,
    {
        let mut chosen = Self { share, ..Self::default() };
        let (measured, sources): (Vec<&S>, Vec<&S>) =
            sources.iter().partition(|source| for_validation(source));
        chosen.validation.extend(measured.into_iter().flat_map(&hashes));
        if share <= 0.0 {
            return chosen;
        }
        if share < 1.0 {
            for source in sources.iter().copied() {
                // All that a source has is no other's to measure on.
                let first = hashes(source).next();
                chosen.never.extend(first.filter(|first| hashes(source).all(|hash| hash == *first)));
            }
        }
        for source in sources.iter().copied() {
            if hashes(source).nth(1).is_some() && !hashes(source).any(|hash| chosen.has(hash)) {
                // The one that a growing share would take first.
                let free = hashes(source).filter(|hash| !chosen.never.contains(hash)).min();
                chosen.also.extend(free);
            }
        }
        if share < 1.0 {
            for source in sources.iter().copied() {
                if hashes(source).all(|hash| chosen.has(hash)) {
                    chosen.never.extend(hashes(source).max());
                }
            }
        }
        chosen
    }

    /// Whether a document with this hash is held out.
    pub(crate) fn has(&self, hash: u128) -> bool {
        let chosen = is_held_out(hash, self.share) || self.also.contains(&hash);
        self.validation.contains(&hash) || chosen && !self.never.contains(&hash)
    }
}

/// Whether a document with this hash is held out at `share`. A larger share holds out a superset.
fn is_held_out(hash: u128, share: f64) -> bool {
    let place = (hash >> 64) as u64;
    // Of a uniform place in [0, 2^64), exactly so up to rounding at 2^-53.
    (place as f64) < share * 18_446_744_073_709_551_616.0
}

/// Places `0..len` without some: maps the i-th that is left to its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remaining {
    /// Ascending.
    removed: Vec<u64>,
}

impl Remaining {
    pub(crate) fn without(removed: Vec<u64>) -> Self {
        debug_assert!(removed.is_sorted());
        Self { removed }
    }

    pub(crate) fn place(&self, i: u64) -> u64 {
        // removed[k] - k places remain before removed[k].
        let (mut low, mut high) = (0, self.removed.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.removed[middle] - middle as u64 <= i {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        i + low as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_places_skip_the_removed() {
        for removed in [vec![], vec![0], vec![9], vec![0, 1, 5, 6, 9], (0..10).collect()] {
            let left: Vec<u64> = (0..10).filter(|p| !removed.contains(p)).collect();
            let r = Remaining::without(removed);
            assert_eq!((0..left.len() as u64).map(|i| r.place(i)).collect::<Vec<_>>(), left);
        }
    }

    fn hash(i: u64) -> u128 {
        let h = blake3::hash(&i.to_le_bytes());
        u128::from_le_bytes(h.as_bytes()[..16].try_into().unwrap())
    }

    /// Of a source and its parts, whichever are so small that the share alone holds out none or all.
    #[test]
    fn an_exception_of_one_source_is_one_of_all() {
        for share in [0.001, 0.01, 0.3, 0.9] {
            let whole: Vec<u128> = (0..40).map(hash).collect();
            let mut sources = vec![whole.clone()];
            sources.extend((0..40).map(|i| whole[i..(i + 1 + i % 4).min(40)].to_vec()));
            let held = HeldOut::choose(share, &sources, |_| false, |s| s.clone().into_iter());
            for source in &sources {
                assert!(source.iter().any(|h| !held.has(*h)), "{share}: nothing is left to train on");
            }
            assert!(whole.iter().any(|h| held.has(*h)), "{share}: nothing is held out of the whole");
        }
        // The least document of the whole is all that a part has.
        let least = *[hash(1), hash(2), hash(3)].iter().min().unwrap();
        let part = [vec![hash(1), hash(2), hash(3)], vec![least]];
        let held = HeldOut::choose(1e-9, &part, |_| false, |s| s.clone().into_iter());
        assert!(!held.has(least) && part[0].iter().filter(|h| held.has(**h)).count() == 1);
        let pair = [vec![hash(1), hash(2)]];
        let held = HeldOut::choose(1e-9, &pair, |_| false, |s| s.clone().into_iter());
        assert_eq!(pair[0].iter().filter(|h| held.has(**h)).count(), 1);
        let none = HeldOut::choose(0.0, &pair, |_| false, |s| s.clone().into_iter());
        assert!(!pair[0].iter().any(|h| none.has(*h)));
    }

    #[test]
    fn shares_are_nested() {
        let held = |share| (0..10_000).filter(|i| is_held_out(hash(*i), share)).collect::<Vec<_>>();
        let (one, five) = (held(0.01), held(0.05));
        assert!((60..140).contains(&one.len()) && (400..600).contains(&five.len()));
        assert!(one.iter().all(|i| five.contains(i)));
        assert!(held(0.0).is_empty());
        assert_eq!(held(1.0).len(), 10_000);
    }
}

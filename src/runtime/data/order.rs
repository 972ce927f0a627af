//! Which document of a source comes next. A fresh permutation every epoch; a later stage with
//! another seed permutes only what is left of the epoch, so nothing is read twice within one.
//! Knows numbers of documents, not documents.

use serde::{Deserialize, Serialize};

use super::Permutation;

/// The order of a source's documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A fresh shuffle every epoch.
    Shuffled,
    /// As in the files, the files in name order, every epoch alike.
    AsWritten,
    /// By a field of the record, smallest first; records without it come last. Ties as written.
    Ascending(String),
    /// By a field of the record, largest first; records without it come last. Ties as written.
    Descending(String),
}

impl Order {
    /// As it stands in the fingerprints that runs hold their data by: changing it keeps them from being gone on with.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Shuffled => "Shuffled".to_owned(),
            Self::AsWritten => "AsWritten".to_owned(),
            Self::Ascending(field) => format!("Ascending({field:?})"),
            Self::Descending(field) => format!("Descending({field:?})"),
        }
    }

    /// Read `SourcePlan::order`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let field = |prefix: &str| -> Option<String> {
            let inner = text.strip_prefix(prefix)?.trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
            (!inner.is_empty()).then(|| inner.to_owned())
        };
        match text {
            "shuffled" => Some(Self::Shuffled),
            "as_written" => Some(Self::AsWritten),
            _ => {
                field("ascending").map(Self::Ascending).or_else(|| field("descending").map(Self::Descending))
            }
        }
    }
}

/// Where the reading of a source stands: a record small enough for every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes completed.
    pub epoch: u64,
    /// How the epoch was read so far, one leg per change of seed.
    pub legs: Vec<Leg>,
}

/// Documents taken in the order of one seed, from what the legs before left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// `data_seed` of the stage.
    pub seed: u64,
    /// Documents taken.
    pub taken: u64,
}

/// The documents `0..len` of a source, walked epoch after epoch.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    label: String,
    len: u64,
    shuffled: bool,
    seed: u64,
    cursor: Cursor,
    /// One per leg, over what the legs before left.
    permutations: Vec<Permutation>,
}

impl Walk {
    /// Go on from `cursor` in the order of `seed`. `None` when the cursor took more documents than
    /// there are.
    pub(crate) fn resume(
        label: &str,
        len: u64,
        shuffled: bool,
        seed: u64,
        mut cursor: Cursor,
    ) -> Option<Self> {
        let taken = cursor.legs.iter().try_fold(0u64, |sum, leg| sum.checked_add(leg.taken))?;
        if taken > len || len == 0 {
            return None;
        }
        if cursor.legs.last().is_some_and(|leg| leg.taken == 0) {
            cursor.legs.pop();
        }
        if cursor.legs.last().is_none_or(|leg| leg.seed != seed) {
            cursor.legs.push(Leg { seed, taken: 0 });
        }
        let mut walk =
            Self { label: label.to_owned(), len, shuffled, seed, cursor, permutations: Vec::new() };
        walk.key();
        Some(walk)
    }

    fn key(&mut self) {
        self.permutations.clear();
        let mut left = self.len;
        for leg in &self.cursor.legs {
            self.permutations.push(Permutation::new(left, leg.seed, &self.label, self.cursor.epoch));
            left -= leg.taken;
        }
    }

    /// The state to go on from later.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Documents of this epoch not taken yet.
    pub(crate) fn left(&self) -> u64 {
        self.len - self.cursor.legs.iter().map(|leg| leg.taken).sum::<u64>()
    }

    /// Take the next document; starts a new epoch when this one is through.
    pub(crate) fn next(&mut self) -> u64 {
        if self.left() == 0 {
            self.cursor.epoch += 1;
            self.cursor.legs = vec![Leg { seed: self.seed, taken: 0 }];
            self.key();
        }
        // Leg k orders what the legs before it left: place x of leg k is place
        // `taken[k-1] + x` of leg k-1, after that leg's own permutation.
        let mut place = 0;
        for (leg, permutation) in self.cursor.legs.iter().zip(&self.permutations).rev() {
            place += leg.taken;
            if self.shuffled {
                place = permutation.apply(place);
            }
        }
        if let Some(leg) = self.cursor.legs.last_mut() {
            leg.taken += 1;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(len: u64, seed: u64, cursor: Cursor) -> Walk {
        Walk::resume("s", len, true, seed, cursor).unwrap()
    }

    proptest! {
        /// Whatever the seeds and lengths of the stages, an epoch reads every document once, and
        /// stopping anywhere does not show.
        #[test]
        fn an_epoch_reads_each_document_once(
            len in 1u64..200,
            stages in proptest::collection::vec((0u64..4, 0usize..120), 1..8),
            shuffled: bool,
        ) {
            let mut read = Vec::new();
            let mut cursor = Cursor::default();
            for &(seed, n) in &stages {
                let mut w = Walk::resume("s", len, shuffled, seed, cursor.clone()).unwrap();
                for i in 0..n {
                    if i == n / 2 {
                        let json = serde_json::to_string(w.cursor()).unwrap();
                        w = Walk::resume("s", len, shuffled, seed, serde_json::from_str(&json).unwrap()).unwrap();
                    }
                    read.push(w.next());
                }
                cursor = w.cursor().clone();
            }
            for epoch in read.chunks(len as usize) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(sorted.len(), epoch.len());
                if !shuffled {
                    prop_assert!(epoch.iter().copied().eq(0..epoch.len() as u64));
                }
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let mut a = walk(50, 1, Cursor::default());
        let first: Vec<u64> = (0..50).map(|_| a.next()).collect();
        let second: Vec<u64> = (0..50).map(|_| a.next()).collect();
        assert_ne!(first, second);
        assert_eq!(a.cursor(), &Cursor { epoch: 1, legs: vec![Leg { seed: 1, taken: 50 }] });
        let mut b = walk(50, 2, Cursor::default());
        assert_ne!(first, (0..50).map(|_| b.next()).collect::<Vec<_>>());
    }

    #[test]
    fn a_cursor_of_more_documents_is_refused() {
        let cursor = Cursor { epoch: 0, legs: vec![Leg { seed: 1, taken: 11 }] };
        assert!(Walk::resume("s", 10, true, 1, cursor.clone()).is_none());
        assert!(Walk::resume("s", 11, true, 1, cursor).is_some());
        let huge = Leg { seed: 1, taken: u64::MAX };
        assert!(Walk::resume("s", 10, true, 1, Cursor { epoch: 0, legs: vec![huge, huge] }).is_none());
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(Order::parse("shuffled"), Some(Order::Shuffled));
        assert_eq!(Order::parse("ascending(difficulty)"), Some(Order::Ascending("difficulty".into())));
        assert_eq!(Order::parse("descending( a.b )"), Some(Order::Descending("a.b".into())));
        for bad in ["", "ascending", "ascending()", "random", "ascending(x"] {
            assert_eq!(Order::parse(bad), None, "{bad}");
        }
    }
}

//! How documents fill rows. Knows lengths and places, not tokens.
//!
//! Every token of a document is put into exactly one row and no row has padding: the share of a
//! source is exact, and `best_fit` cuts a document only where nothing whole fits.

use serde::{Deserialize, Serialize};

use super::order::Walk;
use crate::plan::Packing;

/// Documents from which `best_fit` chooses. Ding et al. (arXiv:2404.10830) sort the whole corpus;
/// a window of this size keeps the order near to that of the source and the state small.
const WINDOW: usize = 128;

/// Consecutive tokens of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The document.
    pub document: u64,
    /// First token.
    pub start: u64,
    /// One past the last token.
    pub end: u64,
}

impl Piece {
    fn len(self) -> u64 {
        self.end - self.start
    }
}

/// What was taken from the source and not yet put into a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackerState {
    /// In the order taken.
    pub pending: Vec<Piece>,
}

/// Cuts the documents of a walk into rows.
#[derive(Clone, Debug, Default)]
pub struct Packer {
    pending: Vec<Piece>,
}

impl Packer {
    /// Go on from `state`.
    pub fn resume(state: PackerState) -> Self {
        Self { pending: state.pending }
    }

    /// The state to go on from later.
    pub fn state(&self) -> PackerState {
        PackerState { pending: self.pending.clone() }
    }

    /// Fill one row of `context` tokens; `length` gives the tokens of a document, at least 1.
    pub(crate) fn row(
        &mut self,
        context: u64,
        packing: Packing,
        walk: &mut Walk,
        length: &dyn Fn(u64) -> u64,
        row: &mut Vec<Piece>,
    ) {
        row.clear();
        let mut space = context;
        while space > 0 {
            let at = match packing {
                Packing::Concat => {
                    if self.pending.is_empty() {
                        self.take(walk, length);
                    }
                    0
                }
                Packing::BestFit => {
                    // The window does not reach into the next epoch, so that an epoch is read to
                    // its end before a document comes again.
                    while self.pending.is_empty() || self.pending.len() < WINDOW && walk.left() > 0 {
                        self.take(walk, length);
                    }
                    best(&self.pending, space, space == context)
                }
            };
            let piece = &mut self.pending[at];
            let n = piece.len().min(space);
            row.push(Piece { end: piece.start + n, ..*piece });
            piece.start += n;
            space -= n;
            if piece.len() == 0 {
                self.pending.remove(at);
            }
        }
    }

    fn take(&mut self, walk: &mut Walk, length: &dyn Fn(u64) -> u64) {
        let document = walk.next();
        self.pending.push(Piece { document, start: 0, end: length(document) });
    }
}

/// The piece that fills `space` best: the longest that fits; of none the longest. A piece longer
/// than a row must be cut anyway and is cut into whole rows first.
fn best(pending: &[Piece], space: u64, row_is_empty: bool) -> usize {
    let mut fits: Option<usize> = None;
    let mut longest = 0;
    for (i, piece) in pending.iter().enumerate() {
        if piece.len() <= space && fits.is_none_or(|f| piece.len() > pending[f].len()) {
            fits = Some(i);
        }
        if piece.len() > pending[longest].len() {
            longest = i;
        }
    }
    match fits {
        Some(i) if !row_is_empty || pending[longest].len() < space => i,
        _ => longest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::data::Cursor;

    fn rows(lengths: &[u64], context: u64, packing: Packing, n: usize) -> Vec<Vec<Piece>> {
        let mut walk = Walk::resume("s", lengths.len() as u64, false, 0, Cursor::default()).unwrap();
        let mut packer = Packer::default();
        let mut row = Vec::new();
        let length = |d: u64| lengths[d as usize];
        (0..n)
            .map(|_| {
                packer.row(context, packing, &mut walk, &length, &mut row);
                row.clone()
            })
            .collect()
    }

    #[test]
    fn concat_goes_end_to_end() {
        let piece = |document, start, end| Piece { document, start, end };
        assert_eq!(
            rows(&[3, 6, 2], 4, Packing::Concat, 3),
            [
                vec![piece(0, 0, 3), piece(1, 0, 1)],
                vec![piece(1, 1, 5)],
                vec![piece(1, 5, 6), piece(2, 0, 2), piece(0, 0, 1)],
            ]
        );
    }

    #[test]
    fn best_fit_keeps_documents_whole_where_they_fit() {
        let piece = |document, start, end| Piece { document, start, end };
        assert_eq!(
            rows(&[5, 7, 3, 8, 1], 8, Packing::BestFit, 3),
            [
                vec![piece(3, 0, 8)],
                vec![piece(1, 0, 7), piece(4, 0, 1)],
                vec![piece(0, 0, 5), piece(2, 0, 3)],
            ]
        );
    }

    #[test]
    fn best_fit_cuts_long_documents_into_rows() {
        let got = rows(&[20, 2, 2], 8, Packing::BestFit, 3);
        assert_eq!(got[0], [Piece { document: 0, start: 0, end: 8 }]);
        assert_eq!(got[1], [Piece { document: 0, start: 8, end: 16 }]);
        assert_eq!(got[2].len(), 3);
    }

    proptest! {
        /// Over whole epochs, either packing reads every token as often as any other, give or take
        /// the epoch under way, in full rows; a stop in the middle does not show.
        #[test]
        fn every_token_is_read_once(
            lengths in proptest::collection::vec(1u64..40, 1..60),
            contexts in proptest::collection::vec(1u64..64, 1..12),
            best_fit: bool,
        ) {
            let packing = if best_fit { Packing::BestFit } else { Packing::Concat };
            let length = |d: u64| lengths[d as usize];
            let total: u64 = lengths.iter().sum();
            let mut walk = Walk::resume("s", lengths.len() as u64, true, 5, Cursor::default()).unwrap();
            let mut packer = Packer::default();
            let mut seen: Vec<Vec<u64>> = lengths.iter().map(|n| vec![0; *n as usize]).collect();
            let mut row = Vec::new();
            let mut drawn = 0;
            for &context in contexts.iter().cycle().take(40) {
                packer.row(context, packing, &mut walk, &length, &mut row);
                prop_assert_eq!(row.iter().map(|p| p.len()).sum::<u64>(), context);
                drawn += context;
                for p in &row {
                    for t in p.start..p.end {
                        seen[p.document as usize][t as usize] += 1;
                    }
                }
                let json = serde_json::to_string(&packer.state()).unwrap();
                packer = Packer::resume(serde_json::from_str(&json).unwrap());
            }
            let epochs = drawn / total;
            for n in seen.iter().flatten() {
                prop_assert!(*n == epochs || *n == epochs + 1, "{} after {} epochs", n, epochs);
            }
        }

        /// Best fit cuts no more documents than concat does.
        #[test]
        fn best_fit_cuts_less(lengths in proptest::collection::vec(1u64..50, 30..120)) {
            let n = (lengths.iter().sum::<u64>() / 64) as usize;
            let cuts = |packing| {
                rows(&lengths, 64, packing, n).iter().flatten()
                    .filter(|p| p.len() < lengths[p.document as usize]).count()
            };
            prop_assert!(cuts(Packing::BestFit) <= cuts(Packing::Concat));
        }
    }
}

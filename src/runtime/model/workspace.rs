//! Activations and scratch of a step: allocated once for the largest batch, then reused.
//!
//! Decides how many rows go through the model at once and which layers are kept for the backward
//! pass; knows no arithmetic.

use crate::plan::Architecture;
use crate::runtime::backend::{AttentionShape, Backend};
use crate::runtime::engine::EngineError;
use crate::runtime::model::parameters::{Family, NormPlace, QkNorm};

/// Rows go through the model together up to so many tokens, or as many as
/// [`Backend::ACTIVATIONS_AT_ONCE`] allows. Both fixed, because the grouping decides the order in which
/// gradients are summed, and that must not depend on the machine.
const TOKENS_AT_ONCE: usize = 8192;

/// Widths of the matrices of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    pub(crate) hidden: usize,
    pub(crate) qkv: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) ffn: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) family: Family,
}

impl Widths {
    pub(crate) fn of(a: &Architecture) -> Result<Self, EngineError> {
        let (queries, keys) = (a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim);
        Ok(Widths {
            hidden: a.hidden_size,
            qkv: queries + 2 * keys,
            queries,
            keys,
            ffn: a.intermediate_size,
            heads: a.num_attention_heads,
            kv_heads: a.num_key_value_heads,
            head_dim: a.head_dim,
            family: Family::of(a)?,
        })
    }

    /// Attention over `rows` rows of `context` tokens.
    pub(crate) fn attention(&self, rows: usize, context: usize) -> AttentionShape {
        AttentionShape {
            rows,
            context,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f64).powf(-0.5),
        }
    }

    /// Segments per token of the q and the k norm.
    pub(crate) fn qk_segments(&self) -> [usize; 2] {
        match self.family.qk_norm {
            QkNorm::Head => [self.heads, self.kv_heads],
            QkNorm::None | QkNorm::Projection => [1, 1],
        }
    }
}

/// What the backward pass of a layer's attention block needs besides the layer's input.
pub(crate) struct SavedAttention<B: Backend> {
    /// `[tokens, qkv]` as attention reads it: normalised and rotated.
    pub(crate) qkv: B::Narrow,
    /// `[tokens, qkv]` before q and k norm, with their statistics.
    pub(crate) raw: Option<(B::Narrow, [B::Wide; 2])>,
    /// `[tokens, queries]` output of attention.
    pub(crate) attention: B::Narrow,
    /// `[rows, heads, context]`.
    pub(crate) log_sum: B::Wide,
    /// `[tokens]` statistics of the block's norm.
    pub(crate) rstd: B::Wide,
    /// `[tokens, hidden]` output of the block before its norm, when the norm comes after.
    pub(crate) branch: Option<B::Narrow>,
}

/// What the backward pass of a layer's feed-forward block needs. All of it follows from the attention
/// block's output without attention being computed again.
pub(crate) struct SavedFeedForward<B: Backend> {
    /// `[tokens, hidden]` stream between the two blocks.
    pub(crate) middle: B::Wide,
    /// `[tokens]` statistics of the block's norm.
    pub(crate) rstd: B::Wide,
    /// `[tokens, 2·ffn]`; the backward pass turns it into its gradient.
    pub(crate) gate_up: B::Narrow,
    /// `[tokens, hidden]` output of the block before its norm, when the norm comes after.
    pub(crate) branch: Option<B::Narrow>,
}

/// Number of wide and narrow values.
#[derive(Clone, Copy, Default)]
struct Size {
    wide: usize,
    narrow: usize,
}

impl Size {
    fn bytes<B: Backend>(self, tokens: usize) -> u64 {
        (self.wide * tokens * B::WIDE_BYTES + self.narrow * tokens * B::NARROW_BYTES) as u64
    }
}

/// Values per token of [`SavedAttention`].
fn attention_size(w: &Widths) -> Size {
    let mut size = Size { wide: w.heads + 1, narrow: w.qkv + w.queries };
    if w.family.qk_norm != QkNorm::None {
        size.narrow += w.qkv;
        size.wide += w.qk_segments().iter().sum::<usize>();
    }
    if w.family.norm_place == NormPlace::After {
        size.narrow += w.hidden;
    }
    size
}

/// Values per token of [`SavedFeedForward`].
fn feed_forward_size(w: &Widths) -> Size {
    let mut size = Size { wide: w.hidden + 1, narrow: 2 * w.ffn };
    if w.family.norm_place == NormPlace::After {
        size.narrow += w.hidden;
    }
    size
}

/// Values per token of everything that exists once, `streams` aside.
fn shared_size(w: &Widths, training: bool) -> Size {
    let mut size = Size { wide: 2, narrow: w.hidden + w.ffn };
    if training {
        size.wide += w.hidden;
        size.narrow += 2 * w.hidden + w.ffn + w.qkv + w.queries;
    }
    size
}

/// What the backward pass computes again, of the first layers: those that do share their buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// Layers of which everything is.
    pub(crate) layers: usize,
    /// Layers of which the feed-forward block is, at least; not fewer than `layers`. It takes most of the
    /// memory and, unlike attention, costs no more in a longer context (selective recomputation, Korthikanti
    /// et al., arXiv:2205.05198, section 5; there attention is the block that is dear to keep).
    pub(crate) feed_forwards: usize,
}

impl Again {
    /// The next that takes less memory; `None` when everything is computed again.
    fn more(self, layers: usize) -> Option<Self> {
        // One layer alone saves nothing: its activations take the shared place.
        let next = |n: usize| (n + 1).max(2).min(layers);
        if self.feed_forwards < layers {
            Some(Self { feed_forwards: next(self.feed_forwards), ..self })
        } else if self.layers < layers {
            Some(Self { layers: next(self.layers), ..self })
        } else {
            None
        }
    }

    /// How many buffers `layers` layers need of which the first `again` share one.
    fn buffers(layers: usize, again: usize) -> usize {
        Self::place(layers, again)
    }

    /// Which of them is that of `layer`.
    pub(crate) fn place(layer: usize, again: usize) -> usize {
        if layer < again { 0 } else { layer - again + usize::from(again > 0) }
    }
}

/// How a batch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Rows that go through the model at once.
    pub(crate) rows: usize,
    /// What is computed again.
    pub(crate) again: Again,
}

/// Fit rows of `context` tokens into `budget` bytes. `held` is what else there is, of so many tokens at
/// once.
pub(crate) fn schedule<B: Backend>(
    w: &Widths,
    layers: usize,
    rows: usize,
    context: usize,
    training: bool,
    held: impl Fn(usize) -> u64,
    budget: Option<u64>,
) -> Result<Schedule, EngineError> {
    let mut group = (TOKENS_AT_ONCE / context).clamp(1, rows.max(1));
    if !training {
        return Ok(Schedule { rows: group, again: Again { layers, feed_forwards: layers } });
    }
    let none = Again::default();
    while group > 1 && training_bytes::<B>(w, layers, group * context, none) > B::ACTIVATIONS_AT_ONCE {
        group = group.div_ceil(2);
    }
    let mut schedule = Schedule { rows: group, again: none };
    let Some(budget) = budget else { return Ok(schedule) };
    loop {
        let tokens = schedule.rows * context;
        let needed = held(tokens) + training_bytes::<B>(w, layers, tokens, schedule.again);
        if needed <= budget {
            return Ok(schedule);
        }
        if let Some(again) = schedule.again.more(layers) {
            schedule.again = again;
        } else if schedule.rows > 1 {
            schedule = Schedule { rows: schedule.rows.div_ceil(2), again: none };
        } else {
            return Err(EngineError::Budget { context, needed, budget });
        }
    }
}

/// Activations and scratch of a step over `tokens` tokens.
pub(crate) fn training_bytes<B: Backend>(w: &Widths, layers: usize, tokens: usize, again: Again) -> u64 {
    let streams = Size { wide: (layers + 1) * w.hidden, narrow: 0 };
    let buffers = |again| Again::buffers(layers, again) as u64;
    streams.bytes::<B>(tokens)
        + attention_size(w).bytes::<B>(tokens) * buffers(again.layers)
        + feed_forward_size(w).bytes::<B>(tokens) * buffers(again.feed_forwards)
        + shared_size(w, true).bytes::<B>(tokens)
}

/// Scratch of the backward pass.
pub(crate) struct Gradients<B: Backend> {
    /// `[tokens, hidden]` gradient of the stream, and its rounded copy.
    pub(crate) stream: B::Wide,
    pub(crate) stream_narrow: B::Narrow,
    /// `[tokens, hidden]`.
    pub(crate) hidden: B::Narrow,
    /// `[tokens, ffn]`.
    pub(crate) activated: B::Narrow,
    /// `[tokens, qkv]`.
    pub(crate) qkv: B::Narrow,
    /// `[tokens, queries]`.
    pub(crate) attention: B::Narrow,
}

/// All buffers of a step.
pub(crate) struct Workspace<B: Backend> {
    /// Tokens the buffers hold.
    pub(crate) tokens: usize,
    /// Positions the RoPE tables hold.
    pub(crate) positions: usize,
    pub(crate) again: Again,
    /// Stream before each layer and after the last; only two, used in turn, without training.
    pub(crate) streams: Vec<B::Wide>,
    /// The shared one first, if there is one; the same for the other block.
    pub(crate) attention: Vec<SavedAttention<B>>,
    pub(crate) feed_forward: Vec<SavedFeedForward<B>>,
    /// `[tokens, hidden]`.
    pub(crate) hidden: B::Narrow,
    /// `[tokens, ffn]`.
    pub(crate) activated: B::Narrow,
    /// `[tokens]`.
    pub(crate) final_rstd: B::Wide,
    /// `[tokens]`.
    pub(crate) nll: B::Wide,
    pub(crate) gradients: Option<Gradients<B>>,
    pub(crate) ids: B::Index,
    pub(crate) targets: B::Index,
    pub(crate) attend_from: B::Index,
    pub(crate) position: B::Index,
    /// `[positions, head_dim/2]`.
    pub(crate) cos: B::Wide,
    pub(crate) sin: B::Wide,
    /// Bytes of all of the above but the tables.
    pub(crate) bytes: u64,
}

impl<B: Backend> Workspace<B> {
    /// Buffers for `tokens` tokens at once and RoPE tables of `positions`.
    pub(crate) fn new(
        backend: &B,
        w: &Widths,
        layers: usize,
        tokens: usize,
        positions: usize,
        again: Again,
        training: bool,
    ) -> Result<Self, EngineError> {
        let wide = |per_token: usize| backend.wide(per_token * tokens);
        let narrow = |per_token: usize| backend.narrow(per_token * tokens);
        let index = || backend.index(tokens);
        let segments = w.qk_segments();
        let branch = || match w.family.norm_place {
            NormPlace::Before => Ok(None),
            NormPlace::After => narrow(w.hidden).map(Some),
        };
        let attention = |_| {
            Ok(SavedAttention {
                qkv: narrow(w.qkv)?,
                raw: match w.family.qk_norm {
                    QkNorm::None => None,
                    QkNorm::Head | QkNorm::Projection => {
                        Some((narrow(w.qkv)?, [wide(segments[0])?, wide(segments[1])?]))
                    }
                },
                attention: narrow(w.queries)?,
                log_sum: wide(w.heads)?,
                rstd: wide(1)?,
                branch: branch()?,
            })
        };
        let feed_forward = |_| {
            Ok(SavedFeedForward {
                middle: wide(w.hidden)?,
                rstd: wide(1)?,
                gate_up: narrow(2 * w.ffn)?,
                branch: branch()?,
            })
        };
        let streams = if training { layers + 1 } else { 2 };
        let bytes = if training {
            training_bytes::<B>(w, layers, tokens, again)
        } else {
            (Size { wide: 2 * w.hidden, narrow: 0 }).bytes::<B>(tokens)
                + attention_size(w).bytes::<B>(tokens)
                + feed_forward_size(w).bytes::<B>(tokens)
                + shared_size(w, false).bytes::<B>(tokens)
        };
        Ok(Workspace {
            tokens,
            positions,
            again,
            streams: (0..streams).map(|_| wide(w.hidden)).collect::<Result<_, _>>()?,
            attention: (0..Again::buffers(layers, again.layers))
                .map(attention)
                .collect::<Result<_, EngineError>>()?,
            feed_forward: (0..Again::buffers(layers, again.feed_forwards))
                .map(feed_forward)
                .collect::<Result<_, EngineError>>()?,
            hidden: narrow(w.hidden)?,
            activated: narrow(w.ffn)?,
            final_rstd: wide(1)?,
            nll: wide(1)?,
            gradients: if training {
                Some(Gradients {
                    stream: wide(w.hidden)?,
                    stream_narrow: narrow(w.hidden)?,
                    hidden: narrow(w.hidden)?,
                    activated: narrow(w.ffn)?,
                    qkv: narrow(w.qkv)?,
                    attention: narrow(w.queries)?,
                })
            } else {
                None
            },
            ids: index()?,
            targets: index()?,
            attend_from: index()?,
            position: index()?,
            cos: backend.wide(positions * (w.head_dim / 2))?,
            sin: backend.wide(positions * (w.head_dim / 2))?,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::backend::reference::Reference;

    fn widths() -> Widths {
        Widths {
            hidden: 64,
            qkv: 128,
            queries: 64,
            keys: 32,
            ffn: 192,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            family: Family { norm_place: NormPlace::Before, qk_norm: QkNorm::None },
        }
    }

    #[test]
    fn a_tight_budget_recomputes_before_it_splits_rows() {
        type B = Reference<f32>;
        let w = widths();
        let run = |budget| schedule::<B>(&w, 8, 4, 128, true, |_| 1000, budget);
        let again = |layers, feed_forwards| Again { layers, feed_forwards };
        let bytes = |tokens, again| 1000 + training_bytes::<B>(&w, 8, tokens, again);
        let rows_of_four = |again| Schedule { rows: 4, again };
        assert_eq!(run(None).unwrap(), rows_of_four(again(0, 0)));
        let all = bytes(512, again(0, 0));
        assert_eq!(run(Some(all)).unwrap(), rows_of_four(again(0, 0)));
        assert_eq!(run(Some(all - 1)).unwrap(), rows_of_four(again(0, 2)));
        let feed_forwards = bytes(512, again(0, 8));
        assert_eq!(run(Some(feed_forwards)).unwrap(), rows_of_four(again(0, 8)));
        assert_eq!(run(Some(feed_forwards - 1)).unwrap(), rows_of_four(again(2, 8)));
        let least = bytes(512, again(8, 8));
        assert_eq!(run(Some(least)).unwrap(), rows_of_four(again(8, 8)));
        assert_eq!(run(Some(least - 1)).unwrap().rows, 2);
        let one_row = bytes(128, again(8, 8));
        assert_eq!(run(Some(one_row)).unwrap(), Schedule { rows: 1, again: again(8, 8) });
        assert!(
            matches!(run(Some(one_row - 1)), Err(EngineError::Budget { needed, .. }) if needed == one_row)
        );
    }

    #[test]
    fn each_layer_has_a_place_and_those_that_are_computed_again_share_one() {
        let places = |again| (0..4).map(|layer| Again::place(layer, again)).collect::<Vec<_>>();
        for (again, want) in [(0, [0, 1, 2, 3]), (2, [0, 0, 1, 2]), (4, [0, 0, 0, 0])] {
            assert_eq!(places(again), want);
            assert_eq!(Again::buffers(4, again), want[3] + 1);
        }
    }

    #[test]
    fn rows_at_once_do_not_depend_on_memory_while_it_suffices() {
        let w = widths();
        let group = |context| {
            schedule::<Reference<f32>>(&w, 2, 1000, context, true, |_| 0, Some(1 << 50)).unwrap().rows
        };
        assert_eq!((group(512), group(8192), group(100_000), group(1)), (16, 1, 1, 1000));
        // Two rows of 1,024 tokens of a model of 135M parameters would hold 1.2 GiB in f32.
        let smollm2 = Widths { hidden: 576, qkv: 960, queries: 576, keys: 192, ffn: 1536, heads: 9, ..w };
        let group = schedule::<Reference<f32>>(&smollm2, 30, 2, 1024, true, |_| 0, None).unwrap();
        assert_eq!(group, Schedule { rows: 1, again: Again::default() });
    }
}

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

/// What the backward pass of a layer needs besides the layer's input.
pub(crate) struct Saved<B: Backend> {
    /// `[tokens, qkv]` as attention reads it: normalised and rotated.
    pub(crate) qkv: B::Narrow,
    /// `[tokens, qkv]` before q and k norm, with their statistics.
    pub(crate) raw: Option<(B::Narrow, [B::Wide; 2])>,
    /// `[tokens, queries]` output of attention.
    pub(crate) attention: B::Narrow,
    /// `[rows, heads, context]`.
    pub(crate) log_sum: B::Wide,
    /// `[tokens, hidden]` stream between the two blocks.
    pub(crate) middle: B::Wide,
    /// `[tokens]` statistics of the two norms.
    pub(crate) rstd: [B::Wide; 2],
    /// `[tokens, 2·ffn]`; the backward pass turns it into its gradient.
    pub(crate) gate_up: B::Narrow,
    /// `[tokens, hidden]` outputs of the two blocks before their norm, when the norm comes after.
    pub(crate) branch: Option<[B::Narrow; 2]>,
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

/// Values per token of [`Saved`].
fn saved_size(w: &Widths) -> Size {
    let mut size = Size { wide: w.hidden + w.heads + 2, narrow: w.qkv + w.queries + 2 * w.ffn };
    if w.family.qk_norm != QkNorm::None {
        size.narrow += w.qkv;
        size.wide += w.qk_segments().iter().sum::<usize>();
    }
    if w.family.norm_place == NormPlace::After {
        size.narrow += 2 * w.hidden;
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

/// How a batch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Rows that go through the model at once.
    pub(crate) rows: usize,
    /// The first layers, which share one [`Saved`] and are computed again in the backward pass.
    pub(crate) recomputed: usize,
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
        return Ok(Schedule { rows: group, recomputed: layers });
    }
    while group > 1 && training_bytes::<B>(w, layers, group * context, 0) > B::ACTIVATIONS_AT_ONCE {
        group = group.div_ceil(2);
    }
    let mut schedule = Schedule { rows: group, recomputed: 0 };
    let Some(budget) = budget else { return Ok(schedule) };
    loop {
        let tokens = schedule.rows * context;
        let needed = held(tokens) + training_bytes::<B>(w, layers, tokens, schedule.recomputed);
        if needed <= budget {
            return Ok(schedule);
        }
        if schedule.recomputed < layers {
            // One recomputed layer alone saves nothing: its activations take the shared place.
            schedule.recomputed = (schedule.recomputed + 1).max(2).min(layers);
        } else if schedule.rows > 1 {
            schedule = Schedule { rows: schedule.rows.div_ceil(2), recomputed: 0 };
        } else {
            return Err(EngineError::Budget { context, needed, budget });
        }
    }
}

/// Activations and scratch of a step over `tokens` tokens.
pub(crate) fn training_bytes<B: Backend>(w: &Widths, layers: usize, tokens: usize, recomputed: usize) -> u64 {
    let saved = layers - recomputed + usize::from(recomputed > 0);
    let streams = Size { wide: (layers + 1) * w.hidden, narrow: 0 };
    streams.bytes::<B>(tokens)
        + saved_size(w).bytes::<B>(tokens) * saved as u64
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
    pub(crate) recomputed: usize,
    /// Stream before each layer and after the last; only two, used in turn, without training.
    pub(crate) streams: Vec<B::Wide>,
    /// The shared one first, if there is one.
    pub(crate) saved: Vec<Saved<B>>,
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
        recomputed: usize,
        training: bool,
    ) -> Result<Self, EngineError> {
        let wide = |per_token: usize| backend.wide(per_token * tokens);
        let narrow = |per_token: usize| backend.narrow(per_token * tokens);
        let index = || backend.index(tokens);
        let saved = || {
            let segments = w.qk_segments();
            Ok(Saved {
                qkv: narrow(w.qkv)?,
                raw: match w.family.qk_norm {
                    QkNorm::None => None,
                    QkNorm::Head | QkNorm::Projection => {
                        Some((narrow(w.qkv)?, [wide(segments[0])?, wide(segments[1])?]))
                    }
                },
                attention: narrow(w.queries)?,
                log_sum: wide(w.heads)?,
                middle: wide(w.hidden)?,
                rstd: [wide(1)?, wide(1)?],
                gate_up: narrow(2 * w.ffn)?,
                branch: match w.family.norm_place {
                    NormPlace::Before => None,
                    NormPlace::After => Some([narrow(w.hidden)?, narrow(w.hidden)?]),
                },
            })
        };
        let kept = layers - recomputed + usize::from(recomputed > 0);
        let streams = if training { layers + 1 } else { 2 };
        let bytes = if training {
            training_bytes::<B>(w, layers, tokens, recomputed)
        } else {
            (Size { wide: 2 * w.hidden, narrow: 0 }).bytes::<B>(tokens)
                + saved_size(w).bytes::<B>(tokens)
                + shared_size(w, false).bytes::<B>(tokens)
        };
        Ok(Workspace {
            tokens,
            positions,
            recomputed,
            streams: (0..streams).map(|_| wide(w.hidden)).collect::<Result<_, _>>()?,
            saved: (0..kept).map(|_| saved()).collect::<Result<_, EngineError>>()?,
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
        assert_eq!(run(None).unwrap(), Schedule { rows: 4, recomputed: 0 });
        let all = 1000 + training_bytes::<B>(&w, 8, 512, 0);
        assert_eq!(run(Some(all)).unwrap(), Schedule { rows: 4, recomputed: 0 });
        assert_eq!(run(Some(all - 1)).unwrap(), Schedule { rows: 4, recomputed: 2 });
        let least = 1000 + training_bytes::<B>(&w, 8, 512, 8);
        assert_eq!(run(Some(least)).unwrap(), Schedule { rows: 4, recomputed: 8 });
        assert_eq!(run(Some(least - 1)).unwrap().rows, 2);
        let one_row = 1000 + training_bytes::<B>(&w, 8, 128, 8);
        assert_eq!(run(Some(one_row)).unwrap(), Schedule { rows: 1, recomputed: 8 });
        assert!(
            matches!(run(Some(one_row - 1)), Err(EngineError::Budget { needed, .. }) if needed == one_row)
        );
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
        assert_eq!(group, Schedule { rows: 1, recomputed: 0 });
    }
}

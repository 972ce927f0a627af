//! Activations and scratch of a step: allocated once for the largest batch, then reused.
//!
//! Decides how many rows go through the model at once and which layers are kept for the backward
//! pass; knows no arithmetic.

use crate::plan::Architecture;
use crate::runtime::backend::{AttentionShape, Backend};
use crate::runtime::engine::EngineError;
use crate::runtime::model::parameters::{Family, LayerParameters, Parameters, QkNorm, Slot};
use crate::runtime::model::rope_table::RopeTable;

/// Tokens at once that fill any device.
const TOKENS_ENOUGH: usize = 8192;

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
    pub(crate) vocab: usize,
    pub(crate) family: Family,
    /// Whether there are layers with a window.
    pub(crate) windows: bool,
    /// Whether there are layers whose RoPE is another than the others'.
    pub(crate) plain_rope: bool,
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
            vocab: a.vocab_size,
            family: Family::of(a)?,
            windows: a.pattern.sliding() > 0,
            plain_rope: a.has_plain_rope(),
        })
    }

    /// What embeddings are multiplied by.
    pub(crate) fn embedding_scale(&self) -> f32 {
        if self.family.scaled_embedding { (self.hidden as f64).sqrt() as f32 } else { 1.0 }
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

/// Output of a block before the norm behind it, `[tokens, hidden]`, and that norm's statistics, `[tokens]`.
type Branch<B> = (<B as Backend>::Narrow, <B as Backend>::Wide);

/// What the backward pass of a layer's attention block needs besides what the block read.
pub(crate) struct SavedAttention<B: Backend> {
    /// `[tokens, qkv]` as attention reads it: normalised and rotated.
    pub(crate) qkv: B::Narrow,
    /// `[tokens, qkv]` before q and k norm, with their statistics.
    pub(crate) raw: Option<(B::Narrow, [B::Wide; 2])>,
    /// `[tokens, queries]` output of attention.
    pub(crate) attention: B::Narrow,
    /// `[rows, heads, context]`.
    pub(crate) log_sum: B::Wide,
    /// `[tokens]` statistics of the norm before the block.
    pub(crate) rstd: B::Wide,
    /// Where a norm stands behind the block.
    pub(crate) branch: Option<Branch<B>>,
}

/// What the backward pass of a layer's feed-forward block needs besides what the block read.
pub(crate) struct SavedFeedForward<B: Backend> {
    /// `[tokens]` statistics of the norm before the block.
    pub(crate) rstd: B::Wide,
    /// `[tokens, 2·ffn]`; the backward pass turns it into its gradient.
    pub(crate) gate_up: B::Narrow,
    /// Where a norm stands behind the block.
    pub(crate) branch: Option<Branch<B>>,
}

impl<B: Backend> SavedAttention<B> {
    fn new(w: &Widths, maker: &mut Maker<'_, B>) -> Result<Self, EngineError> {
        let segments = w.qk_segments();
        Ok(SavedAttention {
            qkv: maker.narrow(w.qkv)?,
            raw: match w.family.qk_norm {
                QkNorm::None => None,
                QkNorm::Head | QkNorm::Projection => {
                    Some((maker.narrow(w.qkv)?, [maker.wide(segments[0])?, maker.wide(segments[1])?]))
                }
            },
            attention: maker.narrow(w.queries)?,
            log_sum: maker.wide(w.heads)?,
            rstd: maker.wide(1)?,
            branch: branch(w, maker)?,
        })
    }

    fn size(w: &Widths) -> Size {
        let [q, k] = w.qk_segments();
        let raw = match w.family.qk_norm {
            QkNorm::None => Size::default(),
            QkNorm::Head | QkNorm::Projection => Size::of(&[q, k], &[w.qkv]),
        };
        Size::of(&[w.heads, 1], &[w.qkv, w.queries]) + raw + branch_size(w)
    }
}

impl<B: Backend> SavedFeedForward<B> {
    fn new(w: &Widths, maker: &mut Maker<'_, B>) -> Result<Self, EngineError> {
        Ok(SavedFeedForward {
            rstd: maker.wide(1)?,
            gate_up: maker.narrow(2 * w.ffn)?,
            branch: branch(w, maker)?,
        })
    }

    fn size(w: &Widths) -> Size {
        Size::of(&[1], &[2 * w.ffn]) + branch_size(w)
    }
}

fn branch<B: Backend>(w: &Widths, maker: &mut Maker<'_, B>) -> Result<Option<Branch<B>>, EngineError> {
    if w.family.norm_place.after() { Ok(Some((maker.narrow(w.hidden)?, maker.wide(1)?))) } else { Ok(None) }
}

fn branch_size(w: &Widths) -> Size {
    if w.family.norm_place.after() { Size::of(&[1], &[w.hidden]) } else { Size::default() }
}

/// Makes buffers of so many values per token: with memory of their own, or one after another in a slab.
struct Maker<'a, B: Backend> {
    backend: &'a B,
    tokens: usize,
    slab: Option<&'a B::Slab>,
    /// First free byte of the slab.
    at: usize,
}

impl<'a, B: Backend> Maker<'a, B> {
    fn place(&mut self, bytes: usize) -> usize {
        let at = self.at;
        self.at = (at + bytes).next_multiple_of(B::SLAB_ALIGNMENT);
        at
    }

    fn wide(&mut self, per_token: usize) -> Result<B::Wide, EngineError> {
        let len = per_token * self.tokens;
        let Some(slab) = self.slab else { return self.backend.wide(len) };
        let at = self.place(len * B::WIDE_BYTES);
        // SAFETY: what else lies over the slab is over before or begins after; see `Layout`.
        Ok(unsafe { self.backend.wide_over(slab, at, len) })
    }

    fn narrow(&mut self, per_token: usize) -> Result<B::Narrow, EngineError> {
        let len = per_token * self.tokens;
        let Some(slab) = self.slab else { return self.backend.narrow(len) };
        let at = self.place(len * B::NARROW_BYTES);
        // SAFETY: as above.
        Ok(unsafe { self.backend.narrow_over(slab, at, len) })
    }
}

/// Number of wide and narrow values, and of the buffers they are in.
#[derive(Clone, Copy, Default)]
struct Size {
    wide: usize,
    narrow: usize,
    buffers: usize,
}

impl Size {
    /// Of buffers of so many values.
    fn of(wide: &[usize], narrow: &[usize]) -> Self {
        Size { wide: wide.iter().sum(), narrow: narrow.iter().sum(), buffers: wide.len() + narrow.len() }
    }

    fn bytes<B: Backend>(self, tokens: usize) -> u64 {
        (self.wide * tokens * B::WIDE_BYTES + self.narrow * tokens * B::NARROW_BYTES) as u64
    }

    /// In a slab, each buffer begins at a multiple of the alignment.
    fn bytes_in_slab<B: Backend>(self, tokens: usize) -> u64 {
        self.bytes::<B>(tokens) + (self.buffers * B::SLAB_ALIGNMENT) as u64
    }
}

impl std::ops::Add for Size {
    type Output = Size;

    fn add(self, other: Size) -> Size {
        Size {
            wide: self.wide + other.wide,
            narrow: self.narrow + other.narrow,
            buffers: self.buffers + other.buffers,
        }
    }
}

/// Values per token of what exists once, whatever the layers, and holds something while the loss is taken.
fn lasting_size(w: &Widths, training: bool) -> Size {
    let size = Size::of(&[1, 1], &[w.hidden]);
    if training { size + Size::of(&[], &[w.hidden]) } else { size }
}

/// Of what all blocks hand on from one to the next.
fn stream_size(w: &Widths, training: bool) -> Size {
    if training { Size::of(&[w.hidden], &[w.hidden]) } else { Size::of(&[w.hidden], &[]) }
}

/// Of what is over when a feed-forward block is.
fn feed_forward_size(w: &Widths, training: bool) -> Size {
    if training { Size::of(&[], &[w.ffn, w.ffn]) } else { Size::of(&[], &[w.ffn]) }
}

/// Of what is over when an attention block is, besides the scratch of attention itself.
fn attention_size(w: &Widths, training: bool) -> Size {
    if training { Size::of(&[], &[w.qkv, w.queries]) } else { Size::default() }
}

/// Narrow values of scratch for operations that take some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scratch {
    attention: usize,
    loss: usize,
}

impl Scratch {
    /// For a batch.
    pub(crate) fn of<B: Backend>(w: &Widths, rows: Rows, schedule: Schedule, training: bool) -> Self {
        let loss = |rows_at_once: usize| B::loss_scratch(rows_at_once * rows.context, w.vocab);
        let attention = B::attention_scratch(w.attention(schedule.rows, rows.context), training);
        // The last group may have fewer rows, which take more where they are cut into fewer chunks.
        Scratch { attention, loss: loss(schedule.rows).max(loss(rows.count % schedule.rows)) }
    }

    /// Whether it is enough for another batch.
    pub(crate) fn holds(self, other: Self) -> bool {
        self.attention >= other.attention && self.loss >= other.loss
    }
}

/// Bytes of the gradient of a layer's weights in a slab.
fn layer_gradient_bytes<B: Backend>(slots: &Parameters<Slot>) -> u64 {
    slots.layers.first().map_or(0, |layer| {
        layer.iter().map(|slot| (slot.len * B::WIDE_BYTES).next_multiple_of(B::SLAB_ALIGNMENT) as u64).sum()
    })
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

    /// Which buffers are those of `layer`, where the first `again` layers share the first.
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
    /// Whether the gradients of a layer's weights take the place of the activations that the backward pass
    /// is through with. Not where a batch goes through the model in several groups of rows: the
    /// gradients of one would have to outlast the activations of the next.
    pub(crate) overlaid: bool,
}

/// Rows of one length that are to be trained on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Rows of the batch.
    pub(crate) count: usize,
    /// Tokens of each.
    pub(crate) context: usize,
    /// Rows that may go through the model at once.
    pub(crate) at_most: usize,
}

/// Fit rows of a batch into `budget` bytes. `held` is what else there is, of so many tokens at once; the
/// gradients count there.
pub(crate) fn schedule<B: Backend>(
    w: &Widths,
    slots: &Parameters<Slot>,
    rows: Rows,
    training: bool,
    held: impl Fn(usize) -> u64,
    budget: Option<u64>,
) -> Result<Schedule, EngineError> {
    let layers = slots.layers.len();
    let Rows { count, context, at_most } = rows;
    // Fixed for a backend, because the grouping decides the order in which gradients are summed.
    let group = (B::TOKENS_AT_ONCE / context).clamp(1, at_most.max(1));
    if !training {
        let again = Again { layers, feed_forwards: layers };
        let mut schedule = Schedule { rows: group, again, overlaid: false };
        let Some(budget) = budget else { return Ok(schedule) };
        loop {
            let (tokens, scratch) = (schedule.rows * context, Scratch::of::<B>(w, rows, schedule, false));
            let needed = held(tokens) + measuring_bytes::<B>(w, slots, tokens, schedule, scratch);
            // One row is measured whatever it takes: the training before it is not to have been for nothing.
            if needed <= budget || schedule.rows == 1 {
                return Ok(schedule);
            }
            schedule.rows = schedule.rows.div_ceil(2);
        }
    }
    let of = |rows| Schedule { rows, again: Again::default(), overlaid: rows >= count };
    let bytes = |s: Schedule, scratch| training_bytes::<B>(w, slots, s.rows * context, s, scratch);
    let mut schedule = of(group);
    while schedule.rows > 1 && bytes(schedule, Scratch::default()) > B::ACTIVATIONS_AT_ONCE {
        schedule = of(schedule.rows.div_ceil(2));
    }
    let Some(budget) = budget else { return Ok(schedule) };
    loop {
        let scratch = Scratch::of::<B>(w, rows, schedule, training);
        let needed = held(schedule.rows * context) + bytes(schedule, scratch);
        if needed <= budget {
            return Ok(schedule);
        }
        // Beyond so many tokens, fewer rows cost less than to compute anything again.
        let wide = schedule.rows > 1 && schedule.rows * context > TOKENS_ENOUGH;
        if let Some(again) = schedule.again.more(layers)
            && !wide
        {
            schedule.again = again;
        } else if schedule.rows > 1 {
            schedule = of(schedule.rows.div_ceil(2));
        } else {
            return Err(EngineError::Budget { context, needed, budget });
        }
    }
}

/// Whether blocks that are not computed again keep what they read behind their norm.
fn keeps_inputs<B: Backend>(w: &Widths) -> bool {
    B::KEEPS_INPUTS && w.family.norm_place.before()
}

/// What `layer` keeps for the backward pass; behind the last layer, what the norm there read.
fn kept_size<B: Backend>(w: &Widths, layers: usize, layer: usize, again: Again) -> Size {
    let entry = Size::of(&[], &[w.hidden]);
    let mut size = entry;
    if layer < layers {
        size = size + entry;
        let input = if keeps_inputs::<B>(w) { entry } else { Size::default() };
        if layer >= again.layers {
            size = size + SavedAttention::<B>::size(w) + input;
        }
        if layer >= again.feed_forwards {
            size = size + SavedFeedForward::<B>::size(w) + input;
        }
    }
    size
}

/// Where things lie in the memory of a step, in bytes from its front. Things that are over lie where others
/// begin:
///
/// ```text
/// forward   kept by layer 0 │ … │ kept by the last, and by the norm behind │ ·········· │ stream │ a block's
/// loss      kept by layer 0 │ … │ kept by the last, and by the norm behind │ logits ······················
/// backward  kept by layer 0 │ … │ ← gradients of the layers that are done               │ stream │ a block's
/// ```
///
/// Between the norm behind the last layer, which reads the stream, and its backward pass, which begins the
/// stream's gradient there, only the loss runs: it finds all that layers kept, and beyond that nothing is in
/// use. Of the two blocks of a layer one runs at a time, and neither leaves anything in its scratch.
struct Layout {
    /// What each layer keeps for the backward pass, in the order of layers; behind the last layer, what the
    /// norm there read. Nothing without training.
    kept: Vec<usize>,
    /// The gradients of each layer's weights, where the schedule is overlaid: from their end down, so that
    /// those of a layer begin no earlier than what the layers behind it kept.
    gradients: Vec<usize>,
    /// Logits.
    loss: usize,
    /// The stream and what else one block hands to the next.
    stream: usize,
    /// Scratch of the block that runs.
    block: usize,
    bytes: usize,
}

impl Layout {
    fn of<B: Backend>(
        w: &Widths,
        slots: &Parameters<Slot>,
        tokens: usize,
        schedule: Schedule,
        scratch: Scratch,
        training: bool,
    ) -> Self {
        let layers = slots.layers.len();
        let in_slab =
            |size: Size| (size.bytes_in_slab::<B>(tokens) as usize).next_multiple_of(B::SLAB_ALIGNMENT);
        let (mut kept, mut end) = (Vec::with_capacity(layers + 1), 0);
        if training {
            for layer in 0..=layers {
                kept.push(end);
                end += in_slab(kept_size::<B>(w, layers, layer, schedule.again));
            }
        }
        let loss = end;
        let mut gradients = Vec::new();
        if schedule.overlaid {
            let gradient = layer_gradient_bytes::<B>(slots) as usize;
            for (behind, at) in kept.iter().skip(1).rev().enumerate() {
                end = end.max(at + (behind + 1) * gradient);
            }
            gradients = (0..layers).map(|layer| end - (layers - layer) * gradient).collect();
        }
        let stream = end;
        let block = stream + in_slab(stream_size(w, training));
        let attention = in_slab(attention_size(w, training)) + scratch.attention * B::NARROW_BYTES;
        let end = block + in_slab(feed_forward_size(w, training)).max(attention);
        let bytes = end.max(loss + scratch.loss * B::NARROW_BYTES);
        Layout { kept, gradients, loss, stream, block, bytes }
    }
}

/// Activations and scratch of a step over `tokens` tokens, without what is part of the gradients.
pub(crate) fn training_bytes<B: Backend>(
    w: &Widths,
    slots: &Parameters<Slot>,
    tokens: usize,
    schedule: Schedule,
    scratch: Scratch,
) -> u64 {
    let again = schedule.again;
    let mut bytes = Layout::of::<B>(w, slots, tokens, schedule, scratch, true).bytes as u64;
    if schedule.overlaid {
        let values: usize = slots.layers.iter().flat_map(LayerParameters::iter).map(|s| s.len).sum();
        bytes -= (values * B::WIDE_BYTES) as u64;
    }
    if again.layers > 0 {
        bytes += SavedAttention::<B>::size(w).bytes::<B>(tokens);
    }
    if again.feed_forwards > 0 {
        bytes += SavedFeedForward::<B>::size(w).bytes::<B>(tokens);
    }
    bytes + lasting_size(w, true).bytes::<B>(tokens)
}

/// Activations and scratch of a forward pass over `tokens` tokens of which only losses are wanted.
fn measuring_bytes<B: Backend>(
    w: &Widths,
    slots: &Parameters<Slot>,
    tokens: usize,
    schedule: Schedule,
    scratch: Scratch,
) -> u64 {
    let entry = Size::of(&[], &[w.hidden]);
    let saved = SavedAttention::<B>::size(w) + SavedFeedForward::<B>::size(w);
    Layout::of::<B>(w, slots, tokens, schedule, scratch, false).bytes as u64
        + (entry + saved + lasting_size(w, false)).bytes::<B>(tokens)
}

/// Scratch of the backward pass.
pub(crate) struct Gradients<B: Backend> {
    /// `[tokens, hidden]` rounded copy of the gradient of the stream.
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
///
/// Most lie in one slab, some over others; see [`Layout`]. Where the schedule is overlaid, the gradients of a
/// layer's weights lie over what layers behind it kept: the backward pass is through with that when it comes
/// to write them, and the update with the gradients before the next forward pass writes there.
pub(crate) struct Workspace<B: Backend> {
    /// Tokens the buffers hold.
    pub(crate) tokens: usize,
    /// Positions the RoPE tables hold.
    pub(crate) positions: usize,
    pub(crate) again: Again,
    pub(crate) overlaid: bool,
    /// `[tokens, hidden]` the stream; in the backward pass, its gradient.
    pub(crate) stream: B::Wide,
    /// `[tokens, hidden]` the stream, rounded, as each block and the last norm read it; only one, used
    /// again and again, without training.
    pub(crate) entries: Vec<B::Narrow>,
    /// `[tokens, hidden]` the same behind the block's norm, where it is kept.
    pub(crate) inputs: Vec<Option<B::Narrow>>,
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
    /// Scratch of attention and of the loss.
    pub(crate) packed: B::Narrow,
    pub(crate) logits: B::Narrow,
    pub(crate) scratch: Scratch,
    /// Of the weights.
    pub(crate) weight_gradients: Option<Parameters<B::Wide>>,
    pub(crate) gradients: Option<Gradients<B>>,
    pub(crate) ids: B::Index,
    pub(crate) targets: B::Index,
    pub(crate) attend_from: B::Index,
    /// The same in layers with a window.
    pub(crate) windowed: Option<B::Index>,
    pub(crate) position: B::Index,
    /// `[positions, head_dim/2]` cosines and sines.
    pub(crate) rotation: [B::Wide; 2],
    /// The same for layers that take no part in the scaling.
    pub(crate) plain: Option<[B::Wide; 2]>,
    /// What the two above hold the front of; nothing yet where it is absent.
    pub(crate) table: Option<RopeTable>,
    /// Bytes of all of the above but the tables and what is part of the gradients.
    pub(crate) bytes: u64,
}

impl<B: Backend> Workspace<B> {
    /// Buffers for a batch and RoPE tables of `positions`.
    pub(crate) fn new(
        backend: &B,
        w: &Widths,
        slots: &Parameters<Slot>,
        rows: Rows,
        positions: usize,
        schedule: Schedule,
        training: bool,
    ) -> Result<Self, EngineError> {
        let (layers, tokens) = (slots.layers.len(), schedule.rows * rows.context);
        let again = schedule.again;
        let scratch = Scratch::of::<B>(w, rows, schedule, training);
        let layout = Layout::of::<B>(w, slots, tokens, schedule, scratch, training);
        let slab = backend.slab(layout.bytes)?;
        let within = |at| Maker { backend, tokens, slab: Some(&slab), at };
        let own = || Maker { backend, tokens, slab: None, at: 0 };
        let mut maker = own();
        let bytes = if training {
            training_bytes::<B>(w, slots, tokens, schedule, scratch)
        } else {
            measuring_bytes::<B>(w, slots, tokens, schedule, scratch)
        };
        let [mut of_stream, mut of_feed_forward, mut of_attention] =
            [layout.stream, layout.block, layout.block].map(within);
        let (mut entries, mut inputs) = (Vec::new(), Vec::new());
        let (mut attention, mut feed_forward) = (Vec::new(), Vec::new());
        if again.layers > 0 {
            attention.push(SavedAttention::new(w, &mut maker)?);
        }
        if again.feed_forwards > 0 {
            feed_forward.push(SavedFeedForward::new(w, &mut maker)?);
        }
        let (mut weight_gradients, mut gradients) = (None, None);
        if training {
            for (layer, at) in layout.kept.iter().enumerate() {
                let mut maker = within(*at);
                entries.push(maker.narrow(w.hidden)?);
                if layer < layers {
                    entries.push(maker.narrow(w.hidden)?);
                    for first_kept in [again.layers, again.feed_forwards] {
                        let kept = layer >= first_kept && keeps_inputs::<B>(w);
                        inputs.push(if kept { Some(maker.narrow(w.hidden)?) } else { None });
                    }
                    if layer >= again.layers {
                        attention.push(SavedAttention::new(w, &mut maker)?);
                    }
                    if layer >= again.feed_forwards {
                        feed_forward.push(SavedFeedForward::new(w, &mut maker)?);
                    }
                }
            }
            weight_gradients = Some(slots.try_map_layers(
                |slot| backend.wide(slot.len),
                |layer, slots| {
                    let mut maker = match layout.gradients.get(layer) {
                        Some(at) => Maker { tokens: 1, ..within(*at) },
                        None => Maker { tokens: 1, ..own() },
                    };
                    slots.try_map(|slot| maker.wide(slot.len))
                },
            )?);
            gradients = Some(Gradients {
                stream_narrow: of_stream.narrow(w.hidden)?,
                hidden: maker.narrow(w.hidden)?,
                activated: of_feed_forward.narrow(w.ffn)?,
                qkv: of_attention.narrow(w.qkv)?,
                attention: of_attention.narrow(w.queries)?,
            });
        } else {
            entries.push(maker.narrow(w.hidden)?);
        }
        let index = || backend.index(tokens);
        let table = || backend.wide(positions * (w.head_dim / 2));
        let rotation = || Ok::<_, EngineError>([table()?, table()?]);
        Ok(Workspace {
            tokens,
            positions,
            again,
            overlaid: schedule.overlaid,
            stream: of_stream.wide(w.hidden)?,
            entries,
            inputs,
            attention,
            feed_forward,
            hidden: maker.narrow(w.hidden)?,
            activated: of_feed_forward.narrow(w.ffn)?,
            final_rstd: maker.wide(1)?,
            nll: maker.wide(1)?,
            packed: Maker { tokens: 1, ..of_attention }.narrow(scratch.attention)?,
            logits: Maker { tokens: 1, ..within(layout.loss) }.narrow(scratch.loss)?,
            scratch,
            weight_gradients,
            gradients,
            ids: index()?,
            targets: index()?,
            attend_from: index()?,
            windowed: if w.windows { Some(index()?) } else { None },
            position: index()?,
            rotation: rotation()?,
            plain: if w.plain_rope { Some(rotation()?) } else { None },
            table: None,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerPattern;
    use crate::plan::Architecture;
    use crate::runtime::backend::cpu::Cpu;
    use crate::runtime::backend::reference::Reference;
    use crate::runtime::model::parameters;

    fn architecture() -> Architecture {
        Architecture {
            model_type: "llama".into(),
            num_hidden_layers: 8,
            hidden_size: 64,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 16,
            intermediate_size: 192,
            vocab_size: 100,
            tie_word_embeddings: true,
            rms_norm_eps: 1e-5,
            initializer_range: 0.02,
            pattern: LayerPattern::default(),
        }
    }

    /// SmolLM2-135M.
    fn smollm2() -> Architecture {
        Architecture {
            num_hidden_layers: 30,
            hidden_size: 576,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            intermediate_size: 1536,
            vocab_size: 49_152,
            ..architecture()
        }
    }

    fn of(a: &Architecture) -> (Widths, Parameters<Slot>) {
        (Widths::of(a).unwrap(), parameters::slots(a).unwrap())
    }

    #[test]
    fn a_tight_budget_recomputes_before_it_splits_rows() {
        type B = Reference<f32>;
        let (w, slots) = of(&architecture());
        let rows = Rows { count: 4, context: 128, at_most: 4 };
        let run = |budget| schedule::<B>(&w, &slots, rows, true, |_| 1000, budget);
        let of_rows = |rows, layers, feed_forwards| Schedule {
            rows,
            again: Again { layers, feed_forwards },
            overlaid: rows == 4,
        };
        let bytes = |s: Schedule| 1000 + training_bytes::<B>(&w, &slots, s.rows * 128, s, Scratch::default());
        assert_eq!(run(None).unwrap(), of_rows(4, 0, 0));
        let all = bytes(of_rows(4, 0, 0));
        assert_eq!(run(Some(all)).unwrap(), of_rows(4, 0, 0));
        assert_eq!(run(Some(all - 1)).unwrap(), of_rows(4, 0, 2));
        let feed_forwards = bytes(of_rows(4, 0, 8));
        assert_eq!(run(Some(feed_forwards)).unwrap(), of_rows(4, 0, 8));
        assert_eq!(run(Some(feed_forwards - 1)).unwrap(), of_rows(4, 2, 8));
        let least = bytes(of_rows(4, 8, 8));
        assert_eq!(run(Some(least)).unwrap(), of_rows(4, 8, 8));
        assert_eq!(run(Some(least - 1)).unwrap().rows, 2);
        let one_row = bytes(of_rows(1, 8, 8));
        assert_eq!(run(Some(one_row)).unwrap(), of_rows(1, 8, 8));
        assert!(
            matches!(run(Some(one_row - 1)), Err(EngineError::Budget { needed, .. }) if needed == one_row)
        );
    }

    /// Losses alone need no gradients, and take as many rows at once as there is memory for.
    #[test]
    fn a_tight_budget_measures_fewer_rows_at_once() {
        type B = Reference<f32>;
        let (w, slots) = of(&architecture());
        let rows = Rows { count: 4, context: 128, at_most: 4 };
        let run = |budget| schedule::<B>(&w, &slots, rows, false, |_| 1000, budget);
        let all = run(None).unwrap();
        assert_eq!(all.rows, 4);
        let bytes = |rows| {
            let schedule = Schedule { rows, ..all };
            1000 + measuring_bytes::<B>(&w, &slots, rows * 128, schedule, Scratch::default())
        };
        for (budget, want) in [(bytes(4), 4), (bytes(4) - 1, 2), (bytes(2) - 1, 1), (bytes(1), 1), (1, 1)] {
            assert_eq!(run(Some(budget)).unwrap().rows, want);
        }
    }

    #[test]
    fn each_layer_has_a_place_and_those_that_are_computed_again_share_one() {
        let places = |again| (0..4).map(|layer| Again::place(layer, again)).collect::<Vec<_>>();
        for (again, want) in [(0, [0, 1, 2, 3]), (2, [0, 0, 1, 2]), (4, [0, 0, 0, 0])] {
            assert_eq!(places(again), want);
        }
    }

    #[test]
    fn rows_at_once_do_not_depend_on_memory_while_it_suffices() {
        let (w, slots) = of(&architecture());
        let group = |context| {
            let rows = Rows { count: 1000, context, at_most: 1000 };
            schedule::<Reference<f32>>(&w, &slots, rows, true, |_| 0, Some(1 << 50)).unwrap().rows
        };
        assert_eq!((group(512), group(8192), group(100_000), group(1)), (16, 1, 1, 1000));
    }

    /// Two rows of 1,024 tokens of a model of 135M parameters would hold 1.2 GB in f32 beside the gradients;
    /// over the gradients, and in bf16, they hold little more than one row does beside them.
    #[test]
    fn gradients_over_activations_leave_room_for_more_rows() {
        let (w, slots) = of(&smollm2());
        let rows = Rows { count: 2, context: 1024, at_most: 2 };
        let wide = schedule::<Reference<f32>>(&w, &slots, rows, true, |_| 0, None).unwrap();
        assert_eq!(wide, Schedule { rows: 1, again: Again::default(), overlaid: false });
        type B = Cpu<half::bf16>;
        let narrow = schedule::<B>(&w, &slots, rows, true, |_| 0, None).unwrap();
        assert_eq!(narrow, Schedule { rows: 2, again: Again::default(), overlaid: true });
        let beside = Schedule { overlaid: false, ..narrow };
        let [over, beside] =
            [narrow, beside].map(|s| training_bytes::<B>(&w, &slots, 2048, s, Scratch::default()));
        let gradients: usize = slots.layers.iter().flat_map(LayerParameters::iter).map(|s| 4 * s.len).sum();
        // All finds room but most of the last layer's.
        let saved = (beside - over) as f64 / gradients as f64;
        assert!((0.97..0.98).contains(&saved), "{saved}");
    }

    /// The logits of SmolLM2-135M take 48 MiB, most of them where nothing else is at the time.
    #[test]
    fn logits_lie_over_what_is_not_in_use() {
        type B = Cpu<half::bf16>;
        let (w, slots) = of(&smollm2());
        let rows = Rows { count: 2, context: 1024, at_most: 2 };
        let schedule = schedule::<B>(&w, &slots, rows, true, |_| 0, None).unwrap();
        let scratch = Scratch::of::<B>(&w, rows, schedule, true);
        let mib =
            |scratch| training_bytes::<B>(&w, &slots, 2048, schedule, scratch) as f64 / f64::from(1 << 20);
        let logits = (scratch.loss * B::NARROW_BYTES) as f64 / f64::from(1 << 20);
        let more = mib(scratch) - mib(Scratch::default());
        assert!((48.0..50.0).contains(&logits) && (18.0..20.0).contains(&more), "{logits} {more}");

        let layout = Layout::of::<B>(&w, &slots, 2048, schedule, scratch, true);
        let last = kept_size::<B>(&w, 30, 30, schedule.again).bytes::<B>(2048) as usize;
        assert!(layout.loss >= layout.kept[30] + last);
        let first_gradients = layout.gradients[29] + layer_gradient_bytes::<B>(&slots) as usize;
        assert!(layout.gradients[29] >= layout.kept[30] && layout.stream >= first_gradients);
    }

    /// 700 tokens are one chunk of the loss, twice as many are three.
    #[test]
    fn the_last_rows_of_a_batch_may_need_most_room_for_logits() {
        type B = Cpu<half::bf16>;
        let (w, slots) = of(&smollm2());
        let of = |count| {
            let rows = Rows { count, context: 700, at_most: 2 };
            let schedule = schedule::<B>(&w, &slots, rows, true, |_| 0, None).unwrap();
            assert_eq!(schedule.rows, 2);
            Scratch::of::<B>(&w, rows, schedule, true)
        };
        assert!(of(3).holds(of(2)) && !of(2).holds(of(3)));
    }

    /// What is said to be needed is what the buffers take.
    #[test]
    fn slabs_hold_their_buffers() {
        type B = Cpu<half::bf16>;
        let backend = B::new(Some(1)).unwrap();
        let rows = Rows { count: 1, context: 33, at_most: 1 };
        for model_type in ["llama", "qwen3", "olmo2", "olmo3", "gemma3_text"] {
            let pattern = match model_type {
                "olmo3" => LayerPattern::windows(8, 4, 4),
                _ => LayerPattern::default(),
            };
            let a = Architecture { model_type: model_type.into(), pattern, ..architecture() };
            let (w, slots) = of(&a);
            let schedule = schedule::<B>(&w, &slots, rows, false, |_| 0, None).unwrap();
            Workspace::new(&backend, &w, &slots, rows, 33, schedule, false).unwrap();
            for (layers, feed_forwards) in [(0, 0), (0, 3), (2, 5), (8, 8)] {
                for overlaid in [false, true] {
                    let again = Again { layers, feed_forwards };
                    let schedule = Schedule { rows: 1, again, overlaid };
                    // A buffer that does not fit its slab panics.
                    let made = Workspace::new(&backend, &w, &slots, rows, 33, schedule, true).unwrap();
                    assert_eq!(made.entries.len(), 17);
                }
            }
        }
    }
}

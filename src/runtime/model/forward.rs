//! Forward pass of the two blocks of a decoder layer, written once over the backend.

use crate::runtime::backend::{AttentionShape, Backend, NormShape};
use crate::runtime::model::parameters::{LayerParameters, QkNorm};
use crate::runtime::model::workspace::{SavedAttention, SavedFeedForward, Widths};

/// What a layer of a pass works with.
pub(crate) struct Pass<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) widths: &'a Widths,
    pub(crate) eps: f64,
    pub(crate) shape: AttentionShape,
    pub(crate) attend_from: &'a B::Index,
    pub(crate) position: &'a B::Index,
    /// Cosines and sines; `None` in a layer without RoPE.
    pub(crate) rotation: Option<&'a [B::Wide; 2]>,
}

impl<B: Backend> Pass<'_, B> {
    /// Tokens of the pass.
    pub(crate) fn tokens(&self) -> usize {
        self.shape.tokens()
    }

    /// The norm over the stream.
    pub(crate) fn stream_norm(&self) -> NormShape {
        let zero_centred = self.widths.family.zero_centred;
        NormShape { zero_centred, ..NormShape::whole(self.tokens(), self.widths.hidden) }
    }

    /// The norms of queries and keys within a qkv row.
    pub(crate) fn qk_norms(&self) -> Option<[NormShape; 2]> {
        let w = self.widths;
        let shape = |offset, segments, width| NormShape {
            rows: self.tokens(),
            stride: w.qkv,
            offset,
            segments,
            width,
            zero_centred: w.family.zero_centred,
        };
        match w.family.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some([shape(0, w.heads, w.head_dim), shape(w.queries, w.kv_heads, w.head_dim)]),
            QkNorm::Projection => Some([shape(0, 1, w.queries), shape(w.queries, 1, w.keys)]),
        }
    }

    /// The attention block, added to `stream`; `entry` keeps what it read of it. `hidden`
    /// (`[tokens, hidden]`) and `packed` (what attention takes) are scratch.
    pub(crate) fn attention(
        &self,
        p: &LayerParameters<B::Wide>,
        stream: &mut B::Wide,
        entry: &mut B::Narrow,
        saved: &mut SavedAttention<B>,
        hidden: &mut B::Narrow,
        packed: &mut B::Narrow,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        let input = self.enter(p.attention_norms.before.as_ref(), stream, entry, &mut saved.rstd, hidden);
        self.attend(p, input, saved, packed);
        match (&mut saved.branch, &p.attention_norms.after) {
            (Some((branch, rstd)), Some(after)) => {
                b.linear(t, w.queries, w.hidden, &saved.attention, &p.out, branch);
                b.norm_residual(norm, self.eps, branch, after, stream, rstd);
            }
            _ => b.linear_residual(t, w.queries, w.hidden, &saved.attention, &p.out, stream),
        }
    }

    /// Compute again what the backward pass needs of the attention block.
    pub(crate) fn attention_again(
        &self,
        p: &LayerParameters<B::Wide>,
        entry: &B::Narrow,
        saved: &mut SavedAttention<B>,
        hidden: &mut B::Narrow,
        packed: &mut B::Narrow,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        let input = self.input(p.attention_norms.before.as_ref(), entry, &mut saved.rstd, hidden);
        self.attend(p, input, saved, packed);
        if let (Some((branch, rstd)), Some(after)) = (&mut saved.branch, &p.attention_norms.after) {
            b.linear(t, w.queries, w.hidden, &saved.attention, &p.out, branch);
            self.statistics(after, branch, rstd, hidden);
        }
    }

    /// The feed-forward block, added to `stream`; `entry` keeps what it read of it. `hidden`
    /// (`[tokens, hidden]`) and `activated` (`[tokens, ffn]`) are scratch.
    pub(crate) fn feed_forward(
        &self,
        p: &LayerParameters<B::Wide>,
        stream: &mut B::Wide,
        entry: &mut B::Narrow,
        saved: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        let input = self.enter(p.feed_forward_norms.before.as_ref(), stream, entry, &mut saved.rstd, hidden);
        b.linear_glu(w.family.gate, t, w.hidden, w.ffn, input, &p.gate_up, &mut saved.gate_up, activated);
        match (&mut saved.branch, &p.feed_forward_norms.after) {
            (Some((branch, rstd)), Some(after)) => {
                b.linear(t, w.ffn, w.hidden, activated, &p.down, branch);
                b.norm_residual(norm, self.eps, branch, after, stream, rstd);
            }
            _ => b.linear_residual(t, w.ffn, w.hidden, activated, &p.down, stream),
        }
    }

    /// Compute again what the backward pass needs of the feed-forward block.
    pub(crate) fn feed_forward_again(
        &self,
        p: &LayerParameters<B::Wide>,
        entry: &B::Narrow,
        saved: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        let input = self.input(p.feed_forward_norms.before.as_ref(), entry, &mut saved.rstd, hidden);
        match (&mut saved.branch, &p.feed_forward_norms.after) {
            (Some((branch, rstd)), Some(after)) => {
                let gate_up = &mut saved.gate_up;
                b.linear_glu(w.family.gate, t, w.hidden, w.ffn, input, &p.gate_up, gate_up, activated);
                b.linear(t, w.ffn, w.hidden, activated, &p.down, branch);
                self.statistics(after, branch, rstd, hidden);
            }
            _ => b.linear(t, w.hidden, 2 * w.ffn, input, &p.gate_up, &mut saved.gate_up),
        }
    }

    /// What a block reads of the stream: `entry` or, where a norm stands before it, `hidden`.
    fn enter<'b>(
        &self,
        weight: Option<&B::Wide>,
        stream: &B::Wide,
        entry: &'b mut B::Narrow,
        rstd: &mut B::Wide,
        hidden: &'b mut B::Narrow,
    ) -> &'b B::Narrow {
        match weight {
            Some(weight) => {
                self.backend.norm(self.stream_norm(), self.eps, stream, weight, entry, hidden, rstd);
                hidden
            }
            None => {
                self.backend.narrow_copy(self.tokens() * self.widths.hidden, stream, entry);
                entry
            }
        }
    }

    /// The same as [`enter`](Self::enter) gave, from what it kept.
    pub(crate) fn input<'b>(
        &self,
        weight: Option<&B::Wide>,
        entry: &'b B::Narrow,
        rstd: &mut B::Wide,
        hidden: &'b mut B::Narrow,
    ) -> &'b B::Narrow {
        match weight {
            Some(weight) => {
                self.statistics(weight, entry, rstd, hidden);
                hidden
            }
            None => entry,
        }
    }

    /// The norm of rounded rows `x` into `y`, for it or for its statistics.
    fn statistics(&self, weight: &B::Wide, x: &B::Narrow, rstd: &mut B::Wide, y: &mut B::Narrow) {
        self.backend.norm_segments(self.stream_norm(), self.eps, x, weight, y, rstd);
    }

    fn attend(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Narrow,
        saved: &mut SavedAttention<B>,
        packed: &mut B::Narrow,
    ) {
        self.queries_keys_values(p, input, saved);
        let (attention, log_sum) = (&mut saved.attention, &mut saved.log_sum);
        self.backend.attention(self.shape, &saved.qkv, self.attend_from, attention, log_sum, packed);
    }

    fn queries_keys_values(
        &self,
        p: &LayerParameters<B::Wide>,
        hidden: &B::Narrow,
        saved: &mut SavedAttention<B>,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        let add_bias = |rows: &mut B::Narrow| {
            if let Some(bias) = &p.qkv_bias {
                b.add_bias(t, w.qkv, bias, rows);
            }
        };
        match (&mut saved.raw, &p.qk_norm, self.qk_norms()) {
            (Some((raw, rstd)), Some(weights), Some(norms)) => {
                b.linear(t, w.hidden, w.qkv, hidden, &p.qkv, raw);
                add_bias(raw);
                for i in 0..2 {
                    b.norm_segments(norms[i], self.eps, raw, &weights[i], &mut saved.qkv, &mut rstd[i]);
                }
                b.copy_columns(t, w.qkv, w.queries + w.keys, w.keys, raw, &mut saved.qkv);
            }
            _ => {
                if let (None, Some([cos, sin])) = (&p.qkv_bias, self.rotation) {
                    let position = self.position;
                    b.linear_rope(self.shape, w.hidden, hidden, &p.qkv, position, cos, sin, &mut saved.qkv);
                    return;
                }
                b.linear(t, w.hidden, w.qkv, hidden, &p.qkv, &mut saved.qkv);
                add_bias(&mut saved.qkv);
            }
        }
        if let Some([cos, sin]) = self.rotation {
            b.rope(self.shape, self.position, cos, sin, false, &mut saved.qkv);
        }
    }
}

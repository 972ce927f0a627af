//! Forward pass of one decoder layer, written once over the backend.

use crate::runtime::backend::{AttentionShape, Backend, NormShape};
use crate::runtime::model::parameters::{LayerParameters, NormPlace, QkNorm};
use crate::runtime::model::workspace::{SavedAttention, SavedFeedForward, Widths};

/// What every layer of a pass shares.
pub(crate) struct Pass<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) widths: &'a Widths,
    pub(crate) eps: f64,
    pub(crate) shape: AttentionShape,
    pub(crate) attend_from: &'a B::Index,
    pub(crate) position: &'a B::Index,
    pub(crate) cos: &'a B::Wide,
    pub(crate) sin: &'a B::Wide,
}

impl<B: Backend> Pass<'_, B> {
    /// Tokens of the pass.
    pub(crate) fn tokens(&self) -> usize {
        self.shape.tokens()
    }

    /// The norm over the stream.
    pub(crate) fn stream_norm(&self) -> NormShape {
        NormShape::whole(self.tokens(), self.widths.hidden)
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
        };
        match w.family.qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some([shape(0, w.heads, w.head_dim), shape(w.queries, w.kv_heads, w.head_dim)]),
            QkNorm::Projection => Some([shape(0, 1, w.queries), shape(w.queries, 1, w.keys)]),
        }
    }

    /// One layer from `input` to `output`. `hidden` (`[tokens, hidden]`) and `activated`
    /// (`[tokens, ffn]`) are scratch.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn layer(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        attention: &mut SavedAttention<B>,
        feed_forward: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
        output: &mut B::Wide,
    ) {
        self.attention(p, input, attention, hidden);
        self.middle(p, input, attention, &mut feed_forward.middle);
        self.feed_forward_input(p, feed_forward, hidden);
        self.feed_forward(p, feed_forward, hidden, activated, output);
    }

    /// Compute again what the backward pass needs of a layer's feed-forward block and, where
    /// `attention_too`, of its attention block. What else is written is what was there.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn layer_again(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        attention: &mut SavedAttention<B>,
        attention_too: bool,
        feed_forward: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
        output: &mut B::Wide,
    ) {
        if attention_too {
            self.attention(p, input, attention, hidden);
        }
        self.middle(p, input, attention, &mut feed_forward.middle);
        self.feed_forward_input(p, feed_forward, hidden);
        match feed_forward.branch {
            None => {
                let (w, gate_up) = (self.widths, &mut feed_forward.gate_up);
                self.backend.linear(self.tokens(), w.hidden, 2 * w.ffn, hidden, &p.gate_up, gate_up);
            }
            Some(_) => self.feed_forward(p, feed_forward, hidden, activated, output),
        }
    }

    /// Attention over `input`, up to where its output joins the stream.
    fn attention(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        saved: &mut SavedAttention<B>,
        hidden: &mut B::Narrow,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        match w.family.norm_place {
            NormPlace::Before => b.norm(norm, self.eps, input, &p.attention_norm, hidden, &mut saved.rstd),
            NormPlace::After => b.narrow_copy(t * w.hidden, input, hidden),
        }
        self.queries_keys_values(p, hidden, saved);
        b.attention(self.shape, &saved.qkv, self.attend_from, &mut saved.attention, &mut saved.log_sum);
        if let Some(branch) = &mut saved.branch {
            b.linear(t, w.queries, w.hidden, &saved.attention, &p.out, branch);
        }
    }

    /// The stream between the two blocks.
    fn middle(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        saved: &mut SavedAttention<B>,
        middle: &mut B::Wide,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        match &saved.branch {
            None => b.linear_residual(t, w.queries, w.hidden, &saved.attention, &p.out, input, middle),
            Some(branch) => {
                let (norm, rstd) = (self.stream_norm(), &mut saved.rstd);
                b.norm_residual(norm, self.eps, branch, &p.attention_norm, input, middle, rstd);
            }
        }
    }

    /// What the feed-forward block reads, into `hidden`.
    pub(crate) fn feed_forward_input(
        &self,
        p: &LayerParameters<B::Wide>,
        saved: &mut SavedFeedForward<B>,
        hidden: &mut B::Narrow,
    ) {
        let (b, w, norm) = (self.backend, self.widths, self.stream_norm());
        match w.family.norm_place {
            NormPlace::Before => {
                let rstd = &mut saved.rstd;
                b.norm(norm, self.eps, &saved.middle, &p.feed_forward_norm, hidden, rstd);
            }
            NormPlace::After => b.narrow_copy(self.tokens() * w.hidden, &saved.middle, hidden),
        }
    }

    fn feed_forward(
        &self,
        p: &LayerParameters<B::Wide>,
        saved: &mut SavedFeedForward<B>,
        hidden: &B::Narrow,
        activated: &mut B::Narrow,
        output: &mut B::Wide,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        b.linear_swiglu(t, w.hidden, w.ffn, hidden, &p.gate_up, &mut saved.gate_up, activated);
        match &mut saved.branch {
            None => b.linear_residual(t, w.ffn, w.hidden, activated, &p.down, &saved.middle, output),
            Some(branch) => {
                b.linear(t, w.ffn, w.hidden, activated, &p.down, branch);
                let (norm, middle, rstd) = (self.stream_norm(), &saved.middle, &mut saved.rstd);
                b.norm_residual(norm, self.eps, branch, &p.feed_forward_norm, middle, output, rstd);
            }
        }
    }

    fn queries_keys_values(
        &self,
        p: &LayerParameters<B::Wide>,
        hidden: &B::Narrow,
        saved: &mut SavedAttention<B>,
    ) {
        let (b, w, t) = (self.backend, self.widths, self.tokens());
        match (&mut saved.raw, &p.qk_norm, self.qk_norms()) {
            (Some((raw, rstd)), Some(weights), Some(norms)) => {
                b.linear(t, w.hidden, w.qkv, hidden, &p.qkv, raw);
                for i in 0..2 {
                    b.norm_segments(norms[i], self.eps, raw, &weights[i], &mut saved.qkv, &mut rstd[i]);
                }
                b.copy_columns(t, w.qkv, w.queries + w.keys, w.keys, raw, &mut saved.qkv);
                b.rope(self.shape, self.position, self.cos, self.sin, false, &mut saved.qkv);
            }
            _ => {
                let (position, cos, sin) = (self.position, self.cos, self.sin);
                b.linear_rope(self.shape, w.hidden, hidden, &p.qkv, position, cos, sin, &mut saved.qkv);
            }
        }
    }
}

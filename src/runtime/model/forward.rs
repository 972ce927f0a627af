//! Forward pass of one decoder layer, written once over the backend.

use crate::runtime::backend::{AttentionShape, Backend, NormShape};
use crate::runtime::model::parameters::{LayerParameters, NormPlace, QkNorm};
use crate::runtime::model::workspace::{Saved, Widths};

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
    /// (`[tokens, ffn]`) are scratch. With `again`, only what the backward pass needs is computed.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn layer(
        &self,
        p: &LayerParameters<B::Wide>,
        input: &B::Wide,
        saved: &mut Saved<B>,
        hidden: &mut B::Narrow,
        activated: &mut B::Narrow,
        output: &mut B::Wide,
        again: bool,
    ) {
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());

        match w.family.norm_place {
            NormPlace::Before => b.norm(norm, self.eps, input, &p.attention_norm, hidden, &mut saved.rstd[0]),
            NormPlace::After => b.narrow_copy(t * w.hidden, input, hidden),
        }
        self.queries_keys_values(p, hidden, saved);
        b.attention(self.shape, &saved.qkv, self.attend_from, &mut saved.attention, &mut saved.log_sum);
        match &mut saved.branch {
            None => {
                b.linear_residual(t, w.queries, w.hidden, &saved.attention, &p.out, input, &mut saved.middle)
            }
            Some([branch, _]) => {
                b.linear(t, w.queries, w.hidden, &saved.attention, &p.out, branch);
                let (middle, rstd) = (&mut saved.middle, &mut saved.rstd[0]);
                b.norm_residual(norm, self.eps, branch, &p.attention_norm, input, middle, rstd);
            }
        }

        self.feed_forward_input(p, saved, hidden);
        if again && saved.branch.is_none() {
            b.linear(t, w.hidden, 2 * w.ffn, hidden, &p.gate_up, &mut saved.gate_up);
            return;
        }
        b.linear_swiglu(t, w.hidden, w.ffn, hidden, &p.gate_up, &mut saved.gate_up, activated);
        match &mut saved.branch {
            None => {
                b.linear_residual(t, w.ffn, w.hidden, activated, &p.down, &saved.middle, output);
            }
            Some([_, branch]) => {
                b.linear(t, w.ffn, w.hidden, activated, &p.down, branch);
                let (middle, rstd) = (&saved.middle, &mut saved.rstd[1]);
                b.norm_residual(norm, self.eps, branch, &p.feed_forward_norm, middle, output, rstd);
            }
        }
    }

    /// What the feed-forward block reads, into `hidden`.
    pub(crate) fn feed_forward_input(
        &self,
        p: &LayerParameters<B::Wide>,
        saved: &mut Saved<B>,
        hidden: &mut B::Narrow,
    ) {
        let (b, w, norm) = (self.backend, self.widths, self.stream_norm());
        match w.family.norm_place {
            NormPlace::Before => {
                let rstd = &mut saved.rstd[1];
                b.norm(norm, self.eps, &saved.middle, &p.feed_forward_norm, hidden, rstd);
            }
            NormPlace::After => b.narrow_copy(self.tokens() * w.hidden, &saved.middle, hidden),
        }
    }

    fn queries_keys_values(&self, p: &LayerParameters<B::Wide>, hidden: &B::Narrow, saved: &mut Saved<B>) {
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

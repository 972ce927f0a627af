//! Backward pass of the two blocks of a decoder layer, written by hand against `forward.rs`.

use crate::runtime::backend::Backend;
use crate::runtime::model::forward::Pass;
use crate::runtime::model::parameters::LayerParameters;
use crate::runtime::model::workspace::{Gradients, SavedAttention, SavedFeedForward};

/// What a block read, `[tokens, hidden]`.
pub(crate) struct Read<'a, B: Backend> {
    /// The stream, rounded.
    pub(crate) entry: &'a B::Narrow,
    /// The same behind the block's norm, where it is kept.
    pub(crate) input: Option<&'a B::Narrow>,
}

/// What goes from one block to the block before it.
pub(crate) struct Flow<'a, B: Backend> {
    /// `[tokens, hidden]` gradient of the stream behind the block, then before it; `scratch` has its rounded copy.
    pub(crate) stream: &'a mut B::Wide,
    pub(crate) scratch: &'a mut Gradients<B>,
    /// `[tokens, hidden]` of scratch.
    pub(crate) hidden: &'a mut B::Narrow,
    /// Whether gradients of matrices are added to, not written.
    pub(crate) accumulate: bool,
}

impl<B: Backend> Pass<'_, B> {
    /// Takes the gradient of the stream through the block, and adds to the gradients of the block's weights.
    /// Uses up what was saved; `activated` is scratch.
    pub(crate) fn feed_forward_backward(
        &self,
        p: &LayerParameters<B::Wide>,
        Read { entry, input }: Read<'_, B>,
        saved: &mut SavedFeedForward<B>,
        activated: &mut B::Narrow,
        flow: &mut Flow<'_, B>,
        grads: &mut LayerParameters<B::Wide>,
    ) {
        let Flow { stream, scratch: g, hidden, accumulate } = flow;
        let accumulate = *accumulate;
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        // Gradient of the block's output: that of the stream, or through the norm behind the block.
        let (weights, grad_weights) = (&p.feed_forward_norms, &mut grads.feed_forward_norms);
        let grad_out = match (&saved.branch, &weights.after, &mut grad_weights.after) {
            (Some((branch, rstd)), Some(weight), Some(grad_weight)) => {
                b.norm_residual_backward(norm, branch, weight, rstd, stream, &mut g.hidden, grad_weight);
                &g.hidden
            }
            _ => &g.stream_narrow,
        };
        b.linear_input_grad(t, w.ffn, w.hidden, grad_out, &p.down, &mut g.activated);
        b.glu_backward(w.family.gate, t, w.ffn, &g.activated, &mut saved.gate_up, activated);
        b.linear_weight_grad(t, w.ffn, w.hidden, grad_out, activated, accumulate, &mut grads.down);

        let before = weights.before.as_ref();
        let input = input.unwrap_or_else(|| self.input(before, entry, &mut saved.rstd, hidden));
        let grad_gate_up = &saved.gate_up;
        b.linear_weight_grad(t, w.hidden, 2 * w.ffn, grad_gate_up, input, accumulate, &mut grads.gate_up);
        b.linear_input_grad(t, w.hidden, 2 * w.ffn, grad_gate_up, &p.gate_up, &mut g.hidden);
        self.leave(before.zip(grad_weights.before.as_mut()), entry, &saved.rstd, stream, g);
    }

    /// As [`feed_forward_backward`](Self::feed_forward_backward); `packed`, what attention takes, is scratch too.
    pub(crate) fn attention_backward(
        &self,
        p: &LayerParameters<B::Wide>,
        Read { entry, input }: Read<'_, B>,
        saved: &mut SavedAttention<B>,
        packed: &mut B::Narrow,
        flow: &mut Flow<'_, B>,
        grads: &mut LayerParameters<B::Wide>,
    ) {
        let Flow { stream, scratch: g, hidden, accumulate } = flow;
        let accumulate = *accumulate;
        let (b, w, t, norm) = (self.backend, self.widths, self.tokens(), self.stream_norm());
        let (weights, grad_weights) = (&p.attention_norms, &mut grads.attention_norms);
        let grad_out = match (&saved.branch, &weights.after, &mut grad_weights.after) {
            (Some((branch, rstd)), Some(weight), Some(grad_weight)) => {
                b.norm_residual_backward(norm, branch, weight, rstd, stream, &mut g.hidden, grad_weight);
                &g.hidden
            }
            _ => &g.stream_narrow,
        };
        b.linear_input_grad(t, w.queries, w.hidden, grad_out, &p.out, &mut g.attention);
        b.linear_weight_grad(t, w.queries, w.hidden, grad_out, &saved.attention, accumulate, &mut grads.out);
        let (qkv, out, log_sum, from) = (&saved.qkv, &saved.attention, &saved.log_sum, self.attend_from);
        let (grad_out, grad_qkv) = (&g.attention, &mut g.qkv);
        match self.rotation {
            Some([cos, sin]) => b.attention_rope_backward(
                self.shape,
                qkv,
                out,
                log_sum,
                from,
                grad_out,
                self.position,
                cos,
                sin,
                grad_qkv,
                packed,
            ),
            None => b.attention_backward(self.shape, qkv, out, log_sum, from, grad_out, grad_qkv, packed),
        }
        if let (Some((raw, rstd)), Some(w), Some(norms), Some(grad_w)) =
            (&saved.raw, &p.qk_norm, self.qk_norms(), &mut grads.qk_norm)
        {
            for i in 0..2 {
                b.norm_segments_backward(norms[i], raw, &w[i], &rstd[i], &mut g.qkv, &mut grad_w[i]);
            }
        }

        if let Some(grad_bias) = &mut grads.qkv_bias {
            b.bias_grad(t, w.qkv, &g.qkv, grad_bias);
        }
        let before = weights.before.as_ref();
        let input = input.unwrap_or_else(|| self.input(before, entry, &mut saved.rstd, hidden));
        b.linear_weight_grad(t, w.hidden, w.qkv, &g.qkv, input, accumulate, &mut grads.qkv);
        b.linear_input_grad(t, w.hidden, w.qkv, &g.qkv, &p.qkv, &mut g.hidden);
        self.leave(before.zip(grad_weights.before.as_mut()), entry, &saved.rstd, stream, g);
    }

    /// Add the gradient of a block's input in `g.hidden` to that of the stream, through the norm where one
    /// stands before the block: its weight, and the gradient of that.
    fn leave(
        &self,
        weight: Option<(&B::Wide, &mut B::Wide)>,
        entry: &B::Narrow,
        rstd: &B::Wide,
        stream: &mut B::Wide,
        g: &mut Gradients<B>,
    ) {
        let (b, norm, copy) = (self.backend, self.stream_norm(), &mut g.stream_narrow);
        match weight {
            Some((weight, grad_weight)) => {
                b.norm_backward(norm, entry, weight, rstd, &g.hidden, stream, copy, grad_weight);
            }
            None => b.add_narrow(self.tokens() * self.widths.hidden, &g.hidden, stream, copy),
        }
    }
}

//! Which weights a decoder has, how they lie in the backend's buffers, and their Hugging Face names.
//!
//! Knows names and shapes; does no arithmetic.

use std::borrow::Cow;

use crate::plan::Architecture;
use crate::runtime::backend::{Backend, Gate};
use crate::runtime::engine::EngineError;
use crate::runtime::model::tensor::{StateDict, Tensor};

/// Where the norms of a decoder layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// Before attention and before the feed-forward layer (Llama, Qwen3, SmolLM3).
    Before,
    /// After them, before the residual is added (OLMo 2, arXiv:2501.00656, and OLMo 3).
    After,
    /// Both (Gemma 3, arXiv:2503.19786, section 2).
    Around,
}

impl NormPlace {
    /// Whether a norm stands before a block.
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    /// Whether a norm stands behind a block.
    pub(crate) fn after(self) -> bool {
        self != Self::Before
    }
}

/// What is normalised in queries and keys before RoPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkNorm {
    /// Nothing (Llama, SmolLM3).
    None,
    /// Each head on its own (Qwen3, Gemma 3).
    Head,
    /// All heads together (OLMo 2 and 3).
    Projection,
}

/// The ways in which layers of the supported architectures differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) norm_place: NormPlace,
    pub(crate) qk_norm: QkNorm,
    /// Whether queries, keys and values have biases (Qwen2).
    pub(crate) qkv_bias: bool,
    /// Whether norms multiply by 1 + w (Gemma 3).
    pub(crate) zero_centred: bool,
    /// What gates go through.
    pub(crate) gate: Gate,
    /// Whether embeddings are multiplied by the root of their width (Gemma 3).
    pub(crate) scaled_embedding: bool,
}

impl Family {
    /// By `model_type`, after checking that the dimensions fit together.
    pub(crate) fn of(a: &Architecture) -> Result<Self, EngineError> {
        let refuse = |reason: String, help: Option<String>| Err(EngineError::Architecture { reason, help });
        for (name, value) in [
            ("num_hidden_layers", a.num_hidden_layers),
            ("hidden_size", a.hidden_size),
            ("num_attention_heads", a.num_attention_heads),
            ("num_key_value_heads", a.num_key_value_heads),
            ("head_dim", a.head_dim),
            ("intermediate_size", a.intermediate_size),
            ("vocab_size", a.vocab_size),
        ] {
            if value == 0 {
                return refuse(format!("{name} is 0"), None);
            }
        }
        if !a.num_attention_heads.is_multiple_of(a.num_key_value_heads) {
            return refuse(
                format!(
                    "{} query heads cannot share {} key and value heads evenly",
                    a.num_attention_heads, a.num_key_value_heads
                ),
                Some("num_attention_heads must be a multiple of num_key_value_heads".into()),
            );
        }
        if !a.head_dim.is_multiple_of(2) {
            return refuse(format!("head_dim {} is odd; RoPE turns pairs", a.head_dim), None);
        }
        if let Err(problem) = a.pattern.check(a.num_hidden_layers) {
            return refuse(problem, None);
        }
        let llama = Family {
            norm_place: NormPlace::Before,
            qk_norm: QkNorm::None,
            qkv_bias: false,
            zero_centred: false,
            gate: Gate::Silu,
            scaled_embedding: false,
        };
        match a.model_type.as_str() {
            "llama" | "smollm3" => Ok(llama),
            "qwen2" => Ok(Family { qkv_bias: true, ..llama }),
            "qwen3" => Ok(Family { qk_norm: QkNorm::Head, ..llama }),
            "olmo2" | "olmo3" => {
                Ok(Family { norm_place: NormPlace::After, qk_norm: QkNorm::Projection, ..llama })
            }
            "gemma3_text" => Ok(Family {
                norm_place: NormPlace::Around,
                qk_norm: QkNorm::Head,
                zero_centred: true,
                gate: Gate::GeluTanh,
                scaled_embedding: true,
                ..llama
            }),
            other => {
                let known = "supported: llama, qwen2, qwen3, olmo2, olmo3, smollm3, gemma3_text";
                refuse(format!("unknown model_type `{other}`"), Some(known.into()))
            }
        }
    }
}

/// One value of `T` for each norm around a block, where there is one.
#[derive(Clone, Debug)]
pub(crate) struct BlockNorms<T> {
    pub(crate) before: Option<T>,
    pub(crate) after: Option<T>,
}

impl<T> BlockNorms<T> {
    fn iter(&self) -> impl Iterator<Item = &T> {
        self.before.iter().chain(&self.after)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.before.iter_mut().chain(&mut self.after)
    }

    fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<BlockNorms<U>, E> {
        Ok(BlockNorms {
            before: self.before.as_ref().map(&mut f).transpose()?,
            after: self.after.as_ref().map(&mut f).transpose()?,
        })
    }
}

/// One value of `T` for each weight buffer of a layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerParameters<T> {
    /// `[(heads + 2·kv_heads)·head_dim, hidden]`: q, k, v one below the other.
    pub(crate) qkv: T,
    /// `[hidden, heads·head_dim]`.
    pub(crate) out: T,
    /// `[2·intermediate, hidden]`: gate above up.
    pub(crate) gate_up: T,
    /// `[hidden, intermediate]`.
    pub(crate) down: T,
    /// Norms around the attention block.
    pub(crate) attention_norms: BlockNorms<T>,
    /// Norms around the feed-forward block.
    pub(crate) feed_forward_norms: BlockNorms<T>,
    /// Norms of queries and keys.
    pub(crate) qk_norm: Option<[T; 2]>,
    /// `[(heads + 2·kv_heads)·head_dim]`: of q, k and v, end to end.
    pub(crate) qkv_bias: Option<T>,
}

impl<T> LayerParameters<T> {
    /// All values in a fixed order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.qkv, &self.out, &self.gate_up, &self.down]
            .into_iter()
            .chain(self.attention_norms.iter())
            .chain(self.feed_forward_norms.iter())
            .chain(self.qk_norm.iter().flatten())
            .chain(&self.qkv_bias)
    }

    /// All values in the order of [`iter`](Self::iter).
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.qkv, &mut self.out, &mut self.gate_up, &mut self.down]
            .into_iter()
            .chain(self.attention_norms.iter_mut())
            .chain(self.feed_forward_norms.iter_mut())
            .chain(self.qk_norm.iter_mut().flatten())
            .chain(&mut self.qkv_bias)
    }

    /// The same structure with each value replaced, in the order of [`iter`](Self::iter).
    pub(crate) fn try_map<U, E>(
        &self,
        mut f: impl FnMut(&T) -> Result<U, E>,
    ) -> Result<LayerParameters<U>, E> {
        Ok(LayerParameters {
            qkv: f(&self.qkv)?,
            out: f(&self.out)?,
            gate_up: f(&self.gate_up)?,
            down: f(&self.down)?,
            attention_norms: self.attention_norms.try_map(&mut f)?,
            feed_forward_norms: self.feed_forward_norms.try_map(&mut f)?,
            qk_norm: match &self.qk_norm {
                Some([q, k]) => Some([f(q)?, f(k)?]),
                None => None,
            },
            qkv_bias: self.qkv_bias.as_ref().map(f).transpose()?,
        })
    }
}

/// One value of `T` for each weight buffer of a decoder: the weights, their gradients, each moment.
#[derive(Clone, Debug)]
pub(crate) struct Parameters<T> {
    /// `[vocab, hidden]`.
    pub(crate) embedding: T,
    pub(crate) layers: Vec<LayerParameters<T>>,
    /// `[hidden]`.
    pub(crate) norm: T,
    /// `[vocab, hidden]`; `None` when the embedding serves.
    pub(crate) head: Option<T>,
}

impl<T> Parameters<T> {
    /// All values in a fixed order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.embedding)
            .chain(self.layers.iter().flat_map(LayerParameters::iter))
            .chain([&self.norm])
            .chain(&self.head)
    }

    /// All values in the order of [`iter`](Self::iter).
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.embedding)
            .chain(self.layers.iter_mut().flat_map(LayerParameters::iter_mut))
            .chain([&mut self.norm])
            .chain(&mut self.head)
    }

    /// The same structure with each value replaced, in the order of [`iter`](Self::iter).
    pub(crate) fn try_map<U, E>(&self, f: impl Fn(&T) -> Result<U, E>) -> Result<Parameters<U>, E> {
        self.try_map_layers(&f, |_, layer| layer.try_map(&f))
    }

    /// The same structure with each value replaced, those of the layers one layer at a time.
    pub(crate) fn try_map_layers<U, E>(
        &self,
        f: impl Fn(&T) -> Result<U, E>,
        layer: impl Fn(usize, &LayerParameters<T>) -> Result<LayerParameters<U>, E>,
    ) -> Result<Parameters<U>, E> {
        Ok(Parameters {
            embedding: f(&self.embedding)?,
            layers: self.layers.iter().enumerate().map(|(i, l)| layer(i, l)).collect::<Result<_, E>>()?,
            norm: f(&self.norm)?,
            head: self.head.as_ref().map(f).transpose()?,
        })
    }

    /// The matrix that turns hidden states into logits.
    pub(crate) fn output(&self) -> &T {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The same, for its gradient.
    pub(crate) fn output_mut(&mut self) -> &mut T {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }
}

/// One Hugging Face tensor within a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// First value in the buffer.
    pub(crate) at: usize,
}

impl Piece {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a weight is to the optimizer and to a fresh model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A matrix within a layer.
    Matrix,
    /// The output matrix, where it is one of its own.
    Output,
    /// The table of embeddings, the output matrix as well where they are tied.
    Embedding,
    /// The weight of a norm.
    Norm,
    /// A bias.
    Bias,
}

impl Role {
    /// Whether it is a vector, which no product has for an operand.
    pub(crate) fn is_vector(self) -> bool {
        matches!(self, Self::Norm | Self::Bias)
    }
}

/// What one buffer holds.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Number of values.
    pub(crate) len: usize,
    /// What is in it.
    pub(crate) role: Role,
    /// The tensors in it, end to end.
    pub(crate) pieces: Vec<Piece>,
}

/// A buffer of tensors, end to end.
pub(crate) fn slot(role: Role, tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Slot {
    let mut slot = Slot { len: 0, role, pieces: Vec::new() };
    for (name, shape) in tensors {
        let piece = Piece { name, shape, at: slot.len };
        slot.len += piece.len();
        slot.pieces.push(piece);
    }
    slot
}

/// The buffers of an architecture.
pub(crate) fn slots(a: &Architecture) -> Result<Parameters<Slot>, EngineError> {
    let family = Family::of(a)?;
    let (d, ffn) = (a.hidden_size, a.intermediate_size);
    let (q, kv) = (a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim);
    let norm = |name: String, width: usize| slot(Role::Norm, [(name, vec![width])]);
    let layers = (0..a.num_hidden_layers)
        .map(|i| {
            let named = |part: &str| format!("model.layers.{i}.{part}.weight");
            let matrix = |part: &str, out: usize, inner: usize| (named(part), vec![out, inner]);
            // Where there is one norm before each block, the second's is named after what it follows.
            let second = match family.norm_place {
                NormPlace::Around => "pre_feedforward_layernorm",
                NormPlace::Before | NormPlace::After => "post_attention_layernorm",
            };
            let norms = |before: &str, after: &str| BlockNorms {
                before: family.norm_place.before().then(|| norm(named(before), d)),
                after: family.norm_place.after().then(|| norm(named(after), d)),
            };
            let qk_widths = match family.qk_norm {
                QkNorm::None => None,
                QkNorm::Head => Some([a.head_dim, a.head_dim]),
                QkNorm::Projection => Some([q, kv]),
            };
            LayerParameters {
                qkv: slot(
                    Role::Matrix,
                    [
                        matrix("self_attn.q_proj", q, d),
                        matrix("self_attn.k_proj", kv, d),
                        matrix("self_attn.v_proj", kv, d),
                    ],
                ),
                out: slot(Role::Matrix, [matrix("self_attn.o_proj", d, q)]),
                gate_up: slot(Role::Matrix, [matrix("mlp.gate_proj", ffn, d), matrix("mlp.up_proj", ffn, d)]),
                down: slot(Role::Matrix, [matrix("mlp.down_proj", d, ffn)]),
                attention_norms: norms("input_layernorm", "post_attention_layernorm"),
                feed_forward_norms: norms(second, "post_feedforward_layernorm"),
                qk_norm: qk_widths
                    .map(|[q, k]| [norm(named("self_attn.q_norm"), q), norm(named("self_attn.k_norm"), k)]),
                qkv_bias: family.qkv_bias.then(|| {
                    let bias =
                        |part: &str, len| (format!("model.layers.{i}.self_attn.{part}.bias"), vec![len]);
                    slot(Role::Bias, [bias("q_proj", q), bias("k_proj", kv), bias("v_proj", kv)])
                }),
            }
        })
        .collect();
    let table = |role, name: &str| slot(role, [(name.to_string(), vec![a.vocab_size, d])]);
    Ok(Parameters {
        embedding: table(Role::Embedding, "model.embed_tokens.weight"),
        layers,
        norm: norm("model.norm.weight".into(), d),
        head: (!a.tie_word_embeddings).then(|| table(Role::Output, "lm_head.weight")),
    })
}

/// Bytes of so many copies of the weights.
pub(crate) fn weight_bytes<B: Backend>(slots: &Parameters<Slot>, copies: u64) -> u64 {
    let values: usize = slots.iter().map(|s| s.len).sum();
    copies * (values * B::WIDE_BYTES) as u64
}

/// Check that `state` has every tensor in the right shape. Further tensors are ignored: a checkpoint
/// with tied embeddings may carry `lm_head.weight` as well.
pub(crate) fn check(slots: &Parameters<Slot>, state: &StateDict) -> Result<(), EngineError> {
    for piece in slots.iter().flat_map(|s| &s.pieces) {
        let tensor =
            state.get(&piece.name).ok_or_else(|| EngineError::WeightMissing { name: piece.name.clone() })?;
        if tensor.shape != piece.shape || tensor.data.len() != piece.len() {
            return Err(EngineError::WeightShape {
                name: piece.name.clone(),
                expected: piece.shape.clone(),
                found: tensor.shape.clone(),
            });
        }
    }
    Ok(())
}

/// Copy checked tensors into their buffers.
pub(crate) fn write<B: Backend>(
    backend: &B,
    slots: &Parameters<Slot>,
    state: &StateDict,
    to: &mut Parameters<B::Wide>,
) -> Result<(), EngineError> {
    check(slots, state)?;
    fill(backend, slots, to, |name| state.get(name).map(Cow::Borrowed));
    Ok(())
}

/// The same, and free each as soon as it is copied: there is never much more than one copy of all.
pub(crate) fn take<B: Backend>(
    backend: &B,
    slots: &Parameters<Slot>,
    mut state: StateDict,
    to: &mut Parameters<B::Wide>,
) -> Result<(), EngineError> {
    check(slots, &state)?;
    fill(backend, slots, to, |name| state.remove(name).map(Cow::Owned));
    Ok(())
}

fn fill<'t, B: Backend>(
    backend: &B,
    slots: &Parameters<Slot>,
    to: &mut Parameters<B::Wide>,
    mut tensor: impl FnMut(&str) -> Option<Cow<'t, Tensor>>,
) {
    for (slot, buffer) in slots.iter().zip(to.iter_mut()) {
        for piece in &slot.pieces {
            if let Some(tensor) = tensor(&piece.name) {
                backend.write(&tensor.data, buffer, piece.at);
            }
        }
    }
}

/// Copy buffers out under the names of their tensors.
///
/// # Errors
/// A device that failed: what was copied from it would be anything.
pub(crate) fn read<B: Backend>(
    backend: &B,
    slots: &Parameters<Slot>,
    from: &Parameters<B::Wide>,
) -> Result<StateDict, EngineError> {
    let copy = |(piece, buffer): (&Piece, &B::Wide)| (piece.name.clone(), copied(backend, piece, buffer));
    let state = pieces(slots, from).map(copy).collect();
    backend.finish()?;
    Ok(state)
}

/// Names and shapes of the tensors, in the order of a [`StateDict`].
pub(crate) fn shapes(slots: &Parameters<Slot>) -> Vec<(String, Vec<usize>)> {
    let pieces = slots.iter().flat_map(|slot| &slot.pieces);
    let mut shapes: Vec<_> = pieces.map(|piece| (piece.name.clone(), piece.shape.clone())).collect();
    shapes.sort();
    shapes
}

/// The numbers of the tensor of one name: where they lie, or a copy of what the host does not see.
///
/// # Errors
/// As [`read`].
pub(crate) fn look<'a, B: Backend>(
    backend: &B,
    slots: &Parameters<Slot>,
    at: &'a Parameters<B::Wide>,
    name: &str,
) -> Result<Option<Cow<'a, [f32]>>, EngineError> {
    let Some((piece, buffer)) = pieces(slots, at).find(|(piece, _)| piece.name == name) else {
        return Ok(None);
    };
    if let Some(seen) = backend.view(buffer, piece.at, piece.len()) {
        return Ok(Some(Cow::Borrowed(seen)));
    }
    let copy = copied(backend, piece, buffer).data;
    backend.finish()?;
    Ok(Some(Cow::Owned(copy)))
}

/// Every tensor's place with the buffer that holds it.
fn pieces<'s, 'a, W>(
    slots: &'s Parameters<Slot>,
    buffers: &'a Parameters<W>,
) -> impl Iterator<Item = (&'s Piece, &'a W)> {
    let buffers = slots.iter().zip(buffers.iter());
    buffers.flat_map(|(slot, buffer)| slot.pieces.iter().map(move |piece| (piece, buffer)))
}

fn copied<B: Backend>(backend: &B, piece: &Piece, buffer: &B::Wide) -> Tensor {
    let mut data = vec![0.0; piece.len()];
    backend.read(buffer, piece.at, &mut data);
    Tensor { shape: piece.shape.clone(), data }
}

//! Every operation of every backend against the f64 reference, over shapes at and around the edges of
//! tiles. Inputs are exact in bf16, so that all formats compute from the same numbers; outputs start as
//! NaN, so that a value nobody wrote is found.

use half::bf16;

use super::cpu::{Cpu, Element, Like};
use super::reference::Reference;
use super::{AdamW, AttentionShape, Backend, Gate, LossShape, Momentum, NormShape};
use crate::runtime::batch::IGNORE;
use crate::runtime::engine::{Hyper, Muon};
use crate::runtime::model::parameters::{Role, slot};
use crate::runtime::optim::muon::{Largest, Orthogonaliser, constants};
use crate::runtime::random::{normal_pair, philox};

/// Normal numbers, exact in bf16.
fn random(stream: u32, len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let [a, b, ..] = philox(11, [i, stream, 0, 0]);
            bf16::from_f64(normal_pair(a, b)[0]).to_f32()
        })
        .collect()
}

fn random_ids(stream: u32, len: usize, bound: usize) -> Vec<u32> {
    (0..len as u32).map(|i| philox(12, [i, stream, 0, 0])[0] % bound as u32).collect()
}

/// Moves values in and out of a backend's buffers.
struct Host<'a, B: Backend>(&'a B);

impl<B: Backend> Host<'_, B> {
    fn wide(&self, values: &[f32]) -> B::Wide {
        let mut buffer = self.0.wide(values.len()).unwrap();
        self.0.write(values, &mut buffer, 0);
        buffer
    }

    fn narrow(&self, values: &[f32]) -> B::Narrow {
        let mut buffer = self.0.narrow(values.len()).unwrap();
        self.0.narrow_copy(values.len(), &self.wide(values), &mut buffer);
        buffer
    }

    fn index(&self, values: &[u32]) -> B::Index {
        let mut buffer = self.0.index(values.len()).unwrap();
        self.0.write_index(values, &mut buffer);
        buffer
    }

    fn unset_wide(&self, len: usize) -> B::Wide {
        self.wide(&vec![f32::NAN; len])
    }

    fn unset_narrow(&self, len: usize) -> B::Narrow {
        self.narrow(&vec![f32::NAN; len])
    }

    fn read(&self, buffer: &B::Wide, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.0.finish().unwrap();
        self.0.read(buffer, 0, &mut values);
        values
    }

    fn read_narrow(&self, buffer: &B::Narrow, len: usize) -> Vec<f32> {
        let (mut sum, mut copy) = (self.wide(&vec![0.0; len]), self.narrow(&vec![0.0; len]));
        self.0.add_narrow(len, buffer, &mut sum, &mut copy);
        self.read(&sum, len)
    }
}

/// What an operation computed, by name.
type Outputs = Vec<(&'static str, Vec<f32>)>;

/// A set of operations at one shape; run on each backend.
trait Case {
    fn run<B: Backend>(&self, backend: &B) -> Outputs;
    fn name(&self) -> String;
}

/// Relative error of the whole output, and of its worst value relative to the largest.
fn compare(backend: &str, case: &str, name: &str, got: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let (mut error, mut size, mut worst, mut largest) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(g.is_finite(), "{backend}: {case}: {name}[{i}] is {g}, expected {e}");
        let d = f64::from(g - e).abs();
        error += d * d;
        size += f64::from(*e) * f64::from(*e);
        worst = worst.max(d);
        largest = largest.max(f64::from(e.abs()));
    }
    let relative = (error / size.max(1e-30)).sqrt();
    assert!(
        relative <= tolerance && worst <= 8.0 * tolerance * largest.max(1e-15),
        "{backend}: {case}: {name}: relative error {relative:.2e}, worst {worst:.2e} of {largest:.2e}"
    );
}

/// On every backend with its tolerance.
fn check(case: &impl Case) {
    check_within(case, 1e-5, 1e-2);
}

/// On every backend, in f32 within one tolerance and in bf16 within another.
fn check_within(case: &impl Case, single: f64, half: f64) {
    let expected = case.run(&Reference::<f64>::default());
    let against = |backend: String, outputs: Outputs, tolerance: f64| {
        for ((name, got), (_, expected)) in outputs.iter().zip(&expected) {
            compare(&backend, &case.name(), name, got, expected, tolerance);
        }
    };
    let reference = Reference::<f32>::default();
    against(reference.describe(), case.run(&reference), 2.0 * single);
    format::<f32>(case, &expected, single);
    format::<bf16>(case, &expected, half);
}

/// On the CPU with narrow values of one format: with and without the kernels of this processor, and
/// whatever the number of threads.
fn format<E: Element>(case: &impl Case, expected: &Outputs, tolerance: f64) {
    for like in [Like::This, Like::WithBf16, Like::WithoutBf16, Like::WithoutAvx512, Like::Portable] {
        let [single, several] = [1, 3].map(|threads| Cpu::<E>::like(like, Some(threads)).unwrap());
        let name = format!("{like:?} {}", single.describe());
        let one = case.run(&single);
        for ((output, got), (_, expected)) in one.iter().zip(expected) {
            compare(&name, &case.name(), output, got, expected, tolerance);
        }
        for ((output, got), (_, one)) in case.run(&several).iter().zip(&one) {
            assert_eq!(got, one, "{name}: {}: {output} depends on the number of threads", case.name());
        }
    }
}

/// Products with RoPE or a gated linear unit on their results.
struct Fused {
    shape: AttentionShape,
    inputs: usize,
    ffn: usize,
}

impl Fused {
    fn new(rows: usize, heads: usize, head_dim: usize, inputs: usize, ffn: usize) -> Self {
        let shape = AttentionShape { rows, context: 33, heads, kv_heads: 1, head_dim, scale: 1.0 };
        Fused { shape, inputs, ffn }
    }
}

impl Case for Fused {
    fn name(&self) -> String {
        format!("fused {} -> {:?}, {}", self.inputs, self.shape, self.ffn)
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let (s, i, f) = (self.shape, self.inputs, self.ffn);
        let (t, half) = (s.tokens(), s.head_dim / 2);
        let x = h.narrow(&random(1, t * i));
        let (w, w2) = (h.wide(&random(2, s.qkv_width() * i)), h.wide(&random(3, 2 * f * i)));
        let angles: Vec<f32> = random(4, 50 * half);
        let cos = h.wide(&angles.iter().map(|a| a.cos()).collect::<Vec<_>>());
        let sin = h.wide(&angles.iter().map(|a| a.sin()).collect::<Vec<_>>());
        let positions = h.index(&random_ids(5, t, 50));
        let mut qkv = h.unset_narrow(t * s.qkv_width());
        let (mut gate_up, mut y) = (h.unset_narrow(t * 2 * f), h.unset_narrow(t * f));
        b.linear_rope(s, i, &x, &w, &positions, &cos, &sin, &mut qkv);
        b.linear_glu(Gate::Silu, t, i, f, &x, &w2, &mut gate_up, &mut y);
        let (mut inner, mut gelu) = (h.unset_narrow(t * 2 * f), h.unset_narrow(t * f));
        b.linear_glu(Gate::GeluTanh, t, i, f, &x, &w2, &mut inner, &mut gelu);
        vec![
            ("qkv", h.read_narrow(&qkv, t * s.qkv_width())),
            ("gate and up", h.read_narrow(&gate_up, t * 2 * f)),
            ("activated", h.read_narrow(&y, t * f)),
            ("activated by GELU", h.read_narrow(&gelu, t * f)),
        ]
    }
}

struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Case for Linear {
    fn name(&self) -> String {
        format!("linear {} x {} -> {}", self.rows, self.inputs, self.outputs)
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let (t, i, o) = (self.rows, self.inputs, self.outputs);
        let (x, w) = (h.narrow(&random(1, t * i)), h.wide(&random(2, o * i)));
        let (dy, r) = (h.narrow(&random(3, t * o)), h.wide(&random(4, t * o)));
        let (mut y, mut sum) = (h.unset_narrow(t * o), r);
        let (mut dx, mut dw) = (h.unset_narrow(t * i), h.unset_wide(o * i));
        b.linear(t, i, o, &x, &w, &mut y);
        b.linear_residual(t, i, o, &x, &w, &mut sum);
        b.linear_input_grad(t, i, o, &dy, &w, &mut dx);
        b.linear_weight_grad(t, i, o, &dy, &x, false, &mut dw);
        let once = h.read(&dw, o * i);
        b.linear_weight_grad(t, i, o, &dy, &x, true, &mut dw);
        vec![
            ("y", h.read_narrow(&y, t * o)),
            ("residual", h.read(&sum, t * o)),
            ("grad x", h.read_narrow(&dx, t * i)),
            ("grad w", once),
            ("grad w twice", h.read(&dw, o * i)),
        ]
    }
}

#[test]
fn linear() {
    let shapes = [
        (1, 1, 1),
        (1, 64, 1),
        (2, 1, 3),
        (13, 31, 33),
        (14, 32, 32),
        (15, 33, 31),
        (28, 64, 96),
        (63, 127, 65),
        (64, 128, 64),
        (113, 203, 55),
        (3, 799, 5),
        (129, 258, 515),
        (257, 66, 1025),
        // Operands packed in several blocks of columns, sums in several parts.
        (3, 4100, 1060),
    ];
    for (rows, inputs, outputs) in shapes {
        check(&Linear { rows, inputs, outputs });
    }
}

struct Attention {
    rows: usize,
    context: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    mask: Mask,
}

/// What of the tokens before it a query sees.
#[derive(Clone, Copy, Debug)]
enum Mask {
    All,
    /// Those of its document: lengths, repeated to the end of the row.
    Documents(&'static [usize]),
    /// So many, itself included.
    Window(usize),
    /// So many of its document's.
    Within(&'static [usize], usize),
}

impl Attention {
    fn attend_from(&self) -> Vec<u32> {
        let mut from = vec![0; self.rows * self.context];
        let (documents, window) = match self.mask {
            Mask::All => (None, usize::MAX),
            Mask::Documents(lengths) => (Some(lengths), usize::MAX),
            Mask::Window(window) => (None, window),
            Mask::Within(lengths, window) => (Some(lengths), window),
        };
        for row in from.chunks_exact_mut(self.context) {
            let (mut start, mut lengths) = (0, documents.unwrap_or(&[usize::MAX]).iter().cycle());
            while start < row.len() {
                let end = start.saturating_add(*lengths.next().unwrap()).min(row.len());
                for (at, from) in row[start..end].iter_mut().enumerate() {
                    *from = (start + (at + 1).saturating_sub(window)) as u32;
                }
                start = end;
            }
        }
        from
    }
}

impl Case for Attention {
    fn name(&self) -> String {
        let Attention { rows, context, heads, kv_heads, head_dim, mask } = self;
        format!("attention {rows} x {context}, {heads}/{kv_heads} heads of {head_dim}, {mask:?}")
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let shape = AttentionShape {
            rows: self.rows,
            context: self.context,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f64).powf(-0.5),
        };
        let (t, wide, narrow) = (shape.tokens(), shape.qkv_width(), shape.out_width());
        let qkv = h.narrow(&random(1, t * wide));
        let from = h.index(&self.attend_from());
        let (mut out, mut log_sum) = (h.unset_narrow(t * narrow), h.unset_wide(t * self.heads));
        let mut scratch = h.unset_narrow(B::attention_scratch(shape, true));
        b.attention(shape, &qkv, &from, &mut out, &mut log_sum, &mut scratch);
        let grad_out = h.narrow(&random(2, t * narrow));
        let mut grad = h.unset_narrow(t * wide);
        b.attention_backward(shape, &qkv, &out, &log_sum, &from, &grad_out, &mut grad, &mut scratch);
        let half = self.head_dim / 2;
        let position = h.index(&random_ids(3, t, 50));
        let (cos, sin) = (h.wide(&random(4, 50 * half)), h.wide(&random(5, 50 * half)));
        let mut turned = h.unset_narrow(t * wide);
        b.attention_rope_backward(
            shape,
            &qkv,
            &out,
            &log_sum,
            &from,
            &grad_out,
            &position,
            &cos,
            &sin,
            &mut turned,
            &mut scratch,
        );
        vec![
            ("out", h.read_narrow(&out, t * narrow)),
            ("log sum", h.read(&log_sum, t * self.heads)),
            ("grad qkv", h.read_narrow(&grad, t * wide)),
            ("grad qkv before RoPE", h.read_narrow(&turned, t * wide)),
        ]
    }
}

#[test]
fn attention_over_lengths() {
    for context in [1, 2, 13, 14, 15, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 257, 300, 449] {
        check(&Attention { rows: 1, context, heads: 2, kv_heads: 1, head_dim: 32, mask: Mask::All });
    }
}

#[test]
fn attention_over_groups_and_head_dims() {
    for (heads, kv_heads) in [(1, 1), (3, 1), (4, 1), (8, 1), (6, 2)] {
        for head_dim in [8, 32, 64] {
            check(&Attention { rows: 2, context: 75, heads, kv_heads, head_dim, mask: Mask::All });
        }
    }
    for head_dim in [2, 6, 16, 48, 80, 96, 128, 256] {
        check(&Attention { rows: 1, context: 70, heads: 2, kv_heads: 1, head_dim, mask: Mask::All });
    }
}

#[test]
fn attention_within_documents() {
    let cases: [&[usize]; 7] = [&[1], &[1, 2, 1, 63], &[64], &[14, 18], &[33, 31], &[300], &[5, 128, 1, 257]];
    for documents in cases {
        for context in [65, 300, 530] {
            let mask = Mask::Documents(documents);
            check(&Attention { rows: 2, context, heads: 3, kv_heads: 1, head_dim: 16, mask });
        }
    }
}

#[test]
fn attention_within_a_window() {
    for window in [1, 2, 13, 14, 32, 33, 64, 100, 129, 256, 300, 600] {
        let mask = Mask::Window(window);
        check(&Attention { rows: 2, context: 530, heads: 3, kv_heads: 1, head_dim: 16, mask });
    }
    for (context, head_dim) in [(129, 64), (300, 32), (75, 128)] {
        for mask in [Mask::Window(40), Mask::Within(&[5, 128, 1, 57], 40)] {
            check(&Attention { rows: 1, context, heads: 4, kv_heads: 2, head_dim, mask });
        }
    }
}

/// Scores far apart: the running maximum changes in every block and most probabilities vanish.
#[test]
fn attention_with_large_scores() {
    struct Large(Attention);
    impl Case for Large {
        fn name(&self) -> String {
            format!("large {}", self.0.name())
        }
        fn run<B: Backend>(&self, b: &B) -> Outputs {
            let h = Host(b);
            let shape = AttentionShape {
                rows: 1,
                context: self.0.context,
                heads: 1,
                kv_heads: 1,
                head_dim: 4,
                scale: 8.0,
            };
            let t = shape.tokens();
            let qkv = h.narrow(&random(1, t * 12));
            let from = h.index(&self.0.attend_from());
            let (mut out, mut log_sum) = (h.unset_narrow(t * 4), h.unset_wide(t));
            let mut scratch = h.unset_narrow(B::attention_scratch(shape, false));
            b.attention(shape, &qkv, &from, &mut out, &mut log_sum, &mut scratch);
            vec![("out", h.read_narrow(&out, t * 4)), ("log sum", h.read(&log_sum, t))]
        }
    }
    check(&Large(Attention { rows: 1, context: 700, heads: 1, kv_heads: 1, head_dim: 4, mask: Mask::All }));
}

struct Norm(NormShape);

impl Case for Norm {
    fn name(&self) -> String {
        format!("{:?}", self.0)
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let shape = self.0;
        let len = shape.rows * shape.stride;
        let stats = shape.rows * shape.segments;
        let (values, w) = (random(1, len), h.wide(&random(2, shape.width)));
        let grads = random(3, len);
        let xn = h.narrow(&values);
        let mut rstd = h.unset_wide(stats);
        let mut grad_w = h.wide(&random(4, shape.width));
        let mut outputs = Vec::new();
        if shape.segments == 1 && shape.stride == shape.width {
            let (mut x, mut y, mut sum) = (h.unset_narrow(len), h.unset_narrow(len), h.wide(&grads));
            // A hair off what bf16 holds: what is kept is rounded.
            let stream: Vec<f32> = values.iter().map(|v| v * (1.0 + 1e-5)).collect();
            b.norm(shape, 1e-5, &h.wide(&stream), &w, &mut x, &mut y, &mut rstd);
            let mut again = h.unset_narrow(len);
            b.norm_segments(shape, 1e-5, &x, &w, &mut again, &mut rstd);
            b.norm_residual(shape, 1e-5, &xn, &w, &mut sum, &mut rstd);
            let (mut grad, mut copy) = (h.wide(&random(5, len)), h.unset_narrow(len));
            b.norm_backward(shape, &x, &w, &rstd, &h.narrow(&grads), &mut grad, &mut copy, &mut grad_w);
            let mut grad_x = h.unset_narrow(len);
            b.norm_residual_backward(shape, &xn, &w, &rstd, &h.wide(&grads), &mut grad_x, &mut grad_w);
            outputs.extend([
                ("x", h.read_narrow(&x, len)),
                ("y", h.read_narrow(&y, len)),
                ("y again", h.read_narrow(&again, len)),
                ("residual", h.read(&sum, len)),
                ("grad", h.read(&grad, len)),
                ("copy", h.read_narrow(&copy, len)),
                ("grad x", h.read_narrow(&grad_x, len)),
            ]);
        }
        let (mut y, mut grad) = (h.narrow(&random(6, len)), h.narrow(&grads));
        b.norm_segments(shape, 1e-5, &xn, &w, &mut y, &mut rstd);
        b.norm_segments_backward(shape, &xn, &w, &rstd, &mut grad, &mut grad_w);
        outputs.extend([
            ("segments", h.read_narrow(&y, len)),
            ("rstd", h.read(&rstd, stats)),
            ("grad of segments", h.read_narrow(&grad, len)),
            ("grad w", h.read(&grad_w, shape.width)),
        ]);
        outputs
    }
}

#[test]
fn norms() {
    // A norm over one value has no gradient but rounding.
    for (rows, width) in [(1, 2), (3, 5), (63, 15), (64, 16), (65, 17), (130, 256), (5, 577)] {
        let shape = NormShape::whole(rows, width);
        check(&Norm(shape));
        check(&Norm(NormShape { zero_centred: true, ..shape }));
    }
    for (rows, stride, offset, segments, width) in
        [(7, 24, 8, 2, 4), (65, 96, 0, 4, 16), (66, 100, 64, 1, 33), (1, 1000, 10, 3, 300)]
    {
        for zero_centred in [false, true] {
            check(&Norm(NormShape { rows, stride, offset, segments, width, zero_centred }));
        }
    }
}

struct Pointwise {
    rows: usize,
    width: usize,
}

impl Case for Pointwise {
    fn name(&self) -> String {
        format!("pointwise {} x {}", self.rows, self.width)
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let (t, d) = (self.rows, self.width);
        let len = t * d;
        let mut outputs = Vec::new();

        let gates = [
            (Gate::Silu, ["swiglu", "swiglu again", "grad of swiglu"]),
            (Gate::GeluTanh, ["geglu", "geglu again", "grad of geglu"]),
        ];
        for (gate, names) in gates {
            let mut gate_up = h.narrow(&random(1, 2 * len));
            let (mut y, mut again) = (h.unset_narrow(len), h.unset_narrow(len));
            b.glu(gate, t, d, &gate_up, &mut y);
            b.glu_backward(gate, t, d, &h.narrow(&random(2, len)), &mut gate_up, &mut again);
            outputs.push((names[0], h.read_narrow(&y, len)));
            outputs.push((names[1], h.read_narrow(&again, len)));
            outputs.push((names[2], h.read_narrow(&gate_up, 2 * len)));
        }

        let vocab = 37;
        let ids = h.index(&random_ids(3, t, vocab));
        let mut rows = h.unset_wide(len);
        b.embed(t, d, 25.3, &h.wide(&random(4, vocab * d)), &ids, &mut rows);
        let mut table = h.wide(&random(5, vocab * d));
        b.embed_backward(t, d, 0.7, &h.wide(&random(6, len)), &ids, &mut table);
        outputs.push(("embedding", h.read(&rows, len)));
        outputs.push(("grad of embedding", h.read(&table, vocab * d)));

        let (mut biased, mut sum) = (h.narrow(&random(10, len)), h.wide(&random(11, d)));
        b.add_bias(t, d, &h.wide(&random(12, d)), &mut biased);
        b.bias_grad(t, d, &h.narrow(&random(13, len)), &mut sum);
        outputs.push(("biased", h.read_narrow(&biased, len)));
        outputs.push(("grad of bias", h.read(&sum, d)));

        let mut columns = h.narrow(&random(7, len));
        b.copy_columns(t, d, d / 3, d - d / 3, &h.narrow(&random(8, len)), &mut columns);
        outputs.push(("columns", h.read_narrow(&columns, len)));

        let mut zeroed = h.wide(&random(9, len));
        b.zero(len - 1, &mut zeroed);
        outputs.push(("zero", h.read(&zeroed, len)));
        outputs
    }
}

#[test]
fn pointwise() {
    for (rows, width) in [(1, 1), (2, 3), (31, 15), (32, 16), (33, 17), (100, 255), (9, 2000)] {
        check(&Pointwise { rows, width });
    }
}

struct Rope {
    rows: usize,
    context: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Case for Rope {
    fn name(&self) -> String {
        format!("rope {} tokens, heads of {}", self.rows * self.context, self.head_dim)
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let Rope { rows, context, heads, kv_heads, head_dim } = *self;
        let shape = AttentionShape { rows, context, heads, kv_heads, head_dim, scale: 1.0 };
        let len = shape.tokens() * shape.qkv_width();
        let half = head_dim / 2;
        let position = h.index(&random_ids(1, shape.tokens(), 50));
        let (cos, sin) = (h.wide(&random(2, 50 * half)), h.wide(&random(3, 50 * half)));
        let (mut forward, mut backward) = (h.narrow(&random(4, len)), h.narrow(&random(5, len)));
        b.rope(shape, &position, &cos, &sin, false, &mut forward);
        b.rope(shape, &position, &cos, &sin, true, &mut backward);
        vec![("forward", h.read_narrow(&forward, len)), ("backward", h.read_narrow(&backward, len))]
    }
}

#[test]
fn rope() {
    check(&Rope { rows: 1, context: 1, heads: 1, kv_heads: 1, head_dim: 2 });
    check(&Rope { rows: 2, context: 33, heads: 3, kv_heads: 1, head_dim: 16 });
    check(&Rope { rows: 1, context: 64, heads: 4, kv_heads: 2, head_dim: 66 });
}

struct Loss {
    tokens: usize,
    width: usize,
    vocab: usize,
    z_loss: f64,
}

impl Case for Loss {
    fn name(&self) -> String {
        let Loss { tokens, width, vocab, z_loss } = self;
        format!("loss {tokens} x {width}, {vocab} classes, z {z_loss}")
    }

    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let (t, d, v) = (self.tokens, self.width, self.vocab);
        let shape = LossShape { tokens: t, width: d, vocab: v, gradient_scale: 0.25, z_loss: self.z_loss };
        let x = h.narrow(&random(1, t * d));
        let w = h.wide(&random(2, v * d));
        let mut targets = random_ids(3, t, v);
        targets.iter_mut().step_by(5).skip(1).for_each(|target| *target = IGNORE);
        let targets = h.index(&targets);
        let (mut alone, mut nll) = (h.unset_wide(t), h.unset_wide(t));
        let mut scratch = h.unset_narrow(B::loss_scratch(t, v));
        b.loss(shape, &x, &w, &targets, &mut alone, &mut scratch);
        let (mut dx, mut dw) = (h.unset_narrow(t * d), h.unset_wide(v * d));
        b.loss_backward(shape, &x, &w, &targets, &mut nll, &mut dx, false, &mut dw, &mut scratch);
        let once = h.read(&dw, v * d);
        b.loss_backward(shape, &x, &w, &targets, &mut nll, &mut dx, true, &mut dw, &mut scratch);
        vec![
            ("nll alone", h.read(&alone, t)),
            ("nll", h.read(&nll, t)),
            ("grad x", h.read_narrow(&dx, t * d)),
            ("grad w", once),
            ("grad w twice", h.read(&dw, v * d)),
        ]
    }
}

#[test]
fn loss() {
    for (tokens, width, vocab) in [
        (1, 2, 1),
        (1, 4, 3),
        (15, 16, 31),
        (16, 32, 32),
        (17, 18, 33),
        (70, 24, 1000),
        (40, 6, 5003),
        (40, 6, 5004),
    ] {
        check(&Loss { tokens, width, vocab, z_loss: 0.0 });
    }
    check(&Loss { tokens: 20, width: 8, vocab: 50, z_loss: 0.1 });
}

/// What Muon does besides products.
struct MuonParts {
    rows: usize,
    columns: usize,
    /// Where the matrix begins in its buffer.
    at: usize,
    nesterov: bool,
}

impl Case for MuonParts {
    fn name(&self) -> String {
        format!("muon {} x {} from {}", self.rows, self.columns, self.at)
    }
    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let (n, at) = (self.rows * self.columns, self.at);
        let (grad, mut weight) = (h.wide(&random(1, at + n + 3)), h.wide(&random(2, at + n + 3)));
        let (mut momentum, mut direction) = (h.wide(&random(3, at + n + 3)), h.unset_wide(n));
        let constants = Momentum { momentum: 0.95, nesterov: self.nesterov, gradient_scale: 0.5 };
        b.momentum(at, n, constants, &grad, &mut momentum, &mut direction);
        let first = h.read(&direction, n);
        let (mut copy, mut turned) = (h.unset_narrow(n), h.unset_narrow(n));
        b.combine(n, 0.25, &mut direction, None, &mut copy);
        let (scaled, rounded) = (h.read(&direction, n), h.read_narrow(&copy, n));
        b.transpose(self.rows, self.columns, &copy, &mut turned);
        let turned = h.read_narrow(&turned, n);
        b.combine(n, 3.4, &mut direction, Some((-0.7, &grad)), &mut copy);
        b.descend(at, n, 0.99, 0.1, &direction, &mut weight);
        vec![
            ("momentum", h.read(&momentum, at + n + 3)),
            ("direction", first),
            ("scaled", scaled),
            ("rounded", rounded),
            ("turned", turned),
            ("sum", h.read(&direction, n)),
            ("sum, rounded", h.read_narrow(&copy, n)),
            ("weight", h.read(&weight, at + n + 3)),
        ]
    }
}

/// One update by Muon of a slot of two matrices, one wide, one tall.
struct MuonUpdate(usize, usize);

impl Case for MuonUpdate {
    fn name(&self) -> String {
        format!("an update of {} x {}", self.0, self.1)
    }
    fn run<B: Backend>(&self, b: &B) -> Outputs {
        let h = Host(b);
        let n = self.0 * self.1;
        let shapes = [("a", vec![self.0, self.1]), ("b", vec![self.1, self.0])];
        let slot = slot(Role::Matrix, shapes.map(|(name, shape)| (name.to_owned(), shape)));
        let (grad, mut momentum) = (h.wide(&random(1, 2 * n)), h.wide(&random(2, 2 * n)));
        let mut weight = h.wide(&vec![0.0; 2 * n]);
        let largest = Largest::of_slots([&slot]);
        let mut orthogonaliser = Orthogonaliser::new(b, largest).unwrap();
        let muon = Muon::default();
        let hyper = Hyper { lr: 1.0, muon: Some(muon), ..Hyper::default() };
        let step = constants(&hyper, muon, 0.5);
        orthogonaliser.update(b, &slot, step, &grad, &mut weight, &mut momentum);
        vec![("weight", h.read(&weight, 2 * n)), ("momentum", h.read(&momentum, 2 * n))]
    }
}

/// f32 in all formats: weights and moments are wide everywhere.
#[test]
fn adamw() {
    struct Update(usize);
    impl Case for Update {
        fn name(&self) -> String {
            format!("adamw {}", self.0)
        }
        fn run<B: Backend>(&self, b: &B) -> Outputs {
            let h = Host(b);
            let n = self.0;
            let constants = AdamW {
                lr: 0.01,
                betas: [0.9, 0.95],
                eps: 1e-8,
                weight_decay: 0.1,
                corrections: [0.271, 0.142_625],
                gradient_scale: 0.5,
            };
            let (mut w, mut m) = (h.wide(&random(1, n)), h.wide(&random(2, n)));
            let squares: Vec<f32> = random(3, n).iter().map(|x| x * x).collect();
            let mut v = h.wide(&squares);
            let grad = h.wide(&random(4, n));
            b.adamw(n, constants, &grad, &mut w, &mut m, &mut v);
            let norm = b.squared_norm(n, &grad) as f32;
            vec![
                ("weight", h.read(&w, n)),
                ("first", h.read(&m, n)),
                ("second", h.read(&v, n)),
                ("squared norm", vec![norm]),
            ]
        }
    }
    for n in [1, 15, 16, 17, 16384, 16385, 70_000] {
        check(&Update(n));
    }
}

#[test]
fn muon() {
    for (rows, columns, at) in [(1, 1, 0), (3, 70, 1), (32, 33, 16), (65, 31, 8), (64, 128, 0), (200, 300, 5)]
    {
        check(&MuonParts { rows, columns, at, nesterov: at % 2 == 0 });
    }
}

#[test]
fn an_update_by_muon() {
    // The steps amplify what rounding does to the smallest singular values, so within wide bounds, and of
    // matrices that have no very small ones.
    for (rows, columns) in [(1, 1), (2, 7), (16, 48), (33, 100), (64, 300)] {
        check_within(&MuonUpdate(rows, columns), 2e-3, 5e-2);
    }
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    fn check<B: Backend>(b: &B) {
        let h = Host(b);
        let shape =
            AttentionShape { rows: 1, context: 300, heads: 2, kv_heads: 1, head_dim: 16, scale: 0.25 };
        let (width, out_width) = (shape.qkv_width(), shape.out_width());
        let run = |values: &[f32]| {
            let (mut out, mut log_sum) = (h.unset_narrow(300 * out_width), h.unset_wide(600));
            let from = h.index(&[0; 300]);
            let mut scratch = h.unset_narrow(B::attention_scratch(shape, false));
            b.attention(shape, &h.narrow(values), &from, &mut out, &mut log_sum, &mut scratch);
            h.read_narrow(&out, 300 * out_width)
        };
        let mut values = random(1, 300 * width);
        let before = run(&values);
        values[200 * width..].iter_mut().for_each(|x| *x = -*x);
        let after = run(&values);
        assert_eq!(before[..200 * out_width], after[..200 * out_width], "{}", b.describe());
        assert_ne!(before[200 * out_width..], after[200 * out_width..]);
    }
    check(&Cpu::<f32>::new(Some(2)).unwrap());
    check(&Cpu::<bf16>::new(Some(2)).unwrap());
}

#[test]
fn a_packed_row_equals_its_documents_alone() {
    fn check<B: Backend>(b: &B, tolerance: f64) {
        let h = Host(b);
        let lengths = [1, 70, 129, 100];
        let context: usize = lengths.iter().sum();
        let shape =
            |context| AttentionShape { rows: 1, context, heads: 2, kv_heads: 2, head_dim: 16, scale: 0.25 };
        let (width, out_width) = (shape(1).qkv_width(), shape(1).out_width());
        let values = random(1, context * width);
        let run = |values: &[f32], from: &[u32]| {
            let n = from.len();
            let (mut out, mut log_sum) = (h.unset_narrow(n * out_width), h.unset_wide(n * 2));
            let mut scratch = h.unset_narrow(B::attention_scratch(shape(n), false));
            b.attention(shape(n), &h.narrow(values), &h.index(from), &mut out, &mut log_sum, &mut scratch);
            h.read_narrow(&out, n * out_width)
        };
        let starts: Vec<usize> = lengths
            .iter()
            .scan(0, |end, n| {
                *end += n;
                Some(*end - n)
            })
            .collect();
        let from: Vec<u32> = starts.iter().zip(lengths).flat_map(|(s, n)| vec![*s as u32; n]).collect();
        let packed = run(&values, &from);
        for (start, n) in starts.into_iter().zip(lengths) {
            let alone = run(&values[start * width..(start + n) * width], &vec![0; n]);
            let part = &packed[start * out_width..(start + n) * out_width];
            compare(&b.describe(), "packed", "out", part, &alone, tolerance);
        }
    }
    check(&Cpu::<f32>::new(Some(2)).unwrap(), 1e-5);
    check(&Cpu::<bf16>::new(Some(2)).unwrap(), 1e-2);
}

/// Every operation of a device backend, whose kernels take dimensions in multiples of 8 and heads of a
/// few sizes only, against the reference.
pub(super) fn on_device(backend: &impl Backend) {
    const DOCUMENTS: &[usize] = &[70, 1, 60];
    fn against(backend: &impl Backend, case: &impl Case) {
        within(1e-2, backend, case);
    }
    fn within(tolerance: f64, backend: &impl Backend, case: &impl Case) {
        let expected = case.run(&Reference::<f64>::default());
        let outputs = case.run(backend);
        for ((name, got), (_, expected)) in outputs.iter().zip(&expected) {
            compare(&backend.describe(), &case.name(), name, got, expected, tolerance);
        }
    }
    for (rows, inputs, outputs) in [(1, 8, 8), (70, 136, 264), (130, 264, 136), (257, 64, 328)] {
        against(backend, &Linear { rows, inputs, outputs });
    }
    for (heads, head_dim) in [(3, 32), (2, 64), (3, 96), (2, 128)] {
        against(backend, &Fused::new(2, heads, head_dim, 72, 136));
    }
    for (context, head_dim) in [(1, 64), (65, 32), (64, 64), (70, 96), (130, 128), (66, 256), (200, 64)] {
        let mask = if context == 200 { Mask::Documents(DOCUMENTS) } else { Mask::All };
        against(backend, &Attention { rows: 2, context, heads: 4, kv_heads: 2, head_dim, mask });
    }
    for (context, head_dim) in [(200, 64), (200, 128), (130, 32), (200, 96)] {
        for mask in [Mask::Window(1), Mask::Window(50), Mask::Window(64), Mask::Within(DOCUMENTS, 33)] {
            against(backend, &Attention { rows: 1, context, heads: 4, kv_heads: 2, head_dim, mask });
        }
    }
    for (rows, width) in [(1, 8), (65, 64), (9, 2000)] {
        against(backend, &Norm(NormShape::whole(rows, width)));
        against(backend, &Pointwise { rows, width });
    }
    for zero_centred in [false, true] {
        let segments = NormShape { rows: 65, stride: 96, offset: 0, segments: 4, width: 16, zero_centred };
        against(backend, &Norm(segments));
        let one = NormShape { rows: 3, stride: 384, offset: 64, segments: 1, width: 300, zero_centred };
        against(backend, &Norm(one));
    }
    against(backend, &Rope { rows: 2, context: 33, heads: 3, kv_heads: 1, head_dim: 32 });
    against(backend, &Loss { tokens: 33, width: 64, vocab: 301, z_loss: 0.0 });
    against(backend, &Loss { tokens: 200, width: 8, vocab: 50, z_loss: 0.1 });
    for (rows, columns, at) in [(1, 8, 0), (3, 70, 1), (65, 136, 16), (200, 64, 8)] {
        against(backend, &MuonParts { rows, columns, at, nesterov: at == 16 });
    }
    for (rows, columns) in [(8, 24), (32, 104), (64, 296)] {
        within(5e-2, backend, &MuonUpdate(rows, columns));
    }
}

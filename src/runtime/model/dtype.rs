//! How numbers of a weight file are stored, and their way to and from f32.

use half::{bf16, f16};

/// A stored number format that can be both read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl Dtype {
    /// Bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Whether `value` is still a finite number when it is stored.
    pub fn holds(self, value: f32) -> bool {
        match self {
            Self::F32 => value.is_finite(),
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::Bf16 => bf16::from_f32(value).is_finite(),
        }
    }

    /// PyTorch's name: `float32`, `float16`, `bfloat16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The format with PyTorch's name, `torch.` before it or not.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" | "float" => Some(Self::F32),
            "float16" | "half" => Some(Self::F16),
            "bfloat16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The name in a safetensors header.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The format with that name in a safetensors header.
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|d| d.tag() == tag)
    }

    /// Little-endian bytes to numbers; `out.len() * size()` bytes.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *to = f32::from_le_bytes(*from);
                }
            }
            Self::F16 => {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = f16::from_le_bytes(*from).to_f32();
                }
            }
            Self::Bf16 => {
                for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = bf16::from_le_bytes(*from).to_f32();
                }
            }
        }
    }

    /// Numbers to little-endian bytes, to the nearest even where digits are lost.
    pub(super) fn encode(self, numbers: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(numbers.iter().flat_map(|v| v.to_le_bytes())),
            Self::F16 => out.extend(numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
            Self::Bf16 => out.extend(numbers.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
        }
    }
}

//! The two number formats of narrow values: f32 and bf16.

use half::bf16;

use super::buffer::Plain;
#[cfg(target_arch = "x86_64")]
use super::simd;

/// What the kernels ask of a format.
#[cfg(target_arch = "x86_64")]
pub(crate) trait Kernels:
    simd::Element + simd::Stored<Self> + simd::Stored<f32> + simd::Stored<simd::Avx2>
{
}
#[cfg(target_arch = "x86_64")]
impl Kernels for f32 {}
#[cfg(target_arch = "x86_64")]
impl Kernels for bf16 {}

/// Elsewhere there are none.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) trait Kernels {}
#[cfg(not(target_arch = "x86_64"))]
impl<E> Kernels for E {}

/// What the kernels multiply for a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// Values as they are stored, with AVX-512.
    Own,
    /// Values widened to f32 on their way, with AVX-512: a processor without AVX512-BF16 or with a slow one,
    /// or a sum of an odd number of bf16, whose pairs must not be torn.
    Wide,
    /// f32 with AVX2, whatever the format.
    Avx2,
}

impl Arithmetic {
    /// For processors without AVX-512.
    pub(crate) fn without_avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return simd::has_avx2().then_some(Arithmetic::Avx2);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }
}

/// Call a function of the kernels, generic over what is multiplied and what is stored.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($arithmetic:expr, $stored:ty, $($function:ident)::+ ($($argument:expr),* $(,)?)) => {
        match $arithmetic {
            Arithmetic::Own => $($function)::+::<$stored, $stored>($($argument),*),
            Arithmetic::Wide => $($function)::+::<f32, $stored>($($argument),*),
            Arithmetic::Avx2 => $($function)::+::<simd::Avx2, $stored>($($argument),*),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use kernel;

/// A format narrow values are stored in. Arithmetic is in f32.
pub(crate) trait Element: Default + Send + Sync + Plain + Kernels + 'static {
    /// For logs.
    const NAME: &'static str;

    /// As f32, exactly.
    fn get(self) -> f32;
    /// Rounded to nearest, ties to even.
    fn of(value: f32) -> Self;
    /// The same slice, where the format is f32 already.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;
    /// The same slice, where the format is f32 already.
    fn as_f32_mut(values: &mut [Self]) -> Option<&mut [f32]>;
    /// The same slice, where the format is bf16.
    fn as_bf16(_values: &[Self]) -> Option<&[bf16]> {
        None
    }
    /// The same slice, where the format is bf16.
    fn as_bf16_mut(_values: &mut [Self]) -> Option<&mut [bf16]> {
        None
    }
    /// By what the kernels sum over `k` values of the format, if this processor runs any.
    fn arithmetic(k: usize) -> Option<Arithmetic>;
}

impl Element for f32 {
    const NAME: &'static str = "f32";

    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(value: f32) -> f32 {
        value
    }

    fn as_f32(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_f32_mut(values: &mut [f32]) -> Option<&mut [f32]> {
        Some(values)
    }

    fn arithmetic(_k: usize) -> Option<Arithmetic> {
        #[cfg(target_arch = "x86_64")]
        if simd::has_f32() {
            return Some(Arithmetic::Own);
        }
        Arithmetic::without_avx512()
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without branches, so that loops over it become vector instructions.
    #[inline(always)]
    fn of(value: f32) -> bf16 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could carry a NaN's payload over into an infinity.
        bf16::from_bits(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }

    fn as_bf16(values: &[bf16]) -> Option<&[bf16]> {
        Some(values)
    }

    fn as_bf16_mut(values: &mut [bf16]) -> Option<&mut [bf16]> {
        Some(values)
    }

    fn as_f32(_: &[bf16]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_: &mut [bf16]) -> Option<&mut [f32]> {
        None
    }

    fn arithmetic(k: usize) -> Option<Arithmetic> {
        #[cfg(target_arch = "x86_64")]
        if simd::prefers_bf16() && k.is_multiple_of(2) {
            return Some(Arithmetic::Own);
        } else if simd::has_f32() {
            return Some(Arithmetic::Wide);
        }
        let _ = k;
        Arithmetic::without_avx512()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_equals_the_half_crate() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40];
        let many = (0..200_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9)));
        for x in special.into_iter().chain(many).filter(|x| !x.is_nan()) {
            assert_eq!(<bf16 as Element>::of(x).to_bits(), bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(<bf16 as Element>::of(f32::from_bits(0x7fff_ffff)).get().is_nan());
        assert!(<bf16 as Element>::of(f32::from_bits(0x7f80_0001)).get().is_nan());
    }
}

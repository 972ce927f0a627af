//! The two number formats of narrow values: f32 and bf16.

use half::bf16;

use super::buffer::Plain;

/// What the AVX-512 kernels ask of a format.
#[cfg(target_arch = "x86_64")]
pub(crate) use super::simd::Element as Kernels;

/// Elsewhere there are none.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) trait Kernels {}
#[cfg(not(target_arch = "x86_64"))]
impl<E> Kernels for E {}

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
    /// Whether this processor has the AVX-512 kernels of the format.
    fn has_kernels() -> bool;
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

    fn has_kernels() -> bool {
        #[cfg(target_arch = "x86_64")]
        return super::simd::has_f32();
        #[cfg(not(target_arch = "x86_64"))]
        false
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

    fn as_f32(_: &[bf16]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_: &mut [bf16]) -> Option<&mut [f32]> {
        None
    }

    fn has_kernels() -> bool {
        #[cfg(target_arch = "x86_64")]
        return super::simd::has_bf16();
        #[cfg(not(target_arch = "x86_64"))]
        false
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

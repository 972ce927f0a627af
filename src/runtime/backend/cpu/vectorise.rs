//! One plain loop, compiled for AVX-512, for AVX2 and for the least processor; the best this machine
//! has is taken at run time. Knows nothing of what the loops compute.

use std::sync::OnceLock;

/// Instruction set that plain loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// AVX-512 F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every processor of the target has.
    Plain,
}

/// The best level of this machine.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
            {
                return Level::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Plain
    })
}

/// `a · b + c`, in one rounding where the instruction exists (`FMA`): without it the exact function is
/// a slow library call.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Lanes of a reduction. Fixed, so that sums do not depend on the instruction set's width.
pub(super) const LANES: usize = 16;

/// Sum of lanes in a fixed order.
#[inline(always)]
pub(super) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Defines functions whose bodies are compiled for each [`Level`]. Bodies may use the constant `FMA`.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident$(<$($e:ident: $bound:path),+>)?(
            $($arg:ident: $ty:ty),* $(,)?
        ) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name$(<$($e: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$($($e: $bound,)+)? const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512$(<$($e: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<$($($e,)+)? true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($e: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    body::<$($($e,)+)? true>($($arg),*)
                }
                match $crate::runtime::backend::cpu::vectorise::level() {
                    // SAFETY: `level` returns a level only after detecting its features.
                    $crate::runtime::backend::cpu::vectorise::Level::Avx512 => unsafe {
                        avx512$(::<$($e),+>)?($($arg),*)
                    },
                    // SAFETY: as above.
                    $crate::runtime::backend::cpu::vectorise::Level::Avx2 => unsafe {
                        avx2$(::<$($e),+>)?($($arg),*)
                    },
                    $crate::runtime::backend::cpu::vectorise::Level::Plain => {
                        body::<$($($e,)+)? false>($($arg),*)
                    }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body::<$($($e,)+)? false>($($arg),*)
        }
    )*};
}

pub(super) use vectorised;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up() {
        let lanes: [f32; LANES] = std::array::from_fn(|i| i as f32);
        assert_eq!(sum_lanes(lanes), 120.0);
    }
}

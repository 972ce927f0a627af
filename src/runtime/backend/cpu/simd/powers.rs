//! Powers of two: where they end, and polynomials for what lies between two of them.

/// Where 2^x is 0. Smaller ones weigh nothing in any sum, and what is multiplied with them would be
/// denormal, which takes some processors a hundred times as long.
pub(super) const LEAST: f32 = -100.0;

/// Polynomials for 2^f, |f| ≤ 1/2, with the least relative error of their degree among those that are 1 at
/// 0: 2.0e-9 and, for what is rounded to bf16, 2.9e-6.
pub(super) const FULL: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_48,
    0.055_503_324,
    0.009_618_438,
    0.001_339_887_4,
    1.535_336_2e-4,
];
pub(super) const SHORT: [f32; 5] = [1.0, 0.693_124_2, 0.240_240_99, 0.055_906_425, 0.009_582_853];

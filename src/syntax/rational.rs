//! Exact fractions. There are no operators for what can leave the range: a sum that wraps would be a
//! wrong plan that nobody sees, so whoever adds has to say what happens when exact arithmetic ends.

use std::fmt;
use std::ops::Neg;

use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedMul, CheckedSub};

/// An exact number: a reduced fraction whose numerator and denominator are below 2^127 in magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rational(Ratio<i128>);

impl Rational {
    /// 0.
    pub const ZERO: Self = Self(Ratio::new_raw(0, 1));
    /// 1.
    pub const ONE: Self = Self(Ratio::new_raw(1, 1));

    /// A whole number.
    pub const fn from_integer(n: i64) -> Self {
        Self(Ratio::new_raw(n as i128, 1))
    }

    /// `over / under`, reduced; `None` when `under` is not above zero, or `over` is -2^127.
    pub fn new(over: i128, under: i128) -> Option<Self> {
        if under <= 0 { None } else { Self::kept(Ratio::new(over, under)) }
    }

    /// Every number can be negated: the one numerator that cannot is no number here.
    fn kept(ratio: Ratio<i128>) -> Option<Self> {
        (*ratio.numer() != i128::MIN).then_some(Self(ratio))
    }

    /// The numerator, which has the sign.
    pub fn numer(self) -> i128 {
        *self.0.numer()
    }

    /// The denominator, above zero.
    pub fn denom(self) -> i128 {
        *self.0.denom()
    }

    /// The sum; `None` when it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(&other.0).and_then(Self::kept)
    }

    /// The difference; `None` when it does not fit.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(&other.0).and_then(Self::kept)
    }

    /// The product; `None` when it does not fit.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        self.0.checked_mul(&other.0).and_then(Self::kept)
    }

    /// The quotient; `None` when it does not fit or `other` is zero.
    pub fn checked_div(self, other: Self) -> Option<Self> {
        let sign = other.numer().signum();
        self.checked_mul(Self::new(other.denom() * sign, other.numer().abs())?)
    }

    /// Whether the denominator is 1.
    pub fn is_integer(self) -> bool {
        self.0.is_integer()
    }

    /// The largest whole number that is not above it.
    pub fn floor(self) -> i128 {
        self.numer().div_euclid(self.denom())
    }

    /// The smallest whole number that is not below it.
    pub fn ceil(self) -> i128 {
        self.floor() + i128::from(!self.is_integer())
    }

    /// This share of `whole`, exact however long the fraction is: what is full, and the fraction
    /// that is left over. `None` for a negative share, and for more than fits.
    pub fn of(self, whole: u64) -> Option<(u64, Self)> {
        let (over, under) = (u128::try_from(self.numer()).ok()?, self.denom().unsigned_abs());
        let mut full = (over / under).checked_mul(u128::from(whole))?;
        // Long multiplication, bit by bit: what is carried stays below twice the denominator.
        let (part, mut left, mut quotient) = (over % under, 0u128, 0u128);
        for bit in (0..u64::BITS).rev() {
            quotient *= 2;
            let addends = [left, if whole >> bit & 1 == 1 { part } else { 0 }];
            for addend in addends {
                left += addend;
                if left >= under {
                    left -= under;
                    quotient += 1;
                }
            }
        }
        full = full.checked_add(quotient)?;
        let left = Self::new(i128::try_from(left).ok()?, self.denom())?;
        Some((u64::try_from(full).ok()?, left))
    }
}

impl From<u64> for Rational {
    fn from(n: u64) -> Self {
        Self(Ratio::from_integer(i128::from(n)))
    }
}

impl Neg for Rational {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

/// `3/4`, or `3` for a whole number.
impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_said() {
        let (large, tiny) = (Rational::new(i128::MAX, 1).unwrap(), Rational::new(1, i128::MAX).unwrap());
        assert_eq!(large.checked_add(Rational::ONE), None);
        assert_eq!((-large).checked_sub(Rational::ONE), None, "-2^127 is no number");
        assert_eq!(large.checked_mul(large), None);
        assert_eq!(large.checked_div(tiny), None);
        assert_eq!(Rational::ONE.checked_div(Rational::ZERO), None);
        assert_eq!(Rational::ONE.checked_div(-tiny), Some(-large));
        assert_eq!(Rational::new(1, 0), None);
        assert_eq!(Rational::new(i128::MIN, 3), None);
        assert_eq!((tiny.floor(), tiny.ceil()), (0, 1));
        assert_eq!(((-tiny).floor(), (-tiny).ceil()), (-1, 0));
        assert_eq!((large.floor(), (-large).floor()), (i128::MAX, -i128::MAX));
    }

    #[test]
    fn a_share_of_a_whole_is_exact_where_the_product_does_not_fit() {
        let share = Rational::new(i128::MAX - 1, i128::MAX).unwrap();
        let (full, left) = share.of(u64::MAX).unwrap();
        assert_eq!(full, u64::MAX - 1);
        assert_eq!(left, Rational::new(i128::MAX - i128::from(u64::MAX), i128::MAX).unwrap());
        assert_eq!(Rational::from_integer(3).of(7), Some((21, Rational::ZERO)));
        assert_eq!(Rational::from_integer(2).of(u64::MAX), None);
        assert_eq!((-share).of(7), None);
    }

    proptest! {
        #[test]
        fn a_share_of_a_whole_is_the_product(over in 0..1u64 << 62, under in 1..1u64 << 62, whole: u64) {
            let share = Rational::new(i128::from(over), i128::from(under)).unwrap();
            if let Some(product) = share.checked_mul(Rational::from(whole))
                && let Ok(full) = u64::try_from(product.floor())
            {
                let (found, left) = share.of(whole).unwrap();
                prop_assert_eq!(found, full);
                prop_assert_eq!(Rational::from(found).checked_add(left), Some(product));
            }
        }
    }
}

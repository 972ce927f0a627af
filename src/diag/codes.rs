//! The table of diagnostic codes. A code is not done without an `explain` page and a ui test.

/// A diagnostic code: `Code(312)` prints as `E0312`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "E{:04}", self.0)
    }
}

/// One row of [`CODES`].
#[derive(Clone, Copy, Debug)]
pub struct CodeInfo {
    /// The number.
    pub code: Code,
    /// The lint's name, for codes that are lints.
    pub lint: Option<&'static str>,
    /// What it is, in a few words.
    pub title: &'static str,
}

/// Every code the compiler can print.
pub const CODES: &[CodeInfo] = &[];

//! Colours of sources: Tol's muted and bright schemes (personal.sron.nl/~pault), which stay apart
//! under the common colour-vision deficiencies, ordered so that neighbours differ in lightness.

/// Fill colours; sources past the tenth take them again, hatched.
pub(crate) const COLOURS: [&str; 10] = [
    "#4477aa", "#ddcc77", "#117733", "#ee8866", "#88ccee", "#aa4499", "#999933", "#cc6677", "#332288",
    "#44aa99",
];

/// What is left over when there are more sources than can be told apart.
pub(crate) const OTHER: &str = "#bbbbbb";

/// The most sources shown one by one.
pub(crate) const LIMIT: usize = 20;

/// Black or white, whichever reads better on `colour` (`#rrggbb`).
pub(crate) fn ink_on(colour: &str) -> &'static str {
    let channel = |at: usize| {
        colour.get(at..at + 2).and_then(|h| u8::from_str_radix(h, 16).ok()).map_or(0.0, f64::from) / 255.0
    };
    // Relative luminance of WCAG 2 with the gamma taken as 2.2.
    let luminance =
        0.2126 * channel(1).powf(2.2) + 0.7152 * channel(3).powf(2.2) + 0.0722 * channel(5).powf(2.2);
    if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) { "#000000" } else { "#ffffff" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_contrasts() {
        assert_eq!(ink_on("#332288"), "#ffffff");
        assert_eq!(ink_on("#ddcc77"), "#000000");
        assert_eq!(ink_on("x"), "#ffffff");
    }
}

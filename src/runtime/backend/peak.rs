//! What a device can do: the rate of its best large matrix product, to hold training against.

use super::Backend;
use crate::runtime::engine::EngineError;
use crate::runtime::random::{normal_pair, philox};

/// FLOP/s of the fastest of several products, by the clock `now` in seconds. Each size runs three
/// times or for `seconds`, whichever is longer.
///
/// # Errors
/// The operands cannot be allocated.
pub fn product_peak<B: Backend>(b: &B, now: &dyn Fn() -> f64, seconds: f64) -> Result<f64, EngineError> {
    let mut best = 0.0f64;
    for n in B::PEAK_SIDES.iter().copied() {
        let (values, mut x) = (b.wide(n * n).map(|w| filled(b, w, n * n))?, b.narrow(n * n)?);
        b.narrow_copy(n * n, &values, &mut x);
        let mut y = b.narrow(n * n)?;
        // The first run packs, faults pages in and wakes threads.
        b.linear(n, n, n, &x, &values, &mut y);
        b.finish()?;
        let (begin, mut runs) = (now(), 0);
        while runs < 3 || (now() - begin < seconds && runs < 1000) {
            let start = now();
            b.linear(n, n, n, &x, &values, &mut y);
            b.finish()?;
            best = best.max(2.0 * (n * n * n) as f64 / (now() - start));
            runs += 1;
        }
    }
    Ok(best)
}

/// `buffer` full of normal numbers: zeros would let some hardware off lightly.
fn filled<B: Backend>(b: &B, mut buffer: B::Wide, len: usize) -> B::Wide {
    let mut values = Vec::with_capacity(len + 3);
    for i in 0..len.div_ceil(4) as u32 {
        let [p, q, r, s] = philox(1, [i, 1, 0, 0]);
        values.extend(normal_pair(p, q).into_iter().chain(normal_pair(r, s)).map(|x| x as f32));
    }
    values.truncate(len);
    b.write(&values, &mut buffer, 0);
    buffer
}

//! Lines on standard error and standard output, where the standard macros panic when nobody can be
//! written to. What is said on the way may get lost: a pager that was closed or a log on a full disk must not
//! end a run. What was asked for may not, unless the reader has had enough.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

use miette::{IntoDiagnostic, WrapErr};

/// Say a line on standard error.
macro_rules! tell {
    ($($line:tt)*) => {
        $crate::cli::lines::error(format_args!($($line)*))
    };
}

pub(super) use tell;

/// What [`tell!`] does. One write, so that lines of several threads stay whole.
pub(super) fn error(line: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Write `text` to standard output.
///
/// # Errors
/// It cannot be written: the disk is full.
pub(super) fn output(text: &str) -> miette::Result<()> {
    put(&mut std::io::stdout().lock(), text)
}

fn put(out: &mut dyn Write, text: &str) -> miette::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.into_diagnostic().wrap_err("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails in one way.
    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_may_go_but_a_disk_may_not_be_full() {
        let mut out = Vec::new();
        put(&mut out, "a\n").unwrap();
        assert_eq!(out, b"a\n");
        put(&mut Broken(ErrorKind::BrokenPipe), "a").unwrap();
        assert!(put(&mut Broken(ErrorKind::StorageFull), "a").is_err());
    }
}

//! Messages in and out of streams. Unlike the reader of `lsp-server`, a body that cannot be read is
//! answered and skipped, and a broken header is skipped to the next one: no bytes end the server.

use std::io::{BufRead, Read as _, Write};

use serde_json::Value;

use super::message::{Incoming, error, parse};

/// A body longer than this is skipped: no message of the protocol comes near it.
const LONGEST_BODY: usize = 256 << 20;
/// A header line longer than this is no header.
const LONGEST_LINE: u64 = 8 << 10;

/// The next message; `None` at the end of the stream.
pub(super) fn read(input: &mut impl BufRead) -> Option<Incoming> {
    let mut length: Option<usize> = None;
    loop {
        let mut line = Vec::new();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
        if read == 0 {
            return None;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            match length {
                Some(_) => break,
                // Blank lines before a header are noise.
                None => continue,
            }
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok());
        }
    }
    let length = length?;
    if length > LONGEST_BODY {
        let skipped = std::io::copy(&mut input.take(length as u64), &mut std::io::sink()).ok()?;
        return (skipped == length as u64)
            .then(|| Incoming::Unreadable(error(-32700, "a message too long to read")));
    }
    let mut body = Vec::new();
    input.take(length as u64).read_to_end(&mut body).ok()?;
    if body.len() < length {
        return None;
    }
    Some(parse(&body))
}

/// Write one message; the caller flushes.
pub(super) fn write(output: &mut impl Write, message: &Value) -> std::io::Result<()> {
    let body = message.to_string();
    write!(output, "Content-Length: {}\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use lsp_server::Message;

    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<String> {
        std::iter::from_fn(|| read(&mut bytes))
            .map(|incoming| match incoming {
                Incoming::Message(Message::Notification(n)) => n.method,
                Incoming::Message(_) => "other".to_owned(),
                Incoming::Unreadable(value) => value["error"]["code"].to_string(),
            })
            .collect()
    }

    fn framed(body: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn bad_bodies_are_answered_and_skipped() {
        let good = framed("{\"jsonrpc\":\"2.0\",\"method\":\"a\"}");
        assert_eq!(all(good.as_bytes()), ["a"]);
        assert_eq!(all(format!("{}{good}", framed("{")).as_bytes()), ["-32700", "a"]);
        assert_eq!(all(format!("{}{good}", framed("[1]")).as_bytes()), ["-32600", "a"]);
        assert_eq!(all(format!("nonsense\r\n\r\n{good}").as_bytes()), ["a"]);
        assert_eq!(all(format!("content-length: 2\r\nX: y\r\n\r\n{{}}{good}").as_bytes()), ["-32600", "a"]);
        assert_eq!(all(b"Content-Length: 99999999999999999999\r\n\r\n"), [""; 0]);
        assert_eq!(all(b"Content-Length: 10\r\n\r\n{}"), [""; 0]);
        let mut deep = "[".repeat(100_000);
        deep.push_str(&"]".repeat(100_000));
        assert_eq!(all(format!("{}{good}", framed(&deep)).as_bytes()), ["-32700", "a"]);
    }
}

//! Addresses of files as clients write them, brought to one form.

use std::path::PathBuf;

/// `file:///a%20b/../c` as a key: scheme and authority kept, escapes resolved, `.` and `..` gone.
pub(super) fn key(uri: &str) -> String {
    match split(uri) {
        Some((head, path)) => format!("{head}{}", normal(&decode(path))),
        None => decode(uri),
    }
}

/// The key of `path` as seen from the file with key `from`.
pub(super) fn join(from: &str, path: &str) -> String {
    if path.contains("://") {
        return key(path);
    }
    let (head, base) = split(from).unwrap_or(("", from));
    let path = path.replace('\\', "/");
    if path.starts_with('/') {
        return format!("{head}{}", normal(&path));
    }
    let directory = base.rfind('/').map_or("", |slash| &base[..slash]);
    format!("{head}{}", normal(&format!("{directory}/{path}")))
}

/// The path of a key on this machine's disk, if that is where it is.
pub(super) fn to_path(key: &str) -> Option<PathBuf> {
    let path = key.strip_prefix("file://")?;
    // `/c:/x` is a drive of Windows.
    let drive = path.strip_prefix('/').filter(|p| p.as_bytes().get(1) == Some(&b':'));
    Some(PathBuf::from(drive.filter(|_| cfg!(windows)).unwrap_or(path)))
}

/// The key of a path on this machine's disk.
pub(super) fn from_path(path: &std::path::Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    let slash = if text.starts_with('/') { "" } else { "/" };
    format!("file://{slash}{text}")
}

/// A key as an address that every client can read.
pub(super) fn to_uri(key: &str) -> String {
    let (head, path) = split(key).unwrap_or(("", key));
    let mut out = head.to_owned();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char)
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// `scheme://authority` or `scheme:`, and the path, which begins with a slash.
fn split(uri: &str) -> Option<(&str, &str)> {
    let colon = uri.find(':')?;
    let scheme = uri[..colon].chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme {
        return None;
    }
    let rest = &uri[colon + 1..];
    if let Some(authority) = rest.strip_prefix("//") {
        let path = authority.find('/').map_or(uri.len(), |slash| colon + 3 + slash);
        return Some(uri.split_at(path));
    }
    rest.starts_with('/').then(|| uri.split_at(colon + 1))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_one_key() {
        assert_eq!(key("file:///a%20b/./c/../d.curriculum"), "file:///a b/d.curriculum");
        assert_eq!(to_uri("file:///a b/ü"), "file:///a%20b/%C3%BC");
        assert_eq!(join("file:///x/a.curriculum", "../lib/s.curriculum"), "file:///lib/s.curriculum");
        assert_eq!(join("file:///x/a.curriculum", "/s.curriculum"), "file:///s.curriculum");
        assert_eq!(join("vscode-vfs://host/x/a", "b"), "vscode-vfs://host/x/b");
        assert_eq!(key("untitled:Untitled-1"), "untitled:Untitled-1");
        assert_eq!(to_path("file:///a b"), Some(PathBuf::from("/a b")));
        assert_eq!(join("memfs:/x/a", "b"), "memfs:/x/b");
        assert_eq!(key("memfs:/a%20b"), "memfs:/a b");
        assert_eq!(to_path("untitled:x"), None);
        assert_eq!(key("file:///%FF%zz%"), "file:///%FF%zz%");
    }
}

//! The language server as a WebAssembly module: a page writes the JSON of a message into memory and
//! reads the JSON of a list of messages back. Knows no browser; `index.html` and the extension's
//! `server.worker.js` are its only callers.
//!
//! ```text
//! reserve(length) → where to write       handle(length) → length of the answer       answer() → where it is
//! ```

use std::cell::RefCell;

use midc::lsp::{NoDisk, Server};

struct Session {
    server: Server,
    input: Vec<u8>,
    output: Vec<u8>,
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::new(Session {
        server: Server::new(Box::new(NoDisk)),
        input: Vec::new(),
        output: Vec::new(),
    });
}

/// Room for a message of `length` bytes; where it begins.
#[unsafe(no_mangle)]
pub extern "C" fn reserve(length: usize) -> *mut u8 {
    SESSION.with_borrow_mut(|s| {
        s.input.clear();
        s.input.resize(length, 0);
        s.input.as_mut_ptr()
    })
}

/// Handle the message in the reserved room; how long the answer is.
#[unsafe(no_mangle)]
pub extern "C" fn handle() -> usize {
    SESSION.with_borrow_mut(|s| {
        let answers: Vec<String> = s.server.handle_json(&s.input).iter().map(|v| v.to_string()).collect();
        s.output = format!("[{}]", answers.join(",")).into_bytes();
        s.output.len()
    })
}

/// Where the last answer begins.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    SESSION.with_borrow(|s| s.output.as_ptr())
}

//! The language server: the only code that speaks the protocol. Synchronous: one thread reads, one
//! writes, one thinks. Knows no language; every answer comes from `ide`.
//!
//! ```text
//! stdin ─ transport ─▶ server ─ requests ─▶ ide        documents: open buffers over the disk
//!                        └─ publish ─▶ diagnostics     position: offsets in the client's units
//! ```
//!
//! Nothing but the protocol is ever written to standard output, and no input ends the server but
//! `exit` and the end of the stream.

mod config;
mod convert;
mod disk;
mod documents;
mod explain;
mod message;
mod position;
mod publish;
mod requests;
mod server;
#[cfg(feature = "native")]
mod stdio;
#[cfg(test)]
mod tests;
#[cfg(feature = "native")]
mod transport;
mod uri;

#[cfg(feature = "native")]
pub use disk::NativeDisk;
pub use disk::{Disk, NoDisk};
pub use server::{Server, Status};
#[cfg(feature = "native")]
pub use stdio::serve;

use serde_json::Value;

impl Server {
    /// Take one message as the text of its JSON, check what changed, and give back all that is to
    /// be told: for whoever has messages without streams, such as a browser.
    pub fn handle_json(&mut self, body: &[u8]) -> Vec<Value> {
        let mut out = Vec::new();
        match message::parse(body) {
            message::Incoming::Message(message) => {
                self.handle(message, &mut out);
                if self.pending() {
                    self.check(&mut out);
                }
            }
            message::Incoming::Unreadable(answer) => return vec![answer],
        }
        out.iter().map(message::to_json).collect()
    }
}

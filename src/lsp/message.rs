//! Messages and the text of their JSON. What cannot be read has its answer too.

use lsp_server::Message;
use serde_json::{Value, json};

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message.
    Message(Message),
    /// Something else, with the answer the protocol has for that.
    Unreadable(Value),
}

/// One message.
pub(super) fn parse(body: &[u8]) -> Incoming {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(e) => return Incoming::Unreadable(error(-32700, &format!("not JSON: {e}"))),
    };
    match serde_json::from_value(value) {
        Ok(message) => Incoming::Message(message),
        Err(e) => Incoming::Unreadable(error(-32600, &format!("not a request: {e}"))),
    }
}

pub(super) fn error(code: i32, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } })
}

/// A message as it goes over the wire.
pub(super) fn to_json(message: &Message) -> Value {
    let mut value = serde_json::to_value(message).unwrap_or_else(|e| error(-32603, &e.to_string()));
    if let Some(object) = value.as_object_mut() {
        object.insert("jsonrpc".to_owned(), "2.0".into());
    }
    value
}

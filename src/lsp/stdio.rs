//! The session over a pair of streams: reads on a thread of its own, waits for typing to pause,
//! writes nothing but the protocol.

use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

use lsp_server::{Message, Response};

use super::disk::Disk;
use super::message::{Incoming, to_json};
use super::server::{Server, Status};
use super::transport;

/// The longest the server waits for more typing before it checks. The wait is as long as the last
/// check took, so that a large file is not checked on every key.
const LONGEST_WAIT: Duration = Duration::from_millis(150);
/// Where a check takes less than this there is no wait: nobody types that fast.
const AT_ONCE: Duration = Duration::from_millis(15);
/// Files that are not open are looked at again after this long.
const DISK_TRUSTED: Duration = Duration::from_secs(2);

/// Serve one client over a pair of streams until it exits. The code to exit with: 0 after
/// `shutdown` and `exit`, 1 without `shutdown`.
///
/// # Errors
/// When the client's end cannot be written to.
pub fn serve(
    input: impl Read + Send + 'static,
    output: impl Write,
    disk: impl Disk + 'static,
) -> std::io::Result<u8> {
    let (sender, receiver) = std::sync::mpsc::channel();
    // Ends when the stream does; the process does not wait for it.
    std::thread::spawn(move || {
        let mut input = BufReader::new(input);
        while let Some(incoming) = transport::read(&mut input) {
            if sender.send(incoming).is_err() {
                break;
            }
        }
    });
    let mut output = std::io::BufWriter::new(output);
    let mut server = Server::new(Box::new(disk));
    let mut queue: VecDeque<Incoming> = VecDeque::new();
    let mut last_check = Duration::ZERO;
    let mut last_look = Instant::now();
    loop {
        if queue.is_empty() {
            if server.pending() {
                let wait = if last_check < AT_ONCE { Duration::ZERO } else { last_check.min(LONGEST_WAIT) };
                match receiver.recv_timeout(wait) {
                    Ok(incoming) => queue.push_back(incoming),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        let begin = Instant::now();
                        let mut out = Vec::new();
                        server.check(&mut out);
                        last_check = begin.elapsed();
                        write_all(&mut output, &out)?;
                        continue;
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(1),
                }
            } else {
                match receiver.recv() {
                    Ok(incoming) => queue.push_back(incoming),
                    Err(_) => return Ok(1),
                }
            }
        }
        queue.extend(receiver.try_iter());
        if last_look.elapsed() > DISK_TRUSTED {
            server.disk_may_have_changed();
            last_look = Instant::now();
        }
        let Some(incoming) = queue.pop_front() else { continue };
        let mut out = Vec::new();
        match incoming {
            Incoming::Message(message) => {
                if let Message::Notification(n) = &message
                    && n.method == "$/cancelRequest"
                {
                    out.extend(cancel(&mut queue, &n.params));
                }
                match server.handle(message, &mut out) {
                    Status::Running => {}
                    Status::Exit(code) => {
                        write_all(&mut output, &out)?;
                        return Ok(code);
                    }
                }
            }
            Incoming::Unreadable(answer) => transport::write(&mut output, &answer)?,
        }
        write_all(&mut output, &out)?;
    }
}

fn write_all(output: &mut impl Write, messages: &[Message]) -> std::io::Result<()> {
    for message in messages {
        transport::write(output, &to_json(message))?;
    }
    output.flush()
}

/// Take the request that `params` name out of the queue; the answer to it.
fn cancel(queue: &mut VecDeque<Incoming>, params: &serde_json::Value) -> Option<Message> {
    let id = params.get("id")?;
    let at = queue.iter().position(|incoming| match incoming {
        Incoming::Message(Message::Request(r)) => serde_json::to_value(&r.id).is_ok_and(|v| v == *id),
        _ => false,
    })?;
    match queue.remove(at) {
        Some(Incoming::Message(Message::Request(request))) => {
            let code = lsp_server::ErrorCode::RequestCanceled as i32;
            Some(Response::new_err(request.id, code, "canceled".to_owned()).into())
        }
        _ => None,
    }
}

//! A client in memory: sessions, replayed edits, hostile input.

use std::collections::BTreeMap;

use lsp_server::{Message, Notification, Request, RequestId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NoDisk, Server, Status};

const URI: &str = "file:///w/main.curriculum";
const LIBRARY: &str = "file:///w/lib.curriculum";
const SOURCES: &str = "source web { path = \"w\", kind = web, tokens = 5T }\nsource math { path = \"m\", kind = math, tokens = 4B }\n";
const MAIN: &str = "\
use \"lib.curriculum\" as s
lints { missing_files = allow, unpinned_source = allow }
model base { checkpoint = \"b\", init = olmo2_7b, context = 4Ki, lr = 6e-5 }
mix quality {
  s.web  = 85%
  s.math = rest
}
stage anneal {
  from      = base
  tokens    = 20B
  context   = 4Ki
  batch     = 1024 seqs
  mix       = quality
  lr        = inherit then linear(to: 0)
  data_seed = 1
}
assert anneal.lr.end == 0
";

/// The client's side of a session.
struct Client {
    server: Server,
    next: i32,
    /// By address.
    diagnostics: BTreeMap<String, Vec<Value>>,
    version: i32,
}

impl Client {
    fn new(capabilities: Value) -> Self {
        let mut client =
            Self { server: Server::new(Box::new(NoDisk)), next: 0, diagnostics: BTreeMap::new(), version: 0 };
        client.ask("initialize", json!({ "capabilities": capabilities })).unwrap();
        client.tell("initialized", json!({}));
        client
    }

    /// With both files open.
    fn open() -> Self {
        let mut client = Self::new(json!({}));
        client.did_open(LIBRARY, SOURCES);
        client.did_open(URI, MAIN);
        client
    }

    fn take(&mut self, out: Vec<Message>) {
        for message in out {
            if let Message::Notification(n) = message
                && n.method == "textDocument/publishDiagnostics"
            {
                let list = n.params["diagnostics"].as_array().cloned().unwrap_or_default();
                self.diagnostics.insert(n.params["uri"].as_str().unwrap_or_default().to_owned(), list);
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.next += 1;
        let mut out = Vec::new();
        let request = Request::new(RequestId::from(self.next), method.to_owned(), params);
        self.server.handle(Message::Request(request), &mut out);
        let response = out.iter().find_map(|m| match m {
            Message::Response(r) => Some(r.clone()),
            _ => None,
        });
        self.take(out);
        response.expect("an answer").response_result.map_err(|e| e.message)
    }

    fn tell(&mut self, method: &str, params: Value) {
        let mut out = Vec::new();
        self.server.handle(Message::Notification(Notification::new(method.to_owned(), params)), &mut out);
        if self.server.pending() {
            self.server.check(&mut out);
        }
        self.take(out);
    }

    fn did_open(&mut self, uri: &str, text: &str) {
        let document = json!({ "uri": uri, "languageId": "curriculum", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Replace a range, given as line and column of both ends.
    fn edit(&mut self, range: Option<[u32; 4]>, text: &str) {
        self.version += 1;
        let mut change = json!({ "text": text });
        if let Some([a, b, c, d]) = range {
            change["range"] =
                json!({ "start": { "line": a, "character": b }, "end": { "line": c, "character": d } });
        }
        let document = json!({ "uri": URI, "version": self.version + 1 });
        self.tell("textDocument/didChange", json!({ "textDocument": document, "contentChanges": [change] }));
    }

    fn codes(&self, uri: &str) -> Vec<String> {
        let list = self.diagnostics.get(uri).cloned().unwrap_or_default();
        list.iter().map(|d| d["code"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Parameters that name the `n`-th `what` of the fixture.
    fn at(what: &str, n: usize) -> Value {
        let offset = MAIN.match_indices(what).nth(n).expect(what).0;
        let line = MAIN[..offset].matches('\n').count();
        let column = offset - MAIN[..offset].rfind('\n').map_or(0, |i| i + 1);
        json!({ "textDocument": { "uri": URI }, "position": { "line": line, "character": column } })
    }
}

#[test]
fn a_session_from_first_to_last() {
    let mut server = Server::new(Box::new(NoDisk));
    let mut out = Vec::new();
    let request = |id: i32, method: &str, params: Value| {
        Message::Request(Request::new(RequestId::from(id), method.to_owned(), params))
    };
    server.handle(request(1, "textDocument/hover", json!({})), &mut out);
    server.handle(request(2, "initialize", json!({ "capabilities": {} })), &mut out);
    server.handle(request(3, "no/such", json!({})), &mut out);
    server.handle(request(4, "textDocument/hover", json!({ "x": 1 })), &mut out);
    server.handle(request(5, "shutdown", Value::Null), &mut out);
    server.handle(request(6, "textDocument/hover", json!({})), &mut out);
    let codes: Vec<i32> = out
        .iter()
        .map(|m| match m {
            Message::Response(r) => r.response_result.as_ref().err().map_or(0, |e| e.code),
            _ => 1,
        })
        .collect();
    assert_eq!(codes, [-32002, 0, -32601, -32602, 0, -32600]);
    let exit = Message::Notification(Notification::new("exit".to_owned(), Value::Null));
    assert_eq!(server.handle(exit, &mut out), Status::Exit(0));
}

#[test]
fn diagnostics_come_and_go() {
    let mut client = Client::open();
    assert_eq!(client.codes(URI), [""; 0]);
    client.edit(Some([9, 14, 9, 17]), "20 B");
    assert_eq!(client.codes(URI), ["E0107"]);
    client.edit(Some([9, 14, 9, 18]), "20B");
    assert_eq!(client.codes(URI), [""; 0]);
    // What is wrong with a library shows where it is used.
    let document = json!({ "uri": LIBRARY, "version": 2 });
    let change = json!([{ "text": SOURCES.replace("source math", "source maths") }]);
    client.tell("textDocument/didChange", json!({ "textDocument": document, "contentChanges": change }));
    assert_eq!(client.codes(URI).first().map(String::as_str), Some("E0201"));
}

#[test]
fn what_another_file_finds_shows_in_an_open_one() {
    // Sound by itself, and wrong for a stage whose model stopped at no known rate.
    let library = format!("{SOURCES}let down = inherit then linear(to: 0)\n");
    let main = MAIN.replace("inherit then linear(to: 0)", "s.down").replace(", lr = 6e-5", "");
    for first_main in [true, false] {
        let mut client = Client::new(json!({}));
        let mut files = [(LIBRARY, library.as_str()), (URI, main.as_str())];
        files[..].rotate_left(usize::from(first_main));
        for (uri, text) in files {
            client.did_open(uri, text);
        }
        assert_eq!(client.codes(LIBRARY), ["E0405"], "{:?}", client.diagnostics);
        // What the file itself shows is not said twice.
        client.tell(
            "textDocument/didChange",
            json!({
                "textDocument": { "uri": LIBRARY, "version": 2 },
                "contentChanges": [{ "text": SOURCES.replace("5T", "5 QT") }],
            }),
        );
        assert_eq!(client.codes(LIBRARY).len(), 1, "{:?}", client.diagnostics);
    }
    let mut client = Client::new(json!({}));
    client.did_open(URI, "use \"lib.curriculum\" as s\nlet x = s.y\n");
    client.did_open(LIBRARY, "use \"main.curriculum\" as m\nlet y = 5\n");
    let circle = |uri: &str| client.codes(uri).contains(&"E0802".to_owned());
    assert!(circle(URI) && circle(LIBRARY), "{:?}", client.diagnostics);
}

#[test]
fn a_client_without_a_disk_hands_files_over() {
    let mut client = Client::new(json!({}));
    client.did_open(URI, MAIN);
    assert_eq!(client.codes(URI), ["E0801"]);
    client.tell("midc/file", json!({ "uri": LIBRARY, "text": SOURCES }));
    assert_eq!(client.codes(URI), [""; 0]);
    client.tell("midc/file", json!({ "uri": LIBRARY, "text": null }));
    assert_eq!(client.codes(URI), ["E0801"]);
}

#[test]
fn stale_versions_are_dropped() {
    let mut client = Client::open();
    let change = |version: i32, text: &str| json!({ "textDocument": { "uri": URI, "version": version }, "contentChanges": [{ "text": text }] });
    client.tell("textDocument/didChange", change(7, "let"));
    assert_eq!(client.codes(URI).len(), 1);
    client.tell("textDocument/didChange", change(3, MAIN));
    assert_eq!(client.codes(URI).len(), 1);
    client.tell("textDocument/didChange", change(8, MAIN));
    assert_eq!(client.codes(URI), [""; 0]);
}

#[test]
fn a_name_is_renamed_in_both_files() {
    let mut client = Client::open();
    let mut params = Client::at("math = rest", 0);
    let found = client.ask("textDocument/references", {
        let mut p = params.clone();
        p["context"] = json!({ "includeDeclaration": true });
        p
    });
    assert_eq!(found.unwrap().as_array().map(Vec::len), Some(2));
    params["newName"] = "maths".into();
    let edit = client.ask("textDocument/rename", params.clone()).unwrap();
    assert_eq!(edit["changes"][URI][0]["newText"], "maths");
    assert_eq!(edit["changes"][LIBRARY][0]["newText"], "maths");
    params["newName"] = "web".into();
    assert!(client.ask("textDocument/rename", params).unwrap_err().contains("already"));
}

#[test]
fn a_fix_mends_what_it_is_offered_for() {
    let mut client = Client::open();
    client.edit(Some([10, 14, 10, 17]), "4k");
    assert!(client.codes(URI).contains(&"decimal_context".to_owned()));
    let place = json!({ "line": 10, "character": 15 });
    let params = json!({
        "textDocument": { "uri": URI },
        "range": { "start": place, "end": place },
        "context": { "diagnostics": [] },
    });
    let actions = client.ask("textDocument/codeAction", params).unwrap();
    let titles: Vec<&str> = actions.as_array().unwrap().iter().filter_map(|a| a["title"].as_str()).collect();
    let fix = titles.iter().position(|t| t.contains("4Ki")).unwrap_or_else(|| panic!("{titles:?}"));
    let edit = &actions[fix]["edit"]["changes"][URI][0];
    let at = |end: &str, axis: &str| edit["range"][end][axis].as_u64().unwrap() as u32;
    let range = [at("start", "line"), at("start", "character"), at("end", "line"), at("end", "character")];
    client.edit(Some(range), edit["newText"].as_str().unwrap());
    assert_eq!(client.codes(URI), [""; 0]);
}

#[test]
fn the_picture_outlives_a_mistake() {
    let mut client = Client::open();
    let show = json!({ "command": "midc.showPlan", "arguments": [URI] });
    let first = client.ask("workspace/executeCommand", show.clone()).unwrap();
    assert!(first["svg"].as_str().unwrap().starts_with("<svg"));
    assert_eq!(first["stale"], false);
    client.edit(Some([13, 14, 13, 21]), "inherit then nothing");
    let second = client.ask("workspace/executeCommand", show).unwrap();
    assert_eq!((second["svg"] == first["svg"], &second["stale"]), (true, &json!(true)));
    assert!(second["errors"].as_u64() > Some(0));
}

/// What `midc plan --format json` prints, and nothing where that refuses to.
#[test]
fn the_plan_is_that_of_the_command_line() {
    let mut client = Client::open();
    let ask = json!({ "command": "midc.plan", "arguments": [URI] });
    let answer = client.ask("workspace/executeCommand", ask.clone()).unwrap();
    let plan = &answer["plan"];
    assert!(plan["hash"].is_string() && plan["exhaustion"].is_array(), "{answer}");
    assert!(plan.get("cost").is_none());
    client.edit(Some([0, 0, 0, 0]), "budget { tokens <= 1T, accelerator = h100 }\n");
    let answer = client.ask("workspace/executeCommand", ask.clone()).unwrap();
    assert_eq!(answer["plan"]["cost"]["accelerator"], "h100");
    let denied = MAIN.replace("missing_files = allow", "missing_files = allow, unused_let = deny");
    client.edit(None, &(denied + "let idle = 1\n"));
    let answer = client.ask("workspace/executeCommand", ask).unwrap();
    assert_eq!(answer, json!({ "plan": null, "errors": 1 }));
}

/// xorshift64*, so that a failure can be replayed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }
}

/// Line and UTF-16 column of a byte, computed as slowly and plainly as possible.
fn position(text: &str, offset: usize) -> [u32; 2] {
    let before = &text[..offset];
    let mut line = 0;
    let mut start = 0;
    let bytes = text.as_bytes();
    for (i, b) in before.bytes().enumerate() {
        if b == b'\n' || b == b'\r' && bytes.get(i + 1) != Some(&b'\n') {
            line += 1;
            start = i + 1;
        }
    }
    [line, before[start..].encode_utf16().count() as u32]
}

/// Pieces an editing hand puts in.
const PIECES: &[&str] = &[
    "a",
    " ",
    "\n",
    "\r\n",
    "}",
    "{",
    "(",
    ")",
    "\"",
    "5%",
    "then ",
    "linear(to: 0)",
    "ü",
    "𝄞",
    "数",
    "#",
    "## doc\n",
    "stage x {\n",
    "mix m { s.web = 100% }\n",
    "50B tokens",
    "4Ki",
    "=",
    ",",
    ".",
    "@allow(x)",
    "inherit",
    "rest",
    "\t",
    "[1, 2]",
    "é\u{301}",
    "\u{feff}",
];

#[test]
fn ten_thousand_edits_leave_the_same_as_a_fresh_look() {
    const EDITS: usize = 10_000;
    let mut client = Client::open();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut text = MAIN.to_owned();
    let mut undo: Vec<(usize, String, String)> = Vec::new();
    for round in 0..EDITS {
        let (start, end, new) = if random.below(4) == 0 && !undo.is_empty() {
            let Some((at, old, new)) = undo.pop() else { continue };
            (at, at + new.len(), old)
        } else {
            let mut boundary = || {
                let mut at = random.below(text.len() + 1);
                // Not inside a character, and not between `\r` and `\n`: no position names that.
                while !text.is_char_boundary(at)
                    || (text[..at].ends_with('\r') && text[at..].starts_with('\n'))
                {
                    at -= 1;
                }
                at
            };
            let start = boundary();
            let mut end =
                if random.below(3) == 0 { (start + random.below(12)).min(text.len()) } else { start };
            while !text.is_char_boundary(end)
                || (text[..end].ends_with('\r') && text[end..].starts_with('\n'))
            {
                end += 1;
            }
            let new = if random.below(5) == 0 { "" } else { PIECES[random.below(PIECES.len())] };
            undo.push((start, text[start..end].to_owned(), new.to_owned()));
            (start, end, new.to_owned())
        };
        let ([a, b], [c, d]) = (position(&text, start), position(&text, end));
        client.edit(Some([a, b, c, d]), &new);
        text.replace_range(start..end, &new);
        // A text that grew wild is begun anew, as an editor reloads a file.
        if text.len() > 4 * MAIN.len() {
            text = MAIN.to_owned();
            undo.clear();
            client.edit(None, MAIN);
        }
        let mut fresh = Client::new(json!({}));
        fresh.did_open(LIBRARY, SOURCES);
        fresh.did_open(URI, &text);
        assert_eq!(client.diagnostics.get(URI), fresh.diagnostics.get(URI), "edit {round}: {text:?}");
    }
    // Nothing is kept of what is gone.
    assert!(client.server.analyses.len() <= 2 && client.server.documents.all_open().len() == 2);
}

/// Any request with any position in a text.
fn ask_everything(client: &mut Client, line: u32, character: u32) {
    let document = json!({ "uri": URI });
    let place = json!({ "line": line, "character": character });
    let whole = json!({ "start": { "line": 0, "character": 0 }, "end": place });
    for (method, extra) in [
        ("textDocument/hover", json!({})),
        ("textDocument/completion", json!({})),
        ("textDocument/signatureHelp", json!({})),
        ("textDocument/definition", json!({})),
        ("textDocument/references", json!({ "context": { "includeDeclaration": true } })),
        ("textDocument/documentHighlight", json!({})),
        ("textDocument/documentSymbol", json!({})),
        ("textDocument/codeAction", json!({ "range": whole, "context": { "diagnostics": [] } })),
        ("textDocument/codeLens", json!({})),
        ("textDocument/documentLink", json!({})),
        ("textDocument/formatting", json!({ "options": { "tabSize": 2, "insertSpaces": true } })),
        (
            "textDocument/rangeFormatting",
            json!({ "range": whole, "options": { "tabSize": 2, "insertSpaces": true } }),
        ),
        ("textDocument/foldingRange", json!({})),
        ("textDocument/selectionRange", json!({ "positions": [place] })),
        ("textDocument/semanticTokens/full", json!({})),
        ("textDocument/semanticTokens/range", json!({ "range": whole })),
        ("textDocument/inlayHint", json!({ "range": whole })),
        ("workspace/symbol", json!({ "query": "" })),
        ("workspace/executeCommand", json!({ "command": "midc.showPlan", "arguments": [URI] })),
    ] {
        let mut params = json!({ "textDocument": document, "position": place });
        if let (Some(params), Some(extra)) = (params.as_object_mut(), extra.as_object()) {
            params.extend(extra.clone());
        }
        let answer = client.ask(method, params);
        assert!(!matches!(&answer, Err(why) if why.contains("bug")), "{method}: {answer:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_answers(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..PIECES.len()), 0..12),
        line in 0u32..40,
        character in 0u32..60,
    ) {
        let mut text = MAIN.to_owned();
        for (at, piece) in cuts {
            let mut at = at.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.insert_str(at, PIECES[piece]);
        }
        let mut client = Client::open();
        client.edit(None, &text);
        ask_everything(&mut client, line, character);
    }

    #[test]
    fn any_characters_get_answers(text in any::<String>(), line in 0u32..4, character in any::<u32>()) {
        let mut client = Client::open();
        client.edit(None, &text);
        ask_everything(&mut client, line, character);
    }

    #[test]
    fn any_parameters_are_survived(method in prop::sample::select(vec![
        "initialize", "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose",
        "textDocument/hover", "textDocument/rename", "workspace/executeCommand", "$/cancelRequest",
        "workspace/didChangeConfiguration", "textDocument/codeAction", "",
    ]), params in prop::sample::select(vec![
        json!(null), json!([]), json!({}), json!({ "textDocument": 5 }), json!({ "settings": [1] }),
        json!({ "textDocument": { "uri": "%%%", "version": -1 }, "contentChanges": [] }),
        json!({ "textDocument": { "uri": URI }, "position": { "line": 4_000_000_000u32, "character": 4_000_000_000u32 }, "newName": "" }),
        json!({ "command": "midc.showPlan", "arguments": [[]] }),
        json!({ "textDocument": { "uri": URI, "version": 9 }, "contentChanges": [{ "text": "x", "range": {
            "start": { "line": 9, "character": 9 }, "end": { "line": 1, "character": 1 } } }] }),
    ])) {
        let mut client = Client::open();
        let _ = client.ask(method, params.clone());
        client.tell(method, params);
        prop_assert!(client.ask("textDocument/hover", Client::at("tokens", 0)).is_ok());
    }

    #[test]
    fn any_bytes_are_survived(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let framed = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
        let mut input = framed("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"capabilities\":{}}}");
        // Noise inside of a frame is answered; the session goes on to its end.
        input.extend(format!("Content-Length: {}\r\n\r\n", noise.len()).into_bytes());
        input.extend(&noise);
        input.extend(framed("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"shutdown\"}"));
        input.extend(framed("{\"jsonrpc\":\"2.0\",\"method\":\"exit\"}"));
        let mut output = Vec::new();
        let code = super::serve(std::io::Cursor::new(input), &mut output, super::NativeDisk);
        prop_assert_eq!(code.ok(), Some(0));
        // Loose noise may swallow what follows; it must still end.
        let mut output = Vec::new();
        prop_assert!(super::serve(std::io::Cursor::new(noise), &mut output, super::NativeDisk).is_ok());
    }
}

//! Dialogues with the session machine, kept as files in `tests/dialogues`.
//! A bug in the protocol becomes a dialogue before it is fixed.
//!
//! A line starts with what it is:
//!
//! ```text
//! #  a remark
//! !  a setting: ! max_errors 3
//! C: sent by the client, CRLF added; C- the same without the CRLF
//! S: a reply starts so; S= and came in the same write as the one before
//! M: this message was delivered, exactly
//! X: the session is over
//! ```
//!
//! C lines in a row are sent as one. `\r \n \t \0 \xff \\` are octets, and
//! `{2050*x}` is a repetition. Replies, messages and the end must be exactly
//! those that are written. Every dialogue is held twice: as it stands, and
//! octet by octet (where `S=` says nothing).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

use std::path::Path;

use mailonce::smtp::data::BareNewlines;
use mailonce::smtp::reply::Reply;
use mailonce::smtp::session::{Action, Offers, Policy, Session, Settings, Step};

/// Allows everything.
#[derive(Debug)]
struct Allow;

impl Policy for Allow {
    fn check(&mut self, _: Step<'_>) -> Option<Reply> {
        None
    }
}

/// The machine and what came out of it.
struct Owner {
    session: Session<Allow>,
    input: Vec<u8>,
    body: Vec<u8>,
    writes: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    closed: bool,
}

impl Owner {
    fn new(settings: Settings) -> Self {
        let mut owner = Self {
            session: Session::new(settings, Allow),
            input: Vec::new(),
            body: Vec::new(),
            writes: Vec::new(),
            messages: Vec::new(),
            closed: false,
        };
        owner.write();
        owner
    }

    fn write(&mut self) {
        let output = std::mem::take(self.session.output());
        if !output.is_empty() {
            self.writes.push(output);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() && !self.closed {
            let (used, action) = self.session.step(&self.input, &mut self.body);
            self.input.drain(..used);
            match action {
                Action::Continue if self.session.receiving().is_none() => self.body.clear(),
                Action::Continue => {}
                Action::Read => break,
                Action::Deliver(_) => {
                    self.write();
                    self.messages.push(std::mem::take(&mut self.body));
                    self.session.delivered(Reply::new(250, "2.0.0 kept"));
                }
                Action::Close => self.closed = true,
                Action::StartTls | Action::Authenticate { .. } => panic!("neither is offered"),
            }
        }
        self.write();
    }

    /// Every reply so far, with the number of the write it came in.
    fn replies(&self) -> Vec<(usize, String)> {
        let mut replies: Vec<(usize, String)> = Vec::new();
        let mut open = false;
        for (number, write) in self.writes.iter().enumerate() {
            let text = String::from_utf8_lossy(write);
            for line in text.split_inclusive('\n') {
                let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("half a line: {line:?}"));
                match replies.last_mut().filter(|_| open) {
                    Some((_, reply)) => *reply += &format!("\\n{line}"),
                    None => replies.push((number, line.to_owned())),
                }
                open = line.as_bytes().get(3) == Some(&b'-');
            }
        }
        replies
    }
}

/// What a line of a dialogue asks for.
enum Wish {
    Send(Vec<u8>),
    Reply { start: String, same_write: bool },
    Message(Vec<u8>),
    Closed,
}

struct Dialogue {
    settings: Settings,
    wishes: Vec<(usize, Wish)>,
}

fn settings() -> Settings {
    Settings {
        hostname: "relay.test".to_owned(),
        max_message_size: 10_000,
        max_recipients: 3,
        max_errors: 20,
        bare_newlines: BareNewlines::Normalize,
        offers: Offers { eight_bit_mime: true, ..Offers::default() },
    }
}

fn read(text: &str) -> Dialogue {
    let mut dialogue = Dialogue { settings: settings(), wishes: Vec::new() };
    for (number, line) in (1..).zip(text.lines()) {
        let (kind, rest) = line.split_at(line.len().min(2));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let wish = match kind {
            "" | "# " | "#" => continue,
            "! " => {
                set(&mut dialogue.settings, rest);
                continue;
            }
            "C:" => Wish::Send([octets(rest), b"\r\n".to_vec()].concat()),
            "C-" => Wish::Send(octets(rest)),
            "S:" => Wish::Reply { start: rest.to_owned(), same_write: false },
            "S=" => Wish::Reply { start: rest.to_owned(), same_write: true },
            "M:" => Wish::Message(octets(rest)),
            "X:" => Wish::Closed,
            _ => panic!("line {number} is none of a dialogue: {line}"),
        };
        match (dialogue.wishes.last_mut(), wish) {
            (Some((_, Wish::Send(sent))), Wish::Send(more)) => sent.extend(more),
            (_, wish) => dialogue.wishes.push((number, wish)),
        }
    }
    dialogue
}

fn set(settings: &mut Settings, line: &str) {
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    match name {
        "max_errors" => settings.max_errors = value.parse().unwrap(),
        "max_recipients" => settings.max_recipients = value.parse().unwrap(),
        "max_message_size" => settings.max_message_size = value.parse().unwrap(),
        "bare_newlines" if value == "reject" => settings.bare_newlines = BareNewlines::Reject,
        "smtputf8" => settings.offers.smtputf8 = true,
        _ => panic!("there is no setting {line:?}"),
    }
}

/// Text with its escapes and repetitions undone.
fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = tail;
            }
            (b'\\', [escaped, tail @ ..]) => {
                out.push(match escaped {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'\\' => b'\\',
                    other => panic!("no escape: \\{}", char::from(*other)),
                });
                rest = tail;
            }
            (b'{', tail) if tail.first().is_some_and(u8::is_ascii_digit) => {
                let end = tail.iter().position(|&byte| byte == b'}').unwrap();
                let (count, what) = std::str::from_utf8(&tail[..end]).unwrap().split_once('*').unwrap();
                out.extend(octets(what).repeat(count.parse().unwrap()));
                rest = &tail[end + 1..];
            }
            (byte, _) => out.push(*byte),
        }
    }
    out
}

/// Holds a dialogue; the error names the line that did not come true.
fn hold(text: &str, octet_by_octet: bool) -> Result<(), String> {
    let Dialogue { settings, wishes } = read(text);
    let mut owner = Owner::new(settings);
    let (mut replies, mut messages, mut closed) = (0, 0, false);
    let mut last_write = None;
    for (number, wish) in wishes {
        match wish {
            Wish::Send(bytes) if octet_by_octet => bytes.iter().for_each(|&byte| owner.receive(&[byte])),
            Wish::Send(bytes) => owner.receive(&bytes),
            Wish::Reply { start, same_write } => {
                let heard = owner.replies();
                let Some((write, reply)) = heard.get(replies) else {
                    return Err(format!("line {number}: {start:?} was due, and nothing came"));
                };
                if !reply.starts_with(&start) {
                    return Err(format!("line {number}: {start:?} was due, not {reply:?}"));
                }
                if same_write && !octet_by_octet && last_write != Some(*write) {
                    return Err(format!("line {number}: {reply:?} came in a write of its own"));
                }
                last_write = Some(*write);
                replies += 1;
            }
            Wish::Message(content) => {
                let due = content.escape_ascii().to_string();
                let got = owner.messages.get(messages).map(|got| got.escape_ascii().to_string());
                if got.as_ref() != Some(&due) {
                    return Err(format!("line {number}: the message {due:?} was due, not {got:?}"));
                }
                messages += 1;
            }
            Wish::Closed => closed = true,
        }
    }
    let rest = owner.replies().split_off(replies);
    match (rest.is_empty(), owner.messages.len() == messages, owner.closed == closed) {
        (true, true, true) => Ok(()),
        (false, ..) => Err(format!("nobody expected {rest:?}")),
        (_, false, _) => Err(format!("{} messages were delivered, not {messages}", owner.messages.len())),
        (.., false) => Err(format!("over: {}, which is not as written", owner.closed)),
    }
}

#[test]
fn every_dialogue_goes_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut faults = Vec::new();
    let mut held = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for octet_by_octet in [false, true] {
            held += 1;
            if let Err(fault) = hold(&text, octet_by_octet) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                faults.push(format!("{name} (octet by octet: {octet_by_octet}): {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(held >= 20, "only {held} dialogues were found");
}

#[test]
fn a_dialogue_that_goes_otherwise_is_noticed() {
    for wrong in [
        "S: 221",
        "S: 220\nS: 250",
        "",
        "S: 220\nC: NOOP\nS: 250\nX:",
        "S: 220\nC: QUIT\nS: 221",
        "S: 220\nC: NOOP\nS= 250",
        "S: 220\nM: content",
    ] {
        assert!(hold(wrong, false).is_err(), "{wrong:?}");
    }
    assert_eq!(hold("S: 220\nC: NOOP\nC: NOOP\nS: 250\nS= 250", false), Ok(()));
}

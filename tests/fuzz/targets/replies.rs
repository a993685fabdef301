//! What an upstream answers, and when.

use mailonce::smtp::address::Path;
use mailonce::smtp::client::{
    Client, Due, MAX_LINE, MAX_LINES, MAX_READ, MAX_REPLY, MailContent, ProtocolFault,
};
use mailonce::smtp::envelope::{Envelope, MailParameters, Recipient};
use mailonce::smtp::reply::Reply;

use super::choice;
use super::wire::{reply_lines, splits};

pub(super) fn run(data: &[u8]) {
    let (seed, wire) = choice(data);
    let [whole, by_octet, by_piece] = splits(wire, seed).map(|pieces| pipelined(&pieces));
    assert_eq!(whole, by_octet);
    assert_eq!(whole, by_piece);
    same_as_read_apart(wire, &whole.0);
    for pieces in splits(wire, seed) {
        one_by_one(&pieces);
    }
}

type Answers = (Vec<(Due, Reply)>, Option<ProtocolFault>);

/// A message's commands in the order of a session.
const COMMANDS: usize = 8;

fn command(client: &mut Client, number: usize) {
    let path = |text| Path::parse(text).expect("an address");
    let recipient = Recipient::new(path("b@b.test"));
    let parameters = MailParameters::default();
    let envelope = Envelope { reverse_path: path("a@a.test"), parameters, recipients: Vec::new() };
    let content = MailContent { size: 1, eight_bit: true, smtputf8: false };
    let mut out = Vec::new();
    match number {
        0 => client.ehlo("relay.test", &mut out),
        1 => client.auth("PLAIN AGEAYg==", &mut out),
        2 => client.mail(&envelope, content, &mut out),
        3 => client.recipient(0, &recipient, &mut out),
        4 => client.recipient(1, &recipient, &mut out),
        5 => client.data(&mut out),
        6 => client.completed(),
        _ => client.quit(&mut out),
    }
    assert!(number == 6 || out.ends_with(b"\r\n"));
}

/// All commands leave first, then the answers come.
fn pipelined(pieces: &[&[u8]]) -> Answers {
    let mut client = Client::new();
    (0..COMMANDS).for_each(|number| command(&mut client, number));
    let (mut answers, mut kept) = (Vec::new(), 0);
    for piece in pieces {
        client.feed(piece);
        kept += piece.len();
        loop {
            match client.next_reply() {
                Ok(Some((due, reply))) => {
                    passed_on(&reply);
                    answers.push((due, reply));
                    kept = 0;
                }
                Ok(None) => break,
                Err(fault) => return (answers, Some(without_late_ones(fault))),
            }
        }
        // What belongs to the last reply of this piece is counted to the next.
        assert!(kept <= MAX_READ + piece.len(), "{kept} octets are read of one reply");
        for mechanism in client.capabilities().auth.iter().flatten() {
            assert!(!mechanism.is_empty() && *mechanism == mechanism.to_ascii_uppercase());
        }
    }
    (answers, None)
}

/// Which reply came behind the last one due depends on how much is there yet.
fn without_late_ones(fault: ProtocolFault) -> ProtocolFault {
    match fault {
        ProtocolFault::Early(_) => ProtocolFault::Early(None),
        ProtocolFault::ServiceClosing(_) => ProtocolFault::Early(None),
        fault => fault,
    }
}

/// Each command leaves when the one before was answered: bytes that are there
/// already never answer it.
fn one_by_one(pieces: &[&[u8]]) {
    let mut client = Client::new();
    let (mut sent, mut answered, mut granted) = (0, 0, false);
    for piece in pieces {
        client.feed(piece);
        loop {
            let due = client.next_due();
            let early = due.is_none() && !client.is_quiet();
            match client.next_reply() {
                Ok(Some((Due::Content, refusal))) => {
                    assert!(early && granted, "nothing was under way");
                    assert!(refusal.code() >= 400 && refusal.code() != 421);
                    return after_early_bytes(client);
                }
                Ok(Some((answers, _))) => {
                    assert!(!early && due == Some(answers), "a reply answers what is not due");
                    granted = answers == Due::Data;
                    answered += 1;
                    assert!(answered <= sent + 1, "more replies than commands");
                }
                Ok(None) if client.next_due().is_some() => break,
                // A refusal of the content has begun to arrive.
                Ok(None) if early => {
                    assert!(granted, "early bytes are kept for the next command");
                    break;
                }
                Ok(None) => {
                    assert!(!early && client.is_quiet(), "early bytes are kept for the next command");
                    if sent == COMMANDS {
                        break;
                    }
                    command(&mut client, sent);
                    sent += 1;
                }
                Err(ProtocolFault::Early(_)) => return after_early_bytes(client),
                Err(_) => return,
            }
        }
    }
}

/// Nothing makes a connection usable again.
fn after_early_bytes(mut client: Client) {
    client.completed();
    client.feed(b"250 2.0.0 ok\r\n");
    assert!(client.next_reply().is_err() && !client.is_quiet(), "an early reply passes for an acceptance");
}

/// A reply on its way to our client, and into a record and back.
fn passed_on(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    let lines = reply_lines(&wire);
    assert!(lines.iter().all(|(code, ..)| *code == reply.code()));
    assert!(lines.iter().rev().skip(1).all(|(_, last, _)| !last));
    assert!(lines.iter().map(|(_, _, text)| *text).eq(reply.lines()));
    assert!(!reply.to_string().contains(['\n', '\r', '\0']));
    if let Some(code) = reply.enhanced_code() {
        assert!(code.len() <= 9 && reply.text().starts_with(code));
    }
    let json = serde_json::to_string(reply).expect("a reply in JSON");
    assert_eq!(serde_json::from_str::<Reply>(&json).ok().as_ref(), Some(reply));
    // What a client of ours would read, as long as our CRLF and spaces fit.
    if wire.len() < MAX_REPLY && lines.iter().all(|(_, _, text)| text.len() + 6 <= MAX_LINE) {
        let mut client = Client::secured();
        client.helo("relay.test", &mut Vec::new());
        client.feed(&wire);
        let again = match client.next_reply() {
            Ok(Some((_, again))) => again,
            Err(ProtocolFault::WrongClass { reply, .. } | ProtocolFault::ServiceClosing(reply)) => reply,
            other => panic!("{other:?}"),
        };
        assert_eq!(again, *reply);
    }
}

/// The replies as a plain reader cuts them: each has a code that one of its
/// lines has, its class is that of the code, and its text stays in bounds.
fn same_as_read_apart(wire: &[u8], answers: &[(Due, Reply)]) {
    let mut lines = wire.split(|b| *b == b'\n');
    for (due, reply) in answers {
        let mut codes = Vec::new();
        loop {
            let line = lines.next().expect("a reply out of nothing");
            codes.extend(code_of(line));
            if code_of(line).is_some() && line.get(3) != Some(&b'-') {
                break;
            }
        }
        let weight =
            |code: &u16| [2, 3, 5, 4].iter().position(|class| code / 100 == *class).expect("a class");
        let heaviest = codes.iter().map(weight).max().expect("a code");
        assert_eq!(codes.iter().find(|code| weight(code) == heaviest), Some(&reply.code()));
        assert!(heaviest == 0 || codes.iter().all(|code| weight(code) > 0), "2yz beside another class");
        assert!(reply.lines().all(|line| line.len() <= MAX_LINE - 4));
        if *due != Due::Ehlo {
            let octets: usize = reply.lines().map(|line| line.len() + 4).sum();
            assert!(octets <= MAX_REPLY && reply.lines().count() <= MAX_LINES);
        }
    }
}

fn code_of(line: &[u8]) -> Option<u16> {
    let code = std::str::from_utf8(line.get(..3)?).ok()?;
    let code: u16 = code.bytes().all(|b| b.is_ascii_digit()).then(|| code.parse().ok())??;
    (200..600).contains(&code).then_some(code)
}

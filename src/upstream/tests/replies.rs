//! Replies in every form, to every command, however the connection ends: the
//! code decides. And lines too many: no reply answers another command.

use tokio::join;
use tokio::time::sleep;

use super::super::connection::{Connection, Incomplete};
use super::super::fault::UpstreamFault;
use super::super::transaction::{Standing, prepare};
use super::*;

/// How the upstream goes on behind the reply in question.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The rest of the transaction.
    GoesOn,
    /// It closes.
    Closes,
    /// It is silent.
    IsSilent,
}

/// What came of a message.
#[derive(Debug, PartialEq)]
enum Seen {
    /// The reply to the dot, and whether the connection may be used again.
    Accepted(u16, bool),
    /// A refusal of the only recipient, or of the message.
    Refused(u16),
    /// 421.
    Closing,
    /// Nothing was completed.
    Fault,
    Doubt,
}

/// The replies that are due: to MAIL, RCPT, DATA and the dot.
const USUAL: [&str; 4] = ["250 m\r\n", "250 r\r\n", "354 go\r\n", "250 taken\r\n"];

fn one_recipient() -> Envelope {
    let mut envelope = envelope();
    envelope.recipients.truncate(1);
    envelope
}

/// One message to `envelope`: what came of it, and of each recipient. The
/// upstream says `before` in so many pieces to the commands, `after` to the dot,
/// and 250 to RSET.
async fn sent(envelope: &Envelope, before: (&str, usize), after: &str, end: End) -> (Seen, Vec<u16>) {
    let (near, far) = duplex(1 << 16);
    let mut connection = Connection::new(near, "mx.example:25".into(), TIMEOUTS);
    let mut peer = Peer { stream: far };
    let (hello, ()) = join!(connection.hello("relay.example"), peer.greet(PIPELINING));
    hello.unwrap();
    let content = content("x\r\n");
    let near = async {
        let standing = prepare(&mut connection, envelope, &content).await;
        let seen = match standing {
            Ok(Standing::Settled { replies, .. }) => (Seen::Refused(replies[0].code()), codes(&replies)),
            Ok(Standing::Ready { rejected, .. }) => {
                let seen = match connection.complete().await {
                    Ok(reply) if reply.is_success() => Seen::Accepted(reply.code(), connection.is_reusable()),
                    Ok(reply) => Seen::Refused(reply.code()),
                    Err(Incomplete::InDoubt(UpstreamFault::ServiceClosing { .. })) => Seen::Closing,
                    Err(Incomplete::InDoubt(_)) => Seen::Doubt,
                    Err(Incomplete::Unsent(_)) => Seen::Fault,
                };
                (seen, rejected_codes(&rejected).into_iter().map(|code| code.unwrap_or(250)).collect())
            }
            Err(failure) => match failure.fault {
                UpstreamFault::ServiceClosing { .. } => (Seen::Closing, Vec::new()),
                _ => (Seen::Fault, Vec::new()),
            },
        };
        drop(connection);
        seen
    };
    let far = play(peer, before, after, end);
    join!(near, far).0
}

async fn play(mut peer: Peer<DuplexStream>, before: (&str, usize), after: &str, end: End) {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    let (mut before, mut after) = (Some(before), Some(after));
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((replies, pieces)) = before.take_if(|_| text.contains("DATA\r\n")) {
            say_in_pieces(&mut peer, replies, pieces).await;
        } else if let Some(replies) = after.take_if(|_| text.ends_with("\r\n.\r\n")) {
            say_in_pieces(&mut peer, replies, 3).await;
        } else if text.ends_with("RSET\r\n") && end == End::GoesOn {
            let _ = peer.stream.write_all(b"250 reset\r\n").await;
        }
        let is_last = after.is_none_or(str::is_empty);
        if is_last && before.is_none() && end == End::Closes {
            return;
        }
        match peer.stream.read(&mut buffer).await {
            Ok(count @ 1..) => heard.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

async fn say_in_pieces(peer: &mut Peer<DuplexStream>, replies: &str, pieces: usize) {
    for piece in replies.as_bytes().chunks(replies.len().div_ceil(pieces).max(1)) {
        let _ = peer.stream.write_all(piece).await;
        tokio::task::yield_now().await;
    }
}

/// Replies with this code in each form, and whether the form is one that RFC
/// 5321 knows.
fn forms(code: u16) -> Vec<(String, bool)> {
    let long = "x".repeat(3000);
    vec![
        (format!("{code} text\r\n"), true),
        (format!("{code}\r\n"), true),
        (format!("{code}-a\r\n{code} b\r\n"), true),
        (format!("{code}\ttext\r\n"), false),
        (format!("{code}5 text\r\n"), false),
        (format!("{code} a\rb\0c\r\n"), false),
        (format!("{code} {long}\r\n"), false),
        (format!("{code}-x\r\n").repeat(150) + &format!("{code} x\r\n"), false),
        (format!("{code}-{long}\r\n").repeat(3) + &format!("{code} x\r\n"), false),
        (format!("{code}-a\r\nno code\r\n{code} b\r\n"), false),
    ]
}

/// What a reply of this code comes to, if it is `at` one of the four places and
/// nothing else is wrong.
fn expected(at: usize, code: u16, regular: bool, end: End) -> Seen {
    let goes_on = match end {
        End::GoesOn => Seen::Accepted(250, regular),
        End::Closes | End::IsSilent => Seen::Fault,
    };
    match (at, code) {
        (_, 421) => Seen::Closing,
        (_, 400..) => Seen::Refused(code),
        (3, 200..300) => Seen::Accepted(code, regular && end == End::GoesOn),
        (3, _) => Seen::Doubt,
        (2, 354) | (0 | 1, 200..300) => goes_on,
        _ => Seen::Fault,
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_form_and_place_the_code_decides() {
    let envelope = one_recipient();
    for at in 0..4 {
        for code in [250, 251, 354, 421, 450, 451, 550, 554] {
            for (form, regular) in forms(code) {
                let mut replies: Vec<&str> = USUAL.to_vec();
                replies[at] = &form;
                if code >= 400 {
                    replies[at + 1..].fill("503 what?\r\n");
                }
                let (before, after) = (replies[..3].concat(), if at == 3 { &*form } else { USUAL[3] });
                let (seen, _) = sent(&envelope, (&before, 3), after, End::GoesOn).await;
                let what = form.chars().take(20).collect::<String>();
                assert_eq!(seen, expected(at, code, regular, End::GoesOn), "{what:?} at {at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cut_anywhere_behind_the_code_it_decides() {
    let envelope = one_recipient();
    for at in 0..4 {
        for code in [250, 354, 421, 451, 554] {
            for form in [format!("{code} 5.7.1 text\r\n"), format!("{code}-first\r\n{code} second\r\n")] {
                for (cut, end) in (1..=form.len()).flat_map(|cut| [(cut, End::Closes), (cut, End::IsSilent)])
                {
                    let (before, after) = match at {
                        3 => (USUAL[..3].concat(), &form[..cut]),
                        _ => (USUAL[..at].concat() + &form[..cut], ""),
                    };
                    let (seen, _) = sent(&envelope, (&before, 3), after, end).await;
                    let due = match (cut, at, code) {
                        (0..3, 3, _) => Seen::Doubt,
                        (0..3, _, _) => Seen::Fault,
                        // The grant is whole, and nothing comes behind it.
                        (_, 2, 354) if end == End::IsSilent && cut == form.len() => Seen::Doubt,
                        _ => expected(at, code, false, end),
                    };
                    // A whole reply, behind which the end is not noticed yet.
                    let seen = match seen {
                        Seen::Accepted(code, _) if cut == form.len() => Seen::Accepted(code, false),
                        seen => seen,
                    };
                    assert_eq!(seen, due, "{:?} at {at}, {end:?}", &form[..cut]);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_in_the_content_is_a_refusal_or_a_fault() {
    let envelope = one_recipient();
    for code in [250, 354, 421, 450, 554] {
        for (form, _) in forms(code) {
            let before = USUAL[..3].concat() + &form;
            let (seen, _) = sent(&envelope, (&before, 1), "250 taken\r\n", End::GoesOn).await;
            let due = match code {
                421 => Seen::Closing,
                400.. => Seen::Refused(code),
                _ => Seen::Fault,
            };
            let what = form.chars().take(20).collect::<String>();
            assert_eq!(seen, due, "{what:?}");
        }
    }
}

/// Answers to MAIL, two RCPT, DATA and the dot, as an upstream that keeps to
/// the protocol may give them, and what they mean.
fn honest() -> Vec<([&'static str; 5], Seen, Vec<u16>)> {
    let (m, b, c, go) = ("250 m\r\n", "250 b\r\n", "250 c\r\n", "354 go\r\n");
    let none = "503 none\r\n";
    vec![
        ([m, b, c, go, "250 ok\r\n"], Seen::Accepted(250, true), vec![250, 250]),
        ([m, b, c, go, "554 no\r\n"], Seen::Refused(554), vec![250, 250]),
        ([m, "550 b\r\n", c, go, "250 ok\r\n"], Seen::Accepted(250, true), vec![550, 250]),
        ([m, b, "450 c\r\n", go, "250 ok\r\n"], Seen::Accepted(250, true), vec![250, 450]),
        ([m, b, "450 c\r\n", go, "451 later\r\n"], Seen::Refused(451), vec![250, 450]),
        ([m, "550 b\r\n", "450 c\r\n", "554 none\r\n", ""], Seen::Refused(550), vec![550, 450]),
        ([m, b, c, "451 later\r\n", ""], Seen::Refused(451), vec![451, 451]),
        ([m, b, "550 c\r\n", "451 later\r\n", ""], Seen::Refused(451), vec![451, 550]),
        (["452 m\r\n", none, none, none, ""], Seen::Refused(452), vec![452, 452]),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_line_too_many_makes_no_reply_answer_another_command() {
    let envelope = envelope();
    for (replies, outcome, recipients) in honest() {
        let before = replies[..4].concat();
        let (seen, of_recipients) = sent(&envelope, (&before, 1), replies[4], End::GoesOn).await;
        assert_eq!((&seen, &of_recipients), (&outcome, &recipients), "{replies:?}");
        for stray in
            ["250 stray\r\n", "354 stray\r\n", "450 stray\r\n", "550 stray\r\n", "220-a\r\n220 b\r\n"]
        {
            for at in 0..=4 {
                let mut shifted = replies[..4].to_vec();
                shifted.insert(at, stray);
                let before = shifted.concat();
                let (seen, of_recipients) = sent(&envelope, (&before, 1), replies[4], End::GoesOn).await;
                let is_fault = seen == Seen::Fault;
                let is_true = seen == outcome && of_recipients == recipients;
                // Behind the grant, a refusal of the content is what it looks like.
                let code: u16 = stray[..3].parse().unwrap();
                let refused: Vec<u16> =
                    recipients.iter().map(|&own| if own == 250 { code } else { own }).collect();
                let is_refusal = at == 4 && code >= 400 && of_recipients == refused;
                assert!(is_fault || is_refusal || is_true, "{shifted:?}: {seen:?} {of_recipients:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_too_many_from_the_message_before_names_nobody_wrongly() {
    // It comes when the next transaction has begun: the worst moment.
    let envelope = envelope();
    for offered in [PIPELINING, PLAIN] {
        for stray in ["250 stray\r\n", "354 stray\r\n", "550 stray\r\n"] {
            let (near, far) = duplex(1 << 16);
            let mut connection = Connection::new(near, "mx.example:25".into(), TIMEOUTS);
            let mut peer = Peer { stream: far };
            let (hello, ()) = join!(connection.hello("relay.example"), peer.greet(offered));
            hello.unwrap();
            let content = content("x\r\n");
            let far = async {
                peer.hear(MAIL).await;
                peer.say(stray).await;
                if offered == PLAIN {
                    sleep(Duration::from_secs(1)).await;
                }
                let _ = peer.stream.write_all(b"250 m\r\n250 b\r\n550 c\r\n354 go\r\n").await;
                let mut rest = Vec::new();
                let _ = peer.stream.read_to_end(&mut rest).await;
                assert!(!String::from_utf8_lossy(&rest).contains("x\r\n."), "the content left");
            };
            let near = async {
                let standing = prepare(&mut connection, &envelope, &content).await;
                drop(connection);
                standing
            };
            let (standing, ()) = join!(near, far);
            match standing {
                Err(_) => {}
                // One command at a time, a stray refusal of MAIL can't be told from a true one.
                Ok(Standing::Settled { replies, keep }) => {
                    assert_eq!((offered, codes(&replies), keep), (PLAIN, vec![550, 550], false), "{stray}");
                }
                Ok(standing) => panic!("{stray}: {standing:?}"),
            }
        }
    }
}

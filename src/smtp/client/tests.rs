use super::*;
use crate::smtp::address::Path;
use crate::smtp::envelope::{BodyType, Envelope, MailParameters, Recipient, ReturnContent};

const ALL: &str = "hello\nPIPELINING\nSIZE 1000\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nAUTH PLAIN";

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn envelope() -> Envelope {
    let mut second = Recipient::new(path("c@x.example"));
    second.notify = Some("SUCCESS,FAILURE".to_owned());
    second.orcpt = Some("rfc822;c+2Bd@x.example".to_owned());
    Envelope {
        reverse_path: path("a@x.example"),
        parameters: MailParameters {
            size: Some(1),
            body: Some(BodyType::EightBitMime),
            smtputf8: true,
            ret: Some(ReturnContent::Headers),
            envid: Some("id+2B1".to_owned()),
            auth: Some("<>".to_owned()),
        },
        recipients: vec![Recipient::new(path("b@x.example")), second],
    }
}

/// A client past its greeting, whose upstream offers `offered`.
fn greeted(offered: &str) -> Client {
    let mut client = Client::new();
    client.feed(b"220 hi\r\n");
    assert!(matches!(client.next_reply(), Ok(Some((Due::Greeting, _)))));
    client.ehlo("relay.example", &mut Vec::new());
    let mut bytes = Vec::new();
    Reply::new(250, offered).write_to(&mut bytes);
    client.feed(&bytes);
    assert!(matches!(client.next_reply(), Ok(Some((Due::Ehlo, _)))));
    assert!(client.is_quiet());
    client
}

fn commands(client: &mut Client, envelope: &Envelope, content: MailContent) -> String {
    let mut out = Vec::new();
    client.mail(envelope, content, &mut out);
    for (index, recipient) in envelope.recipients.iter().enumerate() {
        client.recipient(index, recipient, &mut out);
    }
    client.data(&mut out);
    String::from_utf8(out).unwrap()
}

const PLAIN: MailContent = MailContent { size: 321, eight_bit: false, smtputf8: false };

#[test]
fn parameters_pass_where_their_extension_is_offered() {
    let content = MailContent { smtputf8: true, ..PLAIN };
    assert_eq!(
        commands(&mut greeted(ALL), &envelope(), content),
        "MAIL FROM:<a@x.example> SIZE=321 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1 AUTH=<>\r\n\
         RCPT TO:<b@x.example>\r\n\
         RCPT TO:<c@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;c+2Bd@x.example\r\n\
         DATA\r\n"
    );
    assert_eq!(
        commands(&mut greeted("hello"), &envelope(), content),
        "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"
    );
}

#[test]
fn eight_bit_is_said_only_where_it_is_so() {
    let mut plain = envelope();
    plain.parameters = MailParameters { body: Some(BodyType::SevenBit), ..MailParameters::default() };
    plain.recipients.clear();
    let mut client = greeted(ALL);
    assert_eq!(commands(&mut client, &plain, PLAIN), "MAIL FROM:<a@x.example> SIZE=321\r\nDATA\r\n");
    let content = MailContent { eight_bit: true, ..PLAIN };
    let eight_bit = "MAIL FROM:<a@x.example> SIZE=321 BODY=8BITMIME\r\nDATA\r\n";
    assert_eq!(commands(&mut client, &plain, content), eight_bit);
}

#[test]
fn a_parameter_can_not_end_its_command() {
    let mut forged = envelope();
    forged.parameters.envid = Some("x\r\nRSET".to_owned());
    assert!(!commands(&mut greeted(ALL), &forged, PLAIN).contains("ENVID"));
}

#[test]
fn replies_answer_in_the_order_of_the_commands_wherever_they_are_cut() {
    let bytes = b"250 2.0.0 reset\r\n250-ok\r\n250 sender\r\n251 moved\r\n550 5.1.1 no\r\n354 go\r\n";
    for cut in 0..=bytes.len() {
        let mut client = greeted(ALL);
        client.reset(&mut Vec::new());
        commands(&mut client, &envelope(), PLAIN);
        let mut answers = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            client.feed(part);
            while let Some((due, reply)) = client.next_reply().unwrap() {
                answers.push((due, reply.code()));
            }
        }
        let (first, second) = (Due::Recipient(0), Due::Recipient(1));
        let expected = [(Due::Reset, 250), (Due::Mail, 250), (first, 251), (second, 550), (Due::Data, 354)];
        assert_eq!(answers, expected, "cut at {cut}");
        assert!(client.is_quiet());
    }
}

/// What `line` is as the only answer to one command.
fn answer(command: impl Fn(&mut Client), line: &str) -> Result<u16, ProtocolFault> {
    let mut client = greeted(ALL);
    command(&mut client);
    client.feed(format!("{line}\r\n").as_bytes());
    client.next_reply().map(|answer| answer.unwrap().1.code())
}

#[test]
fn each_reply_must_be_of_a_class_that_is_due() {
    let wrong = |result| matches!(result, Err(ProtocolFault::WrongClass { .. }));
    let mail = |client: &mut Client| client.mail(&envelope(), PLAIN, &mut Vec::new());
    let recipient = |client: &mut Client| client.recipient(0, &envelope().recipients[0], &mut Vec::new());
    let data = |client: &mut Client| client.data(&mut Vec::new());
    let steps: [&dyn Fn(&mut Client); 3] = [&mail, &recipient, &|client| client.completed()];
    for step in steps {
        assert_eq!(answer(step, "250 ok"), Ok(250));
        assert_eq!(answer(step, "450 later"), Ok(450));
        assert_eq!(answer(step, "550 no"), Ok(550));
        assert!(wrong(answer(step, "354 go")));
    }
    assert_eq!(answer(data, "354 go"), Ok(354));
    assert_eq!(answer(data, "451 later"), Ok(451));
    assert!(wrong(answer(data, "250 ok")));
    assert!(wrong(answer(data, "350 go")));
    for step in steps {
        let closing = Err(ProtocolFault::ServiceClosing(Reply::new(421, "bye")));
        assert_eq!(answer(step, "421 bye"), closing);
    }
}

#[test]
fn bytes_that_nothing_asked_for_are_early() {
    let mut client = greeted(ALL);
    assert_eq!(client.next_reply(), Ok(None));
    client.feed(b"2");
    assert!(!client.is_quiet());
    assert_eq!(client.next_reply(), Err(ProtocolFault::Early(None)));

    let mut client = greeted(ALL);
    client.feed(b"250 done\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::Early(Some(Reply::new(250, "done")))));
    // The connection stays of no use when those bytes are read.
    assert!(!client.is_quiet());
    client.completed();
    client.feed(b"250 taken\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::Early(Some(Reply::new(250, "taken")))));

    let mut client = greeted(ALL);
    client.feed(b"421 too slow\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::ServiceClosing(Reply::new(421, "too slow"))));
}

#[test]
fn what_came_before_a_command_never_answers_it() {
    let mut client = greeted(ALL);
    client.feed(b"250 early\r\n");
    client.completed();
    client.feed(b"550 no\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::Early(Some(Reply::new(250, "early")))));
}

#[test]
fn bytes_behind_the_last_reply_do_not_spoil_it() {
    let mut client = greeted(ALL);
    client.completed();
    client.feed(b"250 taken\r\n421 and bye\r\n");
    assert_eq!(client.next_reply(), Ok(Some((Due::Completion, Reply::new(250, "taken")))));
    assert!(!client.is_quiet());
}

#[test]
fn late_keywords_count_and_other_long_replies_are_cut() {
    let lines = format!("250-{}\r\n", "x".repeat(1000)).repeat(10) + "250 PIPELINING\r\n";
    let mut client = greeted("hello");
    client.ehlo("relay.example", &mut Vec::new());
    client.feed(lines.as_bytes());
    assert!(matches!(client.next_reply(), Ok(Some((Due::Ehlo, _)))));
    assert!(client.capabilities().pipelining && client.is_reusable());
    client.reset(&mut Vec::new());
    client.feed(lines.as_bytes());
    let Ok(Some((Due::Reset, reply))) = client.next_reply() else { panic!() };
    assert_eq!(reply.text().len(), MAX_REPLY - 5 * "250-".len() + 4);
    assert!(client.is_quiet() && !client.is_reusable());
}

#[test]
fn helo_forgets_what_was_offered() {
    let mut client = greeted(ALL);
    assert!(client.capabilities().pipelining);
    client.helo("relay.example", &mut Vec::new());
    client.feed(b"250 hello\r\n");
    client.next_reply().unwrap();
    assert_eq!(client.capabilities(), &Capabilities::default());
}

#[test]
fn tls_and_auth_have_one_code_for_yes() {
    let wrong = |result| matches!(result, Err(ProtocolFault::WrongClass { .. }));
    let starttls = |client: &mut Client| client.starttls(&mut Vec::new());
    let auth = |client: &mut Client| client.auth("PLAIN", &mut Vec::new());
    let response = |client: &mut Client| client.auth_response("AA==", &mut Vec::new());
    assert_eq!(answer(starttls, "220 go"), Ok(220));
    assert_eq!(answer(starttls, "454 later"), Ok(454));
    assert!(wrong(answer(starttls, "250 ok")) && wrong(answer(starttls, "334 go")));
    let steps: [&dyn Fn(&mut Client); 2] = [&auth, &response];
    for step in steps {
        assert_eq!(answer(step, "235 welcome"), Ok(235));
        assert_eq!(answer(step, "334 more"), Ok(334));
        assert_eq!(answer(step, "535 no"), Ok(535));
        assert!(wrong(answer(step, "250 ok")) && wrong(answer(step, "354 go")));
    }
}

#[test]
fn a_secured_connection_knows_nothing_and_waits_for_nothing() {
    let mut client = Client::secured();
    assert!(client.is_quiet() && client.next_due().is_none());
    assert_eq!(client.capabilities(), &Capabilities::default());
    client.feed(b"220 hello\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::Early(Some(Reply::new(220, "hello")))));
}

#[test]
fn before_the_dot_only_a_refusal_comes_unasked() {
    let in_content = || {
        let mut client = greeted(ALL);
        client.data(&mut Vec::new());
        client.feed(b"354 go\r\n");
        assert!(matches!(client.next_reply(), Ok(Some((Due::Data, _)))));
        assert!(client.is_quiet());
        client
    };
    for line in ["450 later", "554 no"] {
        let mut client = in_content();
        client.feed(format!("{line}\r\n").as_bytes());
        let Ok(Some((Due::Content, reply))) = client.next_reply() else { panic!("{line}") };
        assert_eq!(reply.to_string(), line);
        // Nothing makes this connection usable again.
        assert!(!client.is_quiet());
        client.completed();
        client.feed(b"250 taken\r\n");
        assert!(client.next_reply().is_err());
    }
    for line in ["250 taken", "354 more"] {
        let mut client = in_content();
        client.feed(format!("{line}\r\n").as_bytes());
        assert!(matches!(client.next_reply(), Err(ProtocolFault::Early(Some(_)))), "{line}");
    }
    let mut client = in_content();
    client.feed(b"421 bye\r\n");
    assert_eq!(client.next_reply(), Err(ProtocolFault::ServiceClosing(Reply::new(421, "bye"))));
    // After the dot it is the answer, and 4yz in front of it is not.
    let mut client = in_content();
    client.feed(b"55");
    assert_eq!(client.next_reply(), Ok(None));
    client.completed();
    client.feed(b"4 no\r\n");
    assert!(matches!(client.next_reply(), Err(ProtocolFault::Early(_))));
}

/// Replies with this code in each form that is judged by it.
fn forms(code: u16) -> Vec<Vec<u8>> {
    let long = "x".repeat(MAX_LINE - 3);
    [
        format!("{code} text\r\n"),
        format!("{code}\r\n"),
        format!("{code} text\n"),
        format!("{code}\ttext\r\n"),
        format!("{code}0 text\r\n"),
        format!("{code}: text\r\n"),
        format!("{code} te\0xt\rmore\r\n"),
        format!("{code} {long}\r\n"),
        format!("{code}-{long}\r\n").repeat(3) + &format!("{code} {long}\r\n"),
        format!("{code}-\r\n").repeat(MAX_LINES) + &format!("{code} text\r\n"),
        format!("{code}-first\r\nno code\r\n\r\n{code} text\r\n"),
        format!("{code}-first\n{code}\n"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// What a reply came to: its code, or the fault by its kind.
fn came_to(client: &mut Client) -> Option<(Option<Due>, u16)> {
    match client.next_reply() {
        Ok(None) => None,
        Ok(Some((due, reply))) => Some((Some(due), reply.code())),
        Err(
            ProtocolFault::WrongClass { reply, .. }
            | ProtocolFault::ServiceClosing(reply)
            | ProtocolFault::Early(Some(reply)),
        ) => Some((None, reply.code())),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn in_every_form_and_to_every_command_the_code_decides() {
    let grant = |client: &mut Client| {
        client.data(&mut Vec::new());
        client.feed(b"354 go\r\n");
        assert!(matches!(client.next_reply(), Ok(Some((Due::Data, _)))));
    };
    type Ask<'a> = (&'a str, &'a dyn Fn(&mut Client));
    let asks: [Ask<'_>; 10] = [
        ("EHLO", &|client| client.ehlo("relay.example", &mut Vec::new())),
        ("HELO", &|client| client.helo("relay.example", &mut Vec::new())),
        ("STARTTLS", &|client| client.starttls(&mut Vec::new())),
        ("AUTH", &|client| client.auth("PLAIN", &mut Vec::new())),
        ("RSET", &|client| client.reset(&mut Vec::new())),
        ("MAIL", &|client| client.mail(&envelope(), PLAIN, &mut Vec::new())),
        ("RCPT", &|client| client.recipient(0, &envelope().recipients[0], &mut Vec::new())),
        ("DATA", &|client| client.data(&mut Vec::new())),
        ("content", &grant),
        ("dot", &|client| {
            grant(client);
            client.completed();
        }),
    ];
    for (command, ask) in asks {
        for code in [220, 235, 250, 251, 334, 354, 421, 450, 451, 550, 554] {
            let mut plain = greeted(ALL);
            ask(&mut plain);
            plain.feed(format!("{code} text\r\n").as_bytes());
            let expected = came_to(&mut plain);
            assert_eq!(expected.unwrap().1, code);
            for form in forms(code) {
                // Whole, and cut by the end of the connection.
                let cuts = (3..form.len()).step_by(1 + form.len() / 40);
                for end in cuts.chain([form.len()]) {
                    let mut client = greeted(ALL);
                    ask(&mut client);
                    form[..end].chunks(1000).for_each(|piece| client.feed(piece));
                    let mut found = came_to(&mut client);
                    if found.is_none() {
                        assert!(client.cut());
                        found = came_to(&mut client);
                    }
                    let form = String::from_utf8_lossy(&form[..end.min(40)]);
                    assert_eq!(found, expected, "{form:?}, {end} octets, to {command}");
                }
            }
        }
    }
}

//! Command lines: what is taken comes back out of what we send upstream.

use mailonce::smtp::address::Path;
use mailonce::smtp::client::{Client, Due, MailContent};
use mailonce::smtp::command::Command;
use mailonce::smtp::envelope::{Envelope, MailParameters, Recipient};

use super::wire::own_reply_lines;

pub(super) fn run(line: &[u8]) {
    let command = match Command::parse(line) {
        Ok(command) => command,
        Err(reply) => {
            let mut wire = Vec::new();
            reply.write_to(&mut wire);
            assert!((500..600).contains(&own_reply_lines(&wire)[0].0));
            return;
        }
    };
    let is_text = std::str::from_utf8(line).is_ok_and(|line| !line.contains(char::is_control));
    assert!(is_text || matches!(command, Command::Helo(_) | Command::Ehlo(_)));
    match command {
        Command::Mail(path, parameters) => mail(path, parameters),
        Command::Rcpt(recipient) => rcpt(&recipient),
        Command::Helo(name) | Command::Ehlo(name) => {
            assert!((1..=255).contains(&name.len()) && !name.contains(' '));
            assert!(!name.contains(char::is_control));
        }
        Command::Bdat { octets, last } => {
            let again = format!("BDAT {octets}{}", if last { " LAST" } else { "" });
            assert_eq!(Command::parse(again.as_bytes()), Ok(Command::Bdat { octets, last }));
        }
        Command::Auth { mechanism, initial_response } => {
            assert!(!mechanism.contains(' '));
            assert!(
                initial_response.is_none_or(|text| !text.reveal().is_empty() && !text.reveal().contains(' '))
            );
        }
        _ => {}
    }
}

fn mail(path: Path, parameters: MailParameters) {
    identity(&path);
    let envelope = Envelope { reverse_path: path, parameters, recipients: Vec::new() };
    let smtputf8 = envelope.parameters.smtputf8;
    let content = MailContent { size: 7, eight_bit: false, smtputf8 };
    let line = sent(Due::Mail, |client, out| client.mail(&envelope, content, out));
    let Ok(Command::Mail(path, parameters)) = Command::parse(&line) else {
        panic!("{} is not taken back", line.escape_ascii());
    };
    let expected = MailParameters { size: Some(7), ..envelope.parameters };
    // 7BIT is what is meant without the parameter.
    let expected = MailParameters { body: parameters.body, ..expected };
    assert_eq!((path, parameters), (envelope.reverse_path.clone(), expected));
    one_path(&line, &envelope.reverse_path);
}

fn rcpt(recipient: &Recipient) {
    identity(&recipient.path);
    let line = sent(Due::Recipient(3), |client, out| client.recipient(3, recipient, out));
    assert_eq!(Command::parse(&line), Ok(Command::Rcpt(recipient.clone())));
    one_path(&line, &recipient.path);
}

/// The command as an upstream that offers everything gets it, without its CRLF.
fn sent(due: Due, write: impl Fn(&mut Client, &mut Vec<u8>)) -> Vec<u8> {
    let mut client = Client::secured();
    client.ehlo("relay.test", &mut Vec::new());
    client.feed(b"250-x\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-AUTH PLAIN\r\n250 DSN\r\n");
    assert!(matches!(client.next_reply(), Ok(Some(_))));
    let mut out = Vec::new();
    write(&mut client, &mut out);
    assert_eq!(client.next_due(), Some(due));
    let line = out.strip_suffix(b"\r\n").expect("a command without CRLF").to_vec();
    assert!(!line.iter().any(|b| *b < b' ' || *b == 127), "{}", line.escape_ascii());

    let mut bare = Vec::new();
    write(&mut Client::secured(), &mut bare);
    let shorter = bare.strip_suffix(b">\r\n").expect("a parameter that was not offered");
    assert!(line.starts_with(shorter));
    line
}

/// A receiver that knows no quoting must find the same path, unless it is
/// quoted; so one that ends it at the first or at the last bracket does.
fn one_path(line: &[u8], path: &Path) {
    let text = path.as_str();
    if text.contains('"') {
        let (local, domain) = match path {
            Path::Mailbox(mailbox) => (mailbox.local_part(), mailbox.domain()),
            Path::Local(local) => (local.as_str(), ""),
            Path::Null => panic!("quotes in {text}"),
        };
        assert!(local.starts_with('"') && local.ends_with('"'));
        assert!(!domain.contains(['"', '<', '>', ' ', '\\']), "{text}");
    } else {
        assert!(!text.contains(['<', '>', ' ', '\\']), "{text}");
        assert!(line.windows(text.len() + 2).any(|window| window == format!("<{text}>").as_bytes()));
    }
}

/// Two spellings of one address have one identity.
fn identity(path: &Path) {
    let shouted = Path::parse(&path.as_str().to_ascii_uppercase());
    assert_eq!(shouted.map(|shouted| shouted.identity()), Some(path.identity()));
    let quiet = Path::parse(&path.as_str().to_ascii_lowercase());
    assert_eq!(quiet.map(|quiet| quiet.identity()), Some(path.identity()));
}

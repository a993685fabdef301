//! Commands as a client sends them (RFC 5321 §4.1 and the extensions we know).

use super::address::Path;
use super::envelope::{BodyType, MailParameters, Recipient, ReturnContent};
use super::reply::Reply;
use crate::secret::Secret;

/// One command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `HELO name`
    Helo(String),
    /// `EHLO name`
    Ehlo(String),
    /// `MAIL FROM:<reverse-path> parameters`
    Mail(Path, MailParameters),
    /// `RCPT TO:<forward-path> parameters`
    Rcpt(Recipient),
    /// `DATA`
    Data,
    /// `BDAT octets [LAST]` (RFC 3030 §2); the octets follow
    Bdat {
        /// How many octets follow.
        octets: u64,
        /// Whether they complete the message.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `VRFY string`
    Vrfy,
    /// `HELP`
    Help,
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954 §4)
    Auth {
        /// In upper case.
        mechanism: String,
        /// Still in base64.
        initial_response: Option<Secret>,
    },
}

/// The longest command line, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512
/// and each extension for more; UTF-8 paths and ORCPT need this much.
pub const MAX_LINE: usize = 2048;

/// The longest AUTH line or response, CRLF included (RFC 4954 §4).
pub const MAX_AUTH_LINE: usize = 12_288;

impl Command {
    /// Reads one line without its line end. EHLO and HELO take any argument.
    ///
    /// # Errors
    /// The reply that the client hears: `500 5.5.2` for an unknown command or
    /// bytes that no command has, `501` for bad arguments, `555 5.5.4` for
    /// unknown parameters.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        if let Some((extended, argument)) = hello_argument(line) {
            let name = client_name(argument)?;
            return Ok(if extended { Command::Ehlo(name) } else { Command::Helo(name) });
        }
        let line = text_of(line)?;
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_matches(' ');
        match verb.to_ascii_uppercase().as_str() {
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => bare(Command::Data, rest),
            "BDAT" => bdat(rest),
            "RSET" => bare(Command::Rset, rest),
            "NOOP" => Ok(Command::Noop),
            "QUIT" => bare(Command::Quit, rest),
            "VRFY" => Ok(Command::Vrfy),
            "HELP" => Ok(Command::Help),
            "STARTTLS" => bare(Command::StartTls, rest),
            "AUTH" => auth(rest),
            "EXPN" | "TURN" | "ETRN" | "SEND" | "SOML" | "SAML" => {
                Err(Reply::new(502, "5.5.1 command not implemented"))
            }
            _ => Err(Reply::new(500, "5.5.2 command not recognized")),
        }
    }
}

fn text_of(line: &[u8]) -> Result<&str, Reply> {
    let text = std::str::from_utf8(line).ok().filter(|text| !text.contains(char::is_control));
    let text =
        text.ok_or_else(|| Reply::new(500, "5.5.2 control characters or broken UTF-8 in a command"))?;
    Ok(text.trim_end_matches(' '))
}

fn bad_arguments(why: &str) -> Reply {
    Reply::new(501, format!("5.5.4 {why}"))
}

fn bare(command: Command, rest: &str) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(bad_arguments("this command takes no arguments")) }
}

/// What follows EHLO (`true`) or HELO, where the line is one of them.
fn hello_argument(line: &[u8]) -> Option<(bool, &[u8])> {
    let (verb, rest) = line.split_at_checked(4)?;
    let separated = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    let extended = verb.eq_ignore_ascii_case(b"EHLO");
    (separated && (extended || verb.eq_ignore_ascii_case(b"HELO"))).then_some((extended, rest))
}

/// The longest name of a client that is kept, in octets; the rest is ignored.
const MAX_NAME: usize = 255;

/// The first word: the client's name is only ever shown, so it may be anything.
/// What is neither printable nor UTF-8 is shown as `?`.
fn client_name(argument: &[u8]) -> Result<String, Reply> {
    let mut words = argument.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let word = words.next().ok_or_else(|| bad_arguments("a domain name or address literal is needed"))?;
    let mut name = String::with_capacity(word.len().min(MAX_NAME));
    for chunk in word.utf8_chunks() {
        name.extend(chunk.valid().chars().map(|c| if c.is_control() { '?' } else { c }));
        name.extend(chunk.invalid().iter().map(|_| '?'));
    }
    name.truncate(name.floor_char_boundary(MAX_NAME));
    Ok(name)
}

fn mail(rest: &str) -> Result<Command, Reply> {
    let syntax = || Reply::new(501, "5.5.4 syntax: MAIL FROM:<address> [parameters]");
    let (inner, parameters) = path_and_parameters(rest, "FROM:").ok_or_else(syntax)?;
    let path = Path::parse(inner).ok_or_else(|| Reply::new(501, "5.1.7 this is not a sender address"))?;
    Ok(Command::Mail(path, mail_parameters(parameters)?))
}

fn rcpt(rest: &str) -> Result<Command, Reply> {
    let syntax = || Reply::new(501, "5.5.4 syntax: RCPT TO:<address> [parameters]");
    let (inner, parameters) = path_and_parameters(rest, "TO:").ok_or_else(syntax)?;
    let path = Path::parse(inner)
        .filter(|path| *path != Path::Null)
        .ok_or_else(|| Reply::new(501, "5.1.3 this is not a recipient address"))?;
    let mut recipient = Recipient::new(path);
    for (keyword, value) in parameters_of(parameters) {
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) if is_notify(value) => set(&mut recipient.notify, value)?,
            ("ORCPT", Some(value)) if is_orcpt(value) => set(&mut recipient.orcpt, value)?,
            ("NOTIFY" | "ORCPT", _) => return Err(bad_parameter(&keyword)),
            _ => return Err(unknown_parameter()),
        }
    }
    Ok(Command::Rcpt(recipient))
}

/// Splits `FROM:<path> parameters`. Spaces behind the colon and a path without
/// angle brackets are taken, because old senders write them.
fn path_and_parameters<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest[keyword.len()..].trim_start_matches(' ');
    let Some(bracketed) = rest.strip_prefix('<') else {
        let (path, parameters) = rest.split_once(' ').unwrap_or((rest, ""));
        return (!path.is_empty()).then_some((path, parameters));
    };
    let end = closing_bracket(bracketed)?;
    let parameters = &bracketed[end + 1..];
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((&bracketed[..end], parameters))
}

/// The `>` that is not inside a quoted local part.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    text.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' => return !quoted,
            _ => {}
        }
        false
    })
}

fn parameters_of(text: &str) -> impl Iterator<Item = (String, Option<&str>)> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword.to_ascii_uppercase(), Some(value)),
        None => (word.to_ascii_uppercase(), None),
    })
}

fn mail_parameters(text: &str) -> Result<MailParameters, Reply> {
    let mut parameters = MailParameters::default();
    for (keyword, value) in parameters_of(text) {
        match (keyword.as_str(), value) {
            ("SIZE", Some(value)) => parameters.size = Some(size(value)?),
            ("BODY", Some(value)) => parameters.body = Some(body_type(value)?),
            ("SMTPUTF8", None) => parameters.smtputf8 = true,
            ("RET", Some(value)) => parameters.ret = Some(return_content(value)?),
            ("ENVID", Some(value)) if is_xtext(value) && value.len() <= 100 => {
                set(&mut parameters.envid, value)?
            }
            ("AUTH", Some(value)) if value == "<>" || is_xtext(value) => set(&mut parameters.auth, value)?,
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => {
                return Err(bad_parameter(&keyword));
            }
            _ => return Err(unknown_parameter()),
        }
    }
    Ok(parameters)
}

fn set(slot: &mut Option<String>, value: &str) -> Result<(), Reply> {
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(bad_arguments("a parameter is given twice")),
    }
}

fn bad_parameter(keyword: &str) -> Reply {
    bad_arguments(&format!("the value of {keyword} is not valid"))
}

/// RFC 5321 §4.1.1.11.
fn unknown_parameter() -> Reply {
    Reply::new(555, "5.5.4 a parameter is not recognized")
}

/// RFC 1870 §6.1 allows 20 digits, more than 64 bits hold; what does not fit
/// is too big for any limit.
fn size(value: &str) -> Result<u64, Reply> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_parameter("SIZE"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body_type(value: &str) -> Result<BodyType, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(BodyType::SevenBit),
        "8BITMIME" => Ok(BodyType::EightBitMime),
        _ => Err(bad_parameter("BODY")),
    }
}

fn return_content(value: &str) -> Result<ReturnContent, Reply> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(ReturnContent::Full),
        "HDRS" => Ok(ReturnContent::Headers),
        _ => Err(bad_parameter("RET")),
    }
}

fn is_notify(value: &str) -> bool {
    let known = |word: &str| ["SUCCESS", "FAILURE", "DELAY"].iter().any(|k| word.eq_ignore_ascii_case(k));
    value.eq_ignore_ascii_case("NEVER") || value.split(',').all(known)
}

/// `addr-type;xtext` (RFC 3461 §4.2); UTF-8 addresses may stand there as they
/// are (RFC 6533 §3).
fn is_orcpt(value: &str) -> bool {
    value.len() <= 500
        && value.split_once(';').is_some_and(|(kind, address)| {
            is_xtext(kind) && !kind.is_empty() && !address.is_empty() && is_xtext(address)
        })
}

/// RFC 3461 §4: printable ASCII, `+` only before two hex digits.
fn is_xtext(value: &str) -> bool {
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        let fine = match c {
            '+' => (0..2).all(|_| chars.next().is_some_and(|c| c.is_ascii_hexdigit())),
            '=' => false,
            c => c.is_ascii_graphic() || !c.is_ascii(),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn bdat(rest: &str) -> Result<Command, Reply> {
    let (octets, last) = rest.split_once(' ').unwrap_or((rest, ""));
    let last = match last.trim_matches(' ') {
        "" => false,
        word if word.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(bad_arguments("syntax: BDAT octets [LAST]")),
    };
    let octets = size(octets).map_err(|_| bad_arguments("syntax: BDAT octets [LAST]"))?;
    Ok(Command::Bdat { octets, last })
}

fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or_else(|| bad_arguments("syntax: AUTH mechanism [initial-response]"))?;
    let initial_response = words.next().map(|word| Secret::new(word.to_owned()));
    if words.next().is_some() {
        return Err(bad_arguments("syntax: AUTH mechanism [initial-response]"));
    }
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial_response })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail_of(line: &str) -> (Path, MailParameters) {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(path, parameters)) => (path, parameters),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn hello_takes_any_argument() {
        let long = [b"EHLO ", &b"\xc3\xa9".repeat(200)[..]].concat();
        for (line, name) in [
            (&b"EHLO client.test"[..], "client.test"),
            (b"ehlo\tclient.test\t", "client.test"),
            (b"HELO   two names", "two"),
            (b"EHLO caf\xe9", "caf?"),
            (b"EHLO caf\xc3\xa9", "caf\u{e9}"),
            (b"EHLO a\0\x07\x7f\xff\xfeb", "a?????b"),
            (b"EHLO _a:<>", "_a:<>"),
            (&long, &"\u{e9}".repeat(127)),
        ] {
            match Command::parse(line) {
                Ok(Command::Ehlo(found) | Command::Helo(found)) => assert_eq!(found, name),
                other => panic!("{}: {other:?}", line.escape_ascii()),
            }
        }
        assert!(matches!(Command::parse(b"helo a"), Ok(Command::Helo(_))));
    }

    #[test]
    fn a_path_needs_no_domain() {
        assert_eq!(mail_of("MAIL FROM:<root>").0.as_str(), "root");
        let Ok(Command::Rcpt(recipient)) = Command::parse(b"RCPT TO:<Root>") else { panic!() };
        assert_eq!(recipient.path.as_str(), "Root");
    }

    #[test]
    fn mail_takes_every_parameter_we_know() {
        let (path, parameters) = mail_of(
            "mail from:<a@x.example> SIZE=99999999999999999999 body=8bitmime SMTPUTF8 RET=hdrs ENVID=a+2Bb AUTH=<>",
        );
        assert_eq!(path.as_str(), "a@x.example");
        assert_eq!(parameters.size, Some(u64::MAX));
        assert_eq!(parameters.body, Some(BodyType::EightBitMime));
        assert!(parameters.smtputf8);
        assert_eq!(parameters.ret, Some(ReturnContent::Headers));
        assert_eq!(parameters.envid.as_deref(), Some("a+2Bb"));
        assert_eq!(parameters.auth.as_deref(), Some("<>"));
    }

    #[test]
    fn old_ways_of_writing_a_path_are_taken() {
        for line in ["MAIL FROM: <a@x.example>", "MAIL FROM:a@x.example", "MAIL FROM:   a@x.example SIZE=1"] {
            assert_eq!(mail_of(line).0.as_str(), "a@x.example");
        }
    }

    #[test]
    fn a_quoted_bracket_does_not_end_the_path() {
        let (path, parameters) = mail_of("MAIL FROM:<\"a> \\\"SIZE=1\"@x.example> SIZE=2");
        assert_eq!(path.as_str(), "\"a> \\\"SIZE=1\"@x.example");
        assert_eq!(parameters.size, Some(2));
    }

    #[test]
    fn rcpt_takes_the_parameters_of_dsn() {
        let line = b"RCPT TO:<b@x.example> NOTIFY=SUCCESS,delay ORCPT=rfc822;b@x.example";
        let Ok(Command::Rcpt(recipient)) = Command::parse(line) else { panic!() };
        assert_eq!(recipient.notify.as_deref(), Some("SUCCESS,delay"));
        assert_eq!(recipient.orcpt.as_deref(), Some("rfc822;b@x.example"));
    }

    #[test]
    fn faults_have_their_replies() {
        for (line, reply) in [
            ("FOO", "500 5.5.2"),
            ("", "500 5.5.2"),
            ("EXPN list", "502 5.5.1"),
            ("EHLO", "501 5.5.4"),
            ("EHLO \t ", "501 5.5.4"),
            ("EHLOa", "500 5.5.2"),
            ("DATA now", "501 5.5.4"),
            ("MAIL <a@x>", "501 5.5.4"),
            ("MAIL FROM:", "501 5.5.4"),
            ("MAIL FROM:<a@x>SIZE=1", "501 5.5.4"),
            ("MAIL FROM:<a", "501 5.5.4"),
            ("MAIL FROM:<a@>", "501 5.1.7"),
            ("MAIL FROM:<a b>", "501 5.1.7"),
            ("RCPT TO:<>", "501 5.1.3"),
            ("RCPT TO:<a b@x>", "501 5.1.3"),
            ("MAIL FROM:<a@x> SIZE=-1", "501 5.5.4"),
            ("MAIL FROM:<a@x> SIZE", "501 5.5.4"),
            ("MAIL FROM:<a@x> BODY=BINARYMIME", "501 5.5.4"),
            ("MAIL FROM:<a@x> ENVID=a ENVID=b", "501 5.5.4"),
            ("MAIL FROM:<a@x> ENVID=+zz", "501 5.5.4"),
            ("MAIL FROM:<a@x> FOO=1", "555 5.5.4"),
            ("RCPT TO:<a@x> NOTIFY=NEVER,DELAY", "501 5.5.4"),
            ("RCPT TO:<a@x> ORCPT=rfc822", "501 5.5.4"),
            ("BDAT", "501 5.5.4"),
            ("BDAT 1 FIRST", "501 5.5.4"),
            ("BDAT -1", "501 5.5.4"),
            ("AUTH", "501 5.5.4"),
            ("NOOP \u{7}", "500 5.5.2"),
        ] {
            let fault = Command::parse(line.as_bytes()).unwrap_err();
            assert!(fault.to_string().starts_with(reply), "{line}: {fault}");
        }
        assert!(Command::parse(b"NOOP \xff").is_err());
    }

    #[test]
    fn bdat_tells_its_length() {
        assert_eq!(Command::parse(b"bdat 86 last"), Ok(Command::Bdat { octets: 86, last: true }));
        assert_eq!(Command::parse(b"BDAT 0"), Ok(Command::Bdat { octets: 0, last: false }));
    }
}

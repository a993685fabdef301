//! What a message says: its fields in whatever spelling, and a body that looks
//! like commands.

use super::history::Submission;
use super::plan::{ClientPlan, TENANT_HEADER};
use super::provider;
use super::random::Random;

/// The names of one rendition of a mail: all behind the colon, octet for octet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub message_id: Option<String>,
    pub date: Option<String>,
}

impl Names {
    /// Those of the try of this number: new ones for each.
    pub fn of(number: usize, odd: bool, random: &mut Random) -> Self {
        let (id, second) = (format!("<m{number}@from.test>"), number % 60);
        let (first, then) = if odd { (random.index(6), random.index(5)) } else { (0, 0) };
        let message_id = match first {
            0 => Some(format!(" {id}")),
            1 => Some(id),
            2 => Some(format!("\t  {id} ")),
            3 => Some(format!("\r\n {id}")),
            4 => Some(format!(" {id}\r\n\t(a  comment)")),
            _ => None,
        };
        let date = match then {
            0 => Some(format!(" Sat, 21 Nov 2026 08:15:{second:02} +0000")),
            1 => Some(format!("Sat, 21 Nov 2026 08:15:{second:02} +0000")),
            2 => Some(format!("  Sat,  21 Nov 2026\r\n 08:15:{second:02} +0000  (UTC)")),
            3 => Some(format!(" 21 Nov 26 08:15:{second:02} GMT ")),
            _ => None,
        };
        Self { message_id, date }
    }

    /// Those that a message arrived with.
    pub fn read(content: &str) -> Self {
        let one = |name| values(content, name).into_iter().next();
        Self { message_id: one("message-id"), date: one("date") }
    }
}

/// Each try is another text to the eye, and the same e-mail.
pub fn message(submission: &Submission, number: usize) -> String {
    let Submission { mail, names, .. } = submission;
    let ClientPlan { key, text, .. } = mail;
    let field = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!("{name}:{value}\r\n")).unwrap_or_default()
    };
    let tenant = mail.tenant_field().map(|tenant| format!(" {tenant}"));
    format!(
        "From: App <app@from.test>\r\nTo: you@to.test\r\nSubject: mail {key}, {text}\r\n\
         X-Idempotency-Key: k{key}\r\n{}{}{}{}: its-own\r\nX-Submission: s{number}.\r\n\r\n{}",
        field("Message-Id", &names.message_id),
        field("Date", &names.date),
        field(TENANT_HEADER, &tenant),
        provider::HEADER,
        body(mail)
    )
}

/// What must arrive to its last octet. An upstream that took it for commands
/// would have something to do.
fn body(mail: &ClientPlan) -> String {
    let ClientPlan { text, key, .. } = mail;
    format!(
        "text {text} of mail {key}\r\nRSET\r\nMAIL FROM:<x@y.test>\r\nRCPT TO:<victim@z.test>\r\nDATA\r\n\
         Subject: not mine\r\nthe end\r\n"
    )
}

/// Whether a message that has arrived is the one that was submitted.
pub fn is_whole(content: &str, number: usize, submission: &Submission) -> bool {
    let tag = format!("\r\nX-Submission: s{number}.\r\n");
    let is_body = |(_, rest): (&str, &str)| rest == body(&submission.mail);
    content.split_once("\r\n\r\n").is_some_and(is_body)
        && content.contains(&tag)
        && values(content, TENANT_HEADER).is_empty()
}

/// The values of all fields of this name, octet for octet behind the colon.
pub fn values(content: &str, name: &str) -> Vec<String> {
    let head = content.split_once("\r\n\r\n").map_or(content, |(head, _)| head);
    let mut fields: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(&format!("\r\n{line}")),
            _ => fields.push(line.to_owned()),
        }
    }
    let value = |field: String| {
        let (own, value) = field.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.to_owned())
    };
    fields.into_iter().filter_map(value).collect()
}

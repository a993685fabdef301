//! What is changed on the way through: our Received field in front, the key
//! fields taken out, for a resend the first attempt's Message-ID and Date, and
//! a first line that is no field kept apart from our fields.

use super::rendition::Late;
use super::{Content, Headers, Rendition};

/// A line of a mailbox file becomes a field of this name.
const MAILBOX_LINE: &str = "X-Mailbox-Line";

/// The changes to one message. Nothing is changed that a DKIM signature covers,
/// and nothing is added that one forbids.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// Our Received field with its CRLF, which goes in front.
    pub received: String,
    /// Names of fields to take out, in lower case.
    pub remove: Vec<String>,
    /// Fields to put in the place of those of the same name, each whole and
    /// without its last CRLF.
    pub replace: Vec<(String, Vec<u8>)>,
    /// The same with a value that depends on the recipients taken.
    pub late: Option<(String, Late)>,
}

impl Edits {
    /// What goes upstream.
    pub fn apply(&self, headers: &Headers, content: &Content, eight_bit: bool) -> Rendition {
        let signed = headers.signed_names();
        let is_signed = |name: &str| signed.contains(name);
        let replace: Vec<_> =
            self.replace.iter().filter(|(name, _)| !is_signed(&name.to_ascii_lowercase())).collect();
        let late = self.late.as_ref().filter(|(name, _)| !is_signed(&name.to_ascii_lowercase()));
        let drop = |name: &str| {
            !is_signed(name)
                && (self.remove.iter().any(|remove| remove == name)
                    || replace.iter().any(|(replaced, _)| replaced.eq_ignore_ascii_case(name))
                    || late.is_some_and(|(replaced, _)| replaced.eq_ignore_ascii_case(name)))
        };

        let mut rendition = Rendition::new();
        let brings_eight_bit = replace.iter().any(|(_, field)| !field.is_ascii());
        rendition.set_eight_bit(eight_bit || brings_eight_bit);
        let mut front = Vec::new();
        if !headers.oversigns("received") {
            front.extend_from_slice(self.received.as_bytes());
        }
        for (_, field) in &replace {
            front.extend_from_slice(field);
            front.extend_from_slice(b"\r\n");
        }
        if let Some((name, value)) = late {
            front.extend_from_slice(format!("{name}: ").as_bytes());
            rendition.push_bytes(front.into());
            rendition.push_late(value.clone());
            front = b"\r\n".to_vec();
        }
        if !is_signed(&MAILBOX_LINE.to_ascii_lowercase()) {
            for line in headers.mailbox_lines() {
                front.extend_from_slice(format!("{MAILBOX_LINE}: ").as_bytes());
                front.extend_from_slice(line);
            }
        }
        let mut kept = headers.without(drop);
        if kept.is_empty() && !front.is_empty() && begins_body(&content.head()[headers.len()..]) {
            front.extend_from_slice(b"\r\n");
        }
        rendition.push_bytes(front.into());
        // The last stretch and what follows it are one where nothing is
        // missing between them, so an unchanged message stays in one piece.
        let rest = match kept.pop_if(|last| last.end == headers.len()) {
            Some(last) => last.start,
            None => headers.len(),
        };
        for range in kept {
            rendition.push_bytes(content.head().slice(range));
        }
        content.append_from(rest, &mut rendition);
        rendition
    }
}

/// Whether the body begins here without an empty line in front: behind fields
/// of ours it would be taken for the rest of them.
fn begins_body(rest: &[u8]) -> bool {
    !rest.is_empty() && !rest.starts_with(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::least_cost;
    use crate::message::{Budget, Spool};

    async fn edited(text: &str, edits: Edits) -> String {
        let in_memory = edited_from(text, &edits, 1 << 20).await;
        assert_eq!(edited_from(text, &edits, 1).await, in_memory, "from a file");
        in_memory
    }

    async fn edited_from(text: &str, edits: &Edits, memory_limit: u64) -> String {
        let mut spool = Spool::new(Budget::new(1 << 20), memory_limit);
        spool.buffer(text.len()).extend_from_slice(text.as_bytes());
        spool.settle().await.unwrap();
        let content = spool.finish().await.unwrap();
        let headers = Headers::parse(content.head()).unwrap();
        let rendition = edits.apply(&headers, &content, false);
        let mut reader = rendition.reader(&[]);
        let mut sent = Vec::new();
        while let Some(block) = reader.next().await.unwrap() {
            sent.extend_from_slice(block);
        }
        assert_eq!(sent.len() as u64, rendition.len());
        String::from_utf8(sent).unwrap()
    }

    fn remove(name: &str) -> Edits {
        Edits { remove: vec![name.to_owned()], ..Edits::default() }
    }

    #[tokio::test]
    async fn fields_go_wherever_they_stand() {
        for text in ["X-Key: k\r\nA: 1\r\n\r\nbody\r\n", "A: 1\r\nx-key: k\r\n\r\nbody\r\n"] {
            assert_eq!(edited(text, remove("x-key")).await, "A: 1\r\n\r\nbody\r\n");
        }
        assert_eq!(edited("X-Key: k\r\n", remove("x-key")).await, "");
        assert_eq!(edited("A: 1\r\n\r\nX-Key: k\r\n", remove("x-key")).await, "A: 1\r\n\r\nX-Key: k\r\n");
    }

    #[tokio::test]
    async fn what_a_signature_covers_stays() {
        let text =
            "DKIM-Signature: h=x-key:message-id; b=x\r\nX-Key: k\r\nMessage-ID: <a@x>\r\nDate: now\r\n\r\n";
        let mut edits = remove("x-key");
        edits.replace = vec![
            ("Message-ID".into(), b"Message-ID: <first@x>".to_vec()),
            ("Date".into(), b"DATE:\tthen\r\n (folded)".to_vec()),
        ];
        let sent = edited(text, edits).await;
        assert!(sent.contains("X-Key: k\r\nMessage-ID: <a@x>\r\n"), "{sent}");
        assert!(sent.starts_with("DATE:\tthen\r\n (folded)\r\n") && !sent.contains("Date: now"), "{sent}");
    }

    /// A field of the first attempt may hold octets that this message has not.
    #[tokio::test]
    async fn octets_above_127_in_a_field_of_the_first_attempt_count() {
        let head = "Date: now\r\n\r\n";
        let mut spool = Spool::new(Budget::new(1 << 20), 1 << 20);
        spool.buffer(head.len()).extend_from_slice(head.as_bytes());
        let content = spool.finish().await.unwrap();
        let headers = Headers::parse(content.head()).unwrap();
        for (date, eight_bit) in [("Date: then", false), ("Date: then (\u{fc})", true)] {
            let replace = vec![("Date".to_owned(), date.as_bytes().to_vec())];
            let edits = Edits { replace, ..Edits::default() };
            assert_eq!(edits.apply(&headers, &content, false).is_eight_bit(), eight_bit, "{date}");
        }
    }

    #[tokio::test]
    async fn nothing_is_added_that_a_signature_forbids() {
        let received = || Edits {
            received: "Received: by us\r\n".into(),
            replace: vec![("X-Key".into(), b"X-Key: k".to_vec())],
            ..Edits::default()
        };
        let forbidding = "DKIM-Signature: h=Received:x-key; b=x\r\nA: 1\r\n\r\n";
        assert_eq!(edited(forbidding, received()).await, forbidding);
        let signed = "DKIM-Signature: h=received; b=x\r\nReceived: by them\r\n\r\n";
        assert_eq!(
            edited(signed, received()).await,
            format!("Received: by us\r\nX-Key: k\r\n{signed}"),
            "one more Received field lies above those that are signed"
        );
    }

    /// Each field is looked up among the names that are signed: with a list of
    /// them in place of a set, this is tens of millions of comparisons.
    #[test]
    fn a_signature_of_everything_costs_no_more_than_its_size() {
        let cost = |times: usize| {
            let fields = "X-Key: k\r\n".repeat(120 * times);
            let text = format!("DKIM-Signature: h={}\r\n{fields}\r\n", "a:".repeat(7500 * times));
            let head = bytes::Bytes::from(text);
            let headers = Headers::parse(&head).unwrap();
            least_cost(|| {
                let signed = headers.signed_names();
                assert!(headers.without(|name| !signed.contains(name)).is_empty());
            })
        };
        let (small, large) = (cost(1), cost(8));
        let most = small * 24 + std::time::Duration::from_millis(20);
        assert!(large < most, "{small:?}, 8 times as much: {large:?}");
    }

    #[tokio::test]
    async fn nothing_is_glued_to_our_fields() {
        let ours = "Received: by us\r\n";
        for (text, sent) in [
            ("", ""),
            ("\r\n", "\r\n"),
            ("\r\nbody\r\n", "\r\nbody\r\n"),
            (" \r\n", "\r\n \r\n"),
            ("\tfolded\r\nA: 1\r\n", "\r\n\tfolded\r\nA: 1\r\n"),
            ("no field\r\nA: 1\r\n", "\r\nno field\r\nA: 1\r\n"),
            (": no name\r\n", "\r\n: no name\r\n"),
            (".\r\n", "\r\n.\r\n"),
            ("From a b\r\nA: 1\r\n\r\nx\r\n", "X-Mailbox-Line: From a b\r\nA: 1\r\n\r\nx\r\n"),
            ("From : a@b\r\n\r\n", "From : a@b\r\n\r\n"),
            (
                "From a\r\n>From b\r\n c\r\n",
                "X-Mailbox-Line: From a\r\nX-Mailbox-Line: >From b\r\n\r\n c\r\n",
            ),
            ("From a\r\n", "X-Mailbox-Line: From a\r\n"),
            ("From a\r\nX-Key: k\r\nA: 1\r\n", "X-Mailbox-Line: From a\r\nA: 1\r\n"),
            // The line behind a field that was taken out.
            ("X-Key: k\r\nno field\r\n", "\r\nno field\r\n"),
            ("A: 1\r\nno field\r\n", "A: 1\r\nno field\r\n"),
        ] {
            let with_ours = Edits { received: ours.to_owned(), ..remove("x-key") };
            assert_eq!(edited(text, with_ours).await, format!("{ours}{sent}"), "{text:?}");
            // Without a field in front there is nothing to keep apart.
            let alone = if text.starts_with("\r\n") { sent } else { sent.trim_start_matches("\r\n") };
            assert_eq!(edited(text, remove("x-key")).await, alone, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_signature_that_covers_the_name_keeps_the_mailbox_line_out() {
        let rest = "DKIM-Signature: h=from:x-mailbox-line; b=x\r\nFrom: a@b\r\n\r\n";
        assert_eq!(edited(&format!("From a b\r\n{rest}"), Edits::default()).await, rest);
    }

    #[tokio::test]
    async fn an_unchanged_message_gets_only_what_goes_in_front() {
        let edits = Edits { received: "Received: by us\r\n".into(), ..Edits::default() };
        assert_eq!(edited("A: 1\r\n\r\n.\r\n", edits).await, "Received: by us\r\nA: 1\r\n\r\n.\r\n");
    }
}

//! Paths and mailboxes (RFC 5321 §4.1.2), kept byte for byte.
//!
//! What a client wrote between the angle brackets is what the upstream gets;
//! only a source route is dropped, as RFC 5321 Appendix C asks. Parsing checks
//! the shape and remembers where the domain starts, nothing is rewritten.

use std::fmt;

/// The longest path that is taken, in octets. RFC 5321 §4.5.3.1.3 asks for
/// 256; UTF-8 addresses need more room.
pub const MAX_PATH: usize = 1024;

/// A reverse-path or forward-path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// `<>`: no one to return the message to.
    Null,
    /// `<Postmaster>`, `<root>`: a local part without a domain, which is for
    /// the upstream to complete.
    Local(String),
    /// A mailbox.
    Mailbox(Mailbox),
}

/// `local-part@domain`, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: String,
    /// Where the `@` in front of the domain is.
    at: usize,
}

impl Mailbox {
    /// The local part, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The domain or address literal.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The whole mailbox as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Path {
    /// Reads what stands between the angle brackets. `None` for anything that
    /// is neither empty, a local part, nor a mailbox; the client then receives
    /// `501 5.1.3` (recipient) or `501 5.1.7` (sender).
    pub fn parse(inner: &str) -> Option<Self> {
        if inner.is_empty() {
            return Some(Path::Null);
        }
        if inner.len() > MAX_PATH {
            return None;
        }
        let mailbox = without_source_route(inner)?;
        let at = local_part_end(mailbox)?;
        if at == mailbox.len() {
            return Some(Path::Local(mailbox.to_owned()));
        }
        let domain = mailbox.get(at..)?.strip_prefix('@')?;
        (is_domain(domain) || is_address_literal(domain))
            .then(|| Path::Mailbox(Mailbox { text: mailbox.to_owned(), at }))
    }

    /// What stands between the angle brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Path::Null => "",
            Path::Local(text) => text,
            Path::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// Whether the path can only travel under SMTPUTF8 (RFC 6531 §3.3).
    pub fn needs_smtputf8(&self) -> bool {
        !self.as_str().is_ascii()
    }

    /// The form that two spellings of one address share: lower case, domain in
    /// A-label form without a dot at its end. For comparing only; it is never
    /// relayed.
    pub fn identity(&self) -> String {
        match self {
            Path::Null => String::new(),
            Path::Local(text) => text.to_lowercase(),
            Path::Mailbox(_) => self.dotted_identity().trim_end_matches('.').to_owned(),
        }
    }

    /// The same with the dots at the end of the domain: what earlier versions
    /// told addresses apart by.
    pub fn dotted_identity(&self) -> String {
        let Path::Mailbox(mailbox) = self else { return self.identity() };
        let domain =
            idna::domain_to_ascii(mailbox.domain()).unwrap_or_else(|_| mailbox.domain().to_lowercase());
        format!("{}@{domain}", mailbox.local_part().to_lowercase())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// `@a.example,@b.example:user@c.example` is taken as `user@c.example`
/// (RFC 5321 §4.1.1.3).
fn without_source_route(inner: &str) -> Option<&str> {
    if !inner.starts_with('@') {
        return Some(inner);
    }
    let (route, mailbox) = inner.split_once(':')?;
    let hops = route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(is_domain));
    hops.then_some(mailbox)
}

/// The length of the local part: a dot-string or a quoted string. Dots are
/// taken anywhere, for the sake of mailboxes that really exist with two in a
/// row or one at the end.
fn local_part_end(text: &str) -> Option<usize> {
    let end = if text.starts_with('"') { quoted_string_end(text)? } else { atom_end(text) };
    (end > 0).then_some(end)
}

fn atom_end(text: &str) -> usize {
    text.find(|c: char| !is_atext(c) && c != '.').unwrap_or(text.len())
}

fn is_atext(c: char) -> bool {
    !c.is_ascii() && !c.is_control() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

fn quoted_string_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => {
                chars.next().filter(|(_, c)| matches!(c, ' '..='~'))?;
            }
            c if c.is_control() => return None,
            _ => {}
        }
    }
    None
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63 * 4
            && !label.starts_with('-')
            && label.chars().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || (!c.is_ascii() && !c.is_control())
            })
    };
    !text.is_empty() && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]` or a tagged form of the future; of the
/// latter without brackets and quotes, which RFC 5321 §4.1.3 would allow: a
/// receiver could take them for the end of the path.
fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
        return false;
    };
    match inner.split_once(':') {
        None => inner.parse::<std::net::Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6") => {
            address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        Some((tag, content)) => {
            let dcontent = |b: u8| matches!(b, b'!'..=b'Z' | b'^'..=b'~') && !matches!(b, b'"' | b'<' | b'>');
            !tag.is_empty()
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !content.is_empty()
                && content.bytes().all(dcontent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn survives(text: &str) {
        assert_eq!(Path::parse(text).as_ref().map(Path::as_str), Some(text));
    }

    #[test]
    fn paths_survive_byte_for_byte() {
        for text in [
            "",
            "Postmaster",
            "root",
            "\"a b\"",
            "j\u{fc}rgen",
            "postMASTER",
            "user@example.com",
            "User+Tag@EXAMPLE.com",
            "a..b.@docomo.example",
            "\"a b\"@x.example",
            "\"a@b\\\"c\"@x.example",
            "\"\"@x.example",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "user@localhost",
            "user@under_score.example.",
            "jürgen@bücher.example",
        ] {
            survives(text);
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for text in [
            "a b",
            "user>",
            "\"open",
            "\u{7}",
            "@example.com",
            "user@",
            "user@-x.example",
            "a b@x.example",
            "a@b@c",
            "user@[300.1.1.1]",
            "user@x..example",
            "\"open@x.example",
            "a\"b\"@x.example",
            "a@x.example>",
            "a@x example",
            "a@x.example\u{0}",
            "\"a\u{7}\"@x.example",
            "@a:",
            "user@[IPv6:zz]",
            "<a@b>",
            "a@[tag:b>]",
            "a@[tag:<b]",
            "a@[tag:\"b]",
        ] {
            assert_eq!(Path::parse(text), None, "{text:?}");
        }
        assert_eq!(Path::parse(&format!("{}@x.example", "a".repeat(MAX_PATH))), None);
    }

    #[test]
    fn a_source_route_is_dropped() {
        let path = Path::parse("@a.example,@b.example:user@c.example").unwrap();
        assert_eq!(path.as_str(), "user@c.example");
    }

    #[test]
    fn identity_folds_case_and_domain_form() {
        let identity = |text| Path::parse(text).unwrap().identity();
        assert_eq!(identity("User@EXAMPLE.com"), identity("user@example.COM"));
        assert_eq!(identity("a@bücher.example"), "a@xn--bcher-kva.example");
        assert_eq!(identity("a@[IPv6:2001:DB8::1]"), "a@[ipv6:2001:db8::1]");
        assert_ne!(identity("a@x.example"), identity("b@x.example"));
        for dotted in ["a@X.example.", "a@x.example\u{3002}", "a@x\u{ff0e}example\u{ff61}"] {
            assert_eq!(identity(dotted), "a@x.example", "{dotted:?}");
        }
        assert_eq!(identity("a@b\u{fc}cher.example."), "a@xn--bcher-kva.example");
        assert_eq!(identity("Root"), identity("rOOT"));
        assert_ne!(identity("root"), identity("root@x.example"));
    }
}

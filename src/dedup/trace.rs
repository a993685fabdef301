//! What mailonce writes into the header section of what it relays.

use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::identity::{TTL_HEADER, Tenant};
use crate::message::edit::Edits;
use crate::message::rendition::Late;
use crate::smtp::address::Path;
use crate::smtp::envelope::Envelope;
use crate::store::Names;

use super::message::Message;
use super::{Channel, Services, Source};

/// What names a transaction to those behind it.
#[derive(Clone, Debug, Default)]
pub struct Identifiers {
    /// The Message-ID and Date of an attempt in doubt, for this one to carry.
    pub names: Option<Names>,
    /// The key for a provider that honours one.
    pub key: Option<Late>,
}

/// The edits of one message: our Received field, the key fields taken out, the
/// key for a provider, and for a resend the first attempt's Message-ID and
/// Date, so that mailboxes that collapse equal Message-IDs show one copy.
pub fn edits(services: &Services, message: &Message, identifiers: &Identifiers, at: Timestamp) -> Edits {
    let mut edits = Edits::default();
    if services.received_header {
        edits.received = received(&services.hostname, &message.source, &message.envelope, at);
    }
    edits.remove.extend(services.dedup.headers.iter().map(|name| name.to_ascii_lowercase()));
    edits.remove.push(TTL_HEADER.to_owned());
    edits.remove.extend(message.source.tenant_header.iter().map(|name| name.to_ascii_lowercase()));
    if let Some(name) = &services.idempotency_header {
        // Without a claim there is no key of ours. The client's own stays.
        edits.remove.retain(|other| !name.eq_ignore_ascii_case(other));
        edits.late = identifiers.key.clone().map(|key| (name.clone(), key));
    }
    let Some(Names { message_id, date }) = &identifiers.names else { return edits };
    for (name, field) in [("Message-ID", message_id), ("Date", date)] {
        edits.replace.extend(field.iter().map(|field| (name.to_owned(), field.octets().to_owned())));
    }
    edits
}

/// RFC 5321 §4.4. The recipient is named only where there is one, lest blind
/// copies become known.
fn received(hostname: &str, source: &Source, envelope: &Envelope, at: Timestamp) -> String {
    let name = harmless(&source.name.name);
    let address = match source.client.ip().to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let protocol = protocol(source, envelope);
    let recipient = match envelope.recipients.as_slice() {
        [only] if is_plain(&only.path) => format!("\r\n\tfor {}", only.path),
        _ => String::new(),
    };
    let (session, date) = (&source.session, at.to_rfc5322());
    format!(
        "Received: from {name} ({address})\r\n\tby {hostname} (mailonce) with {protocol} id {session}{recipient};\r\n\t{date}\r\n"
    )
}

/// RFC 3848, RFC 6531 §4.3; there is no word for HELO under TLS.
fn protocol(source: &Source, envelope: &Envelope) -> String {
    let base = match (envelope.parameters.smtputf8, source.name.extended, source.channel) {
        (true, ..) => "UTF8SMTP",
        (false, false, Channel::Clear) => "SMTP",
        (false, ..) => "ESMTP",
    };
    let secure = if source.channel == Channel::Encrypted { "S" } else { "" };
    let authenticated = if source.user.as_ref().is_some_and(Tenant::is_authenticated) { "A" } else { "" };
    format!("{base}{secure}{authenticated}")
}

/// The client's name comes from outside: what could pass for the structure of
/// the field is replaced.
fn harmless(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    name.replace(|c| !fine(c), "?")
}

fn is_plain(path: &Path) -> bool {
    path.as_str().len() <= 254
        && path.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"()<>;\"\\".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Proof;
    use crate::smtp::envelope::{MailParameters, Recipient};
    use crate::smtp::session::ClientName;

    fn field(name: &str, client: &str, recipients: &[&str]) -> String {
        let source = Source {
            session: "s1".into(),
            listener: "l".into(),
            channel: Channel::Clear,
            user: None,
            account: None,
            tenant_header: None,
            client: client.parse().unwrap(),
            name: ClientName { name: name.into(), extended: true },
        };
        let recipients = recipients.iter().map(|r| Recipient::new(Path::parse(r).unwrap())).collect();
        let envelope =
            Envelope { reverse_path: Path::Null, parameters: MailParameters::default(), recipients };
        received("relay.example", &source, &envelope, Timestamp::from_millis(1_795_248_900_000))
    }

    #[test]
    fn the_received_field_has_its_clauses() {
        assert_eq!(
            field("app.example", "192.0.2.7:4000", &["a@x.example"]),
            "Received: from app.example ([192.0.2.7])\r\n\tby relay.example (mailonce) with ESMTP id s1\r\n\t\
             for <a@x.example>;\r\n\tSat, 21 Nov 2026 08:15:00 +0000\r\n"
        );
    }

    #[test]
    fn the_protocol_tells_tls_and_internationalized_addresses() {
        let word_for = |user: Option<Tenant>, channel, smtputf8, extended| {
            let name = ClientName { name: "app".into(), extended };
            let client = "192.0.2.7:1".parse().unwrap();
            let (session, listener) = ("s1".into(), "l".into());
            let source =
                Source { session, listener, channel, user, account: None, tenant_header: None, client, name };
            let parameters = MailParameters { smtputf8, ..MailParameters::default() };
            let envelope = Envelope { reverse_path: Path::Null, parameters, recipients: Vec::new() };
            let field = received("relay.example", &source, &envelope, Timestamp::default());
            field.split(" with ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
        };
        let word = |channel, smtputf8, extended| word_for(None, channel, smtputf8, extended);
        assert_eq!(word(Channel::Clear, false, false), "SMTP");
        assert_eq!(word(Channel::Clear, false, true), "ESMTP");
        assert_eq!(word(Channel::Clear, true, true), "UTF8SMTP");
        assert_eq!(word(Channel::Encrypted, false, false), "ESMTPS");
        assert_eq!(word(Channel::Encrypted, false, true), "ESMTPS");
        assert_eq!(word(Channel::Encrypted, true, true), "UTF8SMTPS");
        let joe = || Some(Tenant::new("joe", Proof::User));
        assert_eq!(word_for(joe(), Channel::Clear, false, true), "ESMTPA");
        assert_eq!(word_for(joe(), Channel::Encrypted, false, true), "ESMTPSA");
        assert_eq!(word_for(joe(), Channel::Encrypted, true, true), "UTF8SMTPSA");
        let shown = Some(Tenant::new("app", Proof::Certificate));
        assert_eq!(word_for(shown, Channel::Encrypted, false, true), "ESMTPS");
    }

    #[test]
    fn several_recipients_are_not_named() {
        assert!(!field("app", "[2001:db8::1]:1", &["a@x.example", "b@x.example"]).contains("for"));
        assert!(field("app", "[2001:db8::1]:1", &["a@x.example"]).contains("([IPv6:2001:db8::1])"));
    }

    #[test]
    fn a_hostile_name_can_not_forge_clauses() {
        let field = field("a;\tby(evil)<x>\u{e9}", "192.0.2.7:1", &["\"a;b\"@x.example"]);
        assert!(field.starts_with("Received: from a??by?evil??x?? ([192.0.2.7])\r\n"), "{field}");
        assert!(!field.contains("a;b"));
    }
}

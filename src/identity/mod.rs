//! Which e-mail is this? From the header section, the fingerprint and the
//! configured chain to a key, and from tenant, key and recipient to claim ids.
//!
//! A key that is too broad swallows a legitimate message, one that is too
//! narrow lets the duplicate through, so nothing here is guessed: what is
//! present but unusable is refused with its fault named.

pub mod chain;
mod former;
pub mod rules;
mod sent;
pub mod tenant;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::{Dedup, Strategy};
use crate::message::Headers;
use crate::planted::{self, Bug};
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::Reply;
use crate::store::{ClaimId, Fingerprint};

pub use former::former_ids;
pub use sent::{SENT_KEY, Sent, key_of_sent};
pub use tenant::{PasswordHash, Proof, Tenant};

/// The header field that sets a message's own window.
pub const TTL_HEADER: &str = "x-idempotency-ttl";

/// The longest key, in octets.
const MAX_KEY: usize = 256;

/// What identifies a message, before recipients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which strategy yielded it.
    pub strategy: Strategy,
    /// The key as given, or the hash that the strategy makes.
    pub value: String,
    /// How long its outcome is remembered.
    pub window: Duration,
}

/// Why a message can't be identified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// A key or TTL field is present but unusable.
    BadKey {
        /// The field's name as configured.
        field: String,
        /// What is wrong with it.
        why: FieldFault,
    },
    /// The tenant's field is repeated or unusable.
    BadTenant {
        /// The field's name as configured.
        field: String,
        /// What is wrong with it.
        why: FieldFault,
    },
}

/// What is wrong with a header field that we rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFault {
    /// It has no value.
    Empty,
    /// Over 256 octets.
    TooLong,
    /// Something else than printable ASCII.
    BadCharacter,
    /// There are two with different values.
    Ambiguous,
    /// It is there twice, where even equal ones are suspect.
    Repeated,
    /// Not `90s`, `30m`, `24h`, `7d` or whole seconds.
    NotADuration,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldFault::Empty => "is empty",
            FieldFault::TooLong => "is longer than 256 characters",
            FieldFault::BadCharacter => "holds something else than printable ASCII",
            FieldFault::Ambiguous => "is there more than once with different values",
            FieldFault::Repeated => "is there more than once",
            FieldFault::NotADuration => "is not a duration such as 90s, 30m, 24h, 7d or whole seconds",
        })
    }
}

impl IdentityFault {
    /// What the client hears: `554 5.5.0 [BAD-KEY]` or `[BAD-TENANT]`.
    pub fn reply(&self) -> Reply {
        let (word, field, why) = match self {
            IdentityFault::BadKey { field, why } => ("BAD-KEY", field, why),
            IdentityFault::BadTenant { field, why } => ("BAD-TENANT", field, why),
        };
        Reply::new(554, format!("5.5.0 [{word}] {field} {why}"))
    }
}

/// Finds the key of a message with the first strategy of the chain that yields
/// one. `None`: it has no key.
///
/// # Errors
/// [`IdentityFault::BadKey`] for a key or TTL field that is present but
/// unusable; the client hears `554 5.5.0 [BAD-KEY]`.
pub fn key_of(
    dedup: &Dedup,
    headers: &Headers,
    fingerprint: &Fingerprint,
) -> Result<Option<Key>, IdentityFault> {
    let own_window = own_window(headers)?;
    let Some((strategy, value)) = chain::walk(dedup, headers, fingerprint)? else { return Ok(None) };
    let default = match strategy {
        Strategy::Content => dedup.content_window,
        Strategy::Header | Strategy::Event | Strategy::MessageId => dedup.window,
    };
    let window = own_window.unwrap_or(default).min(dedup.max_window);
    Ok(Some(Key { strategy, value, window }))
}

/// A value that may be a key or name a tenant.
///
/// # Errors
/// [`FieldFault`] unless it is 1 to 256 octets of printable ASCII.
pub fn usable(value: String) -> Result<String, FieldFault> {
    if value.is_empty() {
        Err(FieldFault::Empty)
    } else if value.len() > MAX_KEY {
        Err(FieldFault::TooLong)
    } else if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Err(FieldFault::BadCharacter)
    } else {
        Ok(value)
    }
}

/// The window that a message sets for itself.
///
/// # Errors
/// [`IdentityFault::BadKey`] where the field is unusable.
pub fn own_window(headers: &Headers) -> Result<Option<Duration>, IdentityFault> {
    let bad = |why| IdentityFault::BadKey { field: "X-Idempotency-TTL".to_owned(), why };
    let mut values = headers.values(TTL_HEADER);
    let Some(value) = values.next() else { return Ok(None) };
    if values.any(|other| other != value) {
        return Err(bad(FieldFault::Ambiguous));
    }
    crate::config::parse_ttl(&value).map(Some).ok_or_else(|| bad(FieldFault::NotADuration))
}

/// The tenant of a client that has proved nothing: what the listener's tenant
/// field says, else the listener's name.
///
/// # Errors
/// [`IdentityFault::BadTenant`] where the field is repeated or unusable; the
/// client hears `554 5.5.0 [BAD-TENANT]`.
pub fn tenant_of(field: Option<&str>, listener: &str, headers: &Headers) -> Result<Tenant, IdentityFault> {
    let by_listener = || Ok(Tenant::new(listener, Proof::Listener));
    let Some(field) = field else { return by_listener() };
    let bad = |why| IdentityFault::BadTenant { field: field.to_owned(), why };
    let mut values = headers.values(field);
    match (values.next(), values.next()) {
        (None, _) => by_listener(),
        (Some(value), None) => usable(value).map(|name| Tenant::new(name, Proof::Header)).map_err(bad),
        (Some(_), Some(_)) => Err(bad(FieldFault::Repeated)),
    }
}

/// The id of a claim: SHA-256 over a versioned encoding in which no two
/// different tuples are the same. `recipient` is `None` where one claim covers
/// the whole message, else [`crate::smtp::address::Path::identity`]. A change of
/// it adds to [`former_ids`], lest claims of before be forgotten.
pub fn claim_id(tenant: &Tenant, key: &Key, recipient: Option<&str>) -> ClaimId {
    let [proof, name, hash] = tenant.parts();
    let tenant = match () {
        () if planted::is(Bug::TenantLeftOut) => [&b""[..]; 3],
        () if planted::is(Bug::ProofLeftOut) => [&b""[..], name, hash],
        () => [proof, name, hash],
    };
    let encoded = encoding(tenant, key.strategy.as_str(), &key.value, recipient);
    ClaimId(Sha256::digest(&encoded).into())
}

/// Each text behind its length, the recipient behind a mark of its presence.
fn encoding(tenant: [&[u8]; 3], strategy: &str, key: &str, recipient: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append(&mut out, "mailonce claim 2");
    for part in tenant {
        append(&mut out, part);
    }
    for text in [strategy, key] {
        append(&mut out, text);
    }
    out.push(u8::from(recipient.is_some()));
    if let Some(recipient) = recipient {
        append(&mut out, recipient);
    }
    out
}

/// The envelope with each recipient once, however it is spelled.
pub fn distinct(mut envelope: Envelope) -> Envelope {
    if envelope.recipients.len() > 1 {
        let mut seen = HashSet::new();
        envelope.recipients.retain(|recipient| seen.insert(recipient.path.identity()));
    }
    envelope
}

fn append(out: &mut Vec<u8>, part: impl AsRef<[u8]>) {
    let part = part.as_ref();
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

#[cfg(test)]
mod tests;

//! The key that a provider which honours keys gets.

use sha2::{Digest, Sha256};

use super::append;
use crate::store::record::hex;
use crate::store::{ClaimId, Fingerprint, Token};

/// Octets of the key.
pub const SENT_KEY: usize = 64;

/// One recipient of a transaction.
#[derive(Debug)]
pub struct Sent {
    /// The claim.
    pub id: ClaimId,
    /// What the message means.
    pub fingerprint: Fingerprint,
    /// The identity of the recipient's address.
    pub recipient: String,
    /// The attempt by which a provider knows the e-mail to this recipient.
    pub series: Token,
}

/// The key for a transaction: 64 hex digits. It is the same for the same text to
/// the same recipients while their series go on, and for nothing else, in
/// whatever order they are. Only recipients that the upstream took count: with
/// others, a later attempt would be swallowed though one of them lacks it.
pub fn key_of_sent(mut sent: Vec<&Sent>) -> String {
    let mut out = Vec::with_capacity(256);
    append(&mut out, "mailonce upstream 1");
    sent.sort_unstable_by(|one, other| (one.id, &one.recipient).cmp(&(other.id, &other.recipient)));
    for Sent { id, fingerprint, recipient, series } in sent {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&fingerprint.0);
        append(&mut out, recipient);
        out.extend_from_slice(&series.owner.to_be_bytes());
        out.extend_from_slice(&series.attempt.to_be_bytes());
    }
    hex(&Sha256::digest(&out))
}

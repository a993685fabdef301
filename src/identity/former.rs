//! The ids that earlier versions gave the same e-mail. A claim that was
//! recorded under one of them still suppresses: the store moves it to the id of
//! today when the e-mail comes again ([`crate::store::Slot::former`]).
//!
//! A change of [`super::claim_id`], or of the form of an address in it, adds the id
//! of before to [`former_ids`] and needs a new note in the sled engine
//! (`Note::OwnIds`). An id may go from the list when no store can hold it any more:
//! when the longest window is over since the version that wrote it last.

use sha2::{Digest, Sha256};

use super::{Key, Tenant, append};
use crate::planted::{self, Bug};
use crate::smtp::address::Path;
use crate::store::ClaimId;

/// Every id under which an earlier version may have recorded the claim that
/// [`super::claim_id`] names.
pub fn former_ids(tenant: &Tenant, key: &Key, recipient: Option<&Path>) -> Vec<ClaimId> {
    let id = |recipient: Option<String>| first_id(tenant.name(), key, recipient.as_deref());
    let mut ids = vec![id(recipient.map(Path::identity))];
    // Dots at the end of a domain counted in those versions.
    let dotted = recipient.map(Path::dotted_identity).filter(|dotted| dotted.ends_with('.'));
    ids.extend(dotted.map(|dotted| id(Some(dotted))));
    ids
}

/// Of the versions that knew a tenant by its name alone.
fn first_id(tenant: &str, key: &Key, recipient: Option<&str>) -> ClaimId {
    let tenant = if planted::is(Bug::TenantLeftOut) { "" } else { tenant };
    let encoded = first_encoding(tenant, key.strategy.as_str(), &key.value, recipient);
    ClaimId(Sha256::digest(&encoded).into())
}

/// Each text behind its length, the recipient behind a mark of its presence.
pub(super) fn first_encoding(tenant: &str, strategy: &str, key: &str, recipient: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for text in ["mailonce claim 1", tenant, strategy, key] {
        append(&mut out, text);
    }
    out.push(u8::from(recipient.is_some()));
    if let Some(recipient) = recipient {
        append(&mut out, recipient);
    }
    out
}

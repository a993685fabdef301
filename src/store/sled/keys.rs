//! The keys of sled's trees, in whose order they are read.

use ::sled::IVec;

use super::super::{ClaimId, Count, Tally};
use crate::clock::Timestamp;

/// An entry of the expiry index: when, then what.
pub(super) fn expiry(at: Timestamp, id: &ClaimId) -> [u8; 40] {
    numbered(at.as_millis(), id)
}

/// What an entry of the expiry index says.
pub(super) fn parse_expiry(key: &IVec) -> Option<(Timestamp, ClaimId)> {
    let (at, id) = parse_numbered(key)?;
    Some((Timestamp::from_millis(at), id))
}

/// An entry of the index of keys: the mark of the key, then the id.
pub(super) fn marked(mark: u64, id: &ClaimId) -> [u8; 40] {
    numbered(mark, id)
}

/// What an entry of the index of keys says.
pub(super) fn parse_marked(key: &IVec) -> Option<ClaimId> {
    parse_numbered(key).map(|(_, id)| id)
}

fn numbered(number: u64, id: &ClaimId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&id.0);
    key
}

fn parse_numbered(key: &IVec) -> Option<(u64, ClaimId)> {
    let (number, id) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), ClaimId(id.try_into().ok()?)))
}

/// Where a count is: its hour, the length of the tenant's name, that name, the
/// rule's name.
pub(super) fn count(count: &Count) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + count.tenant.len() + count.rule.len());
    key.extend_from_slice(&count.hour.to_be_bytes());
    key.extend_from_slice(&(count.tenant.len() as u64).to_be_bytes());
    key.extend_from_slice(count.tenant.as_bytes());
    key.extend_from_slice(count.rule.as_bytes());
    key
}

/// What is counted there, with its tally.
pub(super) fn parse_count(key: &IVec, tally: Tally) -> Option<Count> {
    let (hour, rest) = key.split_first_chunk::<8>()?;
    let (length, names) = rest.split_first_chunk::<8>()?;
    let (tenant, rule) = names.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Count { hour: u64::from_be_bytes(*hour), tenant: text(tenant)?, rule: text(rule)?, tally })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_and_rule_can_not_be_taken_for_one_another() {
        let count = |tenant: &str, rule: &str| Count {
            hour: 7,
            tenant: tenant.into(),
            rule: rule.into(),
            tally: Tally::default(),
        };
        assert_ne!(super::count(&count("ab", "c")), super::count(&count("a", "bc")));
        for one in [count("", ""), count("ü", "a\0b"), count("a", "")] {
            let key = IVec::from(super::count(&one));
            assert_eq!(parse_count(&key, Tally::default()), Some(one));
        }
        assert_eq!(parse_count(&IVec::from(&[0xff; 20][..]), Tally::default()), None);
    }
}

//! What the tests of the session's parts share.

use super::{Offers, Policy, Session, Settings, Step};
use crate::smtp::data::BareNewlines;
use crate::smtp::reply::Reply;

/// Lets everything pass.
pub(super) struct Allow;

impl Policy for Allow {
    fn check(&mut self, _: Step<'_>) -> Option<Reply> {
        None
    }
}

/// Small bounds, and nothing offered.
pub(super) fn settings() -> Settings {
    Settings {
        hostname: "relay.test".to_owned(),
        max_message_size: 1000,
        max_recipients: 10,
        max_errors: 10,
        bare_newlines: BareNewlines::Normalize,
        offers: Offers::default(),
    }
}

/// What the client hears, taken.
pub(super) fn said(session: &mut Session<Allow>) -> String {
    String::from_utf8(std::mem::take(session.output())).unwrap()
}

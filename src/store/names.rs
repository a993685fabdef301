//! The fields by which a mailbox knows a message, as their sender wrote them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::message::headers;

/// The longest Message-ID or Date field that is kept for a resend, in octets.
const MAX_NAME: usize = 1000;

/// A header field, octet for octet as its sender wrote it, without the line
/// end behind it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenField(Box<[u8]>);

impl WrittenField {
    /// The field that starts at the start of `written`. `None` where it is
    /// longer than 1,000 octets, or no field.
    pub fn new(written: &[u8]) -> Option<Self> {
        let written = written.strip_suffix(b"\n").unwrap_or(written);
        let written = written.strip_suffix(b"\r").unwrap_or(written);
        (written.len() <= MAX_NAME && written.contains(&b':')).then(|| Self(written.into()))
    }

    /// A field of this name with this value, in one line. `None` where the value
    /// would not stay in its line, or is too long.
    pub fn of_text(name: &str, text: &str) -> Option<Self> {
        let is_one_line = text.bytes().all(|octet| octet >= b' ' && octet != 0x7f || octet == b'\t');
        is_one_line.then(|| Self::new(format!("{name}: {text}").as_bytes()))?
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The value as people read it: unfolded, without the blanks around it.
    pub fn text(&self) -> String {
        let value = self.0.iter().position(|&octet| octet == b':').map_or(0, |colon| colon + 1);
        headers::as_written(&self.0[value..])
    }
}

impl fmt::Debug for WrittenField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// What a mailbox knows a message by. A resend carries those of the first
/// attempt, so that a mailbox which collapses equal ones shows one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The Message-ID field.
    pub message_id: Option<WrittenField>,
    /// The Date field.
    pub date: Option<WrittenField>,
}

impl Names {
    /// Fields with these values.
    pub fn of_texts(message_id: Option<&str>, date: Option<&str>) -> Self {
        Self {
            message_id: message_id.and_then(|text| WrittenField::of_text("Message-ID", text)),
            date: date.and_then(|text| WrittenField::of_text("Date", text)),
        }
    }

    /// These, and those of a later attempt where the first had none.
    #[must_use]
    pub fn or(&self, later: &Self) -> Self {
        Self {
            message_id: self.message_id.as_ref().or(later.message_id.as_ref()).cloned(),
            date: self.date.as_ref().or(later.date.as_ref()).cloned(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.message_id.is_none() && self.date.is_none()
    }
}

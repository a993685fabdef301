//! How a message was read: part by part, or as it stands and why.

use std::fmt;

/// How a message was read for its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Part by part.
    Parsed,
    /// The body as it stands, boundaries and encodings included, beside From
    /// and Subject.
    Raw(Why),
}

/// Why a message was not read part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The header section of the message or of a part is over the bounds of
    /// [`crate::message::headers`], or a field has too many parameters.
    LongHeader,
    /// More multiparts than a mail can need.
    TooManyMultiparts,
    /// More parts than a mail can need.
    TooManyParts,
    /// Multiparts and messages one in another, deeper than a mail can need.
    TooDeep,
    /// A multipart names no boundary, or one that never appears.
    NoBoundary,
}

impl Manner {
    /// What goes into the fingerprint; must never change.
    pub(super) fn code(self) -> &'static str {
        match self {
            Manner::Parsed => "parsed",
            Manner::Raw(Why::LongHeader) => "raw: header",
            Manner::Raw(Why::TooManyMultiparts) => "raw: multiparts",
            Manner::Raw(Why::TooManyParts) => "raw: parts",
            Manner::Raw(Why::TooDeep) => "raw: depth",
            Manner::Raw(Why::NoBoundary) => "raw: boundary",
        }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Manner::Parsed => f.write_str("read part by part"),
            Manner::Raw(why) => write!(f, "body taken as it stands, because {why}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::LongHeader => "a header section in it is too long or has too many fields or parameters",
            Why::TooManyMultiparts => "it has more than 100 multiparts",
            Why::TooManyParts => "it has more than 1000 parts",
            Why::TooDeep => "its parts lie more than 20 deep in one another",
            Why::NoBoundary => "a multipart in it has no boundary, or one that never appears",
        })
    }
}

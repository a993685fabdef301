//! What went into a fingerprint, for people.

use super::exclude::Exclude;
use super::manner::Manner;
use super::parts::Octets;
use super::walk::{self, Sink};
use super::{Fingerprint, normalised};

/// What of a message went into its fingerprint: two messages have the same
/// fingerprint if and only if these are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingredients {
    /// How the message was read.
    pub manner: Manner,
    /// One by one, in the order of hashing.
    pub list: Vec<Ingredient>,
}

/// One thing that went into a fingerprint. Both texts come from the message,
/// control characters included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingredient {
    /// Where it stands, as in `Subject` or `part 2, application/pdf,
    /// attachment a.pdf`.
    pub place: String,
    /// What stands there: a whole text as it was hashed, or the size and
    /// SHA-256 of other content. Empty where a nested message begins and ends.
    pub value: String,
}

/// The first thing in which two messages differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where it stands, in the first message if it is there.
    pub place: String,
    /// What the first has there: a short piece around the first character
    /// that differs, on one line. `None` if it has nothing there.
    pub first: Option<String>,
    /// The same of the second.
    pub second: Option<String>,
}

/// What goes into the fingerprint of a message. Holds all its text.
pub fn ingredients(message: &[u8], exclude: &Exclude) -> Ingredients {
    let mut all = Ingredients { manner: Manner::Parsed, list: Vec::new() };
    walk::walk(message, exclude, &mut all);
    all
}

impl Ingredients {
    fn push(&mut self, place: &str, value: String) {
        self.list.push(Ingredient { place: place.to_owned(), value });
    }
}

impl Sink for Ingredients {
    fn manner(&mut self, manner: Manner) {
        self.manner = manner;
    }

    fn short(&mut self, place: &str, value: &str) {
        self.push(place, value.to_owned());
    }

    fn text(&mut self, place: &str, text: &str, exclude: &Exclude) {
        self.push(place, normalised(text, exclude));
    }

    fn octets(&mut self, place: &str, octets: &Octets) {
        self.push(place, format!("{} octets, SHA-256 {}", octets.length, Fingerprint(octets.digest)));
    }
}

/// The first thing in which two messages differ, or `None` if their
/// fingerprints are the same.
pub fn first_difference(first: &Ingredients, second: &Ingredients) -> Option<Difference> {
    if first.manner != second.manner {
        return Some(Difference {
            place: "how it is read".to_owned(),
            first: Some(first.manner.to_string()),
            second: Some(second.manner.to_string()),
        });
    }
    let length = first.list.len().max(second.list.len());
    let (one, other) =
        (0..length).map(|at| (first.list.get(at), second.list.get(at))).find(|(one, other)| one != other)?;
    let difference = match (one, other) {
        (Some(one), Some(other)) if one.place == other.place => {
            let (left, right) = excerpts(&one.value, &other.value);
            Difference { place: one.place.clone(), first: Some(left), second: Some(right) }
        }
        (one, other) => {
            let place = one.or(other).map(|there| there.place.clone()).unwrap_or_default();
            let shown = |there: &Ingredient| match there.place == place {
                true => cut(&there.value, 0),
                false => format!("{}: {}", cut(&there.place, 0), cut(&there.value, 0)),
            };
            Difference { first: one.map(shown), second: other.map(shown), place }
        }
    };
    Some(difference)
}

/// Characters that are shown before the first one that differs, and in all.
const BEFORE: usize = 24;
const SHOWN: usize = 72;

/// Both texts around the first character that differs.
fn excerpts(one: &str, other: &str) -> (String, String) {
    let pairs = one.char_indices().zip(other.chars());
    let same = pairs.take_while(|((_, a), b)| a == b).last();
    let at = same.map_or(0, |((at, c), _)| at + c.len_utf8());
    (cut(one, at), cut(other, at))
}

/// A piece of a text around an octet of it that starts a character, on one
/// line, with `…` where something is left out.
fn cut(text: &str, at: usize) -> String {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let start = text[line..at].char_indices().rev().nth(BEFORE - 1).map_or(line, |(from, _)| line + from);
    let mut shown = String::new();
    if start > 0 {
        shown.push('\u{2026}');
    }
    let mut rest = text[start..].chars();
    for c in rest.by_ref().take(SHOWN) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    if rest.next().is_some() {
        shown.push('\u{2026}');
    }
    shown
}

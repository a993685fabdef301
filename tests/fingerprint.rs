//! The fingerprint is the same for every rendering of one e-mail, and another
//! one after every visible edit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on ends")]

#[path = "fingerprint/mail.rs"]
mod mail;
#[path = "fingerprint/render.rs"]
mod render;

use mail::{Leaf, Mail, mail};
use mailonce::message::fingerprint::{Exclude, Manner, fingerprint, first_difference, ingredients};
use proptest::prelude::*;
use render::{Dice, render};

/// Whether both messages have one fingerprint; it must be so exactly where
/// their ingredients are the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    let none = Exclude::default();
    let prints = fingerprint(one, &none) == fingerprint(other, &none);
    let (one, other) = (ingredients(one, &none), ingredients(other, &none));
    assert_eq!(one.manner, Manner::Parsed);
    assert_eq!(prints, one == other);
    assert_eq!(prints, first_difference(&one, &other).is_none());
    prints
}

fn shown(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rendering_of_one_mail_has_one_fingerprint(mail in mail(), seeds in any::<(u64, u64)>()) {
        let (one, other) = (render(&mail, &mut Dice(seeds.0)), render(&mail, &mut Dice(seeds.1)));
        let difference = first_difference(
            &ingredients(&one, &Exclude::default()),
            &ingredients(&other, &Exclude::default()),
        );
        prop_assert!(same(&one, &other), "{difference:?}\n{}\n\n=====\n{}", shown(&one), shown(&other));
    }

    #[test]
    fn every_visible_edit_changes_the_fingerprint(mail in mail(), edit in 0..EDITS.len(), seeds in any::<[u64; 3]>()) {
        let mut edited = mail.clone();
        let (name, change) = EDITS[edit];
        if change(&mut edited, &mut Dice(seeds[2])).is_some() {
            let (one, other) = (render(&mail, &mut Dice(seeds[0])), render(&edited, &mut Dice(seeds[1])));
            prop_assert!(!same(&one, &other), "{name}\n{}\n\n=====\n{}", shown(&one), shown(&other));
        }
    }

    /// Whatever the octets, there is a fingerprint, the same each time, and
    /// patterns that match nothing change nothing.
    #[test]
    fn any_octets_have_a_fingerprint(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let unmatched = Exclude::new(&["\u{10fffd}{9}".to_owned()]).unwrap();
        prop_assert_eq!(fingerprint(&octets, &Exclude::default()), fingerprint(&octets, &unmatched));
        prop_assert_eq!(ingredients(&octets, &Exclude::default()), ingredients(&octets, &unmatched));
    }

    /// So too where a well-formed message was cut or overwritten.
    #[test]
    fn damaged_messages_have_a_fingerprint(mail in mail(), seed in any::<u64>(), at in any::<prop::sample::Index>(), octet: u8) {
        let none = Exclude::default();
        let mut message = render(&mail, &mut Dice(seed));
        let whole = message.clone();
        let at = at.index(message.len());
        message[at] = octet;
        for (one, other) in [(&message, &whole), (&whole[..at].to_vec(), &message[..at].to_vec())] {
            let prints = fingerprint(one, &none) == fingerprint(other, &none);
            prop_assert_eq!(prints, ingredients(one, &none) == ingredients(other, &none));
        }
    }
}

/// An edit that a reader could see; `None` where this mail has no place for it.
type Edit = fn(&mut Mail, &mut Dice) -> Option<()>;

const EDITS: [(&str, Edit); 12] = [
    ("a character in the subject", |mail, dice| insert(&mut mail.subject, dice)),
    ("a character of the address", |mail, dice| {
        let at = dice.below(mail.from.find('@')? + 1);
        mail.from.insert(at, 'q');
        Some(())
    }),
    ("a character of a text", |mail, dice| match one(mail, dice)? {
        Leaf::Text { text, .. } => insert(text, dice),
        _ => None,
    }),
    ("plain text becomes HTML", |mail, dice| match one(mail, dice)? {
        Leaf::Text { html, .. } => {
            *html = !*html;
            Some(())
        }
        _ => None,
    }),
    ("a file name", |mail, dice| match one(mail, dice)? {
        Leaf::File { name, .. } => insert(name, dice),
        _ => None,
    }),
    ("an octet of a file", |mail, dice| match one(mail, dice)? {
        Leaf::File { bytes, .. } if !bytes.is_empty() => {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
            Some(())
        }
        _ => None,
    }),
    ("the length of a file", |mail, dice| match one(mail, dice)? {
        Leaf::File { bytes, .. } => {
            bytes.push(dice.below(256) as u8);
            Some(())
        }
        _ => None,
    }),
    ("the type of a file", |mail, dice| match one(mail, dice)? {
        Leaf::File { media, .. } => {
            *media = if *media == "image/png" { "application/pdf" } else { "image/png" };
            Some(())
        }
        _ => None,
    }),
    ("the disposition of a file", |mail, dice| match one(mail, dice)? {
        Leaf::File { inline, .. } => {
            *inline = !*inline;
            Some(())
        }
        _ => None,
    }),
    ("a leaf more", |mail, dice| {
        let leaf = one(mail, dice)?.clone();
        mail.leaves.push(leaf);
        Some(())
    }),
    ("a leaf less", |mail, _| {
        (mail.leaves.len() > 1).then_some(())?;
        mail.leaves.pop().map(|_| ())
    }),
    ("two leaves swapped", |mail, dice| {
        let at = dice.below(mail.leaves.len());
        let unequal = mail.leaves.get(at)? != mail.leaves.get(at + 1)?;
        unequal.then(|| mail.leaves.swap(at, at + 1))
    }),
];

/// Any leaf of the mail, or of a mail in it.
fn one<'m>(mail: &'m mut Mail, dice: &mut Dice) -> Option<&'m mut Leaf> {
    let at = dice.below(mail.leaves.len());
    let nested = matches!(mail.leaves.get(at)?, Leaf::Message(_)) && dice.toss();
    match mail.leaves.get_mut(at)? {
        leaf if !nested => Some(leaf),
        Leaf::Message(inner) => inner.leaves.first_mut(),
        Leaf::Text { .. } | Leaf::File { .. } => None,
    }
}

fn insert(text: &mut String, dice: &mut Dice) -> Option<()> {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    text.insert(places[dice.below(places.len())], 'Q');
    Some(())
}

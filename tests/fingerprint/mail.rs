//! E-mails as a reader sees them.

use proptest::prelude::*;

/// An e-mail.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) subject: String,
    pub(crate) leaves: Vec<Leaf>,
}

/// What an e-mail consists of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaf {
    /// Lines without trailing blanks. A `cid:#` in it stands for a reference
    /// to the first inline file.
    Text {
        html: bool,
        text: String,
    },
    File {
        name: String,
        media: &'static str,
        inline: bool,
        bytes: Vec<u8>,
    },
    Message(Box<Mail>),
}

/// Any e-mail, now and then with one in it.
pub(crate) fn mail() -> impl Strategy<Value = Mail> {
    flat(prop_oneof![6 => text(), 4 => file(), 1 => flat(prop_oneof![text(), file()]).prop_map(boxed)])
}

fn boxed(mail: Mail) -> Leaf {
    Leaf::Message(Box::new(mail))
}

fn flat(leaf: impl Strategy<Value = Leaf>) -> impl Strategy<Value = Mail> {
    let from = "[a-z0-9._+-]{1,12}@[a-z0-9]{1,8}\\.example";
    (from, words(0..8), prop::collection::vec(leaf, 1..5)).prop_map(|(from, subject, leaves)| Mail {
        from,
        subject,
        leaves,
    })
}

/// Letters of several scripts and everything that means something in a header.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9]{1,8}",
        2 => "[a-z\u{e0}-\u{ff}]{1,8}",
        1 => "[\u{20ac}\u{201c}\u{201d}\u{2014}a-z]{1,4}",
        2 => "[!-~]{1,6}",
        1 => "[=?_\"\\\\;,:<>()'%*-]{1,4}",
        2 => "[\\PC&&[^\\s\u{feff}]]{1,6}",
    ]
}

fn words(count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(word(), count).prop_map(|words| words.join(" "))
}

fn text() -> impl Strategy<Value = Leaf> {
    let line = prop_oneof![5 => words(0..12), 1 => Just("-- ".trim().to_owned()), 1 => Just("<img src=\"cid:#\">".to_owned())];
    (any::<bool>(), prop::collection::vec(line, 0..8))
        .prop_map(|(html, lines)| Leaf::Text { html, text: lines.join("\n").trim_end().to_owned() })
}

fn file() -> impl Strategy<Value = Leaf> {
    let media = prop_oneof![Just("application/pdf"), Just("image/png"), Just("application/octet-stream")];
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    (words(1..4), media, any::<bool>(), bytes).prop_map(|(name, media, inline, bytes)| Leaf::File {
        name,
        media,
        inline,
        bytes,
    })
}

//! `[[rule]]`: what holds for some of the mail instead of `[dedup]`.

use wildmatch::WildMatch;

use super::Dedup;
use crate::message::decode::spaced;
use crate::smtp::address::Path;

/// One `[[rule]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, in the log, the records and the metrics.
    pub name: String,
    /// Which mail it is for.
    pub matches: Match,
    /// `[dedup]` with what the rule sets laid over it.
    pub dedup: Dedup,
}

/// What a rule asks of a message: of each list that is not empty, one glob
/// must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The tenant, exactly.
    pub tenant: Vec<Glob>,
    /// The listener's name, exactly.
    pub listener: Vec<Glob>,
    /// The reverse-path; empty for a bounce.
    pub sender: Vec<Glob>,
    /// Every recipient.
    pub recipient: Vec<Glob>,
    /// The decoded Subject.
    pub subject: Vec<Glob>,
    /// Any occurrence of the named field.
    pub header: Vec<(String, Vec<Glob>)>,
    /// The key that `[dedup].chain` yields, exactly.
    pub key: Vec<Glob>,
}

impl Match {
    /// The conditions with their names as written, header fields apart.
    pub fn conditions(&self) -> [(&'static str, &[Glob]); 6] {
        [
            ("tenant", &self.tenant),
            ("listener", &self.listener),
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("subject", &self.subject),
            ("key", &self.key),
        ]
    }

    /// Whether everything that `other` matches is certainly matched by this.
    pub fn covers(&self, other: &Match) -> bool {
        let covered = |ours: &[Glob], theirs: &[Glob]| {
            ours.is_empty() || !theirs.is_empty() && theirs.iter().all(|t| ours.iter().any(|o| o.covers(t)))
        };
        let theirs = other.conditions();
        self.conditions().iter().zip(theirs).all(|((_, ours), (_, theirs))| covered(ours, theirs))
            && self.header.iter().all(|(name, ours)| {
                let same = |(other, _): &&(String, Vec<Glob>)| other.eq_ignore_ascii_case(name);
                other.header.iter().filter(same).any(|(_, theirs)| covered(ours, theirs))
            })
    }
}

/// A pattern in which `*` stands for any text and `?` for any character.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    pattern: WildMatch,
    cased: Cased,
}

/// Whether upper and lower case are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cased {
    Yes,
    No,
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.cased) == (&other.text, other.cased)
    }
}

impl Glob {
    /// One that is matched exactly.
    pub fn exact(text: &str) -> Self {
        Self { text: text.to_owned(), pattern: WildMatch::new(text), cased: Cased::Yes }
    }

    /// One that is matched without regard to case.
    pub fn any_case(text: &str) -> Self {
        let pattern = WildMatch::new(&text.to_lowercase());
        Self { text: text.to_owned(), pattern, cased: Cased::No }
    }

    /// One for addresses, taken in the form that all spellings of an address
    /// share; of the domain, label by label.
    pub fn address(text: &str) -> Self {
        let lower = text.to_lowercase();
        let form = match lower.rsplit_once('@') {
            Some((local, domain)) => {
                let labels: Vec<String> = domain.split('.').map(a_label).collect();
                format!("{local}@{}", labels.join("."))
            }
            None => lower,
        };
        Self { text: text.to_owned(), pattern: WildMatch::new(&form), cased: Cased::No }
    }

    /// One for Subjects, in which a run of blanks counts as one.
    pub fn subject(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::any_case(&spaced(text)) }
    }

    /// Whether the text is one that is meant.
    pub fn matches(&self, text: &str) -> bool {
        match self.cased {
            Cased::Yes => self.pattern.matches(text),
            Cased::No => self.pattern.matches(&text.to_lowercase()),
        }
    }

    /// Whether the address is one that is meant, in whatever spelling.
    pub fn matches_address(&self, path: &Path) -> bool {
        self.pattern.matches(&path.identity())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether everything that `other` matches is certainly matched by this:
    /// what stands for a `*` of `other` then falls to a `*` of ours.
    fn covers(&self, other: &Glob) -> bool {
        self == other || !self.text.contains('?') && self.matches(&other.text)
    }
}

/// A label of a domain in A-label form (RFC 5890 §2.3.2.1), unless it holds a
/// wildcard.
fn a_label(label: &str) -> String {
    if label.is_ascii() {
        label.to_owned()
    } else {
        idna::domain_to_ascii(label).unwrap_or_else(|_| label.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_counts_where_it_says_so() {
        assert!(Glob::exact("email:*:otp:?").matches("email:ann:otp:7"));
        assert!(!Glob::exact("email:*").matches("Email:x"));
        assert!(Glob::any_case("*RESET*").matches("Your password reset"));
        assert!(Glob::any_case("*\u{c4}nderung*").matches("die \u{e4}nderung"));
        assert!(Glob::exact("").matches("") && !Glob::exact("").matches("x"));
    }

    #[test]
    fn addresses_match_in_every_spelling() {
        let path = |text: &str| Path::parse(text).unwrap();
        assert!(
            Glob::address("Ann@M\u{fc}nchen.example").matches_address(&path("ann@xn--mnchen-3ya.example"))
        );
        assert!(Glob::address("*@m\u{fc}nchen.example").matches_address(&path("ann@M\u{dc}NCHEN.example")));
        assert!(Glob::address("*@xn--mnchen-3ya.example").matches_address(&path("ann@m\u{fc}nchen.example")));
        assert!(
            Glob::address("*@*.m\u{fc}nchen.example").matches_address(&path("ann@a.xn--mnchen-3ya.example"))
        );
        assert!(
            Glob::address("").matches_address(&Path::Null)
                && !Glob::address("").matches_address(&path("a@b"))
        );
    }

    #[test]
    fn one_match_covers_another() {
        let key = |globs: &[&str]| Match {
            key: globs.iter().map(|g| Glob::exact(g)).collect(),
            ..Match::default()
        };
        assert!(Match::default().covers(&key(&["otp:*"])));
        assert!(!key(&["otp:*"]).covers(&Match::default()));
        assert!(key(&["otp:*"]).covers(&key(&["otp:1", "otp:x*"])));
        assert!(!key(&["otp:*"]).covers(&key(&["otp:1", "x"])));
        assert!(!key(&["otp:?"]).covers(&key(&["otp:*"])), "a * stands for more than a ?");
        let header =
            |name: &str| Match { header: vec![(name.into(), vec![Glob::any_case("*")])], ..Match::default() };
        assert!(header("X-A").covers(&header("x-a")) && !header("X-A").covers(&header("X-B")));
    }
}

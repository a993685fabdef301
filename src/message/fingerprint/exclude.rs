//! What a rule takes out of the fingerprint (`fingerprint_exclude`): a printed
//! clock time, a tracking id.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;

/// Stands where something was taken out, so that a text with a match still
/// differs from one without.
const MARK: &str = "\u{27ea}\u{2026}\u{27eb}";
/// The memory that one compiled pattern may take, in octets.
const MAX_SIZE: usize = 10 << 20;
/// The memory that one search may keep of what it has worked out.
const CACHE: usize = 2 << 20;
/// How far one search goes, in octets. A search is linear, but one for each
/// match, each to the end of the text, is not. Matches up to half as long are
/// found whole; longer ones may be cut.
const WINDOW: usize = 16 * 1024;
/// Matches of one pattern that are taken out of one text, and as many more as
/// it has KiB. Together with the window this keeps the cost linear.
const MAX_MATCHES: usize = 10_000;

/// Compiled patterns whose matches don't count in the fingerprint. Cheap to
/// clone; equal where the texts of the patterns are equal, in order.
///
/// A pattern is searched for in the decoded Subject and in each text part, as
/// lines without trailing blanks, joined by `\n`; `^` and `$` match at lines.
/// A match of up to 8 KiB is found wherever it stands; of a longer one only a
/// piece may be taken out. The cost is linear in the text, whatever the pattern.
#[derive(Clone, Default)]
pub struct Exclude {
    patterns: Arc<[Regex]>,
}

/// A pattern that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcludeFault {
    /// Which one of those given, counted from 0.
    pub index: usize,
    /// What is wrong with it, on one line.
    pub text: String,
}

impl fmt::Display for ExcludeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pattern {}: {}", self.index + 1, self.text)
    }
}

impl std::error::Error for ExcludeFault {}

impl Exclude {
    /// Compiles patterns of the syntax of the crate `regex`, which is searched
    /// in linear time: no look-around, no back-references.
    ///
    /// # Errors
    /// The first pattern that is no regular expression, matches the empty
    /// text, which would take nothing out, or takes over 10 MiB when compiled.
    pub fn new(patterns: &[String]) -> Result<Self, ExcludeFault> {
        let compile = |(index, pattern): (usize, &String)| {
            compile(pattern).map_err(|text| ExcludeFault { index, text })
        };
        let patterns: Result<Vec<Regex>, ExcludeFault> = patterns.iter().enumerate().map(compile).collect();
        Ok(Self { patterns: patterns?.into() })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The text with a mark for every match, one pattern after the other.
    pub(super) fn apply<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        self.patterns.iter().fold(text, |text, pattern| match blanked(&text, pattern) {
            Some(blanked) => Cow::Owned(blanked),
            None => text,
        })
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(Regex::as_str)
    }
}

impl PartialEq for Exclude {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for Exclude {}

impl fmt::Debug for Exclude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

/// The text with a mark for every match, if there is one.
fn blanked(text: &str, pattern: &Regex) -> Option<String> {
    let most = MAX_MATCHES + text.len() / 1024;
    let mut out = String::new();
    let (mut copied, mut at, mut count) = (0, 0, 0);
    while at < text.len() && count < most {
        let end = text.floor_char_boundary(at + WINDOW);
        // What starts in the second half may not be there as a whole.
        let middle = if end == text.len() { end } else { text.floor_char_boundary(at + WINDOW / 2) };
        match pattern.find_at(&text[..end], at).filter(|found| found.start() < middle) {
            Some(found) => {
                out.push_str(&text[copied..found.start()]);
                out.push_str(MARK);
                (copied, at, count) = (found.end(), found.end(), count + 1);
            }
            None => at = middle,
        }
    }
    out.push_str(&text[copied..]);
    (count > 0).then_some(out)
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let parsed = ParserBuilder::new().multi_line(true).build().parse(pattern);
    let parsed = parsed.map_err(|fault| spoken(&fault))?;
    if parsed.properties().minimum_len() == Some(0) {
        return Err(
            "it matches the empty text, so it would take nothing out; let it match at least one character"
                .to_owned(),
        );
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.multi_line(true).size_limit(MAX_SIZE).dfa_size_limit(CACHE);
    builder.build().map_err(|fault| match fault {
        regex::Error::CompiledTooBig(_) => {
            "it takes over 10 MiB when compiled; use fewer or smaller repetitions".to_owned()
        }
        fault => fault.to_string().lines().last().unwrap_or_default().to_owned(),
    })
}

/// The fault in one line: the library draws the place under the pattern.
fn spoken(fault: &regex_syntax::Error) -> String {
    let (kind, column) = match fault {
        regex_syntax::Error::Parse(fault) => (fault.kind().to_string(), fault.span().start.column),
        regex_syntax::Error::Translate(fault) => (fault.kind().to_string(), fault.span().start.column),
        _ => return "it is no regular expression".to_owned(),
    };
    format!("{kind} (at character {column})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclude(patterns: &[&str]) -> Exclude {
        Exclude::new(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn fault(patterns: &[&str]) -> ExcludeFault {
        Exclude::new(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).unwrap_err()
    }

    #[test]
    fn matches_are_taken_out_in_order_and_leave_a_mark() {
        let of = |patterns: &[&str], text: &str| exclude(patterns).apply(Cow::Borrowed(text)).into_owned();
        assert_eq!(of(&[r"\d\d:\d\d"], "at 10:31 and 11:00"), format!("at {MARK} and {MARK}"));
        assert_eq!(of(&["^Printed .*$"], "a\nPrinted now\nb"), format!("a\n{MARK}\nb"));
        assert_eq!(of(&["a+", "b"], "aab"), format!("{MARK}{MARK}"));
        assert_eq!(of(&["$1"], "x"), "x");
        assert_eq!(of(&["x", "y"], "none"), "none");
        assert_eq!(of(&["a\nb"], "a\nb"), MARK);
    }

    #[test]
    fn unusable_patterns_are_named_on_one_line() {
        for (pattern, text) in [
            ("a(b", "unclosed group (at character 2)"),
            (r"\p{none}", "Unicode property not found (at character 1)"),
            ("(?=a)", "look-around"),
            ("(a{1000}){1000}", "over 10 MiB"),
            (&format!("{}a{}", "(".repeat(500), ")".repeat(500)), "nest"),
        ] {
            let fault = fault(&["fine", pattern]);
            assert_eq!(fault.index, 1);
            assert!(fault.text.contains(text), "{pattern}: {}", fault.text);
            assert!(!fault.text.contains('\n'));
        }
    }

    #[test]
    fn usual_patterns_are_not_too_large() {
        exclude(&[
            r"[\w-]{8,64}",
            r"(?i)token=\w{1,128}",
            r"\d{4}-\d\d-\d\dT[\d:.]+Z",
            r"https?://\S{1,500}",
        ]);
    }

    #[test]
    fn what_matches_the_empty_text_is_refused() {
        for pattern in ["", "a*", "^", "$", r"\b", "(a|)", "x?y*", r"\B"] {
            assert!(fault(&[pattern]).text.contains("empty"), "{pattern}");
        }
    }

    #[test]
    fn equal_by_the_patterns_texts() {
        assert_eq!(exclude(&["a", "b"]), exclude(&["a", "b"]));
        assert_ne!(exclude(&["a", "b"]), exclude(&["b", "a"]));
        assert_eq!(exclude(&[]), Exclude::default());
        assert_eq!(format!("{:?}", exclude(&["a"])), "[\"a\"]");
    }

    #[test]
    fn many_matches_cost_a_bounded_time() {
        // Each match of this one is found only after all there is was searched.
        let text = "x".repeat(1 << 20);
        let blanked = exclude(&["(?s)x(.*y)?"]).apply(Cow::Borrowed(&text)).into_owned();
        assert!(blanked.ends_with("xxx") && blanked.starts_with(MARK));
    }

    #[test]
    fn matches_are_found_wherever_a_search_ends() {
        for before in [WINDOW - 5, WINDOW / 2 - 5, WINDOW - 1, 3 * WINDOW + 7] {
            let filler = "\u{e9}\n".repeat(before / 3);
            let text = format!("{filler}at 10:31 h\n{filler}");
            let blanked = exclude(&[r"^at \d\d:\d\d h$"]).apply(Cow::Borrowed(&text)).into_owned();
            assert_eq!(blanked, format!("{filler}{MARK}\n{filler}"));
        }
    }
}

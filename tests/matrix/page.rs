//! The tables of `docs/clients.md`.

use std::fmt::Write as _;

use super::here;

/// A program and the version that it tells.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) version: String,
}

/// What came of one client with one upstream.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: &'static str,
    pub(crate) upstream: &'static str,
    /// How many of the two tries were a success for the client.
    pub(crate) succeeded: usize,
    /// How many messages the upstream got.
    pub(crate) arrived: usize,
    /// What the log says of each try.
    pub(crate) outcomes: Vec<String>,
    /// Whether both tries had the same reply, by the log.
    pub(crate) same_reply: bool,
    /// Whether the client showed that reply both times, if it shows any.
    pub(crate) reply_seen: Option<bool>,
    /// Whether what arrived is what was sent, but for our field and the key's.
    pub(crate) same_octets: bool,
    /// Whether this is so with a line end that the client adds.
    pub(crate) line_added: bool,
    /// Whether the text, decoded, is the one that was given to the client.
    pub(crate) same_text: bool,
    /// For whoever looks for what went wrong.
    pub(crate) notes: String,
}

const HEADING: &str = "| client | upstream | tries heard as success | arrived | outcomes | replies to both tries | \
                       octets | text |\n|---|---|---|---|---|---|---|---|\n";

impl Pair {
    pub(crate) fn new(client: &'static str, upstream: &'static str) -> Self {
        Self {
            client,
            upstream,
            succeeded: 0,
            arrived: 0,
            outcomes: Vec::new(),
            same_reply: false,
            reply_seen: None,
            same_octets: false,
            line_added: false,
            same_text: false,
            notes: String::new(),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.succeeded == 2
            && self.arrived == 1
            && self.outcomes == ["relayed", "duplicate"]
            && self.same_reply
            && self.reply_seen != Some(false)
            && self.same_octets
            && self.same_text
    }

    fn row(&self) -> String {
        let word = |same| if same { "the same" } else { "NOT the same" };
        let seen = match self.reply_seen {
            Some(true) => ", and shown",
            Some(false) => ", NOT shown",
            None => "; not shown",
        };
        let added = if self.line_added { ", and a line end" } else { "" };
        format!(
            "| {} | {} | {} of 2 | {} | {} | {}{seen} | {}{added} | {} |\n",
            self.client,
            self.upstream,
            self.succeeded,
            self.arrived,
            self.outcomes.join(", "),
            word(self.same_reply),
            word(self.same_octets),
            word(self.same_text)
        )
    }
}

fn versions(programs: &[Program], kind: &str) -> String {
    let mut table = format!("| {kind} | version |\n|---|---|\n");
    for Program { name, version } in programs {
        writeln!(table, "| {name} | {version} |").unwrap();
    }
    table
}

/// The part of a page between two marks, and what is around it.
fn split<'a>(page: &'a str, mark: &str) -> (&'a str, &'a str, &'a str) {
    let (open, close) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
    let start = page.find(&open).unwrap_or_else(|| panic!("docs/clients.md lacks {open}")) + open.len();
    let end = page.find(&close).unwrap_or_else(|| panic!("docs/clients.md lacks {close}"));
    (&page[..start], &page[start..end], &page[end..])
}

fn without_versions(table: &str) -> Vec<&str> {
    table.lines().map(|line| line.rsplitn(3, '|').last().unwrap()).collect()
}

/// Writes the tables into the page if that is wanted; else tells whether it has
/// them, versions apart. `target/clients.md` has what is true here in any case.
pub(crate) fn show(clients: &[Program], upstreams: &[Program], pairs: &[Pair]) -> bool {
    let versions = format!("{}\n{}", versions(clients, "client"), versions(upstreams, "upstream"));
    let table = HEADING.to_owned() + &pairs.iter().map(Pair::row).collect::<String>();
    let path = here("docs/clients.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let (_, shown_versions, _) = split(&page, "versions");
    let (_, shown_table, _) = split(&page, "pairs");
    let same = shown_table == table && without_versions(shown_versions) == without_versions(&versions);
    for (mark, content) in [("versions", &versions), ("pairs", &table)] {
        let (before, _, after) = split(&page, mark);
        page = format!("{before}{content}{after}");
    }
    std::fs::write(here("target/clients.md"), &page).unwrap();
    let to_write = std::env::var_os("MAILONCE_WRITE_DOCS").is_some();
    if to_write {
        std::fs::write(path, page).unwrap();
    }
    same || to_write
}

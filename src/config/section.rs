//! Reading the tree key by key. Whatever asks for a key thereby makes it
//! known: what is left over at the end was never asked for, and is a fault.

use std::cell::RefCell;
use std::fmt;

use super::NamedFile;
use super::tree::{Node, Origin, Table, Value};
use crate::escape;

/// Everything that is wrong with a configuration, in the order of the file.
/// The program does not start with one; a reload changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    faults: Vec<String>,
}

impl ConfigFault {
    /// A fault about the file as a whole.
    pub(super) fn of_file(text: String) -> Self {
        Self { faults: vec![text] }
    }

    /// One line for each fault: place, key, and what to write instead.
    pub fn lines(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl std::error::Error for ConfigFault {}

/// Why a value won't do.
pub(super) struct Problem {
    what: String,
    /// Set where it is an item of a list, which may stand on a line of its own.
    origin: Option<Origin>,
}

impl Problem {
    /// The problem lies with this node.
    pub(super) fn at(node: &Node, what: impl Into<String>) -> Self {
        Self { what: what.into(), origin: Some(node.origin.clone()) }
    }
}

/// What a value becomes, or why it does not.
pub(super) type Converted<T> = Result<T, Problem>;

/// Collects faults over all sections.
pub(super) struct Reader {
    file: String,
    faults: RefCell<Vec<(Origin, String)>>,
    known: RefCell<Vec<String>>,
}

impl Reader {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), faults: RefCell::default(), known: RefCell::default() }
    }

    pub(super) fn fault(&self, origin: &Origin, key: &str, what: &str) {
        let place = self.place(origin);
        let colon = if key.is_empty() { "" } else { ": " };
        // A key may hold anything between its quotes.
        let text = escape::for_terminal(&format!("{place}: {key}{colon}{what}")).into_owned();
        self.faults.borrow_mut().push((origin.clone(), text));
    }

    fn place(&self, origin: &Origin) -> String {
        match origin {
            Origin::Line(line) => format!("{}:{line}", self.file),
            Origin::Variable(name) => name.clone(),
        }
    }

    /// The full names of all keys that were asked for.
    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<String> {
        self.known.borrow().clone()
    }

    /// `Ok` if there was no fault.
    pub(super) fn verdict(&self) -> Result<(), ConfigFault> {
        let mut faults = self.faults.borrow().clone();
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by_key(|(origin, _)| match origin {
            Origin::Line(line) => (*line, String::new()),
            Origin::Variable(name) => (usize::MAX, name.clone()),
        });
        Err(ConfigFault { faults: faults.into_iter().map(|(_, text)| text).collect() })
    }
}

/// One table, being read.
pub(super) struct Section<'a> {
    path: String,
    origin: Origin,
    table: Option<&'a Table>,
    reader: &'a Reader,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a Table, reader: &'a Reader) -> Self {
        Self::new(String::new(), Origin::Line(1), Some(table), reader)
    }

    fn new(path: String, origin: Origin, table: Option<&'a Table>, reader: &'a Reader) -> Self {
        Self { path, origin, table, reader, asked: RefCell::default() }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The node under a key, which thereby is known.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
            self.reader.known.borrow_mut().push(self.full(key));
        }
        self.table?.get(key)
    }

    /// The value under a key, or what it is when nothing is written.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        default: T,
        convert: impl FnOnce(&Node) -> Converted<T>,
    ) -> T {
        let Some(node) = self.node(key) else { return default };
        convert(node).unwrap_or_else(|problem| {
            self.problem(key, node, problem);
            default
        })
    }

    /// The value under a key that must be written.
    pub(super) fn require<T: Default>(
        &self,
        key: &'static str,
        hint: &str,
        convert: impl FnOnce(&Node) -> Converted<T>,
    ) -> T {
        if self.node(key).is_none() {
            self.fault(key, &format!("is missing; {hint}"));
        }
        self.get(key, T::default(), convert)
    }

    /// Takes a key of a later version, which must be at the value that means
    /// that it is not used.
    pub(super) fn later(&self, key: &'static str, off: &str, is_off: impl FnOnce(&Node) -> bool) {
        let Some(node) = self.node(key) else { return };
        if !is_off(node) {
            let what = format!("this version does not offer it yet; leave it out or write {off}");
            self.reader.fault(&node.origin, &self.full(key), &what);
        }
    }

    /// The table under a key; empty when there is none.
    pub(super) fn table(&self, key: &'static str) -> Section<'a> {
        let full = self.full(key);
        let Some(node) = self.node(key) else {
            return Section::new(full, self.origin.clone(), None, self.reader);
        };
        let table = if let Value::Table(table) = &node.value {
            Some(table)
        } else {
            self.reader.fault(
                &node.origin,
                &full,
                &format!("{} is not a table; write [{full}]", node.describe()),
            );
            None
        };
        Section::new(full, node.origin.clone(), table, self.reader)
    }

    /// The tables of a `[[key]]`; `None` when there is none at all.
    pub(super) fn tables(&self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let full = self.full(key);
        let node = self.node(key)?;
        let Value::List(items) = &node.value else {
            self.reader.fault(
                &node.key_origin,
                &full,
                &format!("{} is not a list; write [[{full}]]", node.describe()),
            );
            return None;
        };
        let section = |item: &'a Node| match &item.value {
            Value::Table(table) => {
                Some(Section::new(full.clone(), item.origin.clone(), Some(table), self.reader))
            }
            _ => {
                let what = format!("{} is not a table; write [[{full}]]", item.describe());
                self.reader.fault(&item.origin, &full, &what);
                None
            }
        };
        Some(items.iter().filter_map(section).collect())
    }

    /// A section without a single key, to read the defaults from.
    pub(super) fn absent(&self, key: &'static str) -> Section<'a> {
        Section::new(self.full(key), self.origin.clone(), None, self.reader)
    }

    /// A fault at a key, or at the table where the key is not written.
    pub(super) fn fault(&self, key: &'static str, what: &str) {
        let origin = self.node(key).map_or(&self.origin, |node| &node.origin);
        self.reader.fault(origin, &self.full(key), what);
    }

    /// Where a key is written, for faults that are found later: the start of
    /// what [`Self::fault`] would say.
    pub(super) fn place(&self, key: &'static str) -> String {
        let origin = self.node(key).map_or(&self.origin, |node| &node.origin);
        format!("{}: {}", self.reader.place(origin), self.full(key))
    }

    /// The configuration's file, where it is that a key is written in; `None`
    /// for the environment.
    pub(super) fn file(&self, key: &'static str) -> Option<NamedFile> {
        match self.node(key)?.origin {
            Origin::Line(_) => {
                Some(NamedFile { path: self.reader.file.clone().into(), named_by: self.place(key) })
            }
            Origin::Variable(_) => None,
        }
    }

    /// Whether a key is written at all.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    fn problem(&self, key: &'static str, node: &Node, problem: Problem) {
        let origin = problem.origin.as_ref().unwrap_or(&node.origin);
        self.reader.fault(origin, &self.full(key), &problem.what);
    }

    /// Ends the section: keys that nobody asked for are faults.
    pub(super) fn close(self) {
        let asked = self.asked.borrow();
        for (key, node) in self.table.into_iter().flatten() {
            if asked.iter().any(|known| known == key) {
                continue;
            }
            let what = match nearest(key, &asked) {
                Some(near) => format!("there is no such key; did you mean {}?", self.full(near)),
                None => format!("there is no such key; known here: {}", asked.join(", ")),
            };
            self.reader.fault(&node.key_origin, &self.full(key), &what);
        }
    }
}

/// The known key that a misspelt one most likely stands for.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = key.to_ascii_lowercase().replace('-', "_");
    let best = known.iter().map(|candidate| (distance(&folded, candidate), *candidate)).min()?;
    (best.0 <= 1 + folded.len() / 5).then_some(best.1)
}

/// How many letters have to be put in, left out or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

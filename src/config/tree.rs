//! The configuration as it was written: a tree of values that each remember
//! where they came from, so that a fault can say so. The file is read into it
//! first, then environment variables are laid over it.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// What the names of all our environment variables start with.
const PREFIX: &str = "MAILONCE_";

/// Variables that start with our prefix but are no configuration. The crash
/// tests name a step with the first.
const RESERVED: [&str; 1] = ["CRASH_AT"];

/// The keys at the top that have a value of their own, in lower case.
pub(super) const TOP_VALUES: [&str; 2] = ["hostname", "drain"];

/// Whether a variable is a setting: it goes into a table, or names a value at
/// the top. Platforms make other variables with our prefix by themselves, such
/// as `MAILONCE_PORT_25_TCP` for a Kubernetes service; the proxy must start
/// with them.
fn is_setting(rest: &str) -> bool {
    rest.contains("__") || TOP_VALUES.iter().any(|key| rest.eq_ignore_ascii_case(key))
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of the file, counted from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
}

/// The keys of one table.
pub(super) type Table = BTreeMap<String, Node>;

/// One value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where the value stands.
    pub(super) origin: Origin,
    /// Where the key in front of it stands.
    pub(super) key_origin: Origin,
    /// The value.
    pub(super) value: Value,
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// What no key takes (a float, a date, a number beyond 64 bits), as it
    /// shall be quoted.
    Other(String),
    /// From the environment, where everything is text: becomes what its key
    /// asks for.
    Variable(String),
}

impl Node {
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        Self { key_origin: origin.clone(), origin, value }
    }

    /// The value, for quoting in a fault: on one line and not too long.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Text(text) | Value::Variable(text) => quote(text),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(text) => text.clone(),
        }
    }
}

fn quote(text: &str) -> String {
    const MOST: usize = 60;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

/// Reads TOML. The fault is the line, if it is known, and what is wrong there.
pub(super) fn read(text: &str) -> Result<Table, (usize, String)> {
    match DeTable::parse(text) {
        Ok(table) => Ok(Lines { text }.table(table.into_inner())),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let mut what = error.message().replace('\n', ", ");
            // The span of this one is the key itself, never a value.
            if what.contains("duplicate key") {
                what = format!("{what} {}", text.get(span.clone()).unwrap_or_default().trim());
            }
            Err((line_of(text, span.start), format!("not valid TOML: {what}")))
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

/// Turns offsets into lines.
struct Lines<'a> {
    text: &'a str,
}

impl Lines<'_> {
    fn table(&self, table: DeTable<'_>) -> Table {
        let entries = table.into_iter().map(|(key, value)| {
            let key_origin = Origin::Line(line_of(self.text, key.span().start));
            (key.into_inner().into_owned(), Node { key_origin, ..self.node(value) })
        });
        entries.collect()
    }

    fn node(&self, value: toml::Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let origin = Origin::Line(line_of(self.text, span.start));
        let verbatim = || self.text.get(span.clone()).unwrap_or("a value").trim().to_owned();
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Other(verbatim()), Value::Integer),
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Array(list) => Value::List(list.into_iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other(verbatim()),
        };
        Node::new(origin, value)
    }
}

/// The items of a list given in the environment: a TOML array, or parts
/// between commas.
pub(super) fn list_from_variable(text: &str, origin: &Origin) -> Result<Vec<Node>, String> {
    if !text.trim_start().starts_with('[') {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        return Ok(parts.map(|part| Node::new(origin.clone(), Value::Variable(part.to_owned()))).collect());
    }
    let mut table = read(&format!("list = {text}")).map_err(|(_, what)| what)?;
    let Some(Value::List(mut items)) = table.remove("list").map(|node| node.value) else {
        return Err("is not a list".to_owned());
    };
    for item in &mut items {
        item.origin = origin.clone();
        item.key_origin = origin.clone();
    }
    Ok(items)
}

/// One step of a path into the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Item(usize),
    Key(String),
}

/// What became of the variables with our prefix.
#[derive(Debug, Default)]
pub(super) struct Overlaid {
    /// Those that don't fit: name, key, and reason.
    pub(super) misfits: Vec<(String, String, String)>,
    /// The names of those that are no settings.
    pub(super) passed_over: Vec<String>,
}

/// Lays the variables over the tree. Whether a path means anything is seen
/// later, when the tree is read.
pub(super) fn overlay(tree: &mut Table, variables: impl Iterator<Item = (String, String)>) -> Overlaid {
    let mut overlaid = Overlaid::default();
    let mut ours = Vec::new();
    for (name, value) in variables {
        match name.strip_prefix(PREFIX) {
            None => {}
            Some(rest) if RESERVED.contains(&rest) => {}
            Some(rest) if is_setting(rest) => ours.push((path_of(rest), name, value)),
            Some(_) => overlaid.passed_over.push(name),
        }
    }
    overlaid.passed_over.sort();
    // So that item 0 of a list comes before item 1, and a whole list before
    // its items.
    ours.sort();
    for (path, name, value) in ours {
        let key = path.iter().filter_map(|step| if let Step::Key(key) = step { Some(&**key) } else { None });
        let key = key.collect::<Vec<_>>().join(".");
        if let Err(what) = insert(tree, &path, &name, value) {
            overlaid.misfits.push((name, key, what));
        }
    }
    overlaid
}

fn path_of(rest: &str) -> Vec<Step> {
    let step = |part: &str| part.parse().map_or_else(|_| Step::Key(part.to_ascii_lowercase()), Step::Item);
    rest.split("__").map(step).collect()
}

fn insert(tree: &mut Table, path: &[Step], name: &str, text: String) -> Result<(), String> {
    let origin = Origin::Variable(name.to_owned());
    let Some((Step::Key(first), rest)) = path.split_first() else {
        return Err("names no key".to_owned());
    };
    let entry = |rest: &[Step]| Node::new(origin.clone(), container_for(rest));
    let mut node = tree.entry(first.clone()).or_insert_with(|| entry(rest));
    let mut rest = rest;
    while let Some((step, deeper)) = rest.split_first() {
        node = match (&mut node.value, step) {
            (Value::Table(table), Step::Key(key)) => {
                table.entry(key.clone()).or_insert_with(|| entry(deeper))
            }
            (Value::List(items), Step::Item(index)) => {
                if *index == items.len() {
                    items.push(entry(deeper));
                }
                let most = items.len();
                items.get_mut(*index).ok_or_else(|| {
                    format!("there are {most} before this one; number them from 0 without a gap")
                })?
            }
            (Value::List(_), Step::Key(key)) => {
                return Err(format!("this is a list; write a number in front of __{}", key.to_uppercase()));
            }
            _ => return Err("has no keys inside".to_owned()),
        };
        rest = deeper;
    }
    // A variable in the place of a table is kept, and refused by the reader.
    *node = Node::new(origin, Value::Variable(text));
    Ok(())
}

fn container_for(rest: &[Step]) -> Value {
    match rest.first() {
        Some(Step::Item(_)) => Value::List(Vec::new()),
        Some(Step::Key(_)) => Value::Table(Table::new()),
        None => Value::Variable(String::new()),
    }
}

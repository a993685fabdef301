//! From written values to typed ones. Each says, when it can't, what to write
//! instead.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::value::StrDeserializer;

use super::policy::FieldRef;
use super::rule::Glob;
use super::section::{Converted, Problem};
use super::tree::{Node, Value, list_from_variable};
use super::{Exclude, values};
use crate::secret::Secret;

/// A hundred years: so that no sum of a time and a duration can overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

fn no<T>(node: &Node, is_not: &str, instead: &str) -> Converted<T> {
    Err(Problem::at(node, format!("{} is not {is_not}; write {instead}", node.describe())))
}

fn as_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) | Value::Variable(text) => Some(text),
        _ => None,
    }
}

/// Any text.
pub(super) fn text(node: &Node) -> Converted<String> {
    as_text(node).map_or_else(|| no(node, "a text", "it between quotes"), |text| Ok(text.to_owned()))
}

/// A text that no fault may quote.
pub(super) fn secret(node: &Node) -> Converted<Secret> {
    match as_text(node) {
        Some(text) if !text.contains('\0') => Ok(Secret::new(text.to_owned())),
        _ => Err(Problem::at(node, "is not a text without NUL; write it between quotes")),
    }
}

/// Whether the value is this text.
pub(super) fn is_text(node: &Node, wanted: &str) -> bool {
    as_text(node) == Some(wanted)
}

/// The name of a file or directory.
pub(super) fn path(node: &Node) -> Converted<PathBuf> {
    match as_text(node) {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(PathBuf::from(text)),
        _ => no(node, "a path", "one such as \"data\""),
    }
}

/// A path where the empty text stands for none.
pub(super) fn optional_path(node: &Node) -> Converted<Option<PathBuf>> {
    if is_text(node, "") { Ok(None) } else { path(node).map(Some) }
}

/// One path or a list of them; the empty text stands for none.
pub(super) fn paths(node: &Node) -> Converted<Vec<PathBuf>> {
    match &node.value {
        Value::Text(_) => optional_path(node).map(|one| one.into_iter().collect()),
        _ => list_of(path)(node),
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node) -> Converted<bool> {
    match &node.value {
        Value::Boolean(truth) => Ok(*truth),
        Value::Variable(text) if text == "true" => Ok(true),
        Value::Variable(text) if text == "false" => Ok(false),
        _ => no(node, "true or false", "one of them, without quotes"),
    }
}

/// A whole number from `least` up.
pub(super) fn count(least: usize) -> impl Fn(&Node) -> Converted<usize> {
    move |node| {
        let number = match &node.value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            Value::Variable(text) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|number| *number >= least) {
            Some(number) => Ok(number),
            None => no(node, "a usable number", &format!("a whole number from {least} up")),
        }
    }
}

/// A duration, zero included.
pub(super) fn duration(node: &Node) -> Converted<Duration> {
    let span = match &node.value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Text(text) | Value::Variable(text) => values::parse_duration(text),
        _ => None,
    };
    match span {
        None => no(node, "a duration", "90s, 30m, 24h or 7d"),
        Some(span) if span > LONGEST => no(node, "a usable duration", "at most 36500d"),
        Some(span) => Ok(span),
    }
}

/// A duration longer than nothing.
pub(super) fn positive_duration(node: &Node) -> Converted<Duration> {
    let span = duration(node)?;
    if span.is_zero() {
        no(node, "long enough", "a duration above zero, such as 90s or 7d")
    } else {
        Ok(span)
    }
}

/// Octets, more than none.
pub(super) fn size(node: &Node) -> Converted<u64> {
    match size_or_none(node)? {
        0 => no(node, "large enough", "a size above zero, such as 1 MiB"),
        octets => Ok(octets),
    }
}

/// Octets.
pub(super) fn size_or_none(node: &Node) -> Converted<u64> {
    let octets = match &node.value {
        Value::Integer(octets) => u64::try_from(*octets).ok(),
        Value::Text(text) | Value::Variable(text) => values::parse_size(text),
        _ => None,
    };
    octets.map_or_else(|| no(node, "a size", "50 MiB, 10 KB or a number of octets"), Ok)
}

/// A list of whatever one item becomes.
pub(super) fn list<'n, T>(node: &'n Node, item: impl Fn(&'n Node) -> Converted<T>) -> Converted<Vec<T>> {
    match &node.value {
        Value::List(items) => items.iter().map(item).collect(),
        _ => no(node, "a list", "values between square brackets"),
    }
}

/// The same for a key that may also come from the environment as one text.
pub(super) fn list_of<T>(item: impl Fn(&Node) -> Converted<T>) -> impl Fn(&Node) -> Converted<Vec<T>> {
    move |node| match &node.value {
        Value::Variable(text) => match list_from_variable(text, &node.origin) {
            Ok(items) => items.iter().map(&item).collect(),
            Err(what) => Err(Problem::at(node, format!("{} is not a list: {what}", node.describe()))),
        },
        _ => list(node, &item),
    }
}

/// A list that holds something, and nothing twice.
pub(super) fn some_of<T: PartialEq>(
    item: impl Fn(&Node) -> Converted<T>,
    hint: &str,
) -> impl Fn(&Node) -> Converted<Vec<T>> {
    move |node| {
        let items = list_of(&item)(node)?;
        if items.is_empty() {
            return Err(Problem::at(node, format!("is empty; {hint}")));
        }
        if let Some(twice) = items.iter().enumerate().find_map(|(i, x)| items[..i].contains(x).then_some(i)) {
            return Err(Problem::at(
                node,
                format!("item {} repeats an earlier one; write it once", twice + 1),
            ));
        }
        Ok(items)
    }
}

/// One text, or a list of them.
pub(super) fn one_or_more<T: PartialEq>(
    item: impl Fn(&Node) -> Converted<T>,
    hint: &str,
) -> impl Fn(&Node) -> Converted<Vec<T>> {
    move |node| match &node.value {
        Value::Text(_) => item(node).map(|one| vec![one]),
        _ => some_of(&item, hint)(node),
    }
}

/// A network.
pub(super) fn network(node: &Node) -> Converted<IpNet> {
    let network = as_text(node).and_then(values::parse_network);
    network.map_or_else(|| no(node, "a network", "192.0.2.0/24, 2001:db8::/32 or a single address"), Ok)
}

/// An address to listen on.
pub(super) fn socket_address(node: &Node) -> Converted<SocketAddr> {
    let address = as_text(node).and_then(|text| text.parse().ok());
    address.map_or_else(|| no(node, "an address with a port", "127.0.0.1:2525 or [::1]:2525"), Ok)
}

/// The same where the empty text stands for none.
pub(super) fn optional_address(node: &Node) -> Converted<Option<SocketAddr>> {
    if is_text(node, "") {
        return Ok(None);
    }
    let address = as_text(node).and_then(|text| text.parse().ok());
    let none = || no(node, "an address with a port", "127.0.0.1:9925 or [::1]:9925, or \"\" for none");
    address.map_or_else(none, |address| Ok(Some(address)))
}

/// An address to connect to.
pub(super) fn host_and_port(node: &Node) -> Converted<String> {
    match as_text(node) {
        Some(text) if values::is_host_and_port(text) => Ok(text.to_owned()),
        // What is in front of it may be a password, and is not quoted.
        Some(text) if text.contains('@') => Err(Problem::at(
            node,
            "holds an @; write a host and a port alone, such as smtp.example.com:587, and an account into \
             username and password",
        )),
        _ => no(node, "a host and a port", "smtp.example.com:587, 192.0.2.1:25 or [2001:db8::1]:25"),
    }
}

/// A domain name.
pub(super) fn domain(node: &Node) -> Converted<String> {
    match as_text(node) {
        Some(text) if values::is_domain(text) => Ok(text.to_owned()),
        _ => no(node, "a domain name", "one such as relay.example.com"),
    }
}

/// The name of a header field that may be read, written and removed.
pub(super) fn header_name(node: &Node) -> Converted<String> {
    match as_text(node) {
        Some(text) if values::is_essential_field(text) => no(
            node,
            "a field of its own",
            "the name of one that the message can be relayed without, such as X-Idempotency-Key",
        ),
        Some(text) if values::is_header_name(text) => Ok(text.to_owned()),
        _ => no(node, "the name of a header field", "one such as X-Idempotency-Key"),
    }
}

/// A header field, or a member of the JSON in it.
pub(super) fn field_ref(node: &Node) -> Converted<FieldRef> {
    match as_text(node).and_then(FieldRef::parse) {
        Some(field) if values::is_header_name(&field.name) && !values::is_essential_field(&field.name) => {
            Ok(field)
        }
        _ => no(
            node,
            "a field of its own",
            "the name of a header field such as X-Event-Id, or one with a JSON Pointer, X-SMTPAPI#/unique_args",
        ),
    }
}

/// Globs of which one must match exactly.
pub(super) fn exact_globs(node: &Node) -> Converted<Vec<Glob>> {
    globs(node, Glob::exact)
}

/// Globs of which one must match without regard to case.
pub(super) fn any_case_globs(node: &Node) -> Converted<Vec<Glob>> {
    globs(node, Glob::any_case)
}

/// The same for Subjects.
pub(super) fn subject_globs(node: &Node) -> Converted<Vec<Glob>> {
    globs(node, Glob::subject)
}

/// The same for addresses.
pub(super) fn address_globs(node: &Node) -> Converted<Vec<Glob>> {
    globs(node, Glob::address)
}

fn globs(node: &Node, glob: impl Fn(&str) -> Glob) -> Converted<Vec<Glob>> {
    let one = |node: &Node| text(node).map(|text| glob(&text));
    match &node.value {
        Value::List(_) => some_of(one, "leave the condition out to match anything")(node),
        _ => one(node).map(|one| vec![one]),
    }
}

/// `{ "X-Template-Id" = "otp*" }`: globs by the name of a field.
pub(super) fn header_globs(node: &Node) -> Converted<Vec<(String, Vec<Glob>)>> {
    let Value::Table(table) = &node.value else {
        return no(node, "a table", "{ \"X-Template-Id\" = \"otp*\" }");
    };
    let condition = |(name, node): (&String, &Node)| {
        if values::is_header_name(name) {
            Ok((name.clone(), any_case_globs(node)?))
        } else {
            no(node, "the name of a header field", "one such as X-Template-Id in front of it")
        }
    };
    table.iter().map(condition).collect()
}

/// Regular expressions, compiled.
pub(super) fn excludes(node: &Node) -> Converted<Exclude> {
    let patterns = list_of(text)(node)?;
    Exclude::new(&patterns).map_err(|fault| {
        let item = match &node.value {
            Value::List(items) => items.get(fault.index).unwrap_or(node),
            _ => node,
        };
        Problem::at(item, fault.to_string())
    })
}

/// A name that can stand in a log line, blanks inside allowed.
pub(super) fn rule_name(node: &Node) -> Converted<String> {
    let fits = |text: &&str| {
        (1..=64).contains(&text.len()) && *text == text.trim() && !text.contains(char::is_control)
    };
    let text = as_text(node).filter(fits);
    text.map_or_else(
        || no(node, "a name", "up to 64 octets on one line, without blanks around them"),
        |text| Ok(text.to_owned()),
    )
}

/// The same where the empty text stands for none.
pub(super) fn optional_header(node: &Node) -> Converted<Option<String>> {
    if is_text(node, "") { Ok(None) } else { header_name(node).map(Some) }
}

/// A short name that can stand in a log line and in `listening on … (NAME)`.
pub(super) fn name(node: &Node) -> Converted<String> {
    let fits = |text: &&str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let text = as_text(node).filter(fits);
    text.map_or_else(
        || no(node, "a name", "up to 64 letters, digits and signs without blanks"),
        |text| Ok(text.to_owned()),
    )
}

/// One of the words that an enum is written with.
pub(super) fn choice<T: for<'de> Deserialize<'de>>(node: &Node) -> Converted<T> {
    let word = as_text(node).unwrap_or_default();
    match T::deserialize(StrDeserializer::<NoChoice>::new(word)) {
        Ok(choice) => Ok(choice),
        Err(NoChoice(words)) => no(node, "offered here", &words),
    }
}

/// The words that there are, as serde names them when one does not fit.
#[derive(Debug)]
struct NoChoice(String);

impl fmt::Display for NoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoChoice {}

impl serde::de::Error for NoChoice {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected.join(" or "))
    }
}

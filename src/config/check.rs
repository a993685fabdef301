//! What single values can't show: whether they go together.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::Section;
use super::values::{covers_the_world, format_duration, is_loopback};
use super::{AddressFrom, Admin, Auth, Dedup, Limits, Listener, Rule, Strategy, Upstream};

/// A listener must not be an open relay, nor stand twice.
pub(super) fn listener(section: &Section<'_>, listener: &Listener, earlier: &[Listener]) {
    if earlier.iter().any(|other| other.name == listener.name) {
        let what = format!("{:?} names an earlier listener too; give each a name of its own", listener.name);
        section.fault("name", &what);
    }
    if earlier.iter().any(|other| collide(other.address, listener.address)) {
        let what =
            format!("{} is taken by an earlier listener; give each an address of its own", listener.address);
        section.fault("address", &what);
    }
    if !listener.address.ip().is_loopback() && covers_the_world(&listener.allow_from) {
        let address = listener.address;
        let what = match listener.auth {
            Auth::Off => format!(
                "an open relay: {address} is not loopback, there is no AUTH, and these networks let the whole world \
                 in; list only those that may relay"
            ),
            Auth::Local { .. } | Auth::Passthrough { .. } => format!(
                "an open relay: {address} is not loopback, and these networks let the whole world relay without AUTH; \
                 write [] to let in nobody but who is authenticated"
            ),
        };
        section.fault("allow_from", &what);
    }
    if !listener.address.ip().is_loopback() && covers_the_world(&listener.proxy_from) {
        let what = format!(
            "an open relay: {} is not loopback, and the whole world could claim any address in a PROXY header; \
             list only the balancers",
            listener.address
        );
        section.fault("proxy_from", &what);
    }
}

/// The passwords of clients must not travel where anybody may read them.
pub(super) fn passthrough(section: &Section<'_>, listener: &Listener, upstream: &Upstream) {
    let secured = upstream.tls.as_ref().is_some_and(|tls| tls.manner.verifies());
    let elsewhere = upstream.addresses.iter().find(|address| !secured && !is_loopback(address));
    if let (Auth::Passthrough { .. }, Some(address)) = (&listener.auth, elsewhere) {
        let what = format!(
            "the passwords of clients could be read on their way to {address}; write upstream.tls = \"starttls\" or \
             \"implicit\""
        );
        section.fault("auth", &what);
    }
}

/// Port 0 takes a free port, so it never collides.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one == other && one.port() != 0
}

/// The admin address is one of its own. The default one gives way where it is
/// served, like to any other program that has it.
pub(super) fn admin(section: &Section<'_>, admin: Option<&Admin>, listeners: &[Listener]) {
    let Some(admin) = admin.filter(|admin| admin.address_from == AddressFrom::Operator) else { return };
    if let Some(listener) = listeners.iter().find(|listener| collide(listener.address, admin.address)) {
        let what = format!(
            "{} is taken by the listener {:?}; give each an address of its own",
            admin.address, listener.name
        );
        section.fault("address", &what);
    }
}

/// Windows must fit under their cap, and strategies need their headers.
pub(super) fn dedup(section: &Section<'_>, dedup: &Dedup) {
    window(section, "window", dedup.window, dedup.max_window);
    window(section, "content_window", dedup.content_window, dedup.max_window);
    window(section, "unheard_window", dedup.unheard_window, dedup.max_window);
    for (strategy, key) in without_fields(dedup) {
        let what = format!("is empty, but dedup.chain asks for {}; name a header field", strategy.as_str());
        section.fault(key, &what);
    }
}

/// The strategies of the chain that have no field to look at, with the key
/// that would name one.
fn without_fields(dedup: &Dedup) -> impl Iterator<Item = (Strategy, &'static str)> {
    let needs = [
        (Strategy::Header, "headers", dedup.headers.is_empty()),
        (Strategy::Event, "event_headers", dedup.event_headers.is_empty()),
    ];
    needs
        .into_iter()
        .filter(|(strategy, _, empty)| *empty && dedup.chain.contains(strategy))
        .map(|(strategy, key, _)| (strategy, key))
}

fn window(section: &Section<'_>, key: &'static str, window: Duration, most: Duration) {
    if window <= most {
        return;
    }
    let (window, most) = (format_duration(window), format_duration(most));
    // The fault belongs to what is written, not to a default.
    if section.has(key) {
        section.fault(key, &format!("{window} is longer than dedup.max_window, {most}"));
    } else {
        section.fault("max_window", &format!("{most} is shorter than dedup.{key}, {window}"));
    }
}

/// Rules have names of their own, windows under the cap, and no key that
/// depends on what it decides.
pub(super) fn rule(section: &Section<'_>, rule: &Rule, earlier: &[Rule]) {
    if earlier.iter().any(|other| other.name == rule.name) {
        section.fault(
            "name",
            &format!("{:?} names an earlier rule too; give each a name of its own", rule.name),
        );
    }
    for (key, span) in [("window", rule.dedup.window), ("unheard_window", rule.dedup.unheard_window)] {
        if section.has(key) {
            window(section, key, span, rule.dedup.max_window);
        }
    }
    for key in ["chain", "scope"] {
        if !rule.matches.key.is_empty() && section.has(key) {
            section.fault(
                key,
                "a rule that matches on the key can't change how the key is found; match on something else",
            );
        }
    }
    if section.has("chain") {
        for (strategy, key) in without_fields(&rule.dedup) {
            section.fault("chain", &format!("asks for {}, but dedup.{key} is empty", strategy.as_str()));
        }
    }
}

/// One message must fit into the memory there is.
pub(super) fn limits(section: &Section<'_>, limits: &Limits) {
    let (one, all) = (limits.memory_per_message, limits.in_memory_total);
    if one <= all {
        return;
    }
    if section.has("memory_per_message") {
        section.fault(
            "memory_per_message",
            &format!("{one} octets are more than limits.in_memory_total, {all}"),
        );
    } else {
        section.fault(
            "in_memory_total",
            &format!("{all} octets are fewer than limits.memory_per_message, {one}"),
        );
    }
}

//! `[upstream]`: where mail goes, how it is secured, and who we are there.

use std::time::Duration;

use serde::Deserialize;

use super::super::convert::{
    boolean, choice, count, duration, host_and_port, one_or_more, optional_header, optional_path,
    positive_duration, secret, text,
};
use super::super::section::Section;
use super::super::values::is_loopback;
use super::super::{
    Credentials, KeyPair, NamedFile, Password, TlsManner, Upstream, UpstreamTimeouts, UpstreamTls,
};
use super::MINUTE;
use crate::secret::Secret;

/// `tls`, as it is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Off,
    Opportunistic,
    StartTls,
    Implicit,
}

impl Written {
    /// What holds where nothing is written: mail does not leave this machine
    /// in clear unless somebody has said so.
    fn for_addresses(addresses: &[String]) -> Self {
        if addresses.iter().all(|address| is_loopback(address)) { Written::Off } else { Written::StartTls }
    }

    fn manner(self) -> Option<TlsManner> {
        match self {
            Written::Off => None,
            Written::Opportunistic => Some(TlsManner::Opportunistic),
            Written::StartTls => Some(TlsManner::StartTls),
            Written::Implicit => Some(TlsManner::Implicit),
        }
    }
}

pub(super) fn upstream(section: Section<'_>) -> Upstream {
    let address = one_or_more(host_and_port, "name at least one host:port");
    let addresses =
        section.require("address", "write where mail goes, such as \"smtp.example.com:587\"", address);
    let manner = section.get("tls", Written::for_addresses(&addresses), choice).manner();
    let upstream = Upstream {
        tls: tls(&section, manner),
        credentials: credentials(&section, manner, &addresses),
        addresses,
        pool_size: section.get("pool_size", 20, count(0)),
        idle_timeout: section.get("idle_timeout", Duration::from_secs(30), duration),
        idempotency_header: section.get("idempotency_header", None, optional_header),
        received_header: section.get("received_header", true, boolean),
        timeouts: timeouts(section.table("timeouts")),
    };
    section.close();
    upstream
}

fn timeouts(section: Section<'_>) -> UpstreamTimeouts {
    let span = |key, seconds| section.get(key, Duration::from_secs(seconds), positive_duration);
    let timeouts = UpstreamTimeouts {
        connect: span("connect", 30),
        greeting: span("greeting", 5 * MINUTE),
        envelope: span("envelope", 5 * MINUTE),
        data: span("data", 2 * MINUTE),
        block: span("block", 3 * MINUTE),
        completion: span("completion", 10 * MINUTE),
    };
    section.close();
    timeouts
}

/// What handshakes are made with, where there are any. While TLS is off its
/// keys mean nothing, and may stay written down.
fn tls(section: &Section<'_>, manner: Option<TlsManner>) -> Option<UpstreamTls> {
    let ca_file = named_file(section, "ca_file");
    let certificate = named_file(section, "client_certificate");
    let private_key = named_file(section, "client_key");
    let manner = manner?;
    if !manner.verifies() && ca_file.is_some() {
        let what =
            "is of no use: \"opportunistic\" verifies nothing; leave it out, or write tls = \"starttls\"";
        section.fault("ca_file", what);
    }
    let key_pair = match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => Some(KeyPair { certificate, private_key }),
        (Some(_), None) => {
            section.fault("client_certificate", "its client_key is missing");
            None
        }
        (None, Some(_)) => {
            section.fault("client_key", "its client_certificate is missing");
            None
        }
        (None, None) => None,
    };
    Some(UpstreamTls { manner, named_by: section.place("tls"), ca_file, key_pair })
}

fn named_file(section: &Section<'_>, key: &'static str) -> Option<NamedFile> {
    let path = section.get(key, None, optional_path)?;
    Some(NamedFile { path, named_by: section.place(key) })
}

fn credentials(
    section: &Section<'_>,
    manner: Option<TlsManner>,
    addresses: &[String],
) -> Option<Credentials> {
    let username = section.get("username", String::new(), text);
    let password = section.get("password", Secret::default(), secret);
    let file = named_file(section, "password_file");
    let given = !password.reveal().is_empty();
    if given && file.is_some() {
        section.fault("password_file", "password is written too; leave one of them out");
        return None;
    }
    if username.is_empty() {
        let key = if given { "password" } else { "password_file" };
        if given || file.is_some() {
            section.fault(key, "there is no username that it belongs to; write one, or leave this out");
        }
        return None;
    }
    if username.contains('\0') {
        section.fault("username", "holds a NUL, which AUTH can't carry");
    }
    if !given && file.is_none() {
        section.fault("username", "has no password; write password or password_file");
        return None;
    }
    in_clear(section, manner, addresses);
    let written = || Password::Written { secret: password, place: section.file("password") };
    let password = file.map_or_else(written, Password::File);
    Some(Credentials { username, password })
}

/// Credentials must not travel where anybody may read them.
fn in_clear(section: &Section<'_>, manner: Option<TlsManner>, addresses: &[String]) {
    let secured = manner.is_some_and(TlsManner::verifies);
    if let Some(address) = addresses.iter().find(|address| !secured && !is_loopback(address)) {
        let what = format!(
            "the password could be read on its way to {address}; write tls = \"starttls\" or \"implicit\""
        );
        section.fault("username", &what);
    }
}

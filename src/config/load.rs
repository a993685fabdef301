//! From the file and the environment to a [`Config`], section by section.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

mod auth;
mod dedup;
mod tls;
mod upstream;

use super::check;
use super::convert::{
    boolean, choice, count, domain, duration, is_text, list_of, name, network, optional_address,
    optional_header, optional_path, path, positive_duration, size, size_or_none, socket_address, some_of,
    text,
};
use super::section::{ConfigFault, Problem, Reader, Section};
use super::tree::{self, Node, Origin};
use super::{
    AddressFrom, Admin, Auth, BareNewlines, Config, Limits, Listener, Log, LogFormat, LogLevel, Redact,
    Store, Upstream, values,
};

const MINUTE: u64 = 60;
const MIB: u64 = 1 << 20;

impl Config {
    /// Reads a file, lays the environment over it and checks the result.
    pub fn load(file: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigFault> {
        let shown = file.display();
        let bytes = std::fs::read(file).map_err(|error| {
            ConfigFault::of_file(format!("{shown}: can't be read: {error}; name the file with --config FILE"))
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            ConfigFault::of_file(format!("{shown}:{line}: not valid TOML: this line is not UTF-8"))
        })?;
        Config::parse(text, &shown.to_string(), env)
    }

    /// The same for a text that has been read already; `file_name` is for
    /// faults.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigFault> {
        parse_with(text, &Reader::new(file_name), env)
    }
}

/// Does the work; whoever keeps the reader can see which keys there are.
pub(super) fn parse_with(
    text: &str,
    reader: &Reader,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigFault> {
    let mut table = tree::read(text).unwrap_or_else(|(line, what)| {
        reader.fault(&Origin::Line(line), "", &what);
        tree::Table::new()
    });
    // A file that can't be read says nothing about what is missing in it.
    reader.verdict()?;
    let tree::Overlaid { misfits, passed_over } = tree::overlay(&mut table, env);
    for (variable, key, what) in misfits {
        reader.fault(&Origin::Variable(variable), &key, &what);
    }
    // Neither does a tree with a half-made path in it.
    reader.verdict()?;
    let config = read(Section::root(&table, reader));
    reader.verdict()?;
    Ok(Config { passed_over, ..config })
}

fn read(root: Section<'_>) -> Config {
    let hostname = root.get("hostname", None, |node| domain(node).map(Some));
    let drain = root.get("drain", Duration::from_secs(30), duration);
    let upstream = upstream::upstream(root.table("upstream"));
    let listeners = listeners(&root, &upstream);
    let mut config = Config {
        hostname: hostname.unwrap_or_else(values::machine_name),
        drain,
        upstream,
        store: store(root.table("store")),
        dedup: dedup::dedup(root.table("dedup")),
        rules: Vec::new(),
        limits: limits(root.table("limits")),
        log: log(root.table("log")),
        admin: admin(root.table("admin"), &listeners),
        listeners,
        passed_over: Vec::new(),
    };
    config.rules = dedup::rules(&root, &config.dedup);
    root.close();
    config
}

fn listeners(root: &Section<'_>, upstream: &Upstream) -> Vec<Listener> {
    let sections = match root.tables("listener") {
        None => vec![root.absent("listener")],
        Some(sections) => {
            if sections.is_empty() {
                root.fault("listener", "is empty; write a [[listener]], or leave it out for the default one");
            }
            sections
        }
    };
    let mut listeners = Vec::new();
    for section in sections {
        let listener = listener(&section);
        check::listener(&section, &listener, &listeners);
        check::passthrough(&section, &listener, upstream);
        section.close();
        listeners.push(listener);
    }
    listeners
}

fn listener(section: &Section<'_>) -> Listener {
    let tls = tls::tls(section);
    let auth = auth::auth(section);
    let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(values::parse_network).collect();
    // Where clients prove who they are, there may be nobody to let in by address.
    let by_name = auth != Auth::Off || tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let allow_from = |node: &Node| match by_name {
        true => list_of(network)(node),
        false => some_of(network, "without AUTH nobody could relay")(node),
    };
    Listener {
        name: section.get("name", "submission".to_owned(), name),
        address: section.get("address", SocketAddr::from(([127, 0, 0, 1], 2525)), socket_address),
        allow_from: section.get("allow_from", loopback, allow_from),
        tenant_header: section.get("tenant_header", None, optional_header),
        tls,
        auth,
        proxy_from: proxy_from(section),
    }
}

/// Who sends PROXY headers. While the protocol is off the networks mean
/// nothing, and may stay written down.
fn proxy_from(section: &Section<'_>) -> Vec<IpNet> {
    if section.get("proxy_protocol", false, boolean) {
        let hint = "list the balancers whose PROXY header is believed, such as [\"192.0.2.7\"]";
        section.require("proxy_from", hint, some_of(network, hint))
    } else {
        section.get("proxy_from", Vec::new(), list_of(network));
        Vec::new()
    }
}

fn store(section: Section<'_>) -> Store {
    let path = section.get("path", "data".into(), path);
    section.later("url", "\"\"", |node| is_text(node, ""));
    let reserve = section.get("reserve", 16 * MIB, size_or_none);
    let sled = Store::Sled { path, reserve };
    let store = section.get("engine", sled.clone(), |node| match &*text(node)? {
        "sled" => Ok(sled.clone()),
        "memory" => Ok(Store::Memory),
        "postgres" => {
            Err(Problem::at(node, "this version does not offer postgres yet; write sled or memory"))
        }
        _ => Err(Problem::at(node, format!("{} is not offered here; write sled or memory", node.describe()))),
    });
    section.close();
    store
}

fn limits(section: Section<'_>) -> Limits {
    let span = |key, seconds| section.get(key, Duration::from_secs(seconds), positive_duration);
    let limits = Limits {
        max_message_size: section.get("max_message_size", 50 * MIB, size),
        max_recipients: section.get("max_recipients", 1000, count(1)),
        max_connections: section.get("max_connections", 1000, count(1)),
        max_connections_per_ip: section.get("max_connections_per_ip", 100, count(1)),
        memory_per_message: section.get("memory_per_message", MIB, size),
        command_timeout: span("command_timeout", 5 * MINUTE),
        data_timeout: span("data_timeout", 10 * MINUTE),
        max_errors: section.get("max_errors", 20, count(1)),
        bare_newlines: section.get("bare_newlines", BareNewlines::Normalize, choice),
        in_memory_total: section.get("in_memory_total", 512 * MIB, size),
        max_claims_per_tenant: section.get("max_claims_per_tenant", None, |node| {
            count(0)(node).map(|n| Some(n as u64).filter(|n| *n > 0))
        }),
    };
    check::limits(&section, &limits);
    section.close();
    limits
}

fn log(section: Section<'_>) -> Log {
    let log = Log {
        format: section.get("format", LogFormat::Auto, choice),
        level: section.get("level", LogLevel::Info, choice),
        file: section.get("file", None, optional_path),
        redact: section.get("redact", Redact::None, choice),
    };
    section.close();
    log
}

fn admin(section: Section<'_>, listeners: &[Listener]) -> Option<Admin> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9925));
    let address = section.get("address", Some(default), optional_address);
    let token_file = section.get("token_file", "data/admin.token".into(), path);
    let address_from = if section.has("address") { AddressFrom::Operator } else { AddressFrom::Default };
    let admin = address.map(|address| Admin { address, address_from, token_file });
    check::admin(&section, admin.as_ref(), listeners);
    section.close();
    admin
}

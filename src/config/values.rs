//! What single values look like: durations, sizes, networks, names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A duration as the configuration and the command line write it: `500ms`,
/// `90s`, `30m`, `24h`, `7d`, or whole seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return whole_number(number).map(Duration::from_millis);
    }
    let (number, seconds) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        b'd' => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    whole_number(number)?.checked_mul(seconds).map(Duration::from_secs)
}

/// The value of `X-Idempotency-TTL`: `90s`, `30m`, `24h`, `7d`, or whole
/// seconds; never zero.
pub fn parse_ttl(text: &str) -> Option<Duration> {
    if text.ends_with("ms") {
        return None;
    }
    parse_duration(text).filter(|span| !span.is_zero())
}

/// A duration in the shortest form that [`parse_duration`] reads.
pub fn format_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    if span.subsec_millis() != 0 {
        return format!("{}ms", span.as_millis());
    }
    match seconds {
        0 => "0s".to_owned(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A number of octets: `50 MiB`, `10 KB`, `4096`.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    whole_number(number)?.checked_mul(factor)
}

/// A network; a bare address is one of its own. IPv4 networks that are written
/// as IPv6 (`::ffff:10.0.0.0/104`) become what they mean, so that one client
/// address has one form to compare.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(match network.trunc() {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(IpNet::V6(v6), IpNet::V4),
            None => IpNet::V6(v6),
        },
        other => other,
    })
}

/// Digits only: no sign, no point, no blank.
fn whole_number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether a text may be the name of a header field (RFC 5322 §3.6.8).
pub(super) fn is_header_name(text: &str) -> bool {
    (1..=76).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Header fields that carry the message itself. Fields that we read a key from
/// are removed before relaying, and the one we write must not stand twice, so
/// neither may be one of these.
pub(super) fn is_essential_field(name: &str) -> bool {
    const FIELDS: [&str; 17] = [
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "received",
        "return-path",
        "mime-version",
        "dkim-signature",
        "arc-seal",
        "list-unsubscribe",
    ];
    let name = name.to_ascii_lowercase();
    FIELDS.contains(&&*name) || name.starts_with("content-") || name.starts_with("resent-")
}

/// Whether a text is a domain name as SMTP greetings take it
/// (RFC 5321 §4.1.2), in A-label form.
pub(super) fn is_domain(text: &str) -> bool {
    // A last label of digits is an IPv4 address, or a slip in one.
    let last = text.rsplit('.').next().unwrap_or_default();
    is_host(text) && !text.contains('_') && !last.bytes().all(|b| b.is_ascii_digit())
}

/// A host name; with underscores, which some container networks put in names.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether a text is `host:port` with a port to connect to.
pub(super) fn is_host_and_port(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // What looks like an IPv4 address but is none is a slip, not a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_host(host) && !numeric && whole_number(port).is_some_and(|port| (1..=65_535).contains(&port))
}

/// The host of a `host:port`, without the brackets of an IPv6 address.
pub fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether a `host:port` is on this machine.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = host_of(address);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The machine's own name, where it is a usable one.
pub fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_domain(&name) { name } else { "localhost".to_owned() }
}

/// Whether networks together let everybody in, in however many pieces.
pub(super) fn covers_the_world(networks: &[IpNet]) -> bool {
    // 2000::/3 is all of IPv6 that the world routes.
    let routed = Ipv6Net::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3).map(IpNet::V6);
    let world = [Some(IpNet::V4(Ipv4Net::default())), routed.ok()];
    let merged = IpNet::aggregate(&networks.to_vec());
    world.into_iter().flatten().any(|part| merged.iter().any(|network| network.contains(&part)))
}

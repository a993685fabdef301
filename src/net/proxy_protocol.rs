//! The PROXY protocol, versions 1 and 2: what a load balancer says in front of
//! a connection, so that the client behind it is known. The specification is
//! haproxy's `proxy-protocol.txt`; its sections are named below.
//!
//! The parser is our own because it decides who a client is. The crates for it
//! are looser than the specification: proxy-header 0.1.3 takes `PROXYxTCP4`,
//! ports such as `+25` and `007`, and shows a UNIX socket as if the connection
//! were the balancer's own; ppp 2.3.0 takes `+25`, NUL behind `UNKNOWN`, and
//! refuses a LOCAL with an address family that it does not know (§2.2 wants it
//! ignored); proxy-protocol 0.5.0 skips octets without looking at them. None
//! bounds version 2 before all of it is there.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1, CRLF included (§2.1).
pub const LONGEST_V1: usize = 107;
/// The most octets that version 2 may announce behind its first sixteen:
/// addresses, and what is said beside them (TLS names, ids), which is skipped.
pub const LONGEST_V2_BLOCK: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature of version 2, version and command, family, and length.
const V2_FIXED: usize = 16;
/// What is looked at in the socket at once.
const GLANCE: usize = 512;

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's. IPv4 is never in IPv6's clothes.
    pub client: SocketAddr,
    /// The one that it connected to, in the same form.
    pub local: SocketAddr,
}

impl Ends {
    /// The same ends in the form in which addresses are compared.
    pub fn new(client: SocketAddr, local: SocketAddr) -> Self {
        Self { client: canonical(client), local: canonical(local) }
    }
}

/// IPv4 that is written as IPv6 becomes what it means.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's, with these ends.
    Client(Ends),
    /// The sender's own, such as a health check, or one whose client it can't
    /// name: v1 `UNKNOWN`, v2 LOCAL and UNSPEC.
    Sender,
}

/// What the start of a connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header without its end. All octets belong to it.
    Partial,
    /// A whole header.
    Whole {
        /// Its octets; what follows them is the client's.
        length: usize,
        /// Whose connection it is.
        origin: Origin,
    },
}

/// Why a connection does not begin with a header that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Something else stands there: most likely a client that talks to us
    /// directly, or a balancer that is not told to send a header.
    Missing,
    /// It is not as the specification wants it.
    Malformed(&'static str),
    /// It is longer than [`LONGEST_V1`] or [`LONGEST_V2_BLOCK`].
    TooLong,
    /// The client uses something else than TCP.
    NotTcp(&'static str),
    /// It was not whole in time.
    TimedOut,
    /// The connection ended within it.
    CutShort,
    /// The connection ended before it, as that of a check does which only
    /// wants to know whether somebody listens.
    SaidNothing,
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderFault::Missing => f.write_str(
                "it does not begin with a PROXY header; let the balancer send one, or take its address out of \
                 listener.proxy_from",
            ),
            HeaderFault::Malformed(what) => write!(f, "its PROXY header is malformed: {what}"),
            HeaderFault::TooLong => write!(
                f,
                "its PROXY header is too long: version 1 has at most {LONGEST_V1} octets, version 2 may announce \
                 {LONGEST_V2_BLOCK}"
            ),
            HeaderFault::NotTcp(what) => write!(f, "its PROXY header speaks of {what}, and only TCP is served"),
            HeaderFault::TimedOut => f.write_str("its PROXY header was not there in time"),
            HeaderFault::CutShort => f.write_str("it ended within its PROXY header"),
            HeaderFault::SaidNothing => f.write_str("it ended before it said anything"),
        }
    }
}

impl std::error::Error for HeaderFault {}

/// Parses the start of a connection. Pure: the same octets yield the same, and
/// nothing is kept.
///
/// # Errors
/// [`HeaderFault`]: no further octet would make these a header; the connection
/// is closed without a word.
pub fn parse(start: &[u8]) -> Result<Parsed, HeaderFault> {
    if agrees(start, V1) {
        v1(start)
    } else if agrees(start, V2) {
        v2(start)
    } else {
        Err(HeaderFault::Missing)
    }
}

/// Whether `start` is the start of what `signature` begins.
fn agrees(start: &[u8], signature: &[u8]) -> bool {
    let common = start.len().min(signature.len());
    start[..common] == signature[..common]
}

/// Version 1 (§2.1): a line of printable ASCII.
fn v1(start: &[u8]) -> Result<Parsed, HeaderFault> {
    let seen = &start[..start.len().min(LONGEST_V1)];
    let is_full = seen.len() == LONGEST_V1;
    let end = seen.iter().position(|octet| !matches!(octet, b' '..=b'~')).unwrap_or(seen.len());
    let (line, behind) = seen.split_at(end);
    match behind {
        [b'\r', b'\n', ..] => {
            let words = line.strip_prefix(V1).and_then(|words| std::str::from_utf8(words).ok());
            Ok(Parsed::Whole { length: end + 2, origin: v1_origin(words.unwrap_or_default())? })
        }
        [] | [b'\r'] if is_full => Err(HeaderFault::TooLong),
        [] | [b'\r'] => Ok(Parsed::Partial),
        _ => Err(HeaderFault::Malformed("its line does not end with CRLF")),
    }
}

/// What stands between `PROXY ` and CRLF.
fn v1_origin(text: &str) -> Result<Origin, HeaderFault> {
    let (family, rest) = text.split_once(' ').unwrap_or((text, ""));
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Ok(Origin::Sender),
        _ => return Err(HeaderFault::Malformed("it names neither TCP4 nor TCP6 nor UNKNOWN")),
    };
    // Five: to see that there is no fifth.
    let words: Vec<&str> = rest.splitn(5, ' ').collect();
    let [client, local, client_port, local_port] = words[..] else {
        return Err(HeaderFault::Malformed("it wants two addresses and two ports, each behind one space"));
    };
    let (Some(client), Some(local)) = (address(client), address(local)) else {
        return Err(HeaderFault::Malformed("an address is none of the family that it names"));
    };
    let (Some(client_port), Some(local_port)) = (port(client_port), port(local_port)) else {
        return Err(HeaderFault::Malformed("a port is no number from 0 to 65535 without leading zeros"));
    };
    Ok(Origin::Client(Ends::new((client, client_port).into(), (local, local_port).into())))
}

/// Digits alone; `u16` would take a plus sign and leading zeros, too.
fn port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// Whose addresses follow the first sixteen octets of version 2.
enum Block {
    /// Nobody's that count.
    Sender,
    V4,
    V6,
}

/// Version 2 (§2.2): sixteen octets, then as many as they say.
fn v2(start: &[u8]) -> Result<Parsed, HeaderFault> {
    let Some((fixed, rest)) = start.split_first_chunk::<V2_FIXED>() else { return Ok(Parsed::Partial) };
    let &[.., command, family, high, low] = fixed;
    let block = v2_block(command, family)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2_BLOCK {
        return Err(HeaderFault::TooLong);
    }
    let Some(octets) = rest.get(..length) else { return Ok(Parsed::Partial) };
    let ends = match block {
        Block::Sender => return Ok(Parsed::Whole { length: V2_FIXED + length, origin: Origin::Sender }),
        Block::V4 => v2_ends::<4>(octets),
        Block::V6 => v2_ends::<16>(octets),
    };
    let ends = ends.ok_or(HeaderFault::Malformed("it has no room for the addresses that it names"))?;
    Ok(Parsed::Whole { length: V2_FIXED + length, origin: Origin::Client(ends) })
}

fn v2_block(command: u8, family: u8) -> Result<Block, HeaderFault> {
    match (command, family) {
        // LOCAL: the family is to be ignored, too.
        (0x20, _) | (0x21, 0x00) => Ok(Block::Sender),
        (0x21, 0x11) => Ok(Block::V4),
        (0x21, 0x21) => Ok(Block::V6),
        (0x21, 0x12 | 0x22) => Err(HeaderFault::NotTcp("datagrams")),
        (0x21, 0x31 | 0x32) => Err(HeaderFault::NotTcp("a UNIX socket")),
        (0x21, _) => Err(HeaderFault::Malformed("its family and transport are none of the specification")),
        _ => Err(HeaderFault::Malformed("its version and command are none of the specification")),
    }
}

/// Two addresses of `N` octets, then two ports. What is said beside them is
/// skipped.
fn v2_ends<const N: usize>(mut octets: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (client, local) = (take::<N>(&mut octets)?, take::<N>(&mut octets)?);
    let (client_port, local_port) = (take(&mut octets)?, take(&mut octets)?);
    let end = |ip: [u8; N], port| SocketAddr::from((IpAddr::from(ip), u16::from_be_bytes(port)));
    Some(Ends::new(end(client, client_port), end(local, local_port)))
}

fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = octets.split_first_chunk::<N>()?;
    *octets = rest;
    Some(*taken)
}

/// Reads the header from a connection that begins with one, and no octet more:
/// what follows it may be a handshake.
///
/// # Errors
/// [`HeaderFault`] where there is none that can be used `within` this time.
pub async fn receive(stream: &mut TcpStream, within: Duration) -> Result<Origin, HeaderFault> {
    tokio::time::timeout(within, read_header(stream)).await.unwrap_or(Err(HeaderFault::TimedOut))
}

/// Looks at what is there before it takes it: octets behind the header stay in
/// the socket. What belongs to it is taken even without its end, for a socket
/// with unread octets would not wait for more.
async fn read_header(stream: &mut TcpStream) -> Result<Origin, HeaderFault> {
    let mut header = Vec::new();
    let mut glance = [0; GLANCE];
    loop {
        // A connection that breaks has ended, too.
        let count = stream.peek(&mut glance).await.unwrap_or(0);
        if count == 0 {
            return Err(if header.is_empty() { HeaderFault::SaidNothing } else { HeaderFault::CutShort });
        }
        let before = header.len();
        header.extend_from_slice(&glance[..count]);
        let (taken, origin) = match parse(&header)? {
            Parsed::Partial => (count, None),
            Parsed::Whole { length, origin } => (length - before, Some(origin)),
        };
        stream.read_exact(&mut glance[..taken]).await.map_err(|_| HeaderFault::CutShort)?;
        if let Some(origin) = origin {
            return Ok(origin);
        }
    }
}

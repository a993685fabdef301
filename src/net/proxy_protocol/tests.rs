//! Every form of a header, whole, cut anywhere, and faulty; and that no octet
//! behind it is taken.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client(client: &str, local: &str) -> Origin {
    Origin::Client(Ends { client: address(client), local: address(local) })
}

/// Version 2 with these octets behind the signature and the length.
fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

fn block(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (ports, ips) = ([client.port(), local.port()], [client.ip(), local.ip()]);
    ips.map(octets).concat().into_iter().chain(ports.map(u16::to_be_bytes).concat()).collect()
}

const V4: (&str, &str) = ("192.0.2.9:56324", "198.51.100.1:25");
const V6: (&str, &str) = ("[2001:db8::9]:56324", "[2001:db8:1::1]:25");
const MAPPED: (&str, &str) = ("[::ffff:192.0.2.9]:56324", "[::ffff:198.51.100.1]:25");

/// The addresses of a pair in version 2.
fn pair((client, local): (&str, &str)) -> Vec<u8> {
    block(address(client), address(local))
}

/// Headers that are good, and whose connection each says it is.
fn good() -> Vec<(Vec<u8>, Origin)> {
    let v1 = |text: &str, origin| (format!("PROXY {text}\r\n").into_bytes(), origin);
    let v2 = |command, family, block: &[u8], origin| (version_2(command, family, block), origin);
    let beside = |block: Vec<u8>, length: usize| {
        let value = vec![b'x'; length - block.len() - 3];
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [block, vec![0x02], length.to_vec(), value].concat()
    };
    let widest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let all_ones = format!("[{widest}]:65535");
    vec![
        v1("TCP4 192.0.2.9 198.51.100.1 56324 25", client(V4.0, V4.1)),
        v1("TCP4 255.255.255.255 0.0.0.0 65535 0", client("255.255.255.255:65535", "0.0.0.0:0")),
        v1("TCP6 2001:db8::9 2001:DB8:1::1 56324 25", client(V6.0, V6.1)),
        v1("TCP6 ::ffff:192.0.2.9 ::ffff:c633:6401 56324 25", client(V4.0, V4.1)),
        v1(&format!("TCP6 {widest} {widest} 65535 65535"), client(&all_ones, &all_ones)),
        v1("UNKNOWN", Origin::Sender),
        v1("UNKNOWN ", Origin::Sender),
        v1(&format!("UNKNOWN {widest} {widest} 65535 65535"), Origin::Sender),
        v2(0x21, 0x11, &pair(V4), client(V4.0, V4.1)),
        v2(0x21, 0x21, &pair(V6), client(V6.0, V6.1)),
        v2(0x21, 0x21, &pair(MAPPED), client(V4.0, V4.1)),
        v2(0x21, 0x11, &beside(pair(V4), 300), client(V4.0, V4.1)),
        v2(0x21, 0x21, &beside(pair(V6), LONGEST_V2_BLOCK), client(V6.0, V6.1)),
        v2(0x21, 0x00, b"", Origin::Sender),
        v2(0x21, 0x00, b"ignored", Origin::Sender),
        v2(0x20, 0x00, b"", Origin::Sender),
        v2(0x20, 0x11, &pair(V4), Origin::Sender),
        v2(0x20, 0x31, b"short", Origin::Sender),
        v2(0x20, 0xff, b"", Origin::Sender),
    ]
}

#[test]
fn whole_headers_are_understood_whatever_follows_and_cut_ones_are_partial() {
    for (header, origin) in good() {
        let length = header.len();
        for behind in [&b""[..], b"\r\n", b"EHLO x\r\n", b"\x16\x03\x01", &header] {
            let start = [&header, behind].concat();
            assert_eq!(parse(&start), Ok(Parsed::Whole { length, origin }), "{}", start.escape_ascii());
        }
        for cut in 0..length {
            assert_eq!(parse(&header[..cut]), Ok(Parsed::Partial), "{}", header[..cut].escape_ascii());
        }
    }
    let longest = good().into_iter().map(|(header, _)| header).filter(|header| header.starts_with(V1));
    assert_eq!(longest.map(|header| header.len()).max(), Some(LONGEST_V1), "the bound itself is good");
}

#[test]
fn something_else_is_no_header() {
    for start in [
        "EHLO client.test\r\n",
        "P\r\n",
        "PROXYTCP4 ",
        "PROXY\tTCP4",
        "PROXY\r\n",
        "proxy TCP4 192.0.2.9 198.51.100.1 1 2\r\n",
        " PROXY UNKNOWN\r\n",
        "\0",
        "\r\n\r\n\r\n",
        "\r\nPROXY UNKNOWN\r\n",
        "\r\n\r\n\0\r\nQUIT\r",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_eq!(parse(start.as_bytes()), Err(HeaderFault::Missing), "{start:?}");
    }
}

#[test]
fn version_1_is_taken_as_it_is_specified_and_not_otherwise() {
    for line in [
        // The line.
        "UNKNOWN\n",
        "UNKNOWN\rX",
        "UNKNOWN\r\r\n",
        "UNKNOWN \0\r\n",
        "UNKNOWN\t\r\n",
        "UNKNOWN caf\u{e9}\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 2\n",
        "TCP4 192.0.2.9 198.51.100.1 1 2\0\r\n",
        // The family.
        "\r\n",
        " \r\n",
        " UNKNOWN\r\n",
        "UNKNOWNS\r\n",
        "unknown\r\n",
        "TCP\r\n",
        "TCP5 192.0.2.9 198.51.100.1 1 2\r\n",
        "tcp4 192.0.2.9 198.51.100.1 1 2\r\n",
        "UDP4 192.0.2.9 198.51.100.1 1 2\r\n",
        "TCP44 192.0.2.9 198.51.100.1 1 2\r\n",
        // How many words there are, and what is between them.
        "TCP4\r\n",
        "TCP4 192.0.2.9\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 2 3\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 2 \r\n",
        "TCP4  192.0.2.9 198.51.100.1 1 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1  1 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1  2\r\n",
        // Addresses.
        "TCP4 192.0.2 198.51.100.1 1 2\r\n",
        "TCP4 192.0.2.9 198.51.100.256 1 2\r\n",
        "TCP4 192.0.02.9 198.51.100.1 1 2\r\n",
        "TCP4 0x7f.0.0.1 198.51.100.1 1 2\r\n",
        "TCP4 192.0.2.9 client.test 1 2\r\n",
        "TCP4 2001:db8::9 2001:db8::1 1 2\r\n",
        "TCP4 192.0.2.9 2001:db8::1 1 2\r\n",
        "TCP6 192.0.2.9 198.51.100.1 1 2\r\n",
        "TCP6 2001:db8::9 [2001:db8::1] 1 2\r\n",
        "TCP6 fe80::9%eth0 2001:db8::1 1 2\r\n",
        "TCP6 2001:db8:::9 2001:db8::1 1 2\r\n",
        // Ports.
        "TCP4 192.0.2.9 198.51.100.1 65536 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 65536\r\n",
        "TCP4 192.0.2.9 198.51.100.1 +1 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 +2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 -1 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 01 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 00\r\n",
        "TCP4 192.0.2.9 198.51.100.1 x 2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 1 0x2\r\n",
        "TCP4 192.0.2.9 198.51.100.1 99999999999999999999 2\r\n",
    ] {
        let parsed = parse(format!("PROXY {line}").as_bytes());
        assert!(matches!(parsed, Err(HeaderFault::Malformed(_))), "{line:?}: {parsed:?}");
    }
}

#[test]
fn version_2_is_taken_as_it_is_specified_and_not_otherwise() {
    let malformed = [
        version_2(0x22, 0x11, &pair(V4)),
        version_2(0x11, 0x11, &pair(V4)),
        version_2(0x01, 0x11, &pair(V4)),
        version_2(0x31, 0x11, &pair(V4)),
        version_2(0x21, 0x01, &pair(V4)),
        version_2(0x21, 0x10, &pair(V4)),
        version_2(0x21, 0x13, &pair(V4)),
        version_2(0x21, 0x20, &pair(V6)),
        version_2(0x21, 0x41, &pair(V6)),
        version_2(0x21, 0x11, &pair(V4)[..11]),
        version_2(0x21, 0x11, b""),
        version_2(0x21, 0x21, &pair(V6)[..35]),
        version_2(0x21, 0x21, &pair(V4)),
    ];
    for header in malformed {
        let parsed = parse(&header);
        assert!(matches!(parsed, Err(HeaderFault::Malformed(_))), "{}: {parsed:?}", header.escape_ascii());
    }
    for (family, what) in
        [(0x12, "datagrams"), (0x22, "datagrams"), (0x31, "a UNIX socket"), (0x32, "a UNIX socket")]
    {
        let parsed = parse(&version_2(0x21, family, &[0; 216]));
        assert_eq!(parsed, Err(HeaderFault::NotTcp(what)));
    }
}

#[test]
fn what_is_too_long_is_known_before_it_is_there() {
    for line in ["PROXY UNKNOWN ", "PROXY TCP6 "] {
        let endless = format!("{line}{}", "f".repeat(200)).into_bytes();
        assert_eq!(parse(&endless[..LONGEST_V1 - 1]), Ok(Parsed::Partial));
        assert_eq!(parse(&endless[..LONGEST_V1]), Err(HeaderFault::TooLong));
        let mut late = endless[..LONGEST_V1 - 1].to_vec();
        late.extend(b"\r\n");
        assert_eq!(parse(&late), Err(HeaderFault::TooLong));
    }
    for command in [0x20, 0x21] {
        let header = version_2(command, 0x11, &vec![0; LONGEST_V2_BLOCK + 1]);
        assert_eq!(parse(&header[..V2_FIXED]), Err(HeaderFault::TooLong));
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip(), address.port()))
}

/// What could pass for a header: octets behind either signature, and headers
/// of ours with some octets changed.
fn like_a_header() -> impl Strategy<Value = Vec<u8>> {
    let headers: Vec<Vec<u8>> = good().into_iter().map(|(header, _)| header).collect();
    let words = prop::sample::select(vec![
        "TCP4",
        "TCP6",
        "UNKNOWN",
        " ",
        " ",
        "::1",
        "127.0.0.1",
        "25",
        "0",
        "+",
        "\r",
        "\n",
        "\r\n",
        "\0",
    ]);
    let line = prop::collection::vec(words, 0..14).prop_map(|words| ["PROXY ", &words.concat()].concat());
    let changed = (prop::sample::select(headers), any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|tail| [V2, &tail].concat()),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|tail| [V2, &[0x21, 0x11, 0], &tail].concat()),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|tail| [V1, &tail].concat()),
        line.prop_map(String::into_bytes),
        changed.prop_map(|(mut header, at, octet)| {
            let at = at.index(header.len());
            header[at] = octet;
            header
        }),
    ]
}

proptest! {
    /// Reading piece by piece relies on it: what is whole was partial before,
    /// and a fault stays one.
    #[test]
    fn whatever_comes_is_judged_alike_in_however_many_pieces(start in like_a_header()) {
        let whole = parse(&start);
        if let Ok(Parsed::Whole { length, .. }) = whole {
            prop_assert!(length <= start.len() && length <= V2_FIXED + LONGEST_V2_BLOCK);
            for cut in 0..length {
                prop_assert_eq!(parse(&start[..cut]), Ok(Parsed::Partial));
            }
            prop_assert_eq!(parse(&start[..length]), whole);
        }
        for cut in 0..start.len() {
            if parse(&start[..cut]).is_err() {
                prop_assert!(whole.is_err(), "a fault at {} of {}", cut, start.escape_ascii());
            }
        }
    }

    #[test]
    fn every_address_comes_through(client in any_address(), local in any_address()) {
        let is_v4 = client.is_ipv4();
        prop_assume!(is_v4 == local.is_ipv4());
        let origin = Origin::Client(Ends::new(client, local));
        let family = if is_v4 { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port());
        prop_assert_eq!(parse(line.as_bytes()), Ok(Parsed::Whole { length: line.len(), origin }));
        let header = version_2(0x21, if is_v4 { 0x11 } else { 0x21 }, &block(client, local));
        prop_assert_eq!(parse(&header), Ok(Parsed::Whole { length: header.len(), origin }));
    }
}

const LONG: Duration = Duration::from_secs(30);

/// A connection over loopback: the balancer's end, and ours.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balancer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    balancer.set_nodelay(true).unwrap();
    (balancer, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn what_follows_the_header_stays_in_the_socket() {
    for (header, origin) in good() {
        for split in [0, 1, 14, 15, header.len() / 2, header.len() - 1, header.len()] {
            let (mut balancer, mut ours) = connection().await;
            let receiving = async {
                let received = receive(&mut ours, LONG).await;
                let mut rest = String::new();
                ours.read_to_string(&mut rest).await.unwrap();
                (received, rest)
            };
            let sending = async {
                balancer.write_all(&header[..split]).await.unwrap();
                tokio::task::yield_now().await;
                balancer.write_all(&header[split..]).await.unwrap();
                balancer.write_all(b"EHLO x\r\n").await.unwrap();
                drop(balancer);
            };
            let ((received, rest), ()) = tokio::join!(receiving, sending);
            assert_eq!((received, &*rest), (Ok(origin), "EHLO x\r\n"), "split at {split}");
        }
    }
}

#[tokio::test]
async fn it_is_told_why_no_header_comes() {
    for (said, fault) in [
        (&b""[..], HeaderFault::SaidNothing),
        (b"PROXY", HeaderFault::CutShort),
        (b"EHLO x\r\n", HeaderFault::Missing),
    ] {
        let (mut balancer, mut ours) = connection().await;
        balancer.write_all(said).await.unwrap();
        drop(balancer);
        assert_eq!(receive(&mut ours, LONG).await, Err(fault));
    }
    let (mut balancer, mut ours) = connection().await;
    balancer.write_all(b"PROXY TCP4").await.unwrap();
    assert_eq!(receive(&mut ours, Duration::from_millis(20)).await, Err(HeaderFault::TimedOut));
}

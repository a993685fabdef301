//! MIME bombs: each is relayed as it is, or refused with the reply that is
//! documented; none is lost, and none costs more than a message of its size.

use crate::common::{Mail, Proxy, Setup, Upstream};

const MEBIBYTE: usize = 1024 * 1024;

fn bomb(what: &str, head: &str, body: impl Into<Vec<u8>>) -> (String, Mail) {
    let mut mail = Mail::plain(what);
    mail.head.push_str(head);
    (what.to_owned(), mail.body(body))
}

/// Multiparts in one another, each with a boundary of its own.
fn nested(depth: usize) -> String {
    let open =
        |level| format!("--b{level}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", level + 1);
    (0..depth).map(open).collect::<String>() + "the bottom\r\n"
}

fn bombs() -> Vec<(String, Mail)> {
    let mixed = "Content-Type: multipart/mixed; boundary=b0\r\n";
    let words = "=?utf-8?b?4oKs?= ".repeat(5_000);
    let folded =
        |text: &str| text.split_inclusive(' ').map(|word| format!("{word}\r\n ")).collect::<String>();
    let continued: String = (0..10_000).map(|n| format!(";\r\n\tname*{n}*=%41%42")).collect();
    vec![
        bomb("10,000 multiparts deep", mixed, nested(10_000)),
        bomb("a million parts", mixed, "--b0\r\n\r\nx\r\n".repeat(1_000_000)),
        bomb("a million empty parts", mixed, "--b0\r\n".repeat(1_000_000)),
        bomb(
            "half a million fields in a part",
            mixed,
            format!("--b0\r\n{}\r\nx", "A: 1\r\n".repeat(500_000)),
        ),
        bomb(
            "messages in messages",
            "Content-Type: message/rfc822\r\n",
            "Content-Type: message/rfc822\r\n\r\n".repeat(100_000),
        ),
        bomb(
            "a digest of digests",
            "Content-Type: multipart/digest; boundary=b0\r\n",
            nested(5_000).replace("mixed", "digest"),
        ),
        bomb(
            "a base64 bomb",
            "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
            "QUFB".repeat(19).repeat(2_000_000 / 76) + "\r\n",
        ),
        bomb("base64 of base64", "Content-Transfer-Encoding: base64\r\n", "Q\r\n \r\n".repeat(500_000)),
        bomb(
            "quoted-printable of soft line ends",
            "Content-Transfer-Encoding: quoted-printable\r\n",
            "=\r\n".repeat(1_000_000),
        ),
        bomb("encoded words by the thousand", &format!("X-Words: {}x\r\n", folded(&words)), "x\r\n"),
        bomb("a subject of encoded words", &format!("Subject: {}x\r\n", folded(&words)), "x\r\n"),
        bomb("continued parameters", &format!("Content-Type: text/plain{continued}\r\n"), "x\r\n"),
        bomb(
            "quotes and comments",
            &format!("Content-Type: text/plain; a=\"{}\r\n", "\\\"(".repeat(70_000)),
            "x\r\n",
        ),
        bomb("addresses", &format!("From: {}\r\n", "a@b,(".repeat(40_000)), "x\r\n"),
        bomb(
            "signatures of everything",
            &format!("DKIM-Signature: h={}\r\n{}", "a:".repeat(60_000), "A:\r\n".repeat(990)),
            "x\r\n",
        ),
        bomb("JSON in JSON", &format!("X-SMTPAPI: {}\r\n", "[".repeat(200_000)), "x\r\n"),
        bomb(
            "8-bit text of one charset after another",
            mixed,
            (0..900)
                .flat_map(|n| {
                    [
                        format!("--b0\r\nContent-Type: text/plain; charset=windows-125{}\r\n\r\n", n % 9)
                            .into_bytes(),
                        vec![0x80 + (n % 128) as u8; 1000],
                        b"\r\n".to_vec(),
                    ]
                    .concat()
                })
                .collect::<Vec<u8>>(),
        ),
        bomb(
            "references without end",
            mixed,
            format!("--b0\r\nContent-ID: <a>\r\n\r\nx\r\n--b0\r\n\r\n{}\r\n", "cid:".repeat(500_000)),
        ),
        bomb(
            "octets of no charset, and a reference",
            mixed,
            [&b"--b0\r\nContent-ID: <a>\r\n\r\nx\r\n--b0\r\n\r\ncid:a "[..], &vec![0x80; 6 * MEBIBYTE]]
                .concat(),
        ),
        bomb("a line of 8 MiB", "", vec![b'x'; 8 * MEBIBYTE]),
        bomb("a million line ends", "", b"\r\n".repeat(1_000_000)),
    ]
}

/// What the header section alone is refused for.
fn refused() -> Vec<(String, Mail)> {
    vec![
        bomb("a million fields", &"A: 1\r\n".repeat(1_000_000), "x\r\n"),
        bomb("one field of 1 MiB", &format!("A: {}\r\n", "x".repeat(MEBIBYTE)), "x\r\n"),
        bomb("one field folded a million times", &format!("A: x\r\n{}", " x\r\n".repeat(1_000_000)), "x\r\n"),
    ]
}

#[test]
fn mime_bombs_are_relayed_as_they_are_or_refused() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let mut sent = 0;
    for (what, mail) in bombs() {
        let reply = proxy.send(&mail);
        assert!(reply.starts_with("250 2.0.0 queued as "), "{what}: {reply}");
        sent += 1;
        let got = upstream.last();
        let same = got.content.strip_suffix(b"\r\n").unwrap_or(&got.content)
            == mail.content().strip_suffix(b"\r\n").unwrap_or(&mail.content());
        assert!(same, "{what} arrived changed");
        // It is known again: whatever it was taken for, it was the same.
        assert_eq!(proxy.send(&mail), reply, "{what}");
        assert_eq!(upstream.count(), sent, "{what}");
    }
    for (what, mail) in refused() {
        let reply = proxy.send(&mail);
        assert!(reply.starts_with("554 5.6.0 the header section"), "{what}: {reply}");
    }
    assert_eq!(upstream.count(), sent);
    small(&proxy);
}

#[track_caller]
fn small(proxy: &Proxy) {
    let peak = proxy.process.memory("VmHWM") / MEBIBYTE as u64;
    println!("{peak} MiB at most");
    assert!(peak < 150, "{peak} MiB");
}

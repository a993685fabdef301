//! Bounds of a message hold wherever it is kept, and however it comes: in a
//! file, slowly, in chunks, or without the end of data.

mod common;

use common::{Mail, Proxy, Setup, Upstream};

/// A message in a temporary file is looked at up to a bound. Wherever a name is
/// cut there, the section is too long.
#[test]
fn a_header_section_in_a_file_keeps_its_bounds() {
    const BOUND: usize = 256 * 1024;
    let upstream = Upstream::start();
    let proxies = ["1 KB", "1 MiB"].map(|memory| {
        Setup::new(upstream.address).limits(&format!("memory_per_message = \"{memory}\"")).start()
    });
    let last = "X-Quite-A-Long-Name : 1\r\n";
    for over in (0..30).step_by(3) {
        let mut mail = Mail::plain("x");
        mail.head.push_str(&format!(
            "X-Filler: {}\r\n",
            "x".repeat(BOUND - mail.head.len() - 28 - last.len() + over)
        ));
        mail.head.push_str(last);
        let due = if mail.head.len() > BOUND { "554 5.6.0" } else { "250 " };
        for proxy in &proxies {
            let reply = proxy.client().deliver(&mail.clone().header("X-Idempotency-Key", "k"));
            assert!(reply.starts_with("554 5.6.0"), "{over}: {reply}");
            let reply = proxy.client().deliver(&mail);
            assert!(reply.starts_with(due), "{} octets: {reply}", mail.head.len());
        }
    }
}

#[test]
fn a_message_that_is_too_big_is_refused_however_slowly_it_comes() {
    let upstream = Upstream::start();
    let limits = "max_message_size = \"2 KB\"\ncommand_timeout = \"200ms\"\ndata_timeout = \"200ms\"";
    let proxy = Setup::new(upstream.address).limits(limits).start();
    let envelope = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n";
    for (begin, due) in [("DATA\r\n", Some("354 ")), ("BDAT 3000\r\n", None), ("BDAT 1000000 LAST\r\n", None)]
    {
        let mut client = proxy.client();
        client.send(format!("{envelope}{begin}"));
        client.expect_all(&["250 2.1.0", "250 2.1.5"]);
        due.map(|due| client.expect(due));
        client.send("0123456789\r\n".repeat(250));
        client.trickle_until("552 5.3.4");
        proxy.log(&[("outcome", "rejected"), ("to", "b@b.test")]);
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_chunk_that_is_too_big_leaves_the_connection_in_step() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("max_message_size = \"20 KB\"\nmax_errors = 1").start();
    let mut client = proxy.client();
    let chunk = "NOOP 6789\r\n".repeat(2000);
    let envelope = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n";
    for _ in 0..5 {
        client.send(format!("{envelope}BDAT {} LAST\r\n{chunk}NOOP\r\n", chunk.len()));
        client.expect_all(&["250 2.1.0", "250 2.1.5", "552 5.3.4", "250 2.0.0 ok"]);
        let half = &chunk[..11_000];
        let two =
            format!("BDAT {0}\r\n{half}BDAT {0}\r\n{half}BDAT {0}\r\n{half}BDAT 0 LAST\r\n", half.len());
        client.send(format!("{envelope}{two}NOOP\r\n"));
        client.expect_all(&[
            "250 2.1.0",
            "250 2.1.5",
            "250 2.0.0",
            "552 5.3.4",
            "503 ",
            "503 ",
            "250 2.0.0 ok",
        ]);
    }
    assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn a_message_with_lf_for_every_line_end_is_refused_soon() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("command_timeout = \"300ms\"").start();
    for body in ["Subject: x\n\nbody\n.\n", "Subject: x\n\nbody\n.\r\n", ".\n"] {
        let mut client = proxy.client();
        client.envelope(&Mail::plain("x"));
        client.send(body);
        client.expect("550 5.6.11 this message ends in LF.LF");
        assert!(client.is_closed());
        let line = proxy.log(&[("outcome", "rejected"), ("to", "ann@b.test")]);
        assert!(line["reply"].as_str().unwrap().starts_with("550 5.6.11"), "{line}");
    }
    // One that only stopped sending need not wait.
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.envelope(&Mail::plain("x"));
    client.send("Subject: x\n\nbody\n.\n");
    client.finish();
    client.expect("550 5.6.11");
    // One that goes on has not ended its message.
    let mut client = proxy.client();
    client.envelope(&Mail::plain("x"));
    client.send("Subject: x\n\nbody\n.\n");
    client.send("more\r\n.\r\n");
    client.expect("250 2.0.0 queued as 1");
    assert!(upstream.only().text().ends_with("\r\n\r\nbody\r\n.\r\nmore\r\n"));
}

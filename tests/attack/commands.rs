//! Commands where there is no place for them, and what is no command.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Client, Mail, Proxy, Setup, Upstream, until};

const EVIL: &str = "MAIL FROM:<evil@a.test>\r\nRCPT TO:<victim@b.test>\r\nDATA\r\nSubject: evil\r\n\r\n";

/// Nothing of the evil transaction was said to the upstream as a command.
fn not_run(upstream: &Upstream) {
    let commands = upstream.commands();
    let evil = commands.iter().find(|line| line.contains("evil@") || line.contains("victim@"));
    assert_eq!(evil, None, "{commands:?}");
}

#[test]
fn what_follows_data_unasked_is_content() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.send(format!(
        "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n{EVIL}..\r\n.\r\nNOOP\r\nQUIT\r\n"
    ));
    client.expect_all(&["250 2.1.0", "250 2.1.5", "354 ", "250 2.0.0 queued as 1", "250 2.0.0 ok", "221 "]);
    assert!(upstream.only().text().contains(&EVIL.replace("\r\n\r\n", "\r\n")[..40]));
    not_run(&upstream);
}

#[test]
fn what_follows_a_refused_data_is_commands_and_soon_the_end() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("max_errors = 5").start();
    let mut client = proxy.client();
    // No recipient, so no data: the "message" is commands, none of which is one.
    client.send(format!("MAIL FROM:<a@a.test>\r\nDATA\r\n{}.\r\n", "Subject: x\r\n".repeat(100)));
    client.expect_all(&["250 2.1.0", "554 5.5.1"]);
    client.expect_all(&["500 5.5.2"; 4]);
    client.expect("421 4.7.0");
    assert!(client.is_closed());
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn nothing_is_done_after_quit() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.send(format!("QUIT\r\n{EVIL}.\r\n"));
    client.expect("221 ");
    assert!(client.is_closed());
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn what_follows_the_last_chunk_is_commands_again() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let mut client = proxy.client();
    let envelope = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n";
    let (one, two) = (format!("Subject: 1\r\n\r\n{EVIL}"), "Subject: 2\r\n\r\nb\r\n");
    client.send(format!(
        "{envelope}BDAT {} LAST\r\n{one}BDAT 4 LAST\r\nNOOP{envelope}BDAT {} LAST\r\n{two}QUIT\r\n",
        one.len(),
        two.len()
    ));
    client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 queued as 1", "503 5.5.1 say MAIL"]);
    client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 queued as 2", "221 "]);
    let texts: Vec<_> = upstream.messages().iter().map(|got| got.text()).collect();
    assert_eq!(texts, [one.as_str(), two]);
    not_run(&upstream);
}

#[test]
fn chunks_given_up_leave_nothing_behind() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let envelope = "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n";
    for (number, (given_up, replies)) in
        [("RSET\r\n", 1), ("EHLO again\r\n", 1), ("HELO again\r\n", 1), ("RSET\r\nRSET\r\n", 2)]
            .into_iter()
            .enumerate()
    {
        let mut client = proxy.client();
        let text = format!("Subject: {number}\r\n\r\nb\r\n");
        // In one packet, so that nothing but the order of things keeps them apart.
        client
            .send(format!("{envelope}BDAT 5\r\nfirst{given_up}{envelope}BDAT {} LAST\r\n{text}", text.len()));
        client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 chunk"]);
        client.expect_all(&vec!["250"; replies]);
        client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0 queued"]);
        assert_eq!(upstream.last().text(), text);
    }
}

#[test]
fn lies_about_the_length_of_a_chunk_send_nothing() {
    let upstream = Upstream::start();
    let proxy =
        Setup::new(upstream.address).limits("max_message_size = \"20 KB\"\ndata_timeout = \"200ms\"").start();
    let start = || {
        let mut client = proxy.client();
        client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n");
        client.expect_all(&["250 2.1.0", "250 2.1.5"]);
        client
    };
    for no_number in
        ["-1", "+1", "0x10", "1e3", "1 LAST LAST", "1 FIRST", "18446744073709551616x", "1.0", "１"]
    {
        let reply = start().command(&format!("BDAT {no_number}"));
        assert!(reply.starts_with("501 5.5.4"), "{no_number}: {reply}");
    }
    // More than there is: the rest never comes, or the client leaves.
    for octets in ["100", "18446744073709551615", "18446744073709551616", "99999999999999999999"] {
        for last in ["", " LAST"] {
            let mut client = start();
            client.send(format!("BDAT {octets}{last}\r\nSubject: x\r\n\r\nshort"));
            client.expect("421 4.4.2");
            let mut client = start();
            client.send(format!("BDAT {octets}{last}\r\nSubject: x\r\n\r\nshort"));
            client.finish();
            assert!(client.is_closed());
        }
    }
    proxy.log(&[("outcome", "aborted"), ("to", "b@b.test")]);
    // More than is taken, sent in earnest.
    let mut client = start();
    client.send(format!("BDAT 30000 LAST\r\n{}", "y".repeat(30_000)));
    client.expect("552 5.3.4");
    // Less than there is: the rest is commands.
    client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 0\r\nBDAT 1\r\n\r\n");
    client.expect_all(&["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "500 5.5.2"]);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn chunks_of_nothing_make_a_message_of_nothing() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).upstream("received_header = false").start();
    let mut client = proxy.client();
    client.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n");
    client.send("BDAT 0\r\n".repeat(2000));
    client.send("BDAT 0 LAST\r\nBDAT 0 LAST\r\n");
    client.expect_all(&["250 2.1.0", "250 2.1.5"]);
    client.expect_all(&["250 2.0.0 chunk"; 2000]);
    client.expect_all(&["250 2.0.0 queued as 1", "503 5.5.1"]);
    assert_eq!(upstream.only().text(), "");
}

#[test]
fn octets_that_no_command_has_are_refused() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("max_errors = 1000").start();
    let mut client = proxy.client();
    for control in (0u8..32).chain([127]).filter(|&octet| octet != b'\n') {
        for place in ["MAIL FROM:<a#@a.test>", "MAIL FROM:<a@a.test> ENVID=a#b", "NOOP #", "#NOOP", "EHLO#a"]
        {
            if (control, place) == (b'\t', "EHLO#a") {
                continue;
            }
            let (before, behind) = place.split_once('#').unwrap();
            client.send([before.as_bytes(), &[control], behind.as_bytes(), b"\r\n"].concat());
            let reply = client.reply();
            // A CR in front of the line end is part of none, and refused, too.
            assert!(reply.starts_with("500 5.5.2 control characters"), "{control} {place}: {reply}");
        }
    }
    for eight_bit in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\x8a", b"\xc2\x85", b"\xf5\x80\x80\x80"] {
        client.send([b"MAIL FROM:<a", eight_bit, b"@a.test>\r\n"].concat());
        client.expect("500 5.5.2");
    }
    // Good UTF-8 is an address under SMTPUTF8 alone.
    assert!(client.command("MAIL FROM:<j\u{fc}rgen@a.test>").starts_with("550 5.6.7"));
    assert!(client.command("MAIL FROM:<a@a.test>").starts_with("250 "));
    assert!(client.command("RCPT TO:<j\u{fc}rgen@b.test>").starts_with("550 5.6.7"));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_name_of_any_octets_is_shown_as_text() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let octets = (0u8..=255).filter(|octet| !b"\n \t".contains(octet));
    for verb in ["EHLO", "HELO"] {
        let mut client = proxy.client();
        client.send(
            [verb.as_bytes(), b" a", &octets.clone().collect::<Vec<_>>(), b"z and more\t\r\n"].concat(),
        );
        client.expect("250");
        assert!(client.deliver(&Mail::keyed(verb)).starts_with("250 "));
        let received = upstream.last().value("Received").unwrap();
        let name = received.split_whitespace().nth(1).unwrap();
        assert!(name.starts_with("a?") && name.ends_with("?z"), "{received}");
        assert!(
            name.bytes().all(|octet| octet.is_ascii_graphic() && !b"();<>".contains(&octet)),
            "{received}"
        );
    }
}

#[test]
fn lines_without_end_cost_nothing() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.client();
    client.command("NOOP");
    let before = proxy.process.memory("VmHWM");
    client.send("MAIL FROM:<");
    for _ in 0..64 {
        client.send(vec![b'a'; 1024 * 1024]);
    }
    client.send("@a.test>\r\n");
    client.expect("500 5.5.2 line too long");
    let grown = proxy.process.memory("VmHWM") - before;
    assert!(grown < 8 * 1024 * 1024, "{grown} octets");
    for long in
        [format!("MAIL FROM:<{}@a.test>", "a".repeat(1200)), format!("RCPT TO:<{}@b.test>", "a".repeat(1200))]
    {
        assert!(client.command(&long).starts_with("501 5."), "{long}");
    }
    let long = format!("EHLO {}", "a".repeat(1200));
    assert!(client.command(&long).starts_with("250-"), "a name may be anything");
    assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1", "the session goes on");
}

#[test]
fn who_may_not_relay_buys_no_time_with_commands() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address)
        .listener("allow_from = [\"192.0.2.0/24\"]")
        .limits("command_timeout = \"500ms\"")
        .start();
    let mut client = proxy.client();
    let said = |client: &mut Client| client.command("NOOP").starts_with("421 4.4.2");
    until("the end of a session that does nothing", || {
        std::thread::park_timeout(Duration::from_millis(20));
        said(&mut client).then_some(())
    });
    // Who may, does nothing wrong by it.
    let proxy = Setup::new(upstream.address).limits("command_timeout = \"500ms\"").start();
    let mut client = proxy.client();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(client.command("NOOP").starts_with("250 "));
    }
    assert_eq!(client.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

#[test]
fn in_a_crowd_who_keeps_it_waiting_loses_the_place() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).limits("max_connections = 10").start();
    // These have five minutes for a command, or ten for a message, as long as
    // there are places enough.
    let mut slow: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    for client in &mut slow[..5] {
        client.envelope(&Mail::keyed("never"));
        client.send("Subj");
    }
    Client::raw(proxy.address).expect("421 4.3.2 too many connections");
    let mut served = until("a place for somebody who uses it", || {
        let mut client = Client::raw(proxy.address);
        client.reply().starts_with("220 ").then_some(client)
    });
    served.command("EHLO client.test");
    assert_eq!(served.deliver(&Mail::keyed("k")), "250 2.0.0 queued as 1");
    // However many were turned away, the log has a line a second for them.
    let lines = proxy.process.stderr();
    let told = lines.iter().filter(|line| line.contains("too many connections")).count();
    assert!((1..30).contains(&told), "{told} lines");
}

#[test]
fn the_usual_limit_on_open_files_keeps_nobody_out() {
    let upstream = Upstream::start();
    let proxy = Setup::new(upstream.address).start_with(|command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -S -n 64 && exec \"$@\"", "sh"]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.stdin(Stdio::null());
        *command = limited;
    });
    let _slow: Vec<_> = (0..80).map(|_| proxy.client()).collect();
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

/// A browser sends this to any port but a few when a page of anybody tells it
/// to, from the very machine that may relay.
#[test]
fn a_page_in_a_browser_can_not_send_mail() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let long = "a".repeat(5000);
    for request in [
        "POST / HTTP/1.1".to_owned(),
        "PROPPATCH /x HTTP/1.0".to_owned(),
        format!("POST /{long} HTTP/1.1"),
        "\u{16}\u{3}\u{1}\u{2}".to_owned(),
    ] {
        let mut client = Client::raw(proxy.address);
        // Had it been quicker, it would have talked before the greeting.
        client.expect("220 ");
        client.send(format!(
            "{request}\r\nHost: {}\r\nContent-Type: text/plain\r\n\r\nEHLO page\r\n{EVIL}.\r\nQUIT\r\n",
            proxy.address
        ));
        client.expect("554 5.5.0 ");
        assert!(client.is_closed(), "{request}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn who_reads_no_replies_is_not_waited_for_in_memory() {
    let upstream = Upstream::start();
    let proxy = Proxy::before(&upstream);
    let before = proxy.process.memory("VmHWM");
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let help = "HELP\r\n".repeat(10_000);
    let mut written = 0;
    // Until nothing is taken any more.
    while let Ok(octets) = stream.write(help.as_bytes()) {
        written += octets;
        assert!(written < 1 << 30, "it takes whatever comes");
    }
    let grown = proxy.process.memory("VmHWM") - before;
    assert!(grown < 8 * 1024 * 1024, "{grown} octets of memory for {written} of commands");
    assert_eq!(proxy.send(&Mail::keyed("k")), "250 2.0.0 queued as 1");
}

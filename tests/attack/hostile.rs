//! Upstreams that want us harm: a message is never taken for accepted because
//! of them, nothing they say costs more than its bounds, and the next one is
//! served.

use std::io;

use crate::common::{Mail, Proxy, Setup};
use crate::raw::{Raw, Talk};

type Script = fn(&mut Talk) -> io::Result<()>;

const MEBIBYTE: usize = 1024 * 1024;

/// Speaks so on the first connection, and as it should on all others.
fn at_first(script: Script) -> (Raw, Proxy) {
    let upstream = Raw::start(move |number, talk| match number {
        0 => script(talk).and_then(|()| talk.rest()),
        _ => talk.serve(),
    });
    let timeouts = "[upstream.timeouts]\ngreeting = \"2s\"\nenvelope = \"2s\"\ndata = \"2s\"\nblock = \"2s\"\ncompletion = \"2s\"";
    let proxy = Setup::new(upstream.address).upstream(timeouts).start();
    (upstream, proxy)
}

/// What is said before the final dot, and is no acceptance.
const BEFORE_THE_DOT: [(&str, Script); 29] = [
    ("nothing", |_| Ok(())),
    ("an endless line", |talk| talk.say(vec![b'2'; 8 * MEBIBYTE])),
    ("an endless greeting", |talk| talk.say("220-welcome\r\n".repeat(MEBIBYTE))),
    ("a greeting of one code and another", |talk| talk.say("220-a\r\n250 b\r\n")),
    ("a greeting of a NUL", |talk| talk.say("\x00220 a\r\n")),
    ("a greeting of escapes", |talk| talk.say("\u{1b}[2J220 a\r\n")),
    ("a challenge for a greeting", |talk| talk.say("334 VXNlcm5hbWU6\r\n")),
    ("a refusal", |talk| talk.say("554 go away\r\n")),
    ("a greeting and the end", |talk| talk.say("220 a\r\n").and_then(|()| Err(io::ErrorKind::Other.into()))),
    ("half a greeting and the end", |talk| talk.say("220 a").and_then(|()| Err(io::ErrorKind::Other.into()))),
    ("an octet now and then", |talk| {
        loop {
            talk.say("2")?;
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }),
    ("a line of a reply now and then", |talk| {
        loop {
            talk.say("220-and\r\n")?;
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }),
    ("an answer to EHLO before it", |talk| talk.say("220 a\r\n250 b\r\n")),
    ("endless capabilities", |talk| {
        talk.say("220 a\r\n")?;
        talk.line()?;
        talk.say("250-X-EVERYTHING\r\n".repeat(MEBIBYTE))
    }),
    ("one long capability", |talk| {
        talk.say("220 a\r\n")?;
        talk.line()?;
        talk.say(["250-AUTH".as_bytes(), &b" PLAIN".repeat(MEBIBYTE)].concat())
    }),
    ("a challenge for MAIL", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("334 VXNlcm5hbWU6\r\n250 b\r\n354 c\r\n")
    }),
    ("354 for RCPT", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\r\n354 b\r\n354 c\r\n")
    }),
    ("250 for DATA", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\r\n250 b\r\n250 c\r\n")
    }),
    ("one reply for all", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\r\n")
    }),
    ("one code in front of another", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250-a\r\n550 b\r\n250 c\r\n354 d\r\n")
    }),
    ("no code", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("ok\r\nok\r\ngo\r\n")
    }),
    ("codes that there are not", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("999 a\r\n000 b\r\n354 c\r\n")
    }),
    ("a bare LF that begins another reply", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\n250 b\n354 c\n250 taken\n")
    }),
    ("an acceptance before there is anything to accept", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\r\n250 b\r\n354 c\r\n250 2.0.0 taken\r\n")
    }),
    ("an acceptance in the middle of the content", |talk| {
        talk.greet()?;
        talk.envelope()?;
        talk.lines(2)?;
        talk.say("250 2.0.0 taken\r\n")
    }),
    ("half an acceptance before the dot", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        // One write, so the proxy reads all of it before it sends content.
        talk.say("250 a\r\n250 b\r\n354 c\r\n250 2.0.0 ta")
    }),
    ("the end at the envelope", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        Err(io::ErrorKind::Other.into())
    }),
    ("the end at the content", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("250 a\r\n250 b\r\n354 c\r\n")?;
        Err(io::ErrorKind::Other.into())
    }),
    ("the service closing, with all there is in it", |talk| {
        talk.greet()?;
        talk.lines(3)?;
        talk.say("421 \u{1b}]0;owned\u{7}\u{9b}31m\0\r250 2.0.0 taken\r\n")
    }),
];

/// Long enough that it is not all on its way when something is said in the
/// middle of it.
fn mail(key: &str) -> Mail {
    Mail::keyed(key).body("A line of the message.\r\n".repeat(400_000))
}

#[test]
fn nothing_said_before_the_dot_is_an_acceptance_and_nothing_is_lost() {
    let threads: Vec<_> = BEFORE_THE_DOT
        .chunks(8)
        .map(|some| std::thread::spawn(move || some.iter().for_each(|(what, script)| before(what, *script))))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn before(what: &str, script: Script) {
    let (upstream, proxy) = at_first(script);
    let mail = if what.contains("middle") { mail("k") } else { Mail::keyed("k") };
    let mut client = proxy.client();
    let reply = client.deliver(&mail);
    assert!(reply.starts_with("451 4.4.1 [UPSTREAM] "), "{what}: {reply}");
    assert!(reply.len() < 512 && reply.bytes().all(|octet| octet.is_ascii_graphic() || octet == b' '));
    let dot = upstream.heard(0).ends_with(b"\r\n.\r\n");
    assert!(!dot, "{what}: it was completed");
    // The client tries again, over the same connection, and it is sent: once.
    let reply = client.deliver(&mail);
    assert_eq!(reply, "250 2.0.0 kept", "{what}");
    assert_eq!(client.deliver(&mail), "250 2.0.0 kept", "{what}");
    let again: Vec<u8> = (1..upstream.connections()).flat_map(|number| upstream.heard(number)).collect();
    let sent = String::from_utf8_lossy(&again).matches("DATA\r\n").count();
    assert_eq!(sent, 1, "{what}");
    harmless(&proxy, what);
    let memory = proxy.process.memory("VmHWM") / MEBIBYTE as u64;
    assert!(memory < 150, "{what}: {memory} MiB");
}

/// What is said to the final dot and does not settle it.
const NO_ANSWER: [(&str, &str); 7] = [
    ("354 and more?\r\n", "a wrong class"),
    ("334 VXNlcm5hbWU6\r\n", "a challenge"),
    ("250-taken\r\n550 refused\r\n", "two codes"),
    ("\x00250 taken\r\n", "a NUL"),
    ("taken\r\n", "no code"),
    ("25", "half a code"),
    ("", "nothing"),
];

#[test]
fn no_answer_to_the_dot_is_a_doubt_and_is_not_sent_again() {
    for (index, (_, what)) in NO_ANSWER.iter().enumerate() {
        let upstream = Raw::start(move |number, talk| {
            if number > 0 {
                return talk.serve();
            }
            talk.greet()?;
            talk.envelope()?;
            talk.data()?;
            talk.say(NO_ANSWER[index].0)
        });
        let proxy = Setup::new(upstream.address).start();
        let reply = proxy.send(&Mail::keyed("k"));
        assert!(reply.starts_with("451 4.4.2 [IN-DOUBT] "), "{what}: {reply}");
        assert_eq!(
            proxy.send(&Mail::keyed("k")),
            "250 2.0.0 [IN-DOUBT] sent earlier, outcome unconfirmed",
            "{what}"
        );
        assert_eq!(proxy.send(&Mail::keyed("another")), "250 2.0.0 kept", "{what}");
        harmless(&proxy, what);
    }
}

#[test]
fn a_second_answer_to_the_dot_is_nobody_s() {
    let upstream = Raw::start(|number, talk| match number {
        0 => {
            talk.greet()?;
            talk.envelope()?;
            talk.data()?;
            talk.say(
                "250 2.0.0 first\r\n550 5.7.1 second\r\n250 third\r\n354 fourth\r\n250 2.0.0 fifth\r\n",
            )?;
            talk.rest()
        }
        _ => talk.serve(),
    });
    let proxy = Setup::new(upstream.address).start();
    assert_eq!(proxy.send(&Mail::keyed("k1")), "250 2.0.0 first");
    assert_eq!(proxy.send(&Mail::keyed("k2")), "250 2.0.0 kept", "over a connection that answers when asked");
    assert_eq!(upstream.connections(), 2);
    assert!(!String::from_utf8_lossy(&upstream.heard(0)).contains("k2"));
}

#[test]
fn what_an_upstream_says_can_not_break_a_reply_or_the_log() {
    let upstream = Raw::start(|_, talk| {
        talk.greet()?;
        talk.envelope()?;
        talk.data()?;
        talk.say(
            "554-5.7.1 \u{1b}]0;owned\u{7}\r250 2.0.0 ok\0\r\n554 5.7.1 \u{202e}\u{9b}2J event=message\r\n",
        )?;
        talk.rest()
    });
    let proxy = Setup::new(upstream.address).admin().start();
    let mut client = proxy.client();
    client.start(&Mail::keyed("k"));
    // Verbatim, but for what would make other lines of it.
    let reply = client.reply();
    assert_eq!(reply, "554-5.7.1 \u{1b}]0;owned\u{7}250 2.0.0 ok\n554 5.7.1 \u{202e}\u{9b}2J event=message");
    assert!(client.command("NOOP").starts_with("250 "), "there was one reply");
    let line = proxy.log(&[("outcome", "refused")]);
    assert!(line["reply"].as_str().unwrap().starts_with("554 5.7.1 \u{1b}]0;owned"), "{line}");
    harmless(&proxy, "its log");
    for arguments in [&["keys", "list"][..], &["keys", "show", "k"], &["keys", "list", "--json"], &["stats"]]
    {
        let shown = crate::injection::run(&proxy, arguments);
        assert!(shown.status.success(), "{arguments:?}: {shown:?}");
        crate::injection::is_harmless(&shown.stdout, &arguments.join(" "));
    }
}

/// No line of the log holds what a terminal obeys, and each is one object.
fn harmless(proxy: &Proxy, what: &str) {
    for line in proxy.process.stderr() {
        crate::injection::is_harmless(line.as_bytes(), what);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{what}: {line}");
    }
}

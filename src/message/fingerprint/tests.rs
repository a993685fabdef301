use std::time::{Duration, Instant};

use super::*;
use crate::message::tests::least_cost;

const PLAIN: &str = "From: App <app@x.example>\r\nSubject: Caf\u{e9}\r\nMessage-ID: <1@x>\r\nDate: now\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\r\nCaf\u{e9} is open  \r\nbye\r\n";

fn print(message: impl AsRef<[u8]>) -> Fingerprint {
    fingerprint(message.as_ref(), &Exclude::default())
}

fn list(message: impl AsRef<[u8]>) -> Ingredients {
    ingredients(message.as_ref(), &Exclude::default())
}

fn manner(message: impl AsRef<[u8]>) -> Manner {
    list(message).manner
}

fn values(message: impl AsRef<[u8]>) -> Vec<String> {
    list(message).list.into_iter().map(|one| format!("{}={}", one.place, one.value)).collect()
}

fn mixed(boundary: &str, parts: &[&str]) -> String {
    let mut text = format!(
        "From: a@x\r\nSubject: s\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\npreamble\r\n"
    );
    parts.iter().for_each(|part| text += &format!("--{boundary}\r\n{part}\r\n"));
    text + &format!("--{boundary}--\r\nepilogue\r\n")
}

const PDF: &str = "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nQUJD";

#[test]
fn another_rendering_of_the_same_mail_is_the_same() {
    let encoded = "Received: from a\r\nX-Try: 2\r\nDate: later\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n\
        FROM: \"Other name\" <APP@x.example>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        Caf=E9 is =\r\nopen\r\nbye\r\n\r\n";
    let base64 = "From: app@x.example\r\nSubject: =?utf-8?b?Q2Fmw6k=?=\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nQ2Fmw6kgaXMgb3BlbgpieWUK\r\n";
    assert_eq!(print(PLAIN), print(encoded));
    assert_eq!(print(PLAIN), print(base64));
    assert_eq!(print(PLAIN), print(PLAIN.replace("\r\n", "\n")));
}

#[test]
fn any_visible_change_counts() {
    let one = print(PLAIN);
    for (from, to) in [
        ("is open", "is closed"),
        ("Subject: C", "Subject: K"),
        ("app@x", "ap@x"),
        ("bye", "\r\nbye"),
        ("text/plain", "text/html"),
        ("From:", "From: other@x\r\nFrom:"),
        ("Subject:", "Subject: first\r\nSubject:"),
    ] {
        assert_ne!(one, print(PLAIN.replace(from, to)), "{from} -> {to}");
    }
}

/// Nobody changes these unawares: prints that are stored would mean something
/// else. Whoever has to must change the version beside them.
#[test]
fn the_prints_of_version_1_stay() {
    let nested = mixed("b", &["\r\nhi", PDF, "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner"]);
    let template = "From: a@x\r\nX-MJ-TemplateID: 7\r\nX-MJ-Vars: {\"b\":1,\"a\":2}\r\n\r\n";
    let printed = fingerprint(b"Subject: at 10:31\r\n\r\nat 10:31\r\n", &exclude(&[r"\d\d:\d\d"]));
    let raw = "From: a@x\r\nContent-Type: multipart/mixed\r\n\r\nhi\r\n";
    let known = [
        (print(""), "59556ffbf5674ece44b029af968b87d6470a33679bcfc2e2431864200439a0c8"),
        (print(PLAIN), "889f2c865cb535ff279d411e28f930e93d5587bebbf5cb231a037595d3e1fde5"),
        (print(nested), "b16b027581ba14093f281032acc345e1a72215269adc0fd638e3ac8260756301"),
        (print(template), "4276a39dc7352de1c45a3aa1e84f9f6d9ec1c96da80cf1fdbeda15bc8a40cb07"),
        (printed, "154583df3f0f22935172df5b496d2093dd184bb34fdc0056b904ae94d1256a16"),
        (print(raw), "233c7ca3d4e40bb8369391cce0af92b7ce56143bdebfbebd1923d159e78d7c13"),
    ];
    for (print, hex) in known {
        assert_eq!(print.to_string(), hex);
    }
}

#[test]
fn boundaries_do_not_count_but_attachments_do() {
    let one = print(mixed("b1", &["\r\nhello", PDF]));
    assert_eq!(one, print(mixed("other", &["\r\nhello", PDF])));
    assert_ne!(one, print(mixed("b1", &["\r\nhello", &PDF.replace("a.pdf", "b.pdf")])));
    assert_ne!(one, print(mixed("b1", &["\r\nhello", &PDF.replace("QUJD", "QUJE")])));
    assert_ne!(one, print(mixed("b1", &["\r\nhello", &PDF.replace("attachment", "inline")])));
    assert_ne!(one, print(mixed("b1", &[PDF, "\r\nhello"])));
    assert_ne!(one, print(mixed("b1", &["\r\nhello", PDF, PDF])));
}

#[test]
fn a_boundary_is_a_line_of_its_own() {
    let one = print(mixed("b", &["\r\nsee --b and\r\n--bee\r\n --b\r\nend", PDF]));
    assert_eq!(one, print(mixed("longer", &["\r\nsee --b and\r\n--bee\r\n --b\r\nend", PDF])));
    assert_ne!(one, print(mixed("b", &["\r\nsee --b and\r\n--bee\r\n --b\r\nend.", PDF])));
    // An inner boundary that begins with the outer one.
    let inner =
        "Content-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\n\r\nx\r\n--bb\r\n\r\ny\r\n--bb--";
    assert_eq!(values(mixed("b", &[inner, "\r\nz"])).len(), 5);
}

#[test]
fn a_missing_last_boundary_ends_with_the_message() {
    let whole = mixed("b", &["\r\nhello", PDF]);
    let cut = whole.split("\r\n--b--").next().unwrap();
    assert_eq!(manner(cut), Manner::Parsed);
    assert_eq!(print(cut), print(&whole));
    assert_eq!(print(cut), print(mixed("c", &["\r\nhello", PDF])));
}

#[test]
fn text_that_looks_like_fields_counts() {
    for (one, other) in [
        ("Subject: s\r\nno field\r\n\r\nbody", "Subject: s\r\nno fields\r\n\r\nbody"),
        ("hello", "hallo"),
        ("\r\nhello: 1", "\r\nhello: 2"),
    ] {
        assert_ne!(print(one), print(other));
    }
    let bare = |text: &str| print(mixed("b", &[text]));
    assert_ne!(bare("hello there"), bare("hallo there"));
}

#[test]
fn what_can_not_be_decoded_still_counts() {
    let with = |octet: u8, head: &str| {
        let mut message = format!("Subject: s\r\n{head}\r\n\r\nx").into_bytes();
        message.push(octet);
        print(message)
    };
    for head in
        ["X: y", "Content-Type: text/plain; charset=x-none", "Content-Type: text/plain; charset=utf-8"]
    {
        assert_ne!(with(0xe9, head), with(0xe8, head), "{head}");
    }
    let base64 = |text: &str| print(format!("Content-Transfer-Encoding: base64\r\n\r\n{text}\r\n"));
    assert_ne!(base64("QUJD!"), base64("QUJD?"));
    assert_ne!(base64("QUI"), base64("QUM"));
    assert_eq!(base64("QUI"), base64("QUI="));
    let named = |octet: u8| {
        let part = PDF.replace("a.pdf", "\"\u{e9}.pdf\"").into_bytes();
        let part: Vec<u8> =
            part.into_iter().filter(|&b| b != 0xc3).map(|b| if b == 0xa9 { octet } else { b }).collect();
        print([b"From: a@x\r\n", part.as_slice()].concat())
    };
    assert_ne!(named(0xe9), named(0xe8));
}

#[test]
fn broken_encoding_does_not_make_boundaries_count() {
    let broken = PDF.replace("QUJD", "QU*D");
    assert_eq!(manner(mixed("b", &[&broken])), Manner::Parsed);
    assert_eq!(print(mixed("b", &[&broken])), print(mixed("c", &[&broken])));
    assert_ne!(print(mixed("b", &[&broken])), print(mixed("b", &[&broken.replace("QU*D", "QU*E")])));
}

#[test]
fn content_ids_count_as_the_number_of_their_part() {
    let html = "Content-Type: text/html\r\n\r\n<img src=\"CID:ID\"> <img src=cid:gone@x>";
    let image = "Content-Type: image/png\r\nContent-ID: <ID>\r\n\r\nPNG";
    let with = |id: &str, written: &str, image: &str| {
        print(mixed(
            "b",
            &[
                &html.replace("ID\"", &format!("{written}\"")),
                &image.replace("<ID>", &format!("<{id}>")),
                PDF,
            ],
        ))
    };
    let one = with("1.a@x", "1.a@x", image);
    assert_eq!(one, with("2.b@x", "2.b@x", image));
    assert_eq!(one, with("2.b@x", "2.b%40x", image));
    assert_eq!(
        one,
        with("2.b@x", "2.b@x", &image.replace("<ID>", "=?utf-8?q?=3C2=2Eb?=\r\n =?utf-8?q?=40x=3E?="))
    );
    assert_ne!(one, with("2.b@x", "3.b@x", image));
    let style = |id: &str| {
        let html =
            format!("Content-Type: text/html\r\n\r\n<p style=\"background: url(&quot;cid:{id}&quot;)\">");
        print(mixed("b", &[&html, &image.replace("<ID>", &format!("<{id}> (minted)"))]))
    };
    assert_eq!(style("1.a@x"), style("2.b@x"), "within escaped quotes");
    let second = format!("{image}\r\n--b\r\nContent-Type: image/png\r\nContent-ID: <other>\r\n\r\nPNG");
    assert_ne!(with("1.a@x", "1.a@x", &second), with("1.a@x", "other", &second));
}

#[test]
fn a_nested_message_counts_by_its_meaning() {
    let nested =
        |inner: &str| print(mixed("b", &[&format!("Content-Type: message/rfc822\r\n\r\n{inner}"), PDF]));
    let one = nested("Date: x\r\nSubject: in\r\n\r\ntext");
    assert_eq!(one, nested("Subject: =?utf-8?q?in?=\r\nDate: y\r\n\r\ntext"));
    assert_ne!(one, nested("Subject: on\r\n\r\ntext"));
    assert_ne!(one, nested("Subject: in\r\n\r\ntest"));
    // Its end counts: a part in it is not a part behind it.
    let inner = "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx";
    let inside = format!("{inner}\r\n--c\r\n\r\ny\r\n--c--");
    let behind = format!("{inner}\r\n--c--\r\n--b\r\n\r\ny");
    assert_ne!(nested(&inside), nested(&behind));
}

#[test]
fn short_and_empty_messages_have_prints() {
    let all = ["", "hello", "\r\nhello: x", "Subject: s", "Subject: s\r\n\r\n", "Subject: s\r\n\r\nx"];
    assert!(all.iter().all(|message| manner(message) == Manner::Parsed));
    assert_eq!(print("Subject: s"), print("Subject: s\r\n\r\n\r\n"));
    assert_eq!(print(""), print("\r\n \r\n"));
    assert_ne!(print(""), print("x"));
    assert_ne!(print("\r\na\rb"), print("\r\na\nb"));
}

#[test]
fn what_is_past_the_bounds_is_taken_as_it_stands() {
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(50_000);
    let many = format!("{}hello", "Content-Type: Multipart/mixed; boundary=x\r\n\r\n--x\r\n".repeat(20_000));
    let wide = mixed("b", &["\r\nx"; 1001]);
    let inner = "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--";
    let multiparts = mixed("b", &[inner; 100]);
    let long = format!("Content-Type: text/plain{}\r\n\r\nhello", "; a=b".repeat(1_000_000));
    let parameters = format!("Content-Type: text/plain{}\r\n\r\nhello", "; a=b".repeat(300));
    let part = mixed("b", &[&format!("{}\r\nhello", "X: y\r\n".repeat(2000))]);
    for (message, why) in [
        (nested, Why::TooDeep),
        (many, Why::NoBoundary),
        (wide, Why::TooManyParts),
        (multiparts, Why::TooManyMultiparts),
        (long, Why::LongHeader),
        (parameters, Why::LongHeader),
        (part, Why::LongHeader),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--c\r\n\r\nx".to_owned(), Why::NoBoundary),
        ("Content-Type: multipart/mixed\r\n\r\n--c\r\n\r\nx".to_owned(), Why::NoBoundary),
    ] {
        assert_eq!(manner(&message), Manner::Raw(why));
        assert_eq!(print(&message), print(format!("{message}  \r\n\r\n")), "{why}");
        assert_ne!(print(&message), print(format!("{message}x")), "{why}");
        assert_ne!(print(&message), print(format!("Subject: s\r\n{message}")), "{why}");
    }
}

#[test]
fn hostile_mime_costs_bounded_time() {
    let boundaries = "--x\r\n".repeat(400_000);
    let all = [
        format!("Content-Type: multipart/mixed; boundary=never\r\n\r\n{boundaries}"),
        format!(
            "Content-Type: multipart/mixed; boundary=\"{}\"\r\n\r\n{}",
            "-".repeat(70),
            "-".repeat(2_000_000)
        ),
        format!("Subject: {}\r\n\r\n", "=?a?q?".repeat(40_000)),
        format!("Subject: {}\r\n\r\n", "=?".repeat(120_000)),
        format!("From: {}\r\n\r\n", "(<\",".repeat(60_000)),
        format!("From: {}@{}\r\n\r\n", "a".repeat(120_000), ":".repeat(120_000)),
        format!("Content-Type: a/b; {}=\r\n\r\n", "x*".repeat(120_000)),
        mixed(
            "b",
            &[
                "Content-ID: <a>\r\nContent-Type: image/png\r\n\r\nx",
                &format!("\r\n{}", "cid:".repeat(500_000)),
            ],
        ),
        format!("\r\n{}", "\r\n".repeat(1_000_000)),
    ];
    for message in all {
        let started = Instant::now();
        print(&message);
        let took = started.elapsed().as_secs();
        assert!(took < 5, "{took} s for {}", &message[..60]);
    }
}

/// A message that is this many times as large as one that costs a few
/// milliseconds.
type Shape = fn(usize) -> String;

#[test]
fn the_cost_of_a_bomb_grows_with_its_size_and_no_faster() {
    const LARGER: u32 = 8;
    let shapes: [(&str, Shape); 12] = [
        ("nested multiparts", |n| {
            let level = |l| format!("--b{l}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", l + 1);
            "Content-Type: multipart/mixed; boundary=b0\r\n\r\n".to_owned()
                + &(0..1250 * n).map(level).collect::<String>()
        }),
        ("parts", |n| mixed("b", &["\r\nx"]) + &"\r\n--b\r\n\r\nx".repeat(50_000 * n)),
        ("parts up to the bound", |n| mixed("b", &[format!("\r\n{}", "x\r\n".repeat(20 * n)).as_str(); 900])),
        ("messages in messages", |n| "Content-Type: message/rfc822\r\n\r\n".repeat(10_000 * n)),
        ("multiparts up to the bound", |n| {
            let filling = "--x\r\n".repeat(2000 * n);
            (0..19).fold(filling, |inner, level| mixed(&format!("b{level}"), &[&inner]))
        }),
        ("base64", |n| {
            let head = "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n";
            head.to_owned() + &("QUFB".repeat(19) + "\r\n").repeat(2000 * n)
        }),
        ("base64 octet by octet", |n| {
            "Content-Transfer-Encoding: base64\r\n\r\n".to_owned() + &"Q\r\n".repeat(30_000 * n)
        }),
        ("soft line ends", |n| {
            "Content-Transfer-Encoding: quoted-printable\r\n\r\n".to_owned() + &"=\r\n".repeat(30_000 * n)
        }),
        ("encoded words", |n| format!("Subject: {}\r\n\r\n", "=?utf-8?b?4oKs?= ".repeat(1600 * n))),
        ("continued parameters", |n| {
            let continued: String = (0..1000 * n).map(|k| format!("; name*{k}*=%41")).collect();
            format!("Content-Type: text/plain{continued}\r\n\r\nx")
        }),
        ("references", |n| {
            mixed("b", &["Content-ID: <a>\r\n\r\nx", &format!("\r\n{}", "cid:a cid:".repeat(20_000 * n))])
        }),
        ("octets of no charset", |n| {
            format!("Content-Type: text/plain; charset=utf-16\r\n\r\n{}", "\u{e9}\r\n".repeat(40_000 * n))
        }),
    ];
    for (what, shape) in shapes {
        let cost = |message: String| {
            least_cost(|| {
                print(&message);
            })
        };
        let (small, large) = (cost(shape(1)), cost(shape(LARGER as usize)));
        println!("{what}: {small:?}, {LARGER} times as much: {large:?}");
        // A cost that grew with the square would be 64 times as much.
        let most = small * LARGER * 3 + Duration::from_millis(20);
        assert!(large < most, "{what}: {small:?}, {LARGER} times as much: {large:?}");
    }
}

#[test]
fn excluded_text_does_not_count_but_that_it_is_there_does() {
    let exclude = exclude(&[r"\d\d:\d\d", r"^id=\w+$"]);
    let of = |text: &str| fingerprint(text.as_bytes(), &exclude);
    let one = of("Subject: at 10:31\r\n\r\nPrinted 10:31\r\nid=abc  \r\nbye");
    assert_eq!(
        one,
        of(
            "Subject: =?utf-8?q?at_11=3A32?=\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nPrinted 1=\r\n2:44\r\nid=x\r\nbye"
        )
    );
    assert_ne!(one, of("Subject: at 10:31\r\n\r\nPrinted\r\nid=abc\r\nbye"));
    assert_ne!(one, of("Subject: at 10:31\r\n\r\nPrinted 10:31\r\nid=abc\r\nbyes"));
    // Where nothing matches, patterns change nothing.
    assert_eq!(of(PLAIN), print(PLAIN));
}

fn exclude(patterns: &[&str]) -> Exclude {
    Exclude::new(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn ingredients_name_what_counts_in_order() {
    let message = mixed(
        "b",
        &[
            "Content-Type: text/plain; charset=us-ascii\r\n\r\nhello  \r\nthere\r\n\r\n",
            PDF,
            "Content-Type: message/rfc822\r\n\r\nFrom: b@x\r\nSubject: in\r\n\r\ninner",
        ],
    );
    let message = message.replace("Subject: s\r\n", "Subject: s\r\nX-MJ-TemplateID: 7\r\nX-Other: 1\r\n");
    assert_eq!(
        values(message),
        [
            "From=a@x",
            "Subject=s",
            "x-mj-templateid=7",
            "part 1, text/plain=hello\nthere",
            "part 2, application/pdf, attachment a.pdf=3 octets, SHA-256 \
             b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78",
            "part 3, message/rfc822=",
            "part 3, From=b@x",
            "part 3, Subject=in",
            "part 4, text/plain=inner",
            "end of part 3=",
        ]
    );
}

#[test]
fn the_first_difference_is_shown_in_short() {
    let of = |one: &str, other: &str| first_difference(&list(one), &list(other));
    assert_eq!(of(PLAIN, PLAIN), None);
    let long = "word ".repeat(1000);
    let one = of(
        &format!("\r\n{long}\r\nyour code is 123456{long}"),
        &format!("\r\n{long}\r\nyour code is 129456{long}"),
    );
    let one = one.unwrap();
    assert_eq!(one.place, "part 1, text/plain");
    let first = one.first.unwrap();
    assert!(first.starts_with("\u{2026}your code is 123456word") && first.ends_with('\u{2026}'), "{first}");
    assert!(first.chars().count() < 80);
    assert!(one.second.unwrap().contains("129456"));

    let missing = of("Subject: s\r\n\r\nx", "\r\nx").unwrap();
    assert_eq!((missing.place.as_str(), missing.first.as_deref()), ("Subject", Some("s")));
    assert_eq!(missing.second.as_deref(), Some("part 1, text/plain: x"));
    let more = of(&mixed("b", &["\r\nx"]), &mixed("b", &["\r\nx", PDF])).unwrap();
    assert_eq!((more.place.as_str(), more.first), ("part 2, application/pdf, attachment a.pdf", None));
    let raw = of("\r\nx", "Content-Type: multipart/mixed\r\n\r\nx").unwrap();
    assert!(raw.second.unwrap().contains("no boundary"));
    let control = of("\r\n\x1b[31mred", "\r\nred").unwrap();
    assert_eq!(control.first.as_deref(), Some("\\u{1b}[31mred"));
}

/// The split into header section and body is that of what goes upstream.
#[test]
fn a_first_line_that_is_no_field_counts_as_it_is_relayed() {
    let mail = "From: a@b.test\r\nSubject: x\r\n\r\nbody\r\n";
    let mailbox = format!("From a@b.test Thu Jan  1 00:00:00 2026\r\n>From c\r\n{mail}");
    assert_eq!(print(&mailbox), print(mail));
    assert_eq!(print(&mailbox), print(format!("X-Mailbox-Line: From a@b.test\r\n{mail}")));
    for first in [" Subject: x\r\n", "no field\r\n", "Subject\u{c}: x\r\n", ": x\r\n"] {
        let text = format!("{first}{mail}");
        assert_eq!(print(&text), print(format!("\r\n{text}")), "{first:?}");
        assert_eq!(print(format!("From a\r\n{text}")), print(&text), "{first:?}");
        assert_ne!(print(&text), print(mail), "{first:?}");
    }
}

//! What the documentation says of the octets that go upstream, written a second
//! time and as plainly as possible.

/// Whether the proxy adds its Received field.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Received {
    Added,
    LeftOut,
}

/// Fields that the proxy takes out, unless a signature covers them.
const REMOVED: [&str; 4] =
    ["x-idempotency-key", "idempotency-key", "resend-idempotency-key", "x-idempotency-ttl"];

/// The message behind our Received field, as it goes upstream.
pub(crate) fn relayed(arriving: &[u8], received: Received) -> Vec<u8> {
    let content = whole_lines(arriving);
    let mut lines = content.split_inclusive(|&byte| byte == b'\n').peekable();
    let mut out = Vec::new();
    while let Some(line) = lines.next_if(|line| is_mailbox_line(line)) {
        out.extend_from_slice(b"X-Mailbox-Line: ");
        out.extend_from_slice(line);
    }
    let mut fields: Vec<Vec<u8>> = Vec::new();
    while let Some(line) = lines.next_if(|line| name(line).is_some() || is_folded(line) && !fields.is_empty())
    {
        match fields.last_mut() {
            Some(last) if is_folded(line) => last.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    let signed = fields.iter().any(|field| field.starts_with(b"DKIM-Signature"));
    fields.retain(|field| signed || !REMOVED.contains(&&*name(field).unwrap().to_ascii_lowercase()));
    let ours_ends_here = fields.is_empty() && (received == Received::Added || !out.is_empty());
    out.extend(fields.concat());
    if ours_ends_here && lines.peek().is_some_and(|line| *line != b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend(lines.flatten());
    out
}

/// LF becomes CRLF, CR a blank, and the last line gets a CRLF.
fn whole_lines(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\r' if text.get(at + 1) == Some(&b'\n') => {}
            b'\r' => out.push(b' '),
            b'\n' => out.extend_from_slice(b"\r\n"),
            byte => out.push(byte),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn is_folded(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

fn is_mailbox_line(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let rest = text.strip_prefix("From ").or_else(|| text.strip_prefix(">From "));
    rest.is_some_and(|rest| !rest.trim_start_matches([' ', '\t']).starts_with(':'))
}

fn name(line: &[u8]) -> Option<String> {
    let (name, _) = std::str::from_utf8(line)
        .map_or_else(|_| line.iter().map(|&byte| char::from(byte)).collect::<String>(), str::to_owned)
        .split_once(':')
        .map(|(name, value)| (name.trim_end_matches([' ', '\t']).to_owned(), value.to_owned()))?;
    (!name.is_empty() && name.chars().all(|c| ('!'..='~').contains(&c))).then_some(name)
}

/// The message behind our Received field, whose form is checked.
pub(crate) fn without_received(content: &[u8], received: Received) -> &[u8] {
    if received == Received::LeftOut {
        return content;
    }
    let mut rest = content;
    for start in [
        "Received: from client.test ([127.0.0.1])\r\n",
        "\tby relay.test (mailonce) with ESMTP id ",
        "\tfor <b@b.test>;\r\n",
        "\t",
    ] {
        assert!(rest.starts_with(start.as_bytes()), "{}", content.escape_ascii());
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
        rest = &rest[end + 1..];
    }
    rest
}

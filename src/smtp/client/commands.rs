//! The commands, as bytes (RFC 5321 §4.1.1). Each is sent with only those
//! parameters whose extension the upstream offers.

use std::io::Write as _;

use super::{Client, Due};
use crate::smtp::envelope::{BodyType, Envelope, MailParameters, Recipient, ReturnContent};

/// What completes a message. The content before it is empty or ends in CRLF
/// (RFC 5321 §4.1.1.4).
pub const END_OF_DATA: &[u8] = b".\r\n";

/// What MAIL says of the content.
#[derive(Clone, Copy, Debug)]
pub struct MailContent {
    /// Its octets, before dot-stuffing.
    pub size: u64,
    /// Whether it holds octets above 127.
    pub eight_bit: bool,
    /// Whether it, or an address, can only travel under SMTPUTF8.
    pub smtputf8: bool,
}

impl Client {
    /// EHLO.
    pub fn ehlo(&mut self, hostname: &str, out: &mut Vec<u8>) {
        write(out, format_args!("EHLO {hostname}\r\n"));
        self.expect(Due::Ehlo);
    }

    /// HELO, for an upstream that refused EHLO (RFC 5321 §3.2).
    pub fn helo(&mut self, hostname: &str, out: &mut Vec<u8>) {
        write(out, format_args!("HELO {hostname}\r\n"));
        self.expect(Due::Helo);
    }

    /// STARTTLS (RFC 3207).
    pub fn starttls(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"STARTTLS\r\n");
        self.expect(Due::StartTls);
    }

    /// AUTH with a mechanism and perhaps its initial response (RFC 4954 §4).
    pub fn auth(&mut self, start: &str, out: &mut Vec<u8>) {
        write(out, format_args!("AUTH {start}\r\n"));
        self.expect(Due::Auth);
    }

    /// The answer to a challenge, in base64.
    pub fn auth_response(&mut self, response: &str, out: &mut Vec<u8>) {
        write(out, format_args!("{response}\r\n"));
        self.expect(Due::Auth);
    }

    /// RSET.
    pub fn reset(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"RSET\r\n");
        self.expect(Due::Reset);
    }

    /// MAIL.
    pub fn mail(&mut self, envelope: &Envelope, content: MailContent, out: &mut Vec<u8>) {
        write(out, format_args!("MAIL FROM:<{}>", envelope.reverse_path.as_str()));
        self.mail_parameters(&envelope.parameters, content, out);
        out.extend_from_slice(b"\r\n");
        self.expect(Due::Mail);
    }

    fn mail_parameters(&self, given: &MailParameters, content: MailContent, out: &mut Vec<u8>) {
        let offered = &self.capabilities;
        if offered.size.is_some() {
            // What we send, not what the client announced: we add a field.
            write(out, format_args!(" SIZE={}", content.size));
        }
        let eight_bit = content.eight_bit || given.body == Some(BodyType::EightBitMime);
        if offered.eight_bit_mime && eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if offered.smtputf8 && content.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if offered.dsn {
            match given.ret {
                Some(ReturnContent::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(ReturnContent::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            parameter(out, "ENVID", given.envid.as_deref());
        }
        if offered.auth.is_some() {
            parameter(out, "AUTH", given.auth.as_deref());
        }
    }

    /// RCPT of the recipient at `index` in the envelope.
    pub fn recipient(&mut self, index: usize, recipient: &Recipient, out: &mut Vec<u8>) {
        write(out, format_args!("RCPT TO:<{}>", recipient.path.as_str()));
        if self.capabilities.dsn {
            parameter(out, "NOTIFY", recipient.notify.as_deref());
            parameter(out, "ORCPT", recipient.orcpt.as_deref());
        }
        out.extend_from_slice(b"\r\n");
        self.expect(Due::Recipient(index));
    }

    /// DATA.
    pub fn data(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"DATA\r\n");
        self.expect(Due::Data);
    }

    /// QUIT.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"QUIT\r\n");
        self.expect(Due::Quit);
    }
}

/// Appends ` NAME=value`. A value that could end the command is left out:
/// whoever filled the envelope should have refused it, and a message without
/// a DSN parameter is better than a command of someone else's.
fn parameter(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| value.bytes().all(|b| b > b' ' && b != 0x7f)) {
        write(out, format_args!(" {name}={value}"));
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec can't fail.
    let _ = out.write_fmt(text);
}

//! What an upstream offers in its reply to EHLO (RFC 5321 §4.1.1.1).

use crate::smtp::reply::Reply;

/// The extensions that an upstream offers, of those we know. The default is
/// none of them: all that HELO promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920): commands may be sent without waiting.
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152): `BODY=`.
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461): `RET=`, `ENVID=`, `NOTIFY=`, `ORCPT=`.
    pub dsn: bool,
    /// SIZE (RFC 1870): the largest message in octets, 0 where it names none.
    pub size: Option<u64>,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): its mechanisms in upper case; `None` where AUTH is
    /// not offered.
    pub auth: Option<Vec<String>>,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
}

impl Capabilities {
    /// Reads a positive reply to EHLO. Its first line is a greeting; each
    /// other line is a keyword with parameters, in any case. What is unknown
    /// or malformed is not offered.
    pub fn parse(reply: &Reply) -> Self {
        let mut capabilities = Self::default();
        for line in reply.lines().skip(1) {
            if let Ok(line) = std::str::from_utf8(line) {
                capabilities.add(line);
            }
        }
        capabilities
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "SIZE" => self.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
            "AUTH" => self.add_mechanisms(words),
            // `AUTH=LOGIN PLAIN`: the spelling of the draft, still sent beside
            // the real one for the sake of very old clients.
            keyword => {
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.add_mechanisms(std::iter::once(first).chain(words));
                }
            }
        }
    }

    fn add_mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mechanisms = self.auth.get_or_insert_default();
        for word in words.filter(|word| !word.is_empty()) {
            let mechanism = word.to_ascii_uppercase();
            if !mechanisms.contains(&mechanism) {
                mechanisms.push(mechanism);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case() {
        let reply = Reply::new(
            250,
            "PIPELINING is my name\nsize 52428800\n8BitMime\nDSN\nSMTPUTF8\nchunking\nStartTLS\n\
             ENHANCEDSTATUSCODES\nAUTH plain LOGIN\nAUTH=LOGIN XOAUTH2\nX-OTHER 1 2\n\n",
        );
        let capabilities = Capabilities::parse(&reply);
        let expected = Capabilities {
            pipelining: false,
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            size: Some(52_428_800),
            starttls: true,
            auth: Some(vec!["PLAIN".to_owned(), "LOGIN".to_owned(), "XOAUTH2".to_owned()]),
            enhanced_status_codes: true,
        };
        assert_eq!(capabilities, expected);
    }

    #[test]
    fn a_size_without_a_usable_limit_has_none() {
        for line in ["SIZE", "SIZE 0", "SIZE 99999999999999999999999", "SIZE x"] {
            let reply = Reply::new(250, format!("hello\n{line}"));
            assert_eq!(Capabilities::parse(&reply).size, Some(0), "{line}");
        }
        assert_eq!(Capabilities::parse(&Reply::new(250, "hello")), Capabilities::default());
    }
}

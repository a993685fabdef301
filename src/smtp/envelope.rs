//! The envelope: reverse-path, recipients, and the ESMTP parameters that
//! travel with them.

use super::address::Path;

/// Who sends what to whom, as the client gave it with MAIL and RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path of MAIL FROM; the null path for bounces.
    pub reverse_path: Path,
    /// The parameters of MAIL FROM.
    pub parameters: MailParameters,
    /// Every accepted RCPT TO, in order, repeated ones included.
    pub recipients: Vec<Recipient>,
}

/// One RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path.
    pub path: Path,
    /// `NOTIFY=` as given, not interpreted (RFC 3461 §4.1).
    pub notify: Option<String>,
    /// `ORCPT=` as given, in xtext (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(path: Path) -> Self {
        Self { path, notify: None, orcpt: None }
    }
}

/// The parameters of MAIL FROM that we understand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=`: the octets that the client announces (RFC 1870 §3).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152 §2).
    pub body: Option<BodyType>,
    /// `SMTPUTF8` (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<ReturnContent>,
    /// `ENVID=` as given, in xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// `AUTH=` as given, in xtext or `<>` (RFC 4954 §5).
    pub auth: Option<String>,
}

/// `BODY=` of MAIL FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// `7BIT`
    SevenBit,
    /// `8BITMIME`
    EightBitMime,
}

/// `RET=` of MAIL FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnContent {
    /// `FULL`
    Full,
    /// `HDRS`
    Headers,
}

//! The e-mail in a file, and the envelope it would have.

use std::io::Read;
use std::path::Path as FilePath;

use bytes::Bytes;
use mail_parser::MessageParser;

use super::ExplainArgs;
use crate::cli::CliFault;
use crate::config::Config;
use crate::identity;
use crate::message::Headers;
use crate::smtp::address::Path;
use crate::smtp::data::{Decoder, Framing};
use crate::smtp::envelope::{Envelope, MailParameters, Recipient};
use crate::smtp::reply::Reply;

/// An e-mail as the proxy would have it.
#[derive(Debug)]
pub(super) struct Mail {
    /// What the user calls it.
    pub(super) name: String,
    pub(super) content: Bytes,
    pub(super) headers: Headers,
    /// Each recipient once.
    pub(super) envelope: Envelope,
    /// Where the sender and the recipients come from.
    pub(super) sender_from: Origin,
    pub(super) recipients_from: Origin,
    /// What the client would hear before anything is decided.
    pub(super) refused: Option<Reply>,
}

/// Where a part of the envelope comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Options,
    Headers,
}

impl Mail {
    pub(super) fn read(file: &FilePath, args: &ExplainArgs, config: &Config) -> Result<Self, CliFault> {
        let (name, raw) = read(file, config.limits.max_message_size)?;
        let (from, to) = (args.from.as_deref(), args.rcpt.as_slice());
        Self::new(name, &raw, from, to, config.limits.max_message_size)
    }

    /// `raw` is a file, in which lines may end in a bare LF; `largest` is in
    /// octets.
    pub(super) fn new(
        name: String,
        raw: &[u8],
        from: Option<&str>,
        to: &[String],
        largest: u64,
    ) -> Result<Self, CliFault> {
        // What a client would send: lines that end in CRLF.
        let mut decoder = Decoder::new(Framing::Chunks);
        let mut content = Vec::with_capacity(raw.len() + raw.len() / 32);
        decoder.push(raw, &mut content);
        decoder.finish(&mut content);
        let content = Bytes::from(content);
        let (headers, fault) = match Headers::parse(&content) {
            Ok(headers) => (headers, None),
            Err(fault) => (Headers::none(), Some(fault.reply())),
        };
        let refused = if content.len() as u64 > largest {
            Some(Reply::new(552, "5.3.4 the message is larger than limits.max_message_size"))
        } else if decoder.findings().nul {
            Some(Reply::new(554, "5.6.0 the message holds a NUL octet"))
        } else {
            fault
        };
        let (reverse_path, sender_from) = sender(from, &headers)?;
        let (recipients, recipients_from) = recipients(to, &headers)?;
        let envelope = Envelope { reverse_path, parameters: MailParameters::default(), recipients };
        let envelope = identity::distinct(envelope);
        Ok(Self { name, content, headers, envelope, sender_from, recipients_from, refused })
    }
}

fn read(file: &FilePath, largest: u64) -> Result<(String, Vec<u8>), CliFault> {
    let (name, stream): (String, Box<dyn Read>) = match file == FilePath::new("-") {
        true => ("standard input".to_owned(), Box::new(std::io::stdin().lock())),
        false => {
            let name = file.display().to_string();
            let file = std::fs::File::open(file);
            (name.clone(), Box::new(file.map_err(|error| CliFault::Failed(format!("{name}: {error}")))?))
        }
    };
    let mut raw = Vec::new();
    // One octet more shows that it is too large.
    let most = largest.saturating_add(1);
    stream.take(most).read_to_end(&mut raw).map_err(|error| CliFault::Failed(format!("{name}: {error}")))?;
    Ok((name, raw))
}

/// An address on the command line, with or without angle brackets.
fn address(option: &str, text: &str) -> Result<Path, CliFault> {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    Path::parse(inner).ok_or_else(|| CliFault::Usage(format!("{option} {text:?} is not an address")))
}

fn sender(given: Option<&str>, headers: &Headers) -> Result<(Path, Origin), CliFault> {
    if let Some(given) = given {
        return Ok((address("--from", given)?, Origin::Options));
    }
    let said = |name| headers.first(name).map(|value| addresses(&value));
    let found = match said("return-path") {
        // <> says that nobody is to be told: a bounce.
        Some(path) => path.into_iter().next().unwrap_or_default(),
        None => said("from").and_then(|from| from.into_iter().next()).unwrap_or_default(),
    };
    Ok((Path::parse(&found).unwrap_or(Path::Null), Origin::Headers))
}

fn recipients(given: &[String], headers: &Headers) -> Result<(Vec<Recipient>, Origin), CliFault> {
    if !given.is_empty() {
        let paths = given.iter().map(|text| address("--rcpt", text).map(Recipient::new));
        return Ok((paths.collect::<Result<_, _>>()?, Origin::Options));
    }
    let values = ["to", "cc", "bcc"].into_iter().flat_map(|name| headers.as_written(name));
    let found = values.flat_map(|value| addresses(&value));
    let paths = found.filter_map(|text| Path::parse(&text)).filter(|path| *path != Path::Null);
    Ok((paths.map(Recipient::new).collect(), Origin::Headers))
}

/// The addresses in a field that lists some, as they are written.
fn addresses(value: &str) -> Vec<String> {
    let field = format!("To: {value}\r\n\r\n");
    let parsed = MessageParser::new().with_address_headers().parse_headers(field.as_bytes());
    let list = parsed.as_ref().and_then(|parsed| parsed.to());
    list.into_iter().flat_map(|list| list.iter()).filter_map(|one| one.address()).map(str::to_owned).collect()
}

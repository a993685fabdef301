//! How a record looks on disk: one byte of version, then the record in
//! [postcard](https://postcard.jamesmunns.com/wire-format).

mod before;

use super::super::{Record, Tally};
use before::{FirstRecord, SecondRecord};

/// Goes up whenever the shape of [`Record`], or of anything in it, changes. A
/// test holds the bytes of a known record, so that it is not forgotten.
const VERSION: u8 = 3;

/// The versions before, which are still read.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

/// The version of a [`Tally`].
const TALLY: u8 = 1;

/// Octets that nearly every record fits into.
const TYPICAL: usize = 1024;

/// The bytes of a record.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(TYPICAL);
    bytes.push(VERSION);
    postcard::to_extend(record, bytes).map_err(|error| format!("a record can't be encoded: {error}"))
}

/// The record in `bytes`, else what is wrong with them.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, String> {
    let damaged = |error: postcard::Error| format!("a record is damaged: {error}");
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(damaged),
        Some((&SECOND, body)) => postcard::from_bytes(body).map(SecondRecord::now).map_err(damaged),
        Some((&FIRST, body)) => postcard::from_bytes(body).map(FirstRecord::now).map_err(damaged),
        Some((version, _)) => Err(format!(
            "a record has format {version}, and this mailonce knows only {FIRST} to {VERSION}: use the version \
             that wrote it"
        )),
        None => Err("a record is empty".into()),
    }
}

/// The bytes of a tally.
pub(super) fn encode_tally(tally: &Tally) -> Result<Vec<u8>, String> {
    postcard::to_extend(tally, vec![TALLY]).map_err(|error| format!("a count can't be encoded: {error}"))
}

/// The tally in `bytes`, else what is wrong with them.
pub(super) fn decode_tally(bytes: &[u8]) -> Result<Tally, String> {
    match bytes.split_first() {
        Some((&TALLY, body)) => {
            postcard::from_bytes(body).map_err(|error| format!("a count is damaged: {error}"))
        }
        Some((version, _)) => Err(format!(
            "a count has format {version}, and this mailonce knows only {TALLY}: use the version that wrote it"
        )),
        None => Err("a count is empty".into()),
    }
}

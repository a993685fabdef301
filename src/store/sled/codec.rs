//! How a record looks on disk: one byte of version, then the record in
//! [postcard](https://postcard.jamesmunns.com/wire-format).

use super::super::Record;

/// Goes up whenever the shape of [`Record`], or of anything in it, changes. A
/// test holds the bytes of a known record, so that it is not forgotten.
const VERSION: u8 = 1;

/// The bytes of a record.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, String> {
    postcard::to_extend(record, vec![VERSION]).map_err(|error| format!("a record can't be encoded: {error}"))
}

/// The record in `bytes`, else what is wrong with them.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, String> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            postcard::from_bytes(body).map_err(|error| format!("a record is damaged: {error}"))
        }
        Some((version, _)) => Err(format!(
            "a record has format {version}, and this mailonce knows only {VERSION}: use the version that wrote it"
        )),
        None => Err("a record is empty".into()),
    }
}

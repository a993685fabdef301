//! The received message: its bytes, its header section, what it means, and
//! what of it goes upstream.

pub mod decode;
pub mod edit;
pub mod fingerprint;
pub mod headers;
pub mod json;
pub mod rendition;
pub mod spool;

pub use headers::{HeaderFault, Headers};
pub use rendition::{Reader, Rendition};
pub use spool::{Budget, Content, Spool};

#[cfg(test)]
mod tests;

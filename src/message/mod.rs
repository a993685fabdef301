//! The received message, and what of it goes upstream.

pub mod rendition;

pub use rendition::{Reader, Rendition};

//! Lines of a stream, none of them longer than memory should hold.

use std::io::{self, BufRead, Read};

/// The longest line that is read, in octets. A record takes a few KiB.
pub const MAX_LINE: usize = 1024 * 1024;

/// The lines of a stream, without their ends.
#[derive(Debug)]
pub struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    /// The lines of `stream`.
    pub fn new(stream: R) -> Self {
        Self(stream)
    }

    /// The next line; `None` at the end. A last line needs no line end.
    ///
    /// # Errors
    /// What the stream says; `InvalidData` for a line that is no UTF-8 or
    /// longer than [`MAX_LINE`].
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 2;
        if self.0.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        if text.len() > MAX_LINE {
            return Err(invalid("a line is longer than 1 MiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| invalid("a line is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_lf_crlf_or_the_stream() {
        let mut lines = Lines::new(&b"one\r\n\ntwo"[..]);
        let mut next = || lines.next_line().unwrap();
        assert_eq!((next().as_deref(), next().as_deref()), (Some("one"), Some("")));
        assert_eq!((next().as_deref(), next()), (Some("two"), None));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let long = vec![b'x'; MAX_LINE + 1];
        for bad in [&b"\xff\n"[..], &long] {
            assert_eq!(Lines::new(bad).next_line().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let exact = vec![b'x'; MAX_LINE];
        assert_eq!(Lines::new(&exact[..]).next_line().unwrap().unwrap().len(), MAX_LINE);
    }
}

//! E-mails to send.

/// One e-mail with its envelope.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// What follows the path in MAIL, with a space in front.
    pub parameters: String,
    /// Whole fields, each with its CRLF.
    pub head: String,
    pub body: Vec<u8>,
}

impl Mail {
    /// To one recipient, with this subject, without a key.
    pub fn plain(subject: &str) -> Self {
        Self {
            from: "app@a.test".to_owned(),
            to: vec!["ann@b.test".to_owned()],
            parameters: String::new(),
            head: format!("From: app@a.test\r\nTo: ann@b.test\r\nSubject: {subject}\r\n"),
            body: b"Hello, Ann.\r\n".to_vec(),
        }
    }

    /// The same with a key in `X-Idempotency-Key`.
    pub fn keyed(key: &str) -> Self {
        Self::plain("hello").header("X-Idempotency-Key", key)
    }

    /// With one more field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// To these recipients.
    pub fn to(mut self, to: &[&str]) -> Self {
        self.to = to.iter().map(|&to| to.to_owned()).collect();
        self
    }

    /// From this sender.
    pub fn from(mut self, from: &str) -> Self {
        self.from = from.to_owned();
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The message.
    pub fn content(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// The message as DATA carries it, with the end of data.
    pub fn stuffed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.content().split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
        }
        if !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        out
    }
}

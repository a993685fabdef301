//! What an upstream got.

/// A message that was accepted.
#[derive(Clone, Debug)]
pub struct Got {
    /// The whole MAIL command.
    pub mail: String,
    /// The whole RCPT commands that were accepted.
    pub rcpt: Vec<String>,
    pub content: Vec<u8>,
    /// Who was logged in.
    pub user: Option<String>,
}

impl Got {
    /// The recipients' addresses.
    pub fn to(&self) -> Vec<String> {
        self.rcpt.iter().map(|line| path_of(line)).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// Whether there is such a field.
    pub fn has(&self, field: &str) -> bool {
        self.value(field).is_some()
    }

    /// The value of a field, still folded.
    pub fn value(&self, field: &str) -> Option<String> {
        let text = self.text();
        let head = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ").replace("\r\n\t", " ");
        let find = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(field).then(|| value.trim().to_owned())
        };
        head.split("\r\n").find_map(find)
    }
}

/// The address in a MAIL or RCPT command.
pub fn path_of(line: &str) -> String {
    let start = line.find('<').map_or(0, |at| at + 1);
    let end = line.rfind('>').unwrap_or(line.len());
    line[start..end].to_owned()
}

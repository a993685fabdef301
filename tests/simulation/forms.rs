//! The forms that a reply of the upstream takes on the wire, and how much of
//! one decides. The first three octets do, whatever is wrong with the rest.

use super::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// One line of more than 2,048 octets.
    LongLine,
    /// More than 100 lines.
    ManyLines,
    /// More than 4 KiB in lines of fair length.
    Large,
    /// A tab behind the code.
    Tab,
    /// A letter behind the code.
    Letter,
    /// Code and blank.
    NoText,
    /// Nothing but the code.
    BareCode,
    Nul,
    BareCr,
    /// Two codes of one class.
    OneClass,
    /// A 5yz before the 4yz.
    FourAndFive,
    /// LF in place of CRLF.
    BareLf,
    /// A line of another class behind a 2yz: no reply at all.
    Contradiction,
    /// The connection ends behind the first of several lines.
    EndsBehindLine,
    /// The connection ends in a line, behind the code.
    EndsInLine,
    /// The connection ends in the code: no reply at all.
    EndsInCode,
}

/// What every client of SMTP can live with, however odd.
const HARMLESS: [Form; 10] = [
    Form::LongLine,
    Form::ManyLines,
    Form::Large,
    Form::Tab,
    Form::Letter,
    Form::NoText,
    Form::BareCode,
    Form::Nul,
    Form::BareCr,
    Form::OneClass,
];

const HARMFUL: [Form; 6] = [
    Form::FourAndFive,
    Form::BareLf,
    Form::Contradiction,
    Form::EndsBehindLine,
    Form::EndsInLine,
    Form::EndsInCode,
];

impl Form {
    /// An odd form that this code can have.
    pub fn odd(code: u16, calm: bool, random: &mut Random) -> Self {
        let harmless = calm || random.chance(600);
        let form = if harmless { random.pick(&HARMLESS) } else { random.pick(&HARMFUL) };
        match (form, code / 100) {
            (Form::FourAndFive, 2 | 3 | 5) | (Form::Contradiction, 3..) | (Form::OneClass, 3) => Form::Tab,
            _ => form,
        }
    }

    /// Whether the connection ends with it.
    pub fn ends(self) -> bool {
        matches!(self, Form::EndsBehindLine | Form::EndsInLine | Form::EndsInCode)
    }

    /// The reply on the wire. Several lines of `text` are several lines.
    pub fn write(self, code: u16, text: &str) -> Vec<u8> {
        let mut lines: Vec<(u16, String)> = text.split('\n').map(|line| (code, line.to_owned())).collect();
        let mut more = |count, size| {
            let line = (code, "x".repeat(size));
            lines.splice(1..1, std::iter::repeat_n(line, count));
        };
        match self {
            Form::LongLine => lines[0].1.push_str(&"x".repeat(3000)),
            Form::ManyLines => more(120, 5),
            Form::Large => more(50, 100),
            Form::EndsBehindLine => more(1, 5),
            Form::Nul => lines[0].1.push_str(" \0 nul"),
            Form::BareCr => lines[0].1.push_str(" \r cr"),
            Form::NoText | Form::BareCode => lines = vec![(code, String::new())],
            Form::OneClass => lines.push((code / 100 * 100 + 53, "more".to_owned())),
            Form::FourAndFive => lines.insert(0, (550, "5.3.0 or so".to_owned())),
            Form::Contradiction => lines.push((550, "5.3.0 or not".to_owned())),
            _ => {}
        }
        self.cut(self.join(&lines))
    }

    fn join(self, lines: &[(u16, String)]) -> Vec<u8> {
        let (last, end) = (lines.len() - 1, if self == Form::BareLf { "\n" } else { "\r\n" });
        let mut out = String::new();
        for (at, (code, text)) in lines.iter().enumerate() {
            let separator = match self {
                _ if at < last => "-",
                Form::BareCode => "",
                Form::Tab => "\t",
                Form::Letter => "x",
                _ => " ",
            };
            out.push_str(&format!("{code}{separator}{text}{end}"));
        }
        out.into_bytes()
    }

    fn cut(self, mut bytes: Vec<u8>) -> Vec<u8> {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        match self {
            Form::EndsBehindLine => bytes.truncate(line),
            Form::EndsInLine => bytes.truncate(line.min(7)),
            Form::EndsInCode => bytes.truncate(2),
            _ => {}
        }
        bytes
    }
}

/// The code that these octets of a reply tell, if they tell one.
pub fn code_of(bytes: &[u8]) -> Option<u16> {
    let code = |line: &[u8]| std::str::from_utf8(line.get(..3)?).ok()?.parse::<u16>().ok();
    let codes: Vec<u16> = bytes.split(|byte| *byte == b'\n').filter_map(code).collect();
    let first = *codes.first()?;
    let of = |class: u16| codes.iter().copied().find(|code| code / 100 == class);
    match (of(2), of(4), of(5)) {
        (Some(_), None, None) | (None, None, Some(_)) | (None, None, None) => Some(first),
        (None, Some(four), _) => Some(four),
        (Some(_), ..) => None,
    }
}

#[test]
fn the_code_of_each_form_is_the_one_that_was_written() {
    let mut random = Random::new(1);
    for code in [220, 250, 354, 450, 554] {
        for _ in 0..1000 {
            let form = Form::odd(code, false, &mut random);
            let expected = (!matches!(form, Form::Contradiction | Form::EndsInCode)).then_some(code);
            assert_eq!(code_of(&form.write(code, "2.0.0 said #7")), expected, "{form:?}");
        }
    }
}

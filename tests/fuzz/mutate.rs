//! Changes to inputs without a look at coverage; the same ones each time.

/// Small numbers and octets at which parsers change their mind.
const OCTETS: &[u8] = b"\0\r\n\t .:;,<>\"\\=?@-0129aAzZ(){}[]%+*/\x7f\x80\xc3\xff";

/// Changes inputs (SplitMix64).
pub(crate) struct Mutator {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Mutator {
    /// One that also puts in these words.
    pub(crate) fn new(seed: u64, words: Vec<Vec<u8>>) -> Self {
        Self { state: seed, words }
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most.max(1) as u64) as usize
    }

    /// The input with one to eight changes; `other` is where pieces come from.
    pub(crate) fn changed(&mut self, input: &[u8], other: &[u8], longest: usize) -> Vec<u8> {
        let mut data = input.to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut data, other);
        }
        data.truncate(longest);
        data
    }

    fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(data.len() + 1);
        let end = (at + 1 + self.below(20)).min(data.len());
        match self.below(7) {
            0 => drop(data.drain(at..end)),
            1 => data.insert(at, OCTETS[self.below(OCTETS.len())]),
            2 if at < data.len() => data[at] = OCTETS[self.below(OCTETS.len())],
            3 if at < data.len() => data[at] ^= 1 << self.below(8),
            4 => {
                let piece = data[at..end].repeat(1 + self.below(3));
                data.splice(at..at, piece);
            }
            5 => {
                let from = self.below(other.len() + 1);
                let to = (from + self.below(60)).min(other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            _ if !self.words.is_empty() => {
                let word = self.below(self.words.len());
                data.splice(at..at, self.words[word].clone());
            }
            _ => {}
        }
    }
}

/// The words of a dictionary: lines of `"word"`, octets as `\xHH`.
pub(crate) fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let quoted = |line: &str| Some(line.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned());
    dictionary.lines().filter_map(quoted).map(|word| unescaped(&word)).collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some((before, behind)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&behind[..2], 16).expect("two hexadecimal digits"));
        rest = &behind[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

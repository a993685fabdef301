//! Message data, in and out, against a reader written apart.

use mailonce::smtp::client::END_OF_DATA;
use mailonce::smtp::data::{Decoder, Framing};
use mailonce::smtp::stuff::Stuffer;

use super::choice;
use super::wire::{Received, no_bare_newlines, one_message, splits, strict_chunks, strict_data};

pub(super) fn run(data: &[u8]) {
    let (seed, wire) = choice(data);
    // So that there is an end, unless there is one already.
    let ended = [wire, b"\r\n.\r\n"].concat();
    let expected = strict_data(&ended).expect("the data never end");
    for pieces in splits(&ended, seed) {
        assert_eq!(decoded(Framing::Dots, &pieces), expected);
    }
    leaves(&expected.content, seed);

    let expected = strict_chunks(wire);
    for pieces in splits(wire, seed) {
        assert_eq!(decoded(Framing::Chunks, &pieces), expected);
    }
    leaves(&expected.content, seed);
}

fn decoded(framing: Framing, pieces: &[&[u8]]) -> Received {
    let mut decoder = Decoder::new(framing);
    let mut received = Received::default();
    let mut done = false;
    for piece in pieces {
        let (used, ended) = decoder.push(piece, &mut received.content);
        assert!(used == piece.len() || ended, "octets are left and it is not the end");
        received.used += used;
        if ended {
            done = true;
            break;
        }
    }
    assert_eq!(done, framing == Framing::Dots);
    if framing == Framing::Chunks {
        decoder.finish(&mut received.content);
    }
    let found = decoder.findings();
    Received { bare_newline: found.bare_newline, nul: found.nul, eight_bit: found.eight_bit, ..received }
}

/// What was received goes out again: any receiver reads this one message.
fn leaves(content: &[u8], seed: u8) {
    no_bare_newlines(content);
    assert!(content.is_empty() || content.ends_with(b"\r\n"));
    let whole = stuffed(&[content]);
    for pieces in splits(content, seed) {
        assert_eq!(stuffed(&pieces), whole);
    }
    one_message(&whole, content);
    let again = decoded(Framing::Dots, &[&whole]);
    assert!(!again.bare_newline && again.content == content && again.used == whole.len());
}

fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
    let mut stuffer = Stuffer::new();
    let mut out = Vec::new();
    for piece in pieces {
        stuffer.push(piece, &mut out);
    }
    out.extend_from_slice(END_OF_DATA);
    out
}

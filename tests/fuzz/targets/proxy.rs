//! The PROXY header: judged alike in however many pieces it comes, and never
//! longer than its bounds.

use mailonce::net::proxy_protocol::{LONGEST_V1, LONGEST_V2_BLOCK, Origin, Parsed, parse};

/// What version 2 has in front of its block.
const V2_FIXED: usize = 16;

pub(super) fn run(data: &[u8]) {
    let whole = parse(data);
    if let Ok(Parsed::Whole { length, origin }) = &whole {
        assert!(*length <= data.len());
        assert!(*length <= LONGEST_V1.max(V2_FIXED + LONGEST_V2_BLOCK));
        let is_v1 = data.starts_with(b"PROXY ");
        assert!(!is_v1 || *length <= LONGEST_V1 && data[..*length].ends_with(b"\r\n"));
        if let Origin::Client(ends) = origin {
            assert_eq!(ends.client.ip(), ends.client.ip().to_canonical());
            assert_eq!(ends.local.ip(), ends.local.ip().to_canonical());
        }
    }
    // What comes later changes nothing that was decided already.
    for cut in 0..data.len().min(V2_FIXED + 60) {
        match parse(&data[..cut]) {
            Ok(Parsed::Partial) => {}
            decided => assert_eq!(decided, whole, "at {cut}"),
        }
    }
}

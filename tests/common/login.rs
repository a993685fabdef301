//! AUTH as the scripted upstream hears it.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Mechanism, user, and password or token of an AUTH line; `ask` sends a
/// challenge and gives the response.
pub fn of(
    line: &str,
    ask: &mut impl FnMut(&str) -> io::Result<String>,
) -> io::Result<(String, String, String)> {
    let mut words = line.split(' ').skip(1);
    let (mechanism, initial) = (words.next().unwrap_or_default(), words.next().map(str::to_owned));
    let (name, secret) = match mechanism {
        "LOGIN" => (decoded(&ask("VXNlcm5hbWU6")?), decoded(&ask("UGFzc3dvcmQ6")?)),
        "PLAIN" => {
            let message = decoded(&initial.map_or_else(|| ask(""), Ok)?);
            let mut parts = message.split('\0').skip(1).map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        }
        _ => {
            let message = decoded(&initial.map_or_else(|| ask(""), Ok)?);
            let field = |start: &str| {
                message
                    .split('\x01')
                    .find_map(|field| field.strip_prefix(start))
                    .unwrap_or_default()
                    .to_owned()
            };
            (field("user="), field("auth=Bearer "))
        }
    };
    Ok((mechanism.to_owned(), name, secret))
}

fn decoded(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).expect("not base64")).expect("not UTF-8")
}

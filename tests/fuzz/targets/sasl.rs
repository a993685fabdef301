//! AUTH: what comes of an exchange is what was said, and shows no secret.

use mailonce::smtp::sasl::{Credentials, Exchange, Mechanism, Progress};

use super::choice;

/// The first octet chooses the mechanism, and whether the first line is the
/// initial response.
pub(super) fn run(data: &[u8]) {
    let (settings, wire) = choice(data);
    let mechanism = Mechanism::ALL[usize::from(settings % 4)];
    let mut lines = wire.split(|&byte| byte == b'\n');
    let initial = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let mut progress =
        Exchange::start(mechanism, initial.filter(|text| settings & 4 == 0 && !text.is_empty()));
    let mut challenges = 0;
    loop {
        match progress {
            Progress::Challenge(text, exchange) => {
                challenges += 1;
                assert!(challenges <= 2 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                let Some(line) = lines.next() else { return };
                progress = exchange.respond(line);
            }
            Progress::Complete(credentials) => return complete(mechanism, &credentials),
            Progress::Malformed(what) => {
                assert!(what.reply().code() / 100 == 5);
                return;
            }
            Progress::Cancelled => return,
        }
    }
}

fn complete(mechanism: Mechanism, credentials: &Credentials) {
    let Credentials { username, authzid, secret, .. } = credentials;
    assert_eq!(credentials.mechanism, mechanism);
    for name in [username, authzid] {
        assert!(name.len() <= 255 && !name.contains(char::is_control));
    }
    assert!(!username.is_empty() && !secret.reveal().is_empty());
    assert!(authzid.is_empty() || mechanism == Mechanism::Plain);
    let is_token = matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
    assert!(is_token || !secret.reveal().contains('\0'));
    assert!(!is_token || secret.reveal().ends_with("\x01\x01"));
    let shown = format!("{credentials:?}");
    let names = format!("{username}{authzid}Credentials mechanism username authzid secret");
    assert!(names.contains(secret.reveal()) || secret.reveal().len() < 4 || !shown.contains(secret.reveal()));
}

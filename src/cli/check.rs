//! `mailonce check`: is the configuration one to serve?

use std::io::Write;

use super::{CliFault, ConfigArgs, runtime};
use crate::admin;
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::config::values::format_duration;
use crate::config::{Auth, Config, Mode, Store, Strategy, TlsManner, TlsStart};
use crate::server::Files;
use crate::smtp::client::Capabilities;
use crate::upstream::{Probed, Upstream};

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  mailonce check --config /etc/mailonce.toml && systemctl reload mailonce")]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Loads the configuration and prints what it found.
pub fn run(args: CheckArgs) -> Result<(), CliFault> {
    let config = args.config.load()?;
    let files = Files::read(&config, SystemClock.now())?;
    let mut out = Vec::new();
    writeln!(out, "{}: valid", args.config.config.display())?;
    describe(&config, &mut out)?;
    let token = config.admin.as_ref().and_then(admin::exposed_token);
    for warning in config.warnings().iter().chain(files.warnings()).chain(&token) {
        writeln!(out, "warning: {warning}")?;
    }
    super::print(&out)?;
    let upstream = Upstream::new(config.upstream.clone(), files.into_access(), config.hostname);
    match runtime()?.block_on(upstream.probe()) {
        Ok(found) => super::print(format!("{}\n", answered(&found, &config.upstream)).as_bytes()),
        Err(fault) => Err(CliFault::Failed(format!("the upstream does not answer: {fault}"))),
    }
}

fn describe(config: &Config, out: &mut impl Write) -> std::io::Result<()> {
    let line = |name: &str, text: String| format!("  {name:<10} {text}");
    writeln!(out, "{}", line("hostname", config.hostname.clone()))?;
    for listener in &config.listeners {
        let mut from: Vec<_> = listener.allow_from.iter().map(ToString::to_string).collect();
        if listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            from.push("whoever has a certificate".to_owned());
        }
        match listener.auth {
            Auth::Off => {}
            Auth::Local { .. } => from.push("users with a password".to_owned()),
            Auth::Passthrough { .. } => from.push("whoever the upstream knows".to_owned()),
        }
        let tls = match listener.tls.as_ref().map(|tls| tls.start) {
            None => "",
            Some(TlsStart::Offered) => ", offers TLS",
            Some(TlsStart::Required) => ", wants TLS",
            Some(TlsStart::Implicit) => ", begins with TLS",
        };
        let text = format!("{} ({}){tls}, relays for {}", listener.address, listener.name, from.join(", "));
        writeln!(out, "{}", line("listener", text))?;
    }
    let mut text = config.upstream.addresses.join(", then ");
    if let Some(tls) = &config.upstream.tls {
        text += match tls.manner {
            TlsManner::Opportunistic => "; STARTTLS where offered, unverified",
            TlsManner::StartTls => "; STARTTLS required, verified",
            TlsManner::Implicit => "; implicit TLS, verified",
        };
    }
    writeln!(out, "{}", line("upstream", text))?;
    let store = match &config.store {
        Store::Memory => "memory: nothing survives the process".to_owned(),
        Store::Sled { path, .. } => format!("sled in {}", path.display()),
    };
    writeln!(out, "{}", line("store", store))?;
    let dedup = &config.dedup;
    let chain: Vec<_> = dedup.chain.iter().map(|strategy| strategy.as_str()).collect();
    let mut text = match dedup.mode {
        Mode::Off => "off".to_owned(),
        Mode::Enforce | Mode::Observe => {
            format!("{}, remembered for {}", chain.join(", "), format_duration(dedup.window))
        }
    };
    if dedup.mode != Mode::Off && dedup.chain.contains(&Strategy::Content) {
        text += &format!(" (content {})", format_duration(dedup.content_window));
    }
    if dedup.mode == Mode::Observe {
        text += "; only observed, everything is relayed";
    }
    writeln!(out, "{}", line("dedup", text))?;
    for rule in &config.rules {
        writeln!(out, "{}", line("rule", rule.name.clone()))?;
    }
    Ok(())
}

/// What the upstream offers, how it was secured, and who we are to it.
fn answered(found: &Probed, settings: &config::Upstream) -> String {
    let mut text = format!("{}: answers, {}", found.address, said(&found.capabilities));
    if let Some(tls) = &settings.tls {
        let verified = if tls.manner.verifies() { "verified" } else { "not verified" };
        text += &match found.tls {
            Some(version) => format!("; {version}, certificate {verified}"),
            None => "; in clear".to_owned(),
        };
    }
    if let Some(account) = &settings.credentials {
        text += &format!("; authenticated as {:?}", account.username);
    }
    text
}

/// The extensions that matter to us, as EHLO names them.
fn said(offered: &Capabilities) -> String {
    let keywords: Vec<&str> = [
        (offered.pipelining, "PIPELINING"),
        (offered.eight_bit_mime, "8BITMIME"),
        (offered.smtputf8, "SMTPUTF8"),
        (offered.dsn, "DSN"),
    ]
    .into_iter()
    .filter_map(|(offered, keyword)| offered.then_some(keyword))
    .collect();
    if keywords.is_empty() { "without extensions".to_owned() } else { keywords.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_upstream_is_reached_is_said() {
        let text = "[upstream]\naddress = \"localhost:25\"\ntls = \"opportunistic\"\nusername = \"me\"\n\
                    password = \"hunter2\"";
        let config = Config::parse(text, "m.toml", std::iter::empty()).unwrap();
        let mut found = Probed {
            address: "localhost:25".to_owned(),
            capabilities: Capabilities { pipelining: true, ..Capabilities::default() },
            tls: Some("TLS 1.3"),
        };
        assert_eq!(
            answered(&found, &config.upstream),
            "localhost:25: answers, PIPELINING; TLS 1.3, certificate not verified; authenticated as \"me\""
        );
        found.tls = None;
        assert_eq!(
            answered(&found, &config.upstream),
            "localhost:25: answers, PIPELINING; in clear; authenticated as \"me\""
        );
        let plain = config::Upstream { tls: None, credentials: None, ..config.upstream };
        assert_eq!(answered(&found, &plain), "localhost:25: answers, PIPELINING");
    }

    #[test]
    fn what_was_found_is_said_briefly() {
        let text = "hostname = \"relay.example.com\"\n[upstream]\naddress = [\"a:25\", \"b:25\"]\n";
        let config = Config::parse(text, "m.toml", std::iter::empty()).unwrap();
        let mut out = Vec::new();
        describe(&config, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  hostname   relay.example.com\n  \
               listener   127.0.0.1:2525 (submission), relays for 127.0.0.0/8, ::1/128\n  \
               upstream   a:25, then b:25; STARTTLS required, verified\n  \
               store      sled in data\n  \
               dedup      header, event, content, remembered for 7d (content 15m)\n"
        );
        for (auth, who) in [("local", "users with a password"), ("passthrough", "whoever the upstream knows")]
        {
            let listener = format!("[[listener]]\nauth = \"{auth}\"\nallow_from = []");
            let config = Config::parse(&format!("{text}{listener}"), "m.toml", std::iter::empty()).unwrap();
            let mut out = Vec::new();
            describe(&config, &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains(&format!("(submission), relays for {who}\n")), "{out}");
        }
    }
}

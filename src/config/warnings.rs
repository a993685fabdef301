//! What can be served as it stands, but is hardly what was meant.

use std::time::Duration;

use super::values::{covers_the_world, format_duration};
use super::{Auth, Config, Dedup, Glob, Listener, Mode, Rule, Scope, Strategy};

/// Retries of common job queues are over after this long (Celery's default,
/// three of them three minutes apart, is the shortest): a window below it lets
/// their last try through as a new e-mail.
const RETRIES: Duration = Duration::from_secs(10 * 60);

impl Config {
    /// One line for each thing to think over: listeners that others reach in
    /// clear, or that let everybody relay, rules that can never match, and
    /// windows shorter than usual retries take.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = no_settings(&self.passed_over).into_iter().collect();
        warnings.extend(self.listeners.iter().filter_map(in_clear));
        warnings.extend(self.listeners.iter().filter_map(open_behind_a_balancer));
        warnings.extend(short_windows("dedup", &self.dedup));
        warnings.extend(broad_scope("dedup", &self.dedup));
        for (index, rule) in self.rules.iter().enumerate() {
            let what = format!("rule {:?}", rule.name);
            match self.never(rule, &self.rules[..index]) {
                Some(why) => warnings.push(format!("{what} can never match: {why}")),
                None => {
                    let own = |kind: fn(&str, &Dedup) -> Vec<String>| {
                        // What [dedup] has already been told is not told again.
                        if kind("", &rule.dedup) == kind("", &self.dedup) {
                            Vec::new()
                        } else {
                            kind(&what, &rule.dedup)
                        }
                    };
                    warnings.extend(own(short_windows).into_iter().chain(own(broad_scope)));
                }
            }
        }
        warnings
    }

    /// Why nothing can match a rule.
    fn never(&self, rule: &Rule, earlier: &[Rule]) -> Option<String> {
        if let Some(other) = earlier.iter().find(|other| other.matches.covers(&rule.matches)) {
            return Some(format!("rule {:?} before it matches all that this one does", other.name));
        }
        let named = |globs: &[Glob]| {
            globs.is_empty() || self.listeners.iter().any(|l| globs.iter().any(|glob| glob.matches(&l.name)))
        };
        if !named(&rule.matches.listener) {
            return Some("no listener has such a name".to_owned());
        }
        // Without a field, a user or a certificate, the tenant is the listener's name.
        let by_certificate =
            |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let by_name = |listener: &Listener| listener.auth != Auth::Off || by_certificate(listener);
        let only_names =
            self.listeners.iter().all(|listener| listener.tenant_header.is_none() && !by_name(listener));
        if only_names && !named(&rule.matches.tenant) {
            return Some(
                "no listener has such a name, nor a tenant_header to name another tenant".to_owned(),
            );
        }
        None
    }
}

fn no_settings(variables: &[String]) -> Option<String> {
    (!variables.is_empty()).then(|| {
        format!(
            "the environment has variables that are no settings and are passed over: {}; a setting in a table has \
             two underscores, such as MAILONCE_STORE__PATH",
            variables.join(", ")
        )
    })
}

fn in_clear(listener: &Listener) -> Option<String> {
    let Listener { name, address, tls, auth, .. } = listener;
    (tls.is_none() && !address.ip().is_loopback()).then(|| {
        let also = if *auth == Auth::Off { "" } else { ", and AUTH is offered to nobody but clients on this machine" };
        format!(
            "listener {name:?}: {address} is not loopback, and there is no TLS: mail can be read and changed on \
             its way here{also}; name a certificate and its private_key"
        )
    })
}

/// That a listener is loopback says nothing of who comes through a balancer.
fn open_behind_a_balancer(listener: &Listener) -> Option<String> {
    let Listener { name, address, proxy_from, allow_from, .. } = listener;
    let is_open = address.ip().is_loopback() && !proxy_from.is_empty() && covers_the_world(allow_from);
    is_open.then(|| {
        format!(
            "listener {name:?}: whoever reaches a balancer in proxy_from may relay, since allow_from lets the whole \
             world in; list only those that may, unless the balancer itself serves nobody else"
        )
    })
}

fn short_windows(what: &str, dedup: &Dedup) -> Vec<String> {
    if dedup.mode == Mode::Off {
        return Vec::new();
    }
    let by_content = |strategy: &Strategy| *strategy == Strategy::Content;
    let windows = [
        ("window", dedup.window, !dedup.chain.iter().all(by_content)),
        ("content_window", dedup.content_window, dedup.chain.iter().any(by_content)),
    ];
    let mut short: Vec<_> = windows.into_iter().filter(|(_, span, used)| *used && *span < RETRIES).collect();
    // A rule has one window for all strategies.
    short.dedup_by_key(|(_, span, _)| *span);
    let told = short.into_iter().map(|(key, span, _)| {
        format!(
            "{what}: {key} = {} is shorter than the retries of most job queues take ({} and more): a late retry would be sent again",
            format_duration(span),
            format_duration(RETRIES)
        )
    });
    told.collect()
}

fn broad_scope(what: &str, dedup: &Dedup) -> Vec<String> {
    let swallows =
        dedup.scope == Scope::Message && dedup.mode != Mode::Off && dedup.chain.contains(&Strategy::Content);
    let told = swallows.then(|| {
        format!(
            "{what}: scope = \"message\" with content in the chain: a text that is sent to each reader in a \
             transaction of its own reaches only the first"
        )
    });
    told.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        let text = format!("[upstream]\naddress = \"a:25\"\n{text}");
        Config::parse(&text, "m.toml", std::iter::empty()).unwrap().warnings()
    }

    #[test]
    fn the_defaults_are_nothing_to_warn_of() {
        assert_eq!(warnings(""), [""; 0]);
        assert_eq!(
            warnings("[[rule]]\nname = \"a\"\nmatch = { key = \"otp:*\" }\nwindow = \"10m\""),
            [""; 0]
        );
    }

    #[test]
    fn variables_that_are_no_settings_are_told_in_one_line() {
        let env = |names: &[&str]| {
            let env = names.iter().map(|name| ((*name).to_owned(), "tcp://10.0.0.1:25".to_owned()));
            Config::parse("[upstream]\naddress = \"a:25\"\n", "m.toml", env.collect::<Vec<_>>().into_iter())
        };
        let told = env(&[
            "MAILONCE_PORT_25_TCP",
            "MAILONCE_SERVICE_HOST",
            "MAILONCE_STORE",
            "MAILONCE_STORE_PORT",
            "MAILONCE_COLOUR",
            "MAILONCE_",
            "PATH",
            "MAILONCER",
            "MAILONCE_CRASH_AT",
        ]);
        let told = told.unwrap().warnings();
        let names = "MAILONCE_, MAILONCE_COLOUR, MAILONCE_PORT_25_TCP, MAILONCE_SERVICE_HOST, MAILONCE_STORE, MAILONCE_STORE_PORT;";
        assert!(told.len() == 1 && told[0].contains(names), "{told:?}");
        assert!(env(&["MAILONCE_STORE__PORT"]).is_err(), "two underscores make it a setting");
        assert!(env(&["MAILONCE_DRAIN"]).is_err(), "so does the name of a value at the top");
    }

    #[test]
    fn what_others_reach_in_clear_is_told() {
        let listener = |lines: &str| warnings(&format!("[[listener]]\nname = \"in\"\n{lines}"));
        let told = listener("address = \"192.0.2.1:25\"");
        let want = "listener \"in\": 192.0.2.1:25 is not loopback, and there is no TLS: ";
        assert!(told.len() == 1 && told[0].starts_with(want), "{told:?}");
        assert!(!told[0].contains("AUTH"));
        let told = listener("address = \"0.0.0.0:25\"\ntls = \"off\"\nauth = \"local\"");
        assert!(
            told.len() == 1 && told[0].contains("AUTH is offered to nobody but clients on this machine"),
            "{told:?}"
        );
        assert_eq!(listener("address = \"0.0.0.0:25\"\ntls = \"off\"\ncertificate = \"c\"").len(), 1);
        assert_eq!(listener("address = \"[::1]:25\""), [""; 0]);
        let tls = "address = \"192.0.2.1:25\"\ncertificate = \"c\"\nprivate_key = \"k\"";
        assert_eq!(listener(tls), [""; 0]);
    }

    #[test]
    fn a_listener_that_a_balancer_opens_to_the_world_is_told() {
        let listener = |allow_from: &str| {
            let lines = "[[listener]]\nname = \"in\"\nproxy_protocol = true\nproxy_from = [\"127.0.0.1\"]\n";
            warnings(&format!("{lines}allow_from = [{allow_from}]"))
        };
        let told = listener("\"0.0.0.0/1\", \"128.0.0.0/1\"");
        let want = "listener \"in\": whoever reaches a balancer in proxy_from may relay";
        assert!(told.len() == 1 && told[0].starts_with(want), "{told:?}");
        assert_eq!(listener("\"192.0.2.0/24\""), [""; 0]);
    }

    #[test]
    fn rules_that_can_never_match_are_told() {
        let rule =
            |name: &str, matches: &str| format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {matches} }}\n");
        let two = |one: &str, other: &str| warnings(&(rule("a", one) + &rule("b", other)));
        let covered = "rule \"b\" can never match: rule \"a\" before it matches all that this one does";
        assert_eq!(two("", "key = \"x\""), [covered]);
        assert_eq!(two("key = \"x*\"", "key = \"x:1\", sender = \"a@b\""), [covered]);
        assert_eq!(two("key = \"x:1\"", "key = \"x*\""), [""; 0]);
        assert_eq!(
            warnings(&rule("a", "listener = \"nowhere\"")),
            ["rule \"a\" can never match: no listener has such a name"]
        );
        assert_eq!(
            warnings(&rule("a", "tenant = \"shop\"")),
            [
                "rule \"a\" can never match: no listener has such a name, nor a tenant_header to name another tenant"
            ]
        );
        assert_eq!(
            warnings(&format!("[[listener]]\ntenant_header = \"X-T\"\n{}", rule("a", "tenant = \"s\""))),
            [""; 0]
        );
        let by_certificate =
            "[[listener]]\ntls = \"implicit\"\ncertificate = \"c\"\nprivate_key = \"k\"\nclient_ca = \"a\"\n";
        assert_eq!(warnings(&format!("{by_certificate}{}", rule("a", "tenant = \"s\""))), [""; 0]);
        // Users are tenants, and only the upstream or a file knows them.
        let by_auth = "[[listener]]\nauth = \"local\"\n";
        assert_eq!(warnings(&format!("{by_auth}{}", rule("a", "tenant = \"s\""))), [""; 0]);
    }

    #[test]
    fn one_claim_for_all_who_read_the_same_text_is_told() {
        let told = warnings("[dedup]\nscope = \"message\"\n[[rule]]\nname = \"a\"\nmatch = { key = \"x\" }");
        assert!(
            told.len() == 1 && told[0].starts_with("dedup: scope = \"message\" with content"),
            "{told:?}"
        );
        assert_eq!(warnings("[dedup]\nscope = \"message\"\nchain = [\"header\"]"), [""; 0]);
    }

    #[test]
    fn windows_shorter_than_retries_are_told() {
        let told = warnings("[dedup]\nwindow = \"5m\"");
        assert!(told.len() == 1 && told[0].starts_with("dedup: window = 5m is shorter"), "{told:?}");
        let told = warnings("[[rule]]\nname = \"a\"\nmatch = { key = \"x\" }\nwindow = \"90s\"");
        assert!(told.len() == 1 && told[0].starts_with("rule \"a\": window = 90s"), "{told:?}");
        assert_eq!(warnings("[dedup]\nwindow = \"5m\"\nmode = \"off\""), [""; 0]);
    }
}

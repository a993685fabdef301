//! `[[rule]]` and what goes with it.

use super::*;

fn rules(text: &str) -> Vec<Rule> {
    parse(&format!("{UPSTREAM}{text}")).unwrap().rules
}

#[test]
fn a_rule_sets_what_it_names_and_takes_the_rest_from_dedup() {
    let config = parse(
        "[upstream]\naddress = \"a:25\"\n[dedup]\nwindow = \"3d\"\nin_flight_wait = \"5s\"\non_duplicate = \"reject\"\n\
         [[rule]]\nname = \"one-time codes\"\nmatch = { header = { \"X-Template-Id\" = \"otp*\" } }\nwindow = \"30m\"\n\
         in_doubt = \"resend\"\nmode = \"observe\"\nfingerprint_exclude = ['\\d\\d:\\d\\d']\n[[rule]]\nname = \"rest\"\n",
    )
    .unwrap();
    let [codes, rest] = &config.rules[..] else { panic!("{:?}", config.rules) };
    let minutes = Duration::from_secs(30 * 60);
    assert_eq!((codes.dedup.window, codes.dedup.content_window), (minutes, minutes), "for whatever strategy");
    assert_eq!((codes.dedup.in_doubt, codes.dedup.mode), (InDoubt::Resend, Mode::Observe));
    assert_eq!(
        (codes.dedup.on_duplicate, codes.dedup.in_flight_wait),
        (OnDuplicate::Reject, Duration::from_secs(5))
    );
    assert_ne!(codes.dedup.fingerprint_exclude, config.dedup.fingerprint_exclude);
    assert_eq!((rest.dedup.clone(), rest.matches.clone()), (config.dedup, Match::default()));
}

#[test]
fn a_rule_sets_how_long_the_unheard_are_remembered() {
    let text = "[dedup]\nunheard_window = \"2d\"\n[[rule]]\nname = \"a\"\nmatch = { key = \"a\" }\n\
                unheard_window = \"36h\"\n[[rule]]\nname = \"b\"\nwindow = \"1h\"\n";
    let hours = |rule: &Rule| rule.dedup.unheard_window.as_secs() / 3600;
    assert_eq!(rules(text).iter().map(hours).collect::<Vec<_>>(), [36, 48]);
}

#[test]
fn a_cap_below_the_default_of_the_unheard_is_no_fault() {
    let config = parse(
        "[upstream]\naddress = \"a:25\"\n[dedup]\nwindow = \"1h\"\nmax_window = \"2h\"\n[[rule]]\nname = \"a\"\n",
    );
    let config = config.unwrap();
    let two_hours = Duration::from_secs(7200);
    assert_eq!((config.dedup.unheard_window, config.rules[0].dedup.unheard_window), (two_hours, two_hours));
}

#[test]
fn conditions_are_globs_or_lists_of_them() {
    let rule =
        &rules("[[rule]]\nname = \"a\"\n[rule.match]\nkey = [\"a:*\", \"b\"]\nsender = \"*@x.example\"\n")[0];
    assert_eq!(rule.matches.key, [Glob::exact("a:*"), Glob::exact("b")]);
    assert_eq!(rule.matches.sender, [Glob::address("*@x.example")]);
}

#[test]
fn a_faulty_rule_names_line_and_key() {
    let cases = [
        (
            "match = { key = \"x\" }",
            "m.toml:1: rule.name: is missing; name it, such as \"one-time codes\", for the log",
        ),
        (
            "name = \"a\"\nwindow = \"soon\"",
            "m.toml:3: rule.window: \"soon\" is not a duration; write 90s, 30m, 24h or 7d",
        ),
        (
            "name = \"a\"\nwindow = \"500d\"",
            "m.toml:3: rule.window: 500d is longer than dedup.max_window, 400d",
        ),
        (
            "name = \"a\"\nunheard_window = \"500d\"",
            "m.toml:3: rule.unheard_window: 500d is longer than dedup.max_window, 400d",
        ),
        (
            "name = \"a\"\nunkeyed = \"relay\"",
            "m.toml:3: rule.unkeyed: there is no such key; known here: name, chain, scope, on_duplicate, on_conflict, on_partial, in_doubt, mode, fingerprint_exclude, unheard_window, window, match",
        ),
        (
            "name = \"a\"\nmatch = { keys = \"x\" }",
            "m.toml:3: rule.match.keys: there is no such key; did you mean rule.match.key?",
        ),
        (
            "name = \"a\"\nmatch = { key = 7 }",
            "m.toml:3: rule.match.key: 7 is not a text; write it between quotes",
        ),
        (
            "name = \"a\"\nmatch = { key = [] }",
            "m.toml:3: rule.match.key: is empty; leave the condition out to match anything",
        ),
        (
            "name = \"a\"\nmatch = { header = \"x\" }",
            "m.toml:3: rule.match.header: \"x\" is not a table; write { \"X-Template-Id\" = \"otp*\" }",
        ),
        (
            "name = \"a\"\nmatch = { key = \"x\" }\nscope = \"message\"",
            "m.toml:4: rule.scope: a rule that matches on the key can't change how the key is found; match on something else",
        ),
        (
            "name = \"a\"\n[[rule]]\nname = \"a\"",
            "m.toml:4: rule.name: \"a\" names an earlier rule too; give each a name of its own",
        ),
    ];
    for (text, fault) in cases {
        assert_eq!(faults(&format!("[[rule]]\n{text}")), fault, "{text}");
    }
    let patterns = faults("[dedup]\nfingerprint_exclude = [\n  'fine',\n  '(broken',\n]");
    assert!(patterns.starts_with("m.toml:4: dedup.fingerprint_exclude: "), "{patterns}");
    let fault =
        faults("[dedup]\nheaders = []\nchain = [\"content\"]\n[[rule]]\nname = \"a\"\nchain = [\"header\"]");
    assert_eq!(fault, "m.toml:6: rule.chain: asks for header, but dedup.headers is empty");
}

#[test]
fn event_fields_may_point_into_json() {
    let config = parse(&format!("{UPSTREAM}[dedup]\nevent_headers = [\"X-Id\", \"X-Json#/a/b\"]\n")).unwrap();
    let written: Vec<_> = config.dedup.event_headers.iter().map(ToString::to_string).collect();
    assert_eq!(written, ["X-Id", "X-Json#/a/b"]);
    for bad in ["X-Json#a", "#/a", "From", "X Id"] {
        let fault = faults(&format!("[dedup]\nevent_headers = [\"{bad}\"]"));
        assert!(fault.contains("is not a field of its own; write the name of a header field"), "{fault}");
    }
}

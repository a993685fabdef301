//! `mailonce tail`: follows the decisions of the running proxy.

use std::io::{IsTerminal, Write};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

use super::reach::proxy;
use super::{CliFault, ConfigArgs};
use crate::escape::{for_terminal, json_for_terminal, push_text};
use crate::journal::DecisionOutcome;

/// Arguments of `tail`; a decision is shown that passes all of them.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mailonce tail --tenant shop\n  mailonce tail --outcome in_doubt --json | jq .key"
)]
pub struct TailArgs {
    /// Where the configuration, and in it the admin address, is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only decisions with this outcome, as the log names it
    #[arg(long, value_name = "OUTCOME", value_parser = outcomes())]
    pub outcome: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only those for this recipient; * and ? stand for anything
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Option<String>,
    /// One JSON object a line, as in the log
    #[arg(long)]
    pub json: bool,
}

fn outcomes() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(DecisionOutcome::ALL.map(DecisionOutcome::as_str))
}

/// How a decision is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    Coloured,
}

/// Follows until the proxy ends, or whoever reads us.
pub fn run(args: &TailArgs) -> Result<(), CliFault> {
    let config = args.config.load()?;
    let client =
        proxy(&config)?.map_err(|why| CliFault::Failed(format!("{why}; tail follows a running proxy")))?;
    let mut lines = client.events(&[
        ("outcome", args.outcome.clone()),
        ("tenant", args.tenant.clone()),
        ("recipient", args.recipient.clone()),
    ])?;
    let mut out = std::io::stdout().lock();
    let form = match args.json {
        true => Form::Json,
        false if out.is_terminal() => Form::Coloured,
        false => Form::Plain,
    };
    while let Ok(Some(line)) = lines.next_line() {
        // What is no data is a sign of life, and what separates events.
        let Some(json) = line.strip_prefix("data:") else { continue };
        writeln!(out, "{}", shown(json.trim_start(), form))?;
        out.flush()?;
    }
    Err(CliFault::Failed(
        "the proxy has ended, or does not reach us any more; what it decided is in its log".to_owned(),
    ))
}

/// One decision on one line.
fn shown(json: &str, form: Form) -> String {
    match (form, serde_json::from_str::<Value>(json)) {
        (Form::Plain | Form::Coloured, Ok(decision)) => text(&decision, form),
        _ => json_for_terminal(json),
    }
}

/// Fields in the order in which they are shown behind time, outcome and
/// recipient.
const FIELDS: [&str; 12] = [
    "tenant",
    "strategy",
    "key",
    "rule",
    "claim",
    "reply",
    "upstream",
    "from",
    "client",
    "attempt",
    "first_seen",
    "total_ms",
];

fn text(decision: &Value, form: Form) -> String {
    let word = |name: &str| decision[name].as_str().unwrap_or_default();
    let outcome = word("outcome");
    let name = format!("{:<18}", for_terminal(outcome));
    let name = match form {
        Form::Coloured => format!("\x1b[{}m{name}\x1b[0m", colour(outcome)),
        Form::Json | Form::Plain => name,
    };
    let mut line = format!("{} {name} {}", for_terminal(word("timestamp")), for_terminal(word("to")));
    for field in FIELDS {
        let value = match &decision[field] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        line.push_str(&format!(" {field}="));
        push_text(&mut line, &value);
    }
    line
}

/// Green went out, blue was kept back, yellow wants a look, red failed.
fn colour(outcome: &str) -> u8 {
    match DecisionOutcome::parse(outcome) {
        Some(DecisionOutcome::Relayed | DecisionOutcome::Unkeyed) => 32,
        Some(DecisionOutcome::Duplicate) => 36,
        Some(
            DecisionOutcome::Conflict
            | DecisionOutcome::InDoubt
            | DecisionOutcome::Held
            | DecisionOutcome::InFlightTimeout
            | DecisionOutcome::Unclaimed
            | DecisionOutcome::ObservedDuplicate
            | DecisionOutcome::ObservedConflict
            | DecisionOutcome::ObservedBadKey,
        ) => 33,
        Some(
            DecisionOutcome::Deferred
            | DecisionOutcome::Refused
            | DecisionOutcome::BadKey
            | DecisionOutcome::Rejected
            | DecisionOutcome::StoreFailure
            | DecisionOutcome::Aborted,
        ) => 31,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-11-21T08:15:00.123Z","level":"info","event":"message","tenant":"shop","from":"","to":"ann\u001b[2J@b.test","outcome":"duplicate","strategy":"header","key":"order 7","reply":"250 2.0.0 ok","total_ms":3}"#;

    #[test]
    fn a_decision_is_one_harmless_line() {
        assert_eq!(
            shown(LINE, Form::Plain),
            "2026-11-21T08:15:00.123Z duplicate          ann\\u{1b}[2J@b.test tenant=shop strategy=header \
             key=\"order 7\" reply=\"250 2.0.0 ok\" from=\"\" total_ms=3"
        );
        assert!(shown(LINE, Form::Coloured).contains(" \x1b[36mduplicate         \x1b[0m "));
        assert_eq!(shown(LINE, Form::Json), LINE);
        assert_eq!(
            shown("what\u{1b}", Form::Plain),
            "what\\u001b",
            "another version's words are shown as they are"
        );
    }
}

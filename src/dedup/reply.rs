//! The one reply that a message has, of the results of its recipients.

use crate::config::OnPartial;
use crate::planted::{self, Bug};
use crate::smtp::reply::{Class, Reply};

use super::verdict::{Fate, Origin};

/// The message's one reply. Where some recipients are in doubt, it says so and
/// names them. Else the client could not know which recipients to look after.
pub(super) fn combine(fates: &[Fate], on_partial: OnPartial) -> Reply {
    let some_fresh = fates.iter().any(is_fresh);
    let weighs = |fate: &&Fate| !some_fresh || fate.result.origin != Origin::RejectedDuplicate;
    let counted: Vec<&Fate> = fates.iter().filter(weighs).collect();
    let has = |class| counted.iter().any(|fate| fate.result.reply.class() == class);
    match (has(Class::Success), has(Class::Transient), has(Class::Permanent)) {
        (false, false, false) => Reply::new(451, "4.3.0 internal error, try again"),
        (true, ..) if planted::is(Bug::PartialAccepted) => of_class(Class::Success, &counted, fates.len()),
        (true, false, false) => of_class(Class::Success, &counted, fates.len()),
        (false, true, false) => of_class(Class::Transient, &counted, fates.len()),
        (false, false, true) => of_class(Class::Permanent, &counted, fates.len()),
        (_, true, _) => partial(451, "4.5.0", &counted),
        (true, false, true) => match on_partial {
            OnPartial::Accept => of_class(Class::Success, &counted, fates.len()),
            OnPartial::Report => partial(554, "5.5.0", &counted),
        },
    }
}

fn is_fresh(fate: &Fate) -> bool {
    fate.result.origin == Origin::Fresh
}

/// The reply of the first newly sent one of this class, else of the first; with
/// a list of the doubts of that class, unless every recipient is in doubt.
fn of_class(class: Class, counted: &[&Fate], all: usize) -> Reply {
    let of_it = || counted.iter().copied().filter(move |fate| fate.result.reply.class() == class);
    let sure = || of_it().filter(|fate| !fate.result.doubt);
    let first = sure().find(|fate| is_fresh(fate)).or_else(|| sure().next()).or_else(|| of_it().next());
    let reply = first
        .map_or_else(|| Reply::new(451, "4.3.0 internal error, try again"), |fate| fate.result.reply.clone());
    let doubts: Vec<&Fate> = counted.iter().copied().filter(|fate| fate.result.doubt).collect();
    if doubts.is_empty() || all == doubts.len() || planted::is(Bug::DoubtHidden) {
        return reply;
    }
    let (code, enhanced) = match class {
        Class::Success => (250, "2.0.0"),
        Class::Transient => (451, "4.4.2"),
        Class::Intermediate | Class::Permanent => (554, "5.5.0"),
    };
    let mut text =
        format!("{enhanced} [IN-DOUBT] outcome unconfirmed for {} of {} recipients", doubts.len(), all);
    doubts.iter().for_each(|fate| name(&mut text, enhanced, fate));
    if sure().next().is_some() {
        push_line(&mut text, format!("{enhanced} the others: {reply}"));
    }
    Reply::new(code, text)
}

/// Octets of one line of a reply, code and CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

/// Names each recipient that was not accepted, or may not have been, and its
/// reply.
fn partial(code: u16, enhanced: &str, fates: &[&Fate]) -> Reply {
    let is_missing = |fate: &&&Fate| !fate.result.reply.is_success() || fate.result.doubt;
    let missing: Vec<_> = fates.iter().filter(is_missing).collect();
    let got = fates.len() - missing.len();
    let mut text = format!("{enhanced} [PARTIAL] accepted for {got} of {} recipients", fates.len());
    missing.iter().for_each(|fate| name(&mut text, enhanced, fate));
    Reply::new(code, text)
}

/// Adds a line with a recipient and its reply.
fn name(text: &mut String, enhanced: &str, fate: &Fate) {
    push_line(text, format!("{enhanced} <{}>: {}", fate.recipient, fate.result.reply));
}

fn push_line(text: &mut String, line: String) {
    text.push('\n');
    text.push_str(&bounded(line));
}

/// Cuts what quotes others to what fits on one line of a reply.
pub(super) fn bounded(mut line: String) -> String {
    line.truncate(line.floor_char_boundary(MAX_LINE - "250-\r\n".len()));
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dedup::verdict::Verdict;
    use crate::journal::DecisionOutcome;

    fn fate(index: usize, origin: Origin, code: u16, text: &str) -> Fate {
        Fate {
            index,
            recipient: format!("r{index}@x.example"),
            result: Verdict {
                outcome: DecisionOutcome::Relayed,
                reply: Reply::new(code, text),
                origin,
                doubt: false,
            },
            claim: None,
            upstream: None,
            attempt: None,
            first_seen: None,
            upstream_ms: None,
            stake: None,
        }
    }

    fn combined(fates: &[Fate]) -> String {
        combine(fates, OnPartial::Report).to_string()
    }

    use Origin::{Fresh, Known, RejectedDuplicate};

    #[test]
    fn one_class_gives_the_reply_of_the_first_newly_sent() {
        assert_eq!(combined(&[fate(0, Known, 250, "old"), fate(1, Fresh, 250, "new")]), "250 new");
        assert_eq!(combined(&[fate(0, Known, 250, "a"), fate(1, Known, 250, "b")]), "250 a");
        assert_eq!(combined(&[fate(0, Fresh, 450, "a"), fate(1, Known, 451, "b")]), "450 a");
    }

    #[test]
    fn a_deferral_among_them_makes_the_client_try_again() {
        let fates =
            [fate(0, Fresh, 250, "ok"), fate(1, Fresh, 550, "5.1.1 no"), fate(2, Fresh, 450, "4.2.0 busy")];
        assert_eq!(
            combined(&fates),
            "451 4.5.0 [PARTIAL] accepted for 1 of 3 recipients 4.5.0 <r1@x.example>: 550 5.1.1 no \
             4.5.0 <r2@x.example>: 450 4.2.0 busy"
        );
        assert!(combined(&fates[1..]).starts_with("451 4.5.0 [PARTIAL] accepted for 0 of 2"));
    }

    #[test]
    fn acceptance_and_refusal_are_reported_or_accepted() {
        let fates = [fate(0, Fresh, 550, "no"), fate(1, Known, 250, "old"), fate(2, Fresh, 250, "new")];
        assert!(combined(&fates).starts_with("554 5.5.0 [PARTIAL] accepted for 2 of 3"));
        assert_eq!(combine(&fates, OnPartial::Accept).to_string(), "250 new");
    }

    #[test]
    fn rejected_duplicates_weigh_nothing_beside_what_is_new() {
        let duplicate = fate(0, RejectedDuplicate, 554, "5.5.0 [DUPLICATE] x");
        assert_eq!(combined(&[duplicate.clone(), fate(1, Fresh, 250, "new")]), "250 new");
        assert_eq!(combined(std::slice::from_ref(&duplicate)), "554 5.5.0 [DUPLICATE] x");
        assert!(
            combined(&[duplicate, fate(1, Known, 451, "4.5.0 [IN-FLIGHT]")])
                .starts_with("451 4.5.0 [PARTIAL]")
        );
    }

    #[test]
    fn a_line_of_the_report_stays_within_its_bound() {
        let fates = [fate(0, Fresh, 250, "ok"), fate(1, Fresh, 550, &"ü".repeat(600))];
        let mut out = Vec::new();
        combine(&fates, OnPartial::Report).write_to(&mut out);
        assert!(out.split(|&b| b == b'\n').all(|line| line.len() < MAX_LINE));
    }

    proptest! {
        /// Whatever else there is to say, each recipient in doubt is told of:
        /// alone by the reply, else by its own line.
        #[test]
        fn a_doubt_never_hides(
            results in prop::collection::vec((0_usize..4, any::<bool>(), 0_usize..3), 1..6),
            accept in any::<bool>(),
        ) {
            let fate = |(index, (class, doubt, origin)): (usize, (usize, bool, usize))| {
                let text = if doubt { "x [IN-DOUBT] perhaps" } else { "x sure" };
                let mut fate = fate(index, [Fresh, Known, RejectedDuplicate][origin], [250, 450, 451, 550][class], text);
                // Only a duplicate of an accepted one weighs nothing.
                fate.result.doubt = doubt && fate.result.origin != RejectedDuplicate;
                fate
            };
            let fates: Vec<Fate> = results.into_iter().enumerate().map(fate).collect();
            let on_partial = if accept { OnPartial::Accept } else { OnPartial::Report };
            let reply = combine(&fates, on_partial);
            let text = reply.to_string();
            let doubts: Vec<&Fate> = fates.iter().filter(|fate| fate.result.doubt).collect();
            let is_shown = |fate: &&Fate| text.contains(&format!("<{}>: {}", fate.recipient, fate.result.reply));
            let alone = doubts.len() == fates.len() && text.contains("[IN-DOUBT]");
            prop_assert!(doubts.is_empty() || alone || doubts.iter().all(is_shown), "{text}: {fates:?}");
            let is_sure = |fate: &Fate| fate.result.reply.is_success() && !fate.result.doubt;
            let weightless = |fate: &Fate| fate.result.doubt || fate.result.origin == RejectedDuplicate;
            let is_true = accept || fates.iter().all(|fate| is_sure(fate) || weightless(fate));
            prop_assert!(!reply.is_success() || is_true);
        }
    }
}

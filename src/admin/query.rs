//! The part of an address behind its question mark.

use std::borrow::Cow;
use std::time::Duration;

use super::answer::Refusal;
use crate::clock::Timestamp;
use crate::config::parse_duration;

/// The parameters of a request, to be taken out one after the other.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Reads them. Each may stand once.
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::bad(format!("the parameter {name:?} stands there twice")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter, if it is there and not empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(given, _)| given == name)?;
        let (_, value) = self.0.swap_remove(at);
        Some(value.into_owned()).filter(|value| !value.is_empty())
    }

    /// The same, converted; what can't be is refused with `instead`.
    pub(super) fn convert<T>(
        &mut self,
        name: &str,
        instead: &str,
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let refusal = || Refusal::bad(format!("{name}: {value:?} is not usable; write {instead}"));
        convert(&value).map(Some).ok_or_else(refusal)
    }

    /// The moment that lies the age in `since` before `now`.
    pub(super) fn since(&mut self, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
        let age = self.convert("since", "an age such as 90s, 30m, 24h or 7d", parse_duration)?;
        let before = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(age))
        };
        Ok(age.map(before))
    }

    /// Ends the reading: what nobody took is refused.
    pub(super) fn close(self, known: &str) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Refusal::bad(format!("there is no parameter {name:?}; known here: {known}")))
            }
        }
    }
}

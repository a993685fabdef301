//! What passwords are checked against: argon2id hashes in the PHC string
//! format, within bounds.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};

/// The most memory that checking one password may take, in KiB.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// Octets of what comes out: as long as a claim is hard to hit by chance, and
/// as long as the format has.
const MIN_OUTPUT: usize = 16;

/// What OWASP's choices have in common: this much memory, in KiB, and this
/// much of it written in all passes together.
const LEAST_MEMORY: u32 = 7 * 1024;
const LEAST_WORK: u64 = 5 * 7 * 1024;

/// The hash of one password.
pub struct Hash {
    text: String,
    parsed: PasswordHash,
    cost: Cost,
}

/// What checking a password takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cost {
    /// In KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

/// The cost of the hashes that we make (OWASP's second choice).
pub(super) const USUAL: Cost =
    Cost { memory: Params::DEFAULT_M_COST, passes: Params::DEFAULT_T_COST, lanes: Params::DEFAULT_P_COST };

impl Hash {
    /// Takes a hash as `mailonce hash-password` prints it, or another program
    /// that makes argon2id hashes.
    ///
    /// # Errors
    /// What is wrong with it, and what to do; nothing of it is quoted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = PasswordHash::new(text).map_err(|_| {
            "is no argon2id hash; write what `mailonce hash-password` prints, between quotes, never the password"
                .to_owned()
        })?;
        if parsed.algorithm.as_str() != "argon2id" {
            // Not quoted: a password may look like that, too.
            return Err("is a hash of another kind, and only argon2id is taken; make one with `mailonce hash-password`".to_owned());
        }
        if parsed.version != Some(19) {
            return Err(
                "is no argon2id hash of version 19 (v=19); make one with `mailonce hash-password`".to_owned()
            );
        }
        let long = parsed.hash.as_ref().is_some_and(|output| output.as_ref().len() >= MIN_OUTPUT);
        if parsed.salt.is_none() || !long {
            return Err(
                "is not a whole hash; copy all of the line that `mailonce hash-password` prints".to_owned()
            );
        }
        let cost = Cost::of(&parsed)?;
        Ok(Self { text: text.to_owned(), parsed, cost })
    }

    /// Hashes a password with a salt of its own; the result is what
    /// [`Self::parse`] takes. Takes as long as checking one.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn make(password: &str) -> Result<String, password_hash::Error> {
        Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
    }

    /// Whether it is that of this password. Takes long: keep it off the
    /// runtime's threads.
    pub fn verify(&self, password: &str) -> bool {
        Argon2::default().verify_password(password.as_bytes(), &self.parsed).is_ok()
    }

    /// Whether whoever has it finds passwords faster than is thought
    /// acceptable today.
    pub fn is_weak(&self) -> bool {
        let Cost { memory, passes, .. } = self.cost;
        memory < LEAST_MEMORY || u64::from(memory) * u64::from(passes) < LEAST_WORK
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Another one for every password and every time it is set.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Cost {
    fn of(hash: &PasswordHash) -> Result<Self, String> {
        let known = |name: &str| matches!(name, "m" | "t" | "p");
        if let Some((name, _)) = hash.params.iter().find(|(name, _)| !known(name.as_str())) {
            return Err(format!(
                "has a parameter that is not known here, {name}; leave it out when you make the hash"
            ));
        }
        let read = |name: &str, most: u32| match hash.params.get_decimal(name) {
            Some(value) if (1..=most).contains(&value) => Ok(value),
            Some(value) => {
                Err(format!("costs too much to check: {name}={value}, and at most {most} is taken"))
            }
            None => Err(format!("does not say {name}=…; make one with `mailonce hash-password`")),
        };
        let cost = Self {
            memory: read("m", MAX_MEMORY)?,
            passes: read("t", MAX_PASSES)?,
            lanes: read("p", MAX_LANES)?,
        };
        match cost.params() {
            Ok(_) => Ok(cost),
            Err(_) => Err("has parameters that argon2 can't have; m is at least eight times p".to_owned()),
        }
    }

    fn params(self) -> Result<Params, argon2::Error> {
        Params::new(self.memory, self.passes, self.lanes, None)
    }

    /// Takes as long as checking a password against a hash of this cost.
    pub(super) fn spend(self, password: &str) {
        if let Ok(params) = self.params() {
            let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
            // Nobody looks at what comes out.
            let _ = Argon2::from(params).hash_password_into(password.as_bytes(), &[0; 16], &mut output);
            std::hint::black_box(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`, as cheap as can be: m=8, t=1, p=1.
    fn cheap() -> String {
        let argon2 = Argon2::from(Params::new(8, 1, 1, None).unwrap());
        argon2.hash_password(b"secret").unwrap().to_string()
    }

    #[test]
    fn a_hash_is_that_of_its_password_only() {
        let text = Hash::make("päss wörd").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_ne!(text, Hash::make("päss wörd").unwrap(), "each has a salt of its own");
        let hash = Hash::parse(&text).unwrap();
        assert!(hash.verify("päss wörd") && !hash.verify("päss wörd ") && !hash.verify(""));
        assert_eq!(hash.cost(), USUAL);
        assert!(!hash.is_weak());
    }

    #[test]
    fn hashes_of_other_programs_are_taken() {
        // From the tests of the reference implementation.
        let hash = Hash::parse(
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        );
        assert!(hash.unwrap().verify("password"));
    }

    #[test]
    fn what_can_not_be_used_is_refused_and_not_quoted() {
        let good = cheap();
        let (_, end) = good.split_once("p=1").unwrap();
        let with = |params: &str| format!("$argon2id$v=19${params}{end}");
        let cut = good.rsplit_once('$').unwrap().0;
        let cases = [
            ("hunter2".to_owned(), "is no argon2id hash; write "),
            (String::new(), "is no argon2id hash; write "),
            ("$2b$12$abcdefghijklmnopqrstuu".to_owned(), "is no argon2id hash; write "),
            ("$hunter2".to_owned(), "is a hash of another kind, "),
            (good.replace("argon2id", "argon2i"), "is a hash of another kind, "),
            (good.replace("v=19", "v=16"), "is no argon2id hash of version 19"),
            (good.replace("$v=19", ""), "is no argon2id hash of version 19"),
            (cut.to_owned(), "is not a whole hash; "),
            (format!("{cut}$AAAAAAAAAAAAAAAA"), "is not a whole hash; "),
            (with("m=262145,t=1,p=1"), "costs too much to check: m=262145, and at most 262144 is taken"),
            (with("m=4294967295,t=1,p=1"), "costs too much to check: m="),
            (with("m=8,t=17,p=1"), "costs too much to check: t=17, and at most 16"),
            (with("m=1024,t=1,p=17"), "costs too much to check: p=17, and at most 16"),
            (with("m=8,t=1,p=2"), "has parameters that argon2 can't have"),
            (with("m=8,t=1"), "does not say p="),
            (with("m=8,t=1,p=1,keyid=AAAA"), "has a parameter that is not known here, keyid"),
        ];
        for (text, what) in cases {
            let fault = Hash::parse(&text).unwrap_err();
            assert!(fault.starts_with(what), "{text}: {fault}");
            assert!(!fault.contains("hunter2") && !fault.contains(end), "{fault}");
        }
    }

    #[test]
    fn what_is_cheaper_to_guess_than_it_should_be_is_weak() {
        let hash = |params: &str| Hash::parse(&cheap().replace("m=8,t=1,p=1", params)).unwrap().is_weak();
        for strong in ["m=47104,t=1,p=1", "m=19456,t=2,p=1", "m=12288,t=3,p=1", "m=7168,t=5,p=1"] {
            assert!(!hash(strong), "{strong}");
        }
        for weak in ["m=8,t=1,p=1", "m=19456,t=1,p=1", "m=4096,t=16,p=1"] {
            assert!(hash(weak), "{weak}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let text = cheap();
        assert!(!format!("{:?}", Hash::parse(&text).unwrap()).contains(text.rsplit('$').next().unwrap()));
    }
}

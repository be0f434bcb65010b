//! Passwords for BMCs: as long as the BMC takes, of characters that it takes, with one of each class.

use dayzero_model::Secret;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Longest password that we make: 32 characters of 62 are 190 bits.
const LONGEST: u32 = 32;
/// Shorter than this is refused: 12 characters of 62 are 71 bits, and BMCs are not guessed at offline.
const SHORTEST: u32 = 12;
const CLASSES: [&str; 3] = ["abcdefghijkmnopqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789"];

/// Which characters a password may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alphabet {
    /// Letters and digits: what each BMC takes.
    Alphanumeric,
    /// One of `-_.` too: where a special character is asked for.
    WithSpecial,
}

/// What a BMC asks of a password. Lengths in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPolicy {
    /// Shortest.
    pub min_length: u32,
    /// Longest.
    pub max_length: u32,
    /// Characters.
    pub alphabet: Alphabet,
}

/// A fresh password that meets the policy: random, each class at least once. None where the policy allows only what is too
/// short to be safe (under 12 characters).
pub fn generate_password(policy: &AccountPolicy) -> Option<Secret<String>> {
    let length = policy.max_length.min(LONGEST).max(policy.min_length);
    if length < SHORTEST || length > policy.max_length {
        return None;
    }
    let mut classes: Vec<&str> = CLASSES.to_vec();
    if policy.alphabet == Alphabet::WithSpecial {
        classes.push("-_.");
    }
    let all: String = CLASSES.concat();
    let mut rng = rand::rng();
    let mut pick = |from: &str| from.as_bytes()[rng.random_range(0..from.len())];
    let mut password: Vec<u8> = classes.iter().map(|class| pick(class)).collect();
    while password.len() < length as usize {
        password.push(pick(&all));
    }
    // The classes' own characters are not at the front; the first is a letter, which some BMCs ask for.
    loop {
        password.shuffle(&mut rand::rng());
        if password[0].is_ascii_alphabetic() {
            return Some(Secret::new(password.into_iter().map(char::from).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_password_meets_its_policy(min in 0_u32..40, extra in 0_u32..60, special: bool) {
            let alphabet = if special { Alphabet::WithSpecial } else { Alphabet::Alphanumeric };
            let policy = AccountPolicy { min_length: min, max_length: min + extra, alphabet };
            let Some(password) = generate_password(&policy) else {
                prop_assert!(policy.max_length < SHORTEST);
                return Ok(());
            };
            let text = password.expose();
            prop_assert!((policy.min_length as usize..=policy.max_length as usize).contains(&text.len()));
            for class in CLASSES {
                prop_assert!(text.chars().any(|c| class.contains(c)));
            }
            prop_assert_eq!(text.chars().any(|c| !c.is_ascii_alphanumeric()), special);
            let another = generate_password(&policy);
            prop_assert_ne!(another.map(|p| p.expose().clone()), Some(text.clone()));
        }
    }
}

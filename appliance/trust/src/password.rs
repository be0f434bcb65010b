//! Generated passwords that fit a BMC's own policy.

use dayzero_model::Secret;
use serde::{Deserialize, Serialize};

use crate::TrustError;

/// The characters of each class; without the look-alikes, and without what a BMC's web form or shell trips over.
const LOWER: &[u8] = b"abcdefghijkmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
const DIGIT: &[u8] = b"23456789";
const SYMBOL: &[u8] = b"-_.+!=";

/// What a device demands of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordPolicy {
    /// Fewest characters.
    pub min: usize,
    /// Most characters (IPMI 2.0: 20, section 22.30).
    pub max: usize,
    /// Whether symbols may and must occur. Lower case, upper case and digits always do.
    pub symbols: bool,
}

impl PasswordPolicy {
    /// IPMI 2.0: up to 20 bytes; 16 are also kept by firmware that stores no more.
    pub const IPMI: Self = Self { min: 8, max: 16, symbols: false };
    /// What most Redfish services accept.
    pub const REDFISH: Self = Self { min: 12, max: 20, symbols: true };

    /// A random password: as long as allowed, up to 24 characters, each class at least once.
    ///
    /// Errors: [`TrustError::Policy`] if `max` is below `min` or below 8 (fewer than 40 bits are no password).
    pub fn generate(&self) -> Result<Secret<String>, TrustError> {
        if self.max < self.min || self.max < 8 || self.min > 128 {
            let problem =
                format!("min {}, max {}: max must be at least 8 and at least min", self.min, self.max);
            return Err(TrustError::Policy { problem });
        }
        let length = self.max.min(24).max(self.min);
        let mut classes = vec![LOWER, UPPER, DIGIT];
        if self.symbols {
            classes.push(SYMBOL);
        }
        let all = classes.concat();
        let pick = |from: &[u8]| char::from(from[rand::random_range(0..from.len())]);
        loop {
            let text: String = (0..length).map(|_| pick(&all)).collect();
            // Drawn again until each class occurs: uniform over the passwords that fit. A symbol at an end is
            // refused by some firmware.
            let complete = classes.iter().all(|class| text.bytes().any(|b| class.contains(&b)));
            let ends = text.bytes().next().into_iter().chain(text.bytes().last());
            if complete && ends.into_iter().all(|b| !SYMBOL.contains(&b)) {
                return Ok(Secret::new(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn each_password_fits_its_policy(min in 1_usize..40, extra in 0_usize..30, symbols: bool) {
            let policy = PasswordPolicy { min, max: (min + extra).max(8), symbols };
            let secret = policy.generate().unwrap();
            let text = secret.expose();
            assert!(text.len() >= policy.min && text.len() <= policy.max, "{text}");
            assert!(text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase()));
            assert!(text.bytes().any(|b| b.is_ascii_digit()));
            assert_eq!(text.bytes().any(|b| b.is_ascii_punctuation()), symbols);
        }
    }

    #[test]
    fn impossible_policies_are_refused_and_two_passwords_differ() {
        assert!(PasswordPolicy { min: 20, max: 16, symbols: false }.generate().is_err());
        assert!(PasswordPolicy { min: 1, max: 6, symbols: false }.generate().is_err());
        let make = || PasswordPolicy::REDFISH.generate().unwrap();
        assert_ne!(make(), make());
    }
}

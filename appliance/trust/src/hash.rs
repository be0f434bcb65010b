//! Passwords and codes as Argon2id hashes; one at a time, so that logins at once do not multiply the memory.

use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dayzero_model::Secret;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::TrustError;

/// OWASP's smaller-memory setting of equal cost: 12 MiB, 3 passes.
const MEMORY_KIB: u32 = 12 << 10;
const PASSES: u32 = 3;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An Argon2id hash with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    salt: String,
    hash: String,
}

impl PasswordHash {
    pub(crate) fn of(secret: &Secret<String>) -> Result<Self, TrustError> {
        let salt: [u8; 16] = rand::random();
        let hash = derive(secret, &salt, MEMORY_KIB, PASSES)?;
        Ok(Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: BASE64.encode(salt),
            hash: BASE64.encode(hash),
        })
    }

    /// A hash that nothing matches, to take as long for an unknown user as for a known one.
    pub(crate) fn of_nothing() -> Self {
        let (salt, hash) = (BASE64.encode([0; 16]), String::new());
        Self { memory_kib: MEMORY_KIB, passes: PASSES, salt, hash }
    }

    pub(crate) fn matches(&self, secret: &Secret<String>) -> Result<bool, TrustError> {
        let decode =
            |text: &str| BASE64.decode(text).map_err(|e| TrustError::Derive { detail: e.to_string() });
        let (salt, expected) = (decode(&self.salt)?, decode(&self.hash)?);
        let found = derive(secret, &salt, self.memory_kib, self.passes)?;
        Ok(found.as_slice().ct_eq(&expected).into())
    }
}

fn derive(secret: &Secret<String>, salt: &[u8], memory: u32, passes: u32) -> Result<[u8; 32], TrustError> {
    let failed = |e: argon2::Error| TrustError::Derive { detail: e.to_string() };
    let params = Params::new(memory, passes, 1, Some(32)).map_err(failed)?;
    let mut out = [0; 32];
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(secret.expose().as_bytes(), salt, &mut out).map_err(failed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_matches() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let hash = PasswordHash::of(&secret("right")).unwrap();
        assert!(hash.matches(&secret("right")).unwrap());
        assert!(!hash.matches(&secret("wrong")).unwrap());
        assert!(!PasswordHash::of_nothing().matches(&secret("")).unwrap());
        assert_ne!(hash, PasswordHash::of(&secret("right")).unwrap(), "salted");
    }
}

//! The life of a BMC's credential, as pure data: Factory, PendingStored, Applied, FactoryDisabled.
//!
//! Invariant: whatever was sent to the BMC was stored before it was sent, and the old credential is dropped from the record
//! only after the new one was seen to work. So after a crash at any moment one of [`CredentialRecord::candidates`] logs in.
//! It sends nothing and stores nothing: the caller stores each record (in the vault) before it acts on it.

use dayzero_model::Secret;
use serde::{Deserialize, Serialize};

use crate::TrustError;

/// A user name and its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The account's name.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
}

/// What is known of a BMC's accounts. Store it as a sealed record under [`CredentialRecord::vault_name`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "state")]
pub enum CredentialRecord {
    /// Only the factory's credential is known.
    Factory {
        /// From the plan's secret file.
        factory: Credential,
    },
    /// Ours is stored; the BMC may or may not have it yet.
    PendingStored {
        /// Still enabled.
        factory: Credential,
        /// Generated, stored, and maybe sent.
        pending: Credential,
    },
    /// Ours was seen to work; the factory's may still be enabled.
    Applied {
        /// To be disabled, or disabled without our knowing.
        factory: Credential,
        /// Ours.
        current: Credential,
    },
    /// Ours works, the factory's does not.
    FactoryDisabled {
        /// Ours.
        current: Credential,
    },
    /// A later change of our password: the new one is stored, and the BMC may or may not have it yet.
    Rotating {
        /// The one before.
        current: Credential,
        /// The new one.
        pending: Credential,
    },
}

/// What to do next with the BMC. Each is repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep<'a> {
    /// Generate a credential, call [`CredentialRecord::pending`], store the record.
    Generate,
    /// Unless `pending` logs in already: log in with `login`, make the account or set its password. Then log in with
    /// `pending`, call [`CredentialRecord::applied`], store.
    Apply {
        /// A credential that should work if `pending` does not.
        login: &'a Credential,
        /// What the BMC is to get.
        pending: &'a Credential,
    },
    /// Log in with `login`, disable the factory's account (or change its password), see that it no longer logs in, call
    /// [`CredentialRecord::factory_disabled`], store.
    DisableFactory {
        /// Ours.
        login: &'a Credential,
        /// To be disabled.
        factory: &'a Credential,
    },
    /// Nothing.
    Rest,
}

impl CredentialRecord {
    /// A new record.
    pub fn new(factory: Credential) -> Self {
        Self::Factory { factory }
    }

    /// The name in the vault for a host's BMC.
    pub fn vault_name(host: &dayzero_model::HostName) -> String {
        format!("bmc/{host}")
    }

    /// With a generated credential; to be stored before it is sent. From Factory or FactoryDisabled.
    pub fn pending(self, pending: Credential) -> Result<Self, TrustError> {
        match self {
            Self::Factory { factory } => Ok(Self::PendingStored { factory, pending }),
            Self::FactoryDisabled { current } => Ok(Self::Rotating { current, pending }),
            other => Err(TrustError::WrongStep { state: other.state(), wanted: "pending" }),
        }
    }

    /// The pending credential was seen to log in.
    pub fn applied(self) -> Result<Self, TrustError> {
        match self {
            Self::PendingStored { factory, pending } => Ok(Self::Applied { factory, current: pending }),
            Self::Rotating { pending, .. } => Ok(Self::FactoryDisabled { current: pending }),
            other => Err(TrustError::WrongStep { state: other.state(), wanted: "applied" }),
        }
    }

    /// The factory's credential was seen to be refused.
    pub fn factory_disabled(self) -> Result<Self, TrustError> {
        match self {
            Self::Applied { current, .. } => Ok(Self::FactoryDisabled { current }),
            other => Err(TrustError::WrongStep { state: other.state(), wanted: "factory-disabled" }),
        }
    }

    /// The credentials that may work, the likeliest first. At least one does, unless a person changed the BMC.
    pub fn candidates(&self) -> Vec<&Credential> {
        match self {
            Self::Factory { factory } => vec![factory],
            Self::PendingStored { factory, pending } => vec![pending, factory],
            Self::Applied { current, .. } | Self::FactoryDisabled { current } => vec![current],
            Self::Rotating { current, pending } => vec![pending, current],
        }
    }

    /// Nothing but the factory's credential was ever known.
    pub fn is_factory(&self) -> bool {
        matches!(self, Self::Factory { .. })
    }

    /// What to do next.
    pub fn next_step(&self) -> NextStep<'_> {
        match self {
            Self::Factory { .. } => NextStep::Generate,
            Self::PendingStored { factory: login, pending } | Self::Rotating { current: login, pending } => {
                NextStep::Apply { login, pending }
            }
            Self::Applied { factory, current } => NextStep::DisableFactory { login: current, factory },
            Self::FactoryDisabled { .. } => NextStep::Rest,
        }
    }

    /// The state's name, for people.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Factory { .. } => "factory",
            Self::PendingStored { .. } => "pending-stored",
            Self::Applied { .. } => "applied",
            Self::FactoryDisabled { .. } => "factory-disabled",
            Self::Rotating { .. } => "rotating",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(user: &str, password: &str) -> Credential {
        Credential { user: user.into(), password: Secret::new(password.into()) }
    }

    /// A BMC with its accounts, and a record on disk. `run` does one step and stops at the `crash`-th effect.
    struct World {
        accounts: Vec<Credential>,
        stored: CredentialRecord,
        effects_left: usize,
        generated: usize,
    }

    impl World {
        fn effect(&mut self, act: impl FnOnce(&mut Self)) -> Option<()> {
            self.effects_left = self.effects_left.checked_sub(1)?;
            act(self);
            Some(())
        }

        fn works(&self, c: &Credential) -> bool {
            self.accounts.contains(c)
        }

        fn step(&mut self) -> Option<bool> {
            let record = self.stored.clone();
            match record.next_step() {
                NextStep::Generate => {
                    self.generated += 1;
                    let made = credential("dayzero", &format!("made-{}", self.generated));
                    let next = record.pending(made).unwrap();
                    self.effect(|w| w.stored = next)?;
                }
                NextStep::Apply { login, pending } => {
                    let (login, pending) = (login.clone(), pending.clone());
                    if !self.works(&pending) {
                        assert!(self.works(&login), "locked out");
                        self.effect(|w| {
                            w.accounts.retain(|c| c.user != pending.user);
                            w.accounts.push(pending);
                        })?;
                    }
                    let next = record.applied().unwrap();
                    self.effect(|w| w.stored = next)?;
                }
                NextStep::DisableFactory { login, factory } => {
                    assert!(self.works(login), "locked out");
                    let factory = factory.clone();
                    self.effect(|w| w.accounts.retain(|c| *c != factory))?;
                    let next = record.factory_disabled().unwrap();
                    self.effect(|w| w.stored = next)?;
                }
                NextStep::Rest => return Some(false),
            }
            Some(true)
        }
    }

    #[test]
    fn a_crash_at_any_step_leaves_a_stored_credential_that_works() {
        let factory = credential("ADMIN", "ADMIN");
        for first in 0..8 {
            for second in 0..8 {
                let stored = CredentialRecord::new(factory.clone());
                let mut world =
                    World { accounts: vec![factory.clone()], stored, effects_left: first, generated: 0 };
                for effects in [second, 100] {
                    while world.step() == Some(true) {}
                    let usable = world.stored.candidates().into_iter().any(|c| world.works(c));
                    assert!(usable, "crash at {first}, {second}: {:?}", world.stored.state());
                    world.effects_left = effects;
                }
                while world.step() == Some(true) {}
                assert_eq!(world.stored.state(), "factory-disabled");
                assert!(!world.works(&factory), "the factory's credential is gone");
                // A later rotation, crashed at any point too.
                let renewed = world.stored.clone().pending(credential("dayzero", "renewed")).unwrap();
                world.stored = renewed;
                world.effects_left = first % 3;
                while world.step() == Some(true) {}
                assert!(world.stored.candidates().into_iter().any(|c| world.works(c)));
                world.effects_left = 100;
                while world.step() == Some(true) {}
                assert!(world.works(&credential("dayzero", "renewed")) && world.accounts.len() == 1);
            }
        }
    }

    #[test]
    fn steps_out_of_order_are_refused_and_debug_shows_no_password() {
        let record = CredentialRecord::new(credential("ADMIN", "s3cret-password"));
        assert!(record.clone().applied().is_err() && record.clone().factory_disabled().is_err());
        assert!(!format!("{record:?}").contains("s3cret"));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<CredentialRecord>(&text).unwrap(), record);
    }
}

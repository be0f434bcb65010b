//! BMC certificates: trusted on first use, then pinned; a change is a finding, never accepted by itself.

use dayzero_model::{HostName, Sha256, Timestamp};
use dayzero_store::{Store, Table};
use serde::{Deserialize, Serialize};

use crate::TrustError;

static PINS: Table<HostName, Pin> = Table::new("bmc.pins");

/// The certificate that a BMC is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// SHA-256 of the certificate, DER.
    pub fingerprint: Sha256,
    /// When it was first seen, or accepted by a person.
    pub since: Timestamp,
    /// Another certificate that the BMC showed later, and when first.
    pub changed: Option<(Sha256, Timestamp)>,
}

/// What a check of a certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinVerdict {
    /// No pin yet: it was pinned now.
    Pinned,
    /// The pinned one.
    Same,
    /// Another one: do not log in. A person must accept it ([`BmcPins::accept`]) or find out who answers there.
    Changed {
        /// The pinned one.
        expected: Sha256,
    },
}

/// The pins of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BmcPins {
    store: Store,
}

impl BmcPins {
    /// The pins of this store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// The pin of a host's BMC; hand its fingerprint to the TLS verifier.
    pub fn get(&self, host: &HostName) -> Result<Option<Pin>, TrustError> {
        self.store.get(&PINS, host).map_err(TrustError::store("reading a BMC's pin"))
    }

    /// Compares a certificate with the pin, pins it if there is none, and records a change.
    pub async fn check(
        &self,
        host: &HostName,
        found: Sha256,
        now: Timestamp,
    ) -> Result<PinVerdict, TrustError> {
        // A second answer at the same moment must not pin another certificate: the update is a compare-and-set.
        if let Some(pin) = self.get(host)?
            && (pin.fingerprint == found || pin.changed.is_some_and(|(known, _)| known == found))
        {
            let expected = pin.fingerprint;
            return Ok(if expected == found { PinVerdict::Same } else { PinVerdict::Changed { expected } });
        }
        let mut verdict = PinVerdict::Pinned;
        let update = self.store.update(&PINS, host, |pin| match pin {
            None => {
                verdict = PinVerdict::Pinned;
                Some(Pin { fingerprint: found, since: now, changed: None })
            }
            Some(pin) if pin.fingerprint == found => {
                verdict = PinVerdict::Same;
                Some(pin)
            }
            Some(pin) => {
                verdict = PinVerdict::Changed { expected: pin.fingerprint };
                Some(Pin { changed: Some((found, now)), ..pin })
            }
        });
        update.await.map_err(TrustError::store("pinning a BMC's certificate"))?;
        Ok(verdict)
    }

    /// A person accepts a certificate.
    pub async fn accept(
        &self,
        host: &HostName,
        fingerprint: Sha256,
        now: Timestamp,
    ) -> Result<(), TrustError> {
        let mut tx = self.store.tx();
        let pin = Pin { fingerprint, since: now, changed: None };
        tx.put(&PINS, host, &pin).map_err(TrustError::store("pinning a BMC's certificate"))?;
        tx.commit().await.map_err(TrustError::store("pinning a BMC's certificate"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_certificate_is_pinned_and_another_is_a_finding_until_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let (pins, host) = (BmcPins::new(&store), "host1".parse().unwrap());
        let (one, two, now) = (Sha256::of(b"one"), Sha256::of(b"two"), Timestamp(5));
        assert_eq!(pins.check(&host, one, now).await.unwrap(), PinVerdict::Pinned);
        assert_eq!(pins.check(&host, one, now).await.unwrap(), PinVerdict::Same);
        for _ in 0..2 {
            let verdict = pins.check(&host, two, Timestamp(9)).await.unwrap();
            assert_eq!(verdict, PinVerdict::Changed { expected: one });
        }
        assert_eq!(pins.get(&host).unwrap().unwrap().changed, Some((two, Timestamp(9))));
        assert_eq!(pins.check(&host, one, now).await.unwrap(), PinVerdict::Same, "the old one still counts");
        pins.accept(&host, two, now).await.unwrap();
        assert_eq!(pins.check(&host, one, now).await.unwrap(), PinVerdict::Changed { expected: two });
    }
}

//! A boot window, as pure logic: which key of which host may get a certificate in this boot.
//!
//! Invariants: at most one key is ever granted in a window, and only a key that the host's BMC vouched for: by the nonce
//! that only its virtual medium carried, or by the fingerprint that was read from its serial console. What stands on the
//! boot network (boot id, MAC, serial, UUID) grants nothing. A refusal never spends the window: a clone that comes first
//! cannot lock the host out.

use dayzero_model::{HostName, Millis, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// Refused keys that are kept with a window.
const MAX_REFUSALS: usize = 8;

/// The channel by which a BMC vouches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// A nonce on a virtual medium.
    VirtualMedia,
    /// The key's fingerprint, read back through serial-over-LAN.
    SerialOverLan,
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::VirtualMedia => "virtual media",
            Self::SerialOverLan => "serial-over-LAN",
        })
    }
}

/// A window's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The host that may enrol.
    pub host: HostName,
    /// The channel that is expected to vouch.
    pub channel: Channel,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// SHA-256 of the nonce on the virtual medium.
    pub nonce: Option<Sha256>,
    /// How far it is.
    pub state: WindowState,
    /// Keys that were refused, the first few.
    pub refused: Vec<Refusal>,
}

/// How far a window is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WindowState {
    /// No key is vouched for.
    Open,
    /// One key is; any other is refused from now on.
    Vouched(Vouch),
    /// That key has its certificate.
    Issued {
        /// The vouch that it rests on.
        vouch: Vouch,
        /// The certificate, PEM; given again to the same key if the answer was lost.
        certificate: String,
        /// SHA-256 of its DER.
        fingerprint: Sha256,
    },
    /// Over: enrolled, replaced or given up.
    Closed {
        /// When.
        at: Timestamp,
    },
}

/// A key that a BMC vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// SHA-256 of the public key.
    pub key: Sha256,
    /// By which channel.
    pub channel: Channel,
    /// When.
    pub at: Timestamp,
}

/// A key that got no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// SHA-256 of the refused public key.
    pub key: Sha256,
    /// The key that was vouched for, if one was.
    pub vouched: Option<Sha256>,
    /// Why.
    pub reason: RefusalReason,
    /// Who sent it, as the listener saw it.
    pub peer: String,
    /// When first.
    pub at: Timestamp,
}

/// Why a key gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// No window of that boot id.
    NoWindow,
    /// The window is over.
    Closed,
    /// A nonce that is not this window's.
    WrongNonce,
    /// No nonce, where the virtual medium carries one.
    NoNonce,
    /// Another key is vouched for in this window: two machines say that they are this host.
    SecondKey,
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoWindow => "no boot window of that id is open",
            Self::Closed => "the boot window is over",
            Self::WrongNonce => "the nonce is not the one on this host's virtual medium",
            Self::NoNonce => "no nonce was given, but this host's virtual medium carries one",
            Self::SecondKey => {
                "the BMC of this host vouched for another key: a second machine claims to be this host"
            }
        })
    }
}

/// What [`Window::decide`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This key gets a certificate.
    Grant,
    /// Nothing vouched yet; ask again.
    Wait,
    /// No certificate for this key.
    Refuse(RefusalReason),
}

impl Window {
    /// A new window. `nonce` is what the virtual medium will carry; only its hash is kept.
    pub fn open(
        host: HostName,
        channel: Channel,
        nonce: Option<&[u8; 32]>,
        now: Timestamp,
        ttl: Millis,
    ) -> Self {
        Self {
            host,
            channel,
            opened: now,
            expires: now.plus(ttl),
            nonce: nonce.map(|n| Sha256::of(n)),
            state: WindowState::Open,
            refused: Vec::new(),
        }
    }

    /// The vouched key, if any.
    pub fn vouch(&self) -> Option<Vouch> {
        match &self.state {
            WindowState::Vouched(vouch) | WindowState::Issued { vouch, .. } => Some(*vouch),
            WindowState::Open | WindowState::Closed { .. } => None,
        }
    }

    /// True until it is closed or its time is over.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires && !matches!(self.state, WindowState::Closed { .. })
    }

    /// A key whose fingerprint was read through an authenticated channel of the host's BMC. The first one counts.
    pub fn vouch_by_fingerprint(&mut self, key: Sha256, channel: Channel, now: Timestamp) -> Decision {
        if !self.is_open(now) {
            return Decision::Refuse(RefusalReason::Closed);
        }
        match self.vouch() {
            None => {
                self.state = WindowState::Vouched(Vouch { key, channel, at: now });
                Decision::Grant
            }
            Some(vouch) if same(&vouch.key, &key) => Decision::Grant,
            Some(_) => Decision::Refuse(RefusalReason::SecondKey),
        }
    }

    /// A key that came with a nonce. The nonce counts once: for the first key that presents it.
    pub fn vouch_by_nonce(&mut self, key: Sha256, nonce: &[u8], now: Timestamp) -> Decision {
        let right = self.nonce.is_some_and(|expected| same(&expected, &Sha256::of(nonce)));
        if !right && self.vouch().is_none() {
            let reason = if self.is_open(now) { RefusalReason::WrongNonce } else { RefusalReason::Closed };
            return Decision::Refuse(reason);
        }
        self.vouch_by_fingerprint(key, Channel::VirtualMedia, now)
    }

    /// Whether this key gets a certificate now.
    pub fn decide(&mut self, key: Sha256, nonce: Option<&[u8]>, now: Timestamp) -> Decision {
        if !self.is_open(now) {
            return Decision::Refuse(RefusalReason::Closed);
        }
        match (self.vouch(), nonce) {
            (Some(vouch), _) if same(&vouch.key, &key) => Decision::Grant,
            (Some(_), _) => Decision::Refuse(RefusalReason::SecondKey),
            (None, Some(nonce)) => self.vouch_by_nonce(key, nonce, now),
            (None, None) if self.channel == Channel::VirtualMedia => Decision::Refuse(RefusalReason::NoNonce),
            (None, None) => Decision::Wait,
        }
    }

    /// Notes a refusal. False if it was noted before, or if the list is full.
    pub fn note(&mut self, refusal: Refusal) -> bool {
        let known = self.refused.iter().any(|r| r.key == refusal.key && r.reason == refusal.reason);
        let new = !known && self.refused.len() < MAX_REFUSALS;
        if new {
            self.refused.push(refusal);
        }
        new
    }
}

fn same(a: &Sha256, b: &Sha256) -> bool {
    a.0.ct_eq(&b.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; 32] = [7; 32];

    #[derive(Debug, Clone)]
    enum Move {
        Host { with_nonce: bool },
        Clone { key: u8, nonce: Option<u8> },
        SerialReadsHost,
        Pass(u64),
        Crash,
    }

    fn moves() -> impl Strategy<Value = Move> {
        prop_oneof![
            any::<bool>().prop_map(|with_nonce| Move::Host { with_nonce }),
            (0_u8..3, prop::option::of(0_u8..6)).prop_map(|(key, nonce)| Move::Clone { key, nonce }),
            Just(Move::SerialReadsHost),
            (0_u64..400).prop_map(Move::Pass),
            Just(Move::Crash),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// A clone knows all that the boot network knows, and other windows' nonces, but not what went through the BMC.
        #[test]
        fn a_clone_gets_no_certificate_in_any_interleaving(
            serial: bool,
            script in proptest::collection::vec(moves(), 0..25),
        ) {
            let channel = if serial { Channel::SerialOverLan } else { Channel::VirtualMedia };
            let nonce = (!serial).then_some(&NONCE);
            let mut now = Timestamp(1000);
            let mut window = Window::open("host1".parse().unwrap(), channel, nonce, now, Millis(1000));
            let host_key = Sha256::of(b"the host's key");
            let (mut vouched, mut granted) = (false, false);
            for step in script {
                match step {
                    Move::Host { with_nonce } => {
                        let nonce = (with_nonce && !serial).then_some(&NONCE[..]);
                        let decision = window.decide(host_key, nonce, now);
                        vouched |= nonce.is_some() && window.is_open(now);
                        prop_assert_eq!(decision == Decision::Grant, vouched && window.is_open(now));
                        granted |= decision == Decision::Grant;
                    }
                    Move::Clone { key, nonce } => {
                        let nonce = nonce.map(|n| [n; 32]);
                        let nonce = nonce.as_ref().map(|n| &n[..]);
                        let decision = window.decide(Sha256::of(&[key]), nonce, now);
                        prop_assert_ne!(decision, Decision::Grant);
                        if vouched && window.is_open(now) {
                            prop_assert_eq!(decision, Decision::Refuse(RefusalReason::SecondKey));
                        }
                    }
                    Move::SerialReadsHost => {
                        let said = window.vouch_by_fingerprint(host_key, Channel::SerialOverLan, now);
                        vouched |= said == Decision::Grant;
                    }
                    Move::Pass(ms) => now = now.plus(Millis(ms)),
                    Move::Crash => {
                        let text = serde_json::to_string(&window).unwrap();
                        window = serde_json::from_str(&text).unwrap();
                    }
                }
                prop_assert!(window.vouch().is_none_or(|v| v.key == host_key));
            }
            prop_assert!(vouched || !granted);
        }
    }

    #[test]
    fn a_clone_that_comes_first_does_not_lock_the_host_out_and_the_nonce_counts_once() {
        let open = || {
            Window::open("h".parse().unwrap(), Channel::VirtualMedia, Some(&NONCE), Timestamp(0), Millis(10))
        };
        let (host, clone, now) = (Sha256::of(b"host"), Sha256::of(b"clone"), Timestamp(1));
        let mut window = open();
        assert_eq!(window.decide(clone, None, now), Decision::Refuse(RefusalReason::NoNonce));
        assert_eq!(window.decide(clone, Some(&[1; 32]), now), Decision::Refuse(RefusalReason::WrongNonce));
        assert_eq!(window.decide(host, Some(&NONCE), now), Decision::Grant);
        assert_eq!(window.decide(clone, Some(&NONCE), now), Decision::Refuse(RefusalReason::SecondKey));
        assert_eq!(window.decide(host, None, now), Decision::Grant, "the same key may ask again");
        assert_eq!(window.decide(host, None, Timestamp(10)), Decision::Refuse(RefusalReason::Closed));
        let mut late = open();
        assert_eq!(late.decide(host, Some(&NONCE), Timestamp(10)), Decision::Refuse(RefusalReason::Closed));
    }

    #[test]
    fn a_second_fingerprint_on_the_console_is_refused_and_refusals_are_bounded() {
        let mut window =
            Window::open("h".parse().unwrap(), Channel::SerialOverLan, None, Timestamp(0), Millis(10));
        let now = Timestamp(1);
        assert_eq!(window.decide(Sha256::of(b"a"), None, now), Decision::Wait);
        let vouch =
            |w: &mut Window, k: &[u8]| w.vouch_by_fingerprint(Sha256::of(k), Channel::SerialOverLan, now);
        assert_eq!(vouch(&mut window, b"a"), Decision::Grant);
        assert_eq!(vouch(&mut window, b"b"), Decision::Refuse(RefusalReason::SecondKey));
        for i in 0..100_u8 {
            let key = Sha256::of(&[i]);
            let refusal =
                Refusal { key, vouched: None, reason: RefusalReason::SecondKey, peer: "p".into(), at: now };
            assert_eq!(window.note(refusal.clone()), usize::from(i) < MAX_REFUSALS);
            assert!(!window.note(refusal));
        }
    }
}

//! A proof of redundancy: every leg and path pulled in turn while traffic and I/O run.

use crate::ids::Name;
use crate::units::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

/// How a path was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Break {
    /// Carrier lost.
    Cable,
    /// Carrier stays, nothing is forwarded.
    DeadSwitch,
}

/// What a trial measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Longest gap between numbered pings that came back.
    Ping,
    /// Longest time without a completed write.
    Writer,
}

/// One break of one path, with what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// NIC role of the pulled path, such as `pod-a`.
    pub path: Name,
    /// How it was broken.
    pub how: Break,
    /// What was measured.
    pub probe: Probe,
    /// Longest gap or stall.
    pub gap: Millis,
    /// Bound.
    pub bound: Millis,
    /// The bound's arithmetic, as text.
    pub bound_is: String,
    /// Numbered pings sent, or blocks written, during the trial.
    pub sent: u64,
    /// Pings lost, or I/O errors.
    pub lost: u64,
    /// Blocks read back over the surviving path that were wrong.
    pub wrong_blocks: u64,
    /// Blocks read back.
    pub read_back: u64,
    /// Time from plugging in again until the path was active again.
    pub recovered: Option<Millis>,
    /// Within all bounds.
    pub held: bool,
}

/// A whole proof of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofReport {
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Trials in order.
    pub trials: Vec<Trial>,
    /// Why it did not start, or stopped early.
    pub refused: Option<String>,
    /// All trials held, and none was missing.
    pub held: bool,
}

/// Progress of the storage writer, pushed by the agent every 50 ms while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterProgress {
    /// Blocks written and acknowledged.
    pub blocks: u64,
    /// I/O errors.
    pub errors: u64,
    /// Longest time between two completed writes, by the host's clock, ms.
    pub longest_ms: u64,
    /// Blocks read back.
    pub read_back: u64,
    /// Blocks whose sequence or checksum was wrong.
    pub wrong: u64,
}

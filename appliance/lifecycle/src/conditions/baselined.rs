//! Baselined: firmware settings are as the profile wants. Asks nothing yet.

use super::ASKS_NOTHING;
use crate::snapshot::{Outcome, Snapshot};

/// Always met.
pub fn step(_: &Snapshot<'_>) -> Outcome {
    Outcome::met(ASKS_NOTHING, &"baselined")
}

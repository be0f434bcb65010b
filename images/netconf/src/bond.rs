//! A bond's state as read back: which legs really carry traffic.

use crate::observed::{LACP_DEFAULTED, LACP_FORWARDING, LinkKind, Observed};
use dayzero_model::network::{BondState, LegState};

/// The state of the bond of that name; none if there is no such bond.
///
/// A leg is usable, in active-backup, if monitoring says up; in 802.3ad, if it is in the bond's active aggregator, a
/// partner was heard, and both sides collect and distribute.
pub fn bond_state(observed: &Observed, name: &str) -> Option<BondState> {
    let link = observed.by_name(name)?;
    let LinkKind::Bond(bond) = &link.kind else { return None };
    let lacp = bond.settings.is_lacp();
    let legs = observed.links.iter().filter(|leg| leg.master == Some(link.index));
    let mut states: Vec<LegState> = legs
        .filter_map(|leg| {
            let state = leg.leg.clone().unwrap_or_default();
            let up = leg.up && leg.carrier && state.mii_up;
            let aggregated = bond.partner.is_some()
                && state.aggregator.is_some()
                && state.aggregator == bond.aggregator
                && state.actor & LACP_FORWARDING == LACP_FORWARDING
                && state.actor & LACP_DEFAULTED == 0
                && state.partner & LACP_FORWARDING == LACP_FORWARDING;
            Some(LegState {
                mac: leg.permanent.or(leg.mac)?,
                kernel_name: leg.name.clone(),
                up,
                usable: up && link.up && (!lacp || aggregated),
            })
        })
        .collect();
    states.sort_by_key(|leg| leg.mac);
    let active = bond.active.and_then(|index| observed.by_index(index));
    Some(BondState {
        name: name.to_owned(),
        mode: bond.settings.mode.clone(),
        active: active.and_then(|leg| leg.permanent.or(leg.mac)),
        legs: states,
        partner: bond.partner,
    })
}

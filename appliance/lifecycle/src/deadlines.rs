//! How long each piece of work may take before it counts as failed. Generous: an emulated host under load takes ten
//! times what a server takes; a person reads the cause, not the second.

use dayzero_model::condition::Condition;
use dayzero_model::units::Millis;

const fn seconds(s: u64) -> Millis {
    Millis(s * 1000)
}

/// Reaching a BMC, its DHCP lease included.
pub const CONTACT: Millis = seconds(180);
/// One step of a credential's rotation.
pub const ROTATE: Millis = seconds(120);
/// Medium, one-time PXE, read-back, power on.
pub const POWER_ON: Millis = seconds(120);
/// From power on to the first DHCP message: a POST with much memory or many option ROMs takes up to 30 min. That nothing is
/// heard is said long before.
pub const POST: Millis = seconds(2100);
/// From firmware's first DHCP message to the whole of a signed discovery image: firmware cannot be told to come back when the
/// link has room, so that in a storm a thousand of them share it.
pub const SIGNED: Millis = seconds(900);
/// One hop of a network boot.
pub const BOOT_HOP: Millis = seconds(180);
/// From the script to the agent's request for a certificate.
pub const KERNEL: Millis = seconds(300);
/// Until the BMC's channel has been read.
pub const VOUCH: Millis = seconds(180);
/// An agent's connection after its certificate.
pub const AGENT: Millis = seconds(180);
/// Reading the hardware.
pub const INVENTORY: Millis = seconds(120);
/// Writing the operating system.
pub const INSTALL: Millis = seconds(1200);
/// From the reboot until the agent speaks from disk.
pub const DISK_BOOT: Millis = seconds(600);
/// A short order to an agent.
pub const SHORT_ORDER: Millis = seconds(60);
/// Network, LACP negotiation included.
pub const NETWORK: Millis = seconds(120);
/// iSCSI sessions and multipath.
pub const STORAGE: Millis = seconds(180);
/// Paths becoming active after a change.
pub const SETTLE: Millis = seconds(90);
/// Another host's work that this one waits for.
pub const OTHER_HOST: Millis = seconds(1800);
/// A whole proof.
pub const PROOF: Millis = seconds(1500);
/// What a condition's deadline adds to the action's own, so that the action's cause is the one that is shown.
pub const SLACK: Millis = seconds(20);

/// Longest that a condition may be worked on, whatever happens in between.
pub fn limit(condition: Condition) -> Millis {
    match condition {
        Condition::Found => seconds(900),
        // A long POST, the boot behind it, and the hour that a boot window is open.
        Condition::Vouched => seconds(3600),
        Condition::Imaged => seconds(3600),
        Condition::Proven => seconds(5400),
        _ => seconds(2400),
    }
}

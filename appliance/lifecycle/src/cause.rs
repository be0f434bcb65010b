//! Causes: why a host stopped, each with what was expected, what was observed, and what a person can do.

use dayzero_model::condition::Cause;
use dayzero_model::ids::HostName;
use dayzero_model::install::DiskFinding;

/// A cause from its parts.
pub fn cause(
    code: &str,
    sentence: impl Into<String>,
    expected: impl Into<String>,
    observed: impl Into<String>,
    next_action: impl Into<String>,
) -> Cause {
    Cause {
        code: code.to_owned(),
        sentence: sentence.into(),
        expected: expected.into(),
        observed: observed.into(),
        next_action: next_action.into(),
    }
}

fn then_retry(host: &HostName, what: &str) -> String {
    format!("{what}, then `dayzero host retry {host}`")
}

/// The BMC refuses the credential.
pub fn wrong_credential(host: &HostName, which: &str, observed: impl Into<String>) -> Cause {
    cause(
        "wrong-credential",
        format!("the BMC refuses the {which} credential"),
        format!("a login with the {which} credential"),
        observed,
        then_retry(
            host,
            "set the BMC's password to what the secret file says, or correct the file and apply it",
        ),
    )
}

/// The BMC does not answer.
pub fn bmc_unreachable(host: &HostName, expected: impl Into<String>, observed: impl Into<String>) -> Cause {
    cause(
        "bmc-unreachable",
        "the BMC does not answer at its planned address",
        expected,
        observed,
        then_retry(host, "check the BMC's cable, its power and the MAC on its label against the plan"),
    )
}

/// The BMC's certificate is another one than was pinned.
pub fn pin_mismatch(host: &HostName, expected: impl Into<String>, observed: impl Into<String>) -> Cause {
    cause(
        "pin-mismatch",
        "the BMC shows another certificate than the one that was pinned",
        expected,
        observed,
        then_retry(
            host,
            "find out who changed it; if it was you (a new certificate or board), `dayzero host reset` it",
        ),
    )
}

/// Identity contradicts the plan.
pub fn serial_mismatch(host: &HostName, what: &str, expected: &str, observed: &str, by: &str) -> Cause {
    cause(
        "serial-mismatch",
        format!("the {what} that {by} tells is not the planned one"),
        format!("{what} {expected}"),
        format!("{what} {observed}"),
        then_retry(host, "put the right server into this place, or correct the plan and apply it"),
    )
}

/// Time ran out.
pub fn timeout(
    host: &HostName,
    code: &str,
    waits_for: &str,
    seconds: u64,
    observed: impl Into<String>,
) -> Cause {
    cause(
        code,
        format!("nothing came within {seconds} s"),
        waits_for,
        observed,
        then_retry(host, &format!("see `dayzero why {host}` for the hop that failed")),
    )
}

/// Hardware is not as the profile says.
pub fn profile_drift(host: &HostName, profile: &str, drift: &[String]) -> Cause {
    cause(
        "profile-drift",
        format!("the hardware differs from profile {profile} in {} place(s)", drift.len()),
        format!("hardware as in profile {profile}"),
        drift.join("; "),
        then_retry(host, "correct the hardware, or the profile if the model is fit as it is"),
    )
}

/// A disk holds what is not ours.
pub fn foreign_disk(host: &HostName, finding: &DiskFinding) -> Cause {
    let disk = disk_name(finding);
    cause(
        "foreign-disk",
        format!("the disk {disk} holds data that is not ours"),
        "an empty disk, or one that we wrote for this host",
        finding.found.join("; "),
        format!(
            "if it may be wiped: `dayzero host consent {host} --serial {disk} --finding {}`; else put in another disk and `dayzero host retry {host}`",
            finding.digest
        ),
    )
}

/// Serial, or else WWN, of the disk that a finding is about.
pub fn disk_name(finding: &DiskFinding) -> String {
    let wwn = || finding.wwn.as_ref().map(ToString::to_string);
    finding.serial.clone().or_else(wwn).unwrap_or_else(|| "without serial".to_owned())
}

//! Each rule of the flight recorder, and where its very fault is injected: against the real services, with real clients,
//! firmware and keys. A rule without such a place, a place that is gone, or one that does not judge by the rule, fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on fails

use std::collections::BTreeSet;
use std::path::PathBuf;

const BOOT: &str = "pxe/tests/lab/boot_faults.rs";
const CLIENT: &str = "pxe/tests/lab/faults.rs";
const SECURE: &str = "tests/tests/secure_boot/main.rs";

/// Rule, file, and the beginning of the name of the item there that injects its fault: a test, or a fault of `cargo xtask
/// faults`. Then the function of that file that judges by the rule, and that the item calls; none: the item judges itself.
const INJECTED: &[(&str, &str, &str, Option<&str>)] = &[
    // `cargo xtask faults`: wrong password, swapped cable, corrupt chunk, wrong serial, foreign disk.
    ("condition-failed", "tests/xtask/src/faults/stop.rs", "judge", None),
    ("clone-refused", "appliance/control/src/tests/enrolment.rs", "a_clone_inside_the_window", None),
    ("nonce-expired", "tests/xtask/src/faults/stale_nonce.rs", "FAULT", None),
    ("clock-off", "tests/xtask/src/faults/empty_battery.rs", "FAULT", None),
    ("wrong-architecture", CLIENT, "a_loader_of_another_architecture", None),
    ("no-loader", CLIENT, "machines_that_dhcp_refuses", None),
    ("arp-silent", CLIENT, "a_client_that_answers_no_arp", None),
    ("tftp-stopped", CLIENT, "a_tftp_transfer_stops_after_block_7", None),
    ("ipxe-loop", BOOT, "our_loader_is_told_to_load_our_loader", None),
    ("http-stalled", CLIENT, "http_answers_that_are_refused_or_stall", None),
    ("http-refused", CLIENT, "http_answers_that_are_refused_or_stall", None),
    ("secure-boot-refused", SECURE, "an_unsigned_loader_is_refused", Some("refused")),
    ("loader-not-started", BOOT, "a_loader_that_is_no_program", None),
    ("answer-not-sent", CLIENT, "an_answer_that_cannot_leave", None),
    ("other-dhcp-server", CLIENT, "another_server_is_chosen", None),
    ("malformed-dhcp", CLIENT, "a_client_whose_datagrams_break_the_rules", None),
    ("address-in-use", CLIENT, "somebody_has_the_hosts_address", None),
    ("declined", BOOT, "a_client_declines_its_address", None),
    ("pool-used-up", CLIENT, "machines_that_dhcp_refuses", None),
    ("unknown-relay", "pxe/tests/lab/segments.rs", "a_relay_that_the_plan_does_not_list", None),
    ("wrong-network", CLIENT, "machines_that_dhcp_refuses", None),
    ("other-machine", BOOT, "another_machine_has_the_hosts_nic", None),
    ("nothing-signed", BOOT, "under_secure_boot_there_is_nothing_signed", None),
    (
        "lease-not-stored",
        "appliance/control/src/tests/lease_store.rs",
        "a_full_disk_costs_the_lease",
        Some("no_lease_that_the_store_refuses"),
    ),
    ("no-pool", BOOT, "a_machine_of_ours_on_a_network_without_a_pool", None),
    ("dhcp-not-answered", CLIENT, "machines_that_dhcp_refuses", None),
    ("no-request-after-offer", CLIENT, "a_request_that_never_comes", None),
    ("loader-not-asked", CLIENT, "a_client_that_never_asks_for_its_loader", None),
    ("script-not-asked", BOOT, "our_loader_gets_no_script", None),
    ("kernel-not-fetched", BOOT, "our_loader_gets_no_script_then_no_kernel", None),
    ("agent-silent", "pxe/tests/lab/machines.rs", "a_uefi_machine_boots_by_edk2s_pxe", Some("boots")),
    ("no-link", "tests/xtask/src/faults/no_link.rs", "FAULT", None),
    ("lacp-without-fallback", "tests/xtask/src/faults/lacp_without_fallback.rs", "FAULT", None),
    ("no-dhcp", CLIENT, "a_port_that_waits_for_lacp", None),
    ("network-first", BOOT, "firmware_that_boots_from_the_network_before_its_disk", None),
];

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of a rule's source, each whole string literal in the form of a rule's name.
fn names(source: &str) -> impl Iterator<Item = &str> {
    let is_name = |text: &&str| {
        text.contains('-')
            && text.split('-').all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))
    };
    source.split('"').skip(1).step_by(2).filter(is_name)
}

/// Every name that a finding can have.
fn rules() -> BTreeSet<String> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../appliance/timeline/src/why");
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let sources =
        files.filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs"));
    let mut all = BTreeSet::new();
    for path in sources {
        let source = std::fs::read_to_string(&path).unwrap();
        let here: BTreeSet<&str> = names(&source).collect();
        assert!(!here.is_empty(), "{}: no rule's name", path.display());
        all.extend(here.into_iter().map(str::to_owned));
    }
    // The code of a cause, not a rule; and a rule of one word.
    all.remove("vouch-timeout");
    all.insert("declined".to_owned());
    all
}

#[test]
fn each_rule_has_a_place_where_its_fault_is_injected_and_judged_by_it() {
    let placed: BTreeSet<String> = INJECTED.iter().map(|(rule, ..)| (*rule).to_owned()).collect();
    assert_eq!(rules(), placed, "left: the recorder's rules; right: those whose fault is injected");
    for (rule, file, place, judge) in INJECTED {
        let text = read(file);
        let item = body(&text, place).unwrap_or_else(|| panic!("{file} has no {place}"));
        let judging = match judge {
            None => item,
            Some(judge) => {
                assert!(item.contains(&format!("{judge}(")), "{place} in {file} does not call {judge}");
                body(&text, judge).unwrap_or_else(|| panic!("{file} has no {judge}"))
            }
        };
        assert!(judges(judging, rule), "{} in {file} does not judge by {rule}", judge.unwrap_or(place));
    }
}

/// The text of a function, or of a constant, whose name begins so: up to the line that closes it, at its own indentation.
fn body<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begins = |line: &str| {
        let words = line.trim_start();
        let words = words.strip_prefix("pub ").or_else(|| words.strip_prefix("pub(crate) ")).unwrap_or(words);
        let words = words.strip_prefix("async ").unwrap_or(words);
        let named = words.strip_prefix("fn ").or_else(|| words.strip_prefix("const "));
        named.is_some_and(|named| named.starts_with(name))
    };
    let mut at = 0;
    let mut found: Option<(usize, usize)> = None;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        match found {
            None if begins(line) => found = Some((at, indent)),
            Some((from, own)) if indent == own && line.trim_start().starts_with('}') => {
                return Some(&text[from..at]);
            }
            _ => {}
        }
        at += line.len();
    }
    None
}

/// Whether it names the rule as a string of its own, or in brackets, as `dayzero why` prints it.
fn judges(body: &str, rule: &str) -> bool {
    let code = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect();
    code.contains(&format!("\"{rule}\"")) || code.contains(&format!("[{rule}]"))
}

#[test]
fn a_judge_elsewhere_in_the_file_does_not_count() {
    let text = "fn one() {\n    // \"no-link\"\n    verdict();\n}\n\nfn two() {\n    verdict(\"no-link\");\n}\n\n\
                pub const FAULT: Fault = Fault {\n    code: \"no-dhcp\",\n};\n";
    for (name, rule, judged) in [
        ("one", "no-link", false),
        ("two", "no-link", true),
        ("two", "no-dhcp", false),
        ("FAULT", "no-dhcp", true),
    ] {
        assert_eq!(judges(body(text, name).unwrap(), rule), judged, "{name} {rule}");
    }
    assert_eq!(body(text, "three"), None);
}

#[test]
fn names_are_found_in_a_source() {
    let source = r#"rule: "agent-silent", x => ("no-pool", "a sentence - with a dash", "DISCOVER", "x-1")"#;
    assert_eq!(names(source).collect::<Vec<_>>(), ["agent-silent", "no-pool"]);
}

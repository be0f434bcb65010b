//! `dayzero vm …`.

use super::status::text_of;
use super::{table, wrap};
use dayzero_model::vm::Vm;

/// All VMs: where each runs, and why there.
pub(crate) fn list(vms: &[Vm]) -> String {
    if vms.is_empty() {
        return "no virtual machines\n".to_owned();
    }
    let row = |vm: &Vm| {
        vec![
            vm.name.to_string(),
            text_of(&vm.state),
            vm.host.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            vm.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            if vm.detail.is_empty() { vm.why.clone() } else { format!("{}; {}", vm.detail, vm.why) },
        ]
    };
    table(&["VM", "STATE", "HOST", "ADDRESS", "DETAIL, AND WHY THERE"], vms.iter().map(row))
}

/// One VM, with the end of its console.
pub(crate) fn one(vm: &Vm) -> String {
    let host = vm.host.as_ref().map_or_else(|| "no host yet".to_owned(), ToString::to_string);
    let mut text = format!("VM {}: {} on {host}\n", vm.name, text_of(&vm.state));
    for (label, value) in [("why", &vm.why), ("detail", &vm.detail)] {
        if !value.is_empty() {
            text.push_str(&wrap(&format!("  {label}: "), 4, value));
        }
    }
    if let Some(address) = vm.address {
        text.push_str(&format!("  address: {address}\n"));
    }
    if !vm.console.is_empty() {
        text.push_str("  console:\n");
    }
    for line in &vm.console {
        text.push_str(&wrap("    ", 4, line));
    }
    text
}

//! Whether a client answers ARP, as the kernel found when it wanted to send to it. Looked at only when something broke off.

use std::net::Ipv4Addr;

/// The kernel's table of this thread's network namespace.
const TABLE: &str = "/proc/thread-self/net/arp";
/// Longest part of it that is read: some thousands of neighbours.
const MOST: usize = 1 << 20;

/// The kernel asked for this address's MAC, and nobody answered.
pub(crate) fn is_silent(address: Ipv4Addr) -> bool {
    // A file of /proc is made while it is read: nothing here waits for a disk or the network.
    std::fs::read_to_string(TABLE).is_ok_and(|table| silent_in(table.get(..MOST).unwrap_or(&table), address))
}

/// A row: address, hardware type, flags (0x2 = complete), MAC, mask, device.
fn silent_in(table: &str, address: Ipv4Addr) -> bool {
    let address = address.to_string();
    table.lines().skip(1).any(|row| {
        let mut columns = row.split_ascii_whitespace();
        columns.next() == Some(address.as_str()) && columns.nth(1) == Some("0x0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_incomplete_entry_is_silence() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.77.0.11       0x1         0x0         00:00:00:00:00:00     *        mgmt0\n\
            10.77.0.12       0x1         0x2         52:54:00:77:01:01     *        mgmt0\n";
        for (last, silent) in [(11, true), (12, false), (1, false), (13, false)] {
            assert_eq!(silent_in(table, Ipv4Addr::new(10, 77, 0, last)), silent, "{last}");
        }
    }
}

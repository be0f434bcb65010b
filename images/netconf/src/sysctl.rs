//! The kernel settings below `/proc/sys` that two storage networks on one host need.

use crate::error::NetError;
use std::collections::BTreeMap;

const ROOT: &str = "/proc/sys";
/// Answer ARP only for an address of the link that was asked on, and ask with an address of the outgoing link; the
/// kernel takes the greater of `all` and the link's own value.
pub(crate) const EVERYWHERE: [(&str, &str); 2] =
    [("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")];

/// Loose reverse-path filter of a storage link: the answer leaves by its own table.
pub(crate) fn rp_filter(link: &str) -> (String, String) {
    (format!("net/ipv4/conf/{link}/rp_filter"), "2".to_owned())
}

/// A router advertisement never changes this link.
pub(crate) fn accept_ra(link: &str) -> (String, String) {
    (format!("net/ipv6/conf/{link}/accept_ra"), "0".to_owned())
}

/// No IPv6 of the host on a guest network.
pub(crate) fn no_ipv6(link: &str) -> (String, String) {
    (format!("net/ipv6/conf/{link}/disable_ipv6"), "1".to_owned())
}

/// Reads all that the plan may want, for these links. What does not exist is left out.
pub(crate) fn read<'a>(links: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut paths: Vec<String> = EVERYWHERE.iter().map(|(path, _)| (*path).to_owned()).collect();
    for link in links {
        paths.extend([rp_filter(link).0, accept_ra(link).0, no_ipv6(link).0]);
    }
    let value = |path: &str| std::fs::read_to_string(format!("{ROOT}/{path}")).ok();
    paths.into_iter().filter_map(|path| value(&path).map(|text| (path, text.trim().to_owned()))).collect()
}

/// Writes one; one that does not exist (no IPv6 in this kernel) is no error.
pub(crate) fn write(path: &str, value: &str) -> Result<(), NetError> {
    match std::fs::write(format!("{ROOT}/{path}"), value) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(NetError::io(format!("writing {value} to {ROOT}/{path}"), e))
        }
        _ => Ok(()),
    }
}

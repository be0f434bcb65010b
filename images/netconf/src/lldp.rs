//! LLDP (IEEE 802.1AB): who is at the other end of each cable; and our own name for the switch to see.
//!
//! Frames are taken by packet sockets on each NIC; a bond's legs still get them, since bonding leaves link-local
//! multicast to its legs. [`dayzero_model::lldp`] reads them.

use crate::error::NetError;
use crate::observe::observe;
use crate::observed::Link;
use crate::packet;
use dayzero_model::ids::MacAddr;
use dayzero_model::inventory::Neighbour;
use dayzero_model::lldp::{ETHERTYPE, GROUP, TEXT_MAX, parse};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest frame that is read.
const FRAME_MAX: usize = 1600;
/// How long a neighbour may keep what we announce, s.
const TTL: u16 = 120;

/// A frame that announces us: chassis id and port id are the NIC's MAC.
pub fn frame(nic: MacAddr, port: &str, system_name: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend(GROUP);
    frame.extend(nic.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    let cut = |text: &str| text.as_bytes()[..text.len().min(TEXT_MAX)].to_vec();
    let mut mac = vec![4];
    mac.extend(nic.0);
    tlv(&mut frame, 1, &mac);
    mac[0] = 3;
    tlv(&mut frame, 2, &mac);
    tlv(&mut frame, 3, &TTL.to_be_bytes());
    tlv(&mut frame, 4, &cut(port));
    tlv(&mut frame, 5, &cut(system_name));
    tlv(&mut frame, 0, &[]);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tlv(frame: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let head = kind << 9 | (value.len() as u16 & 0x1ff);
    frame.extend(head.to_be_bytes());
    frame.extend(value);
}

/// A packet socket on one link, for LLDP alone.
fn socket(index: u32, name: &str) -> Result<Socket, NetError> {
    let failed = |e| NetError::io(format!("listening for LLDP on {name}"), e);
    // No protocol before it is bound: until then it would hear the frames of all links, and take them for this one's.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&packet::address(index, ETHERTYPE, None).map_err(failed)?).map_err(failed)?;
    let mut request = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [0; 8],
    };
    request.mr_address[..6].copy_from_slice(&GROUP);
    // SAFETY: the descriptor is open, and the pointer and length are those of a packet_mreq that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            std::ptr::from_ref(&request).cast(),
            std::mem::size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(failed(std::io::Error::last_os_error())) } else { Ok(socket) }
}

async fn receive(socket: &AsyncFd<Socket>) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_MAX];
    let read = socket
        .async_io(tokio::io::Interest::READABLE, |socket| {
            let mut socket: &Socket = socket;
            std::io::Read::read(&mut socket, &mut frame)
        })
        .await?;
    frame.truncate(read);
    Ok(frame)
}

/// Waits on one NIC for a frame of another sender that can be read.
async fn one(link: Link, mac: MacAddr) -> Result<Neighbour, NetError> {
    let failed = |e| NetError::io(format!("listening for LLDP on {}", link.name), e);
    let socket = socket(link.index, &link.name)?;
    // SAFETY: the socket owns its descriptor, and it is neither replaced nor closed while the AsyncFd owns it.
    let socket = unsafe { AsyncFd::register(socket) }.map_err(|e| failed(e.into()))?;
    loop {
        let frame = match receive(&socket).await {
            Ok(frame) => frame,
            // The link went down for a moment.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(e) => return Err(failed(e)),
        };
        let sender = frame.get(6..12);
        if sender == Some(&mac.0[..]) || sender == link.mac.as_ref().map(|mac| &mac.0[..]) {
            continue;
        }
        match parse(&frame) {
            Ok(heard) if heard.ttl > 0 => {
                return Ok(Neighbour {
                    nic_mac: mac,
                    system_name: heard.system_name.unwrap_or(heard.chassis_id),
                    port_id: heard.port_id,
                    port_description: heard.port_description,
                });
            }
            Ok(_) => {}
            Err(reason) => tracing::debug!(link = link.name, %reason, "LLDP frame ignored"),
        }
    }
}

/// Listens on these NICs (all of them for an empty list) until each heard a neighbour, or the time is over. The links
/// must be up. Sorted by MAC; a NIC that heard nothing is absent.
///
/// # Errors
/// [`NetError::NoSuchNic`], or a socket that cannot be had.
pub async fn listen(macs: &[MacAddr], time: Duration) -> Result<Vec<Neighbour>, NetError> {
    let mut tasks = JoinSet::new();
    for (mac, link) in links(macs).await? {
        tasks.spawn(one(link, mac));
    }
    let mut heard: BTreeMap<MacAddr, Neighbour> = BTreeMap::new();
    let all = async {
        while let Some(result) = tasks.join_next().await {
            if let Ok(result) = result {
                let neighbour = result?;
                heard.insert(neighbour.nic_mac, neighbour);
            }
        }
        Ok(())
    };
    if let Ok(result) = timeout(time, all).await {
        result?;
    }
    Ok(heard.into_values().collect())
}

/// Sends one LLDP frame out of each of these NICs (all that are up, for an empty list). A neighbour keeps it for two
/// minutes: call it every 30 s.
///
/// # Errors
/// [`NetError::NoSuchNic`], or a socket that cannot be had.
pub async fn announce(macs: &[MacAddr], system_name: &str) -> Result<(), NetError> {
    for (mac, link) in links(macs).await?.into_iter().filter(|(_, link)| link.up && link.carrier) {
        let failed = |e| NetError::io(format!("sending LLDP on {}", link.name), e);
        socket(link.index, &link.name)?.send(&frame(mac, &link.name, system_name)).map_err(failed)?;
    }
    Ok(())
}

async fn links(macs: &[MacAddr]) -> Result<Vec<(MacAddr, Link)>, NetError> {
    let observed = observe().await?;
    if macs.is_empty() {
        let all = observed.physical().filter_map(|link| Some((link.permanent.or(link.mac)?, link.clone())));
        return Ok(all.collect());
    }
    let find = |mac: &MacAddr| {
        let link = observed.nic(*mac).cloned();
        link.map(|link| (*mac, link))
            .ok_or_else(|| NetError::NoSuchNic { mac: *mac, present: observed.macs() })
    };
    macs.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);

    /// A frame of another link that comes while a socket is being made must not be taken for one of its own.
    #[test]
    #[ignore = "needs root, iproute2"]
    fn a_socket_hears_its_own_link_alone() {
        let lab = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("a network namespace needs root");
            let links = "ip link add eth1 type veth peer name far1; ip link add eth2 type veth peer name far2; \
                         for l in eth1 far1 eth2 far2; do ip link set $l up; done";
            assert!(std::process::Command::new("sh").args(["-ec", links]).status().unwrap().success());
            let on = |name: &str| socket(nix::net::if_::if_nametoindex(name).unwrap(), name).unwrap();
            let (mut own, busy) = (on("eth1"), on("far1"));
            let (done, mut heard) = (std::sync::atomic::AtomicBool::new(false), [0; FRAME_MAX]);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = busy.send(&frame(NIC, "eth1", "sw-a"));
                    }
                });
                while std::io::Read::read(&mut own, &mut heard).is_err() {}
                let strange = (0..100).filter(|_| {
                    let mut socket = on("eth2");
                    std::io::Read::read(&mut socket, &mut heard).is_ok()
                });
                let strange = strange.count();
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(strange, 0, "of 100 sockets");
            });
        });
        lab.join().unwrap();
    }

    #[test]
    fn what_we_announce_can_be_read() {
        let heard = parse(&frame(NIC, "eth0", "host1")).unwrap();
        assert_eq!(heard.system_name.as_deref(), Some("host1"));
        assert_eq!(heard.port_id, NIC.to_string());
        assert_eq!(heard.port_description.as_deref(), Some("eth0"));
    }
}

//! The BMC's own DHCP client: busybox `udhcpc` in its namespace, which keeps renewing.

use super::{BmcEmulatorError, Context};
use crate::process::Child;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What `udhcpc` calls on each change; it prints the lease for us.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
    deconfig)
        ip -4 addr flush dev "$interface"
        ip link set dev "$interface" up
        echo lost ;;
    bound | renew)
        ip -4 addr replace "$ip/${mask:-24}" dev "$interface"
        [ -n "$router" ] && ip -4 route replace default via "${router%% *}" dev "$interface"
        echo "bound $ip" ;;
esac
"#;
const PAUSE: Duration = Duration::from_secs(2);

/// Writes a file that may be run (0700) or is private (0600).
pub(super) fn write_file(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    let _stale = std::fs::remove_file(path);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(mode).open(path)?;
    file.write_all(content)
}

pub(super) async fn start(
    context: &Arc<Context>,
    address: watch::Sender<Option<Ipv4Addr>>,
    tasks: &mut JoinSet<()>,
) -> Result<(), BmcEmulatorError> {
    let spec = &context.spec;
    let script = spec.dir.join("udhcpc.sh");
    write_file(&script, SCRIPT.as_bytes(), 0o700).map_err(spec.io("write its DHCP script"))?;
    let mut child = client(context).await?;
    let context = context.clone();
    tasks.spawn(async move {
        loop {
            follow(&mut child, &address).await;
            context.processes.forget(child.id);
            tracing::warn!(bmc = context.spec.name, "the BMC's DHCP client ended; it is started again");
            tokio::time::sleep(PAUSE).await;
            match client(&context).await {
                Ok(next) => child = next,
                Err(error) => return tracing::error!(%error, "the BMC's DHCP client does not start"),
            }
        }
    });
    Ok(())
}

async fn client(context: &Context) -> Result<Child, BmcEmulatorError> {
    let spec = &context.spec;
    let mut command = Command::new("busybox");
    command
        .args([
            "udhcpc",
            "-f",
            "-R",
            "-i",
            &spec.interface,
            "-t",
            "3",
            "-T",
            "2",
            "-A",
            "2",
            "-V",
            "dayzero-lab-bmc",
            "-s",
        ])
        .arg(spec.dir.join("udhcpc.sh"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let what = format!("{}-dhcp", spec.name);
    context.processes.spawn(command, &what, Some(&context.netns)).await.map_err(|e| spec.process(e))
}

/// Carries the client's reports until it ends.
async fn follow(child: &mut Child, address: &watch::Sender<Option<Ipv4Addr>>) {
    let Some(out) = child.process.stdout.take() else { return };
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let leased = line.strip_prefix("bound ").and_then(|text| text.trim().parse().ok());
        address.send_if_modified(|now| std::mem::replace(now, leased) != leased);
    }
    let _ended = child.process.wait().await;
}

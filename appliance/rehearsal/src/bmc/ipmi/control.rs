//! The two loopback sockets behind `ipmi_sim`: chassis commands as lines, and the serial console as bytes.

use crate::bmc::{Chassis, ChassisError};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;

/// A chassis command is this long at most.
const MAX_LINE: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(5);

/// Accepts `chassis.sh`, one call after the other, as `ipmi_sim` makes them.
pub(super) async fn serve_commands(listener: TcpListener, chassis: Arc<dyn Chassis>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if tokio::time::timeout(PATIENCE, answer(stream, &*chassis)).await.is_err() {
                    tracing::warn!("a chassis command of ipmi_sim took too long");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, chassis: &dyn Chassis) {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(MAX_LINE));
    if reader.read_line(&mut line).await.is_err() {
        return;
    }
    let reply = match command(chassis, line.trim()).await {
        Ok(lines) => format!("{lines}ok\n"),
        Err(error) => {
            tracing::warn!(command = line.trim(), %error, "a chassis command of ipmi_sim failed");
            format!("error {}\n", error.to_string().replace('\n', " "))
        }
    };
    let _caller_gone = write.write_all(reply.as_bytes()).await;
}

/// `get NAME…`, `set NAME VALUE…` or `check NAME VALUE…` (OpenIPMI's chassis_control).
async fn command(chassis: &dyn Chassis, line: &str) -> Result<String, ChassisError> {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("get") => Ok(words.map(|name| get(chassis, name)).collect()),
        Some("set") => {
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                set(chassis, name, value).await?;
            }
            Ok(String::new())
        }
        Some("check") => Ok(String::new()),
        _ => Err(ChassisError(format!("'{line}' is no chassis command"))),
    }
}

fn get(chassis: &dyn Chassis, name: &str) -> String {
    let value = match name {
        "power" if chassis.is_on() => "1",
        "boot" if chassis.pxe_armed() => "pxe",
        "boot" => "none",
        _ => "0",
    };
    format!("{name}:{value}\n")
}

async fn set(chassis: &dyn Chassis, name: &str, value: &str) -> Result<(), ChassisError> {
    match (name, value) {
        ("power", "1") => chassis.power_on().await,
        ("power", _) => chassis.force_off().await,
        ("reset", "1") if chassis.is_on() => chassis.reset().await,
        ("shutdown", "1") if chassis.is_on() => chassis.graceful().await,
        ("boot", "pxe") => chassis.arm_pxe(true).await,
        // Every other device is the first one of the machine's own order: its disk.
        ("boot", _) => chassis.arm_pxe(false).await,
        _ => Ok(()),
    }
}

/// Carries the console for `ipmi_sim`, which connects again by itself; a new connection takes over from an old one.
pub(super) async fn serve_console(listener: TcpListener, chassis: Arc<dyn Chassis>) {
    let mut next = None;
    loop {
        let stream = match next.take() {
            Some(stream) => stream,
            None => match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(PATIENCE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            () = carry(stream, &*chassis) => {}
            Ok((stream, _)) = listener.accept() => next = Some(stream),
        }
    }
}

async fn carry(stream: TcpStream, chassis: &dyn Chassis) {
    let mut output = chassis.console();
    let (mut read, mut write) = stream.into_split();
    let out = async {
        loop {
            match output.recv().await {
                Ok(chunk) => {
                    if write.write_all(&chunk).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    let input = async {
        let mut buffer = [0; 1024];
        while let Ok(n) = read.read(&mut buffer).await {
            if n == 0 {
                return;
            }
            chassis.type_in(Bytes::copy_from_slice(&buffer[..n])).await;
        }
    };
    tokio::select! {
        () = out => {}
        () = input => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmc::testing::FakeChassis;

    #[tokio::test]
    async fn chassis_commands_act_and_read_back() {
        let chassis = FakeChassis::default();
        assert_eq!(command(&chassis, "get power boot").await.unwrap(), "power:0\nboot:none\n");
        command(&chassis, "set boot pxe").await.unwrap();
        assert_eq!(command(&chassis, "get boot").await.unwrap(), "boot:pxe\n");
        command(&chassis, "set power 1").await.unwrap();
        assert_eq!(
            command(&chassis, "get power boot").await.unwrap(),
            "power:1\nboot:none\n",
            "once is over at the boot"
        );
        command(&chassis, "set power 0").await.unwrap();
        assert!(!chassis.is_on());
        assert!(command(&chassis, "format disk").await.is_err());
    }
}

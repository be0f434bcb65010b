//! A chassis without a machine, and a spec, for the tests of this room.

use super::{Addressing, BmcEmulatorSpec, Chassis, ChassisError};
use crate::machine::{Firmware, Identity};
use async_trait::async_trait;
use bytes::Bytes;
use dayzero_model::Secret;
use dayzero_model::site::BmcProtocol;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::sync::broadcast;

/// What happened to it, in order.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) on: bool,
    pub(crate) armed: bool,
    pub(crate) order: Vec<(u16, String)>,
    pub(crate) media: Option<PathBuf>,
    pub(crate) boots: Vec<&'static str>,
    pub(crate) typed: Vec<u8>,
}

/// A chassis that boots at once, and whose console answers each line with `echo LINE`.
#[derive(Debug)]
pub(crate) struct FakeChassis {
    pub(crate) state: Mutex<State>,
    pub(crate) console: broadcast::Sender<Bytes>,
}

impl Default for FakeChassis {
    fn default() -> Self {
        Self { state: Mutex::default(), console: broadcast::channel(64).0 }
    }
}

impl FakeChassis {
    fn boot(&self) {
        let mut state = self.state.lock().unwrap();
        state.on = true;
        let from = if std::mem::take(&mut state.armed) { "pxe" } else { "disk" };
        state.boots.push(from);
    }
}

#[async_trait]
impl Chassis for FakeChassis {
    fn is_on(&self) -> bool {
        self.state.lock().unwrap().on
    }
    fn has_link(&self, nic: usize) -> bool {
        self.is_on() && nic == 0
    }
    async fn power_on(&self) -> Result<(), ChassisError> {
        if !self.is_on() {
            self.boot();
        }
        Ok(())
    }
    async fn force_off(&self) -> Result<(), ChassisError> {
        self.state.lock().unwrap().on = false;
        Ok(())
    }
    async fn reset(&self) -> Result<(), ChassisError> {
        self.boot();
        Ok(())
    }
    async fn graceful(&self) -> Result<(), ChassisError> {
        self.force_off().await
    }
    fn pxe_armed(&self) -> bool {
        self.state.lock().unwrap().armed
    }
    async fn arm_pxe(&self, armed: bool) -> Result<(), ChassisError> {
        self.state.lock().unwrap().armed = armed;
        Ok(())
    }
    fn firmware_order(&self) -> Vec<(u16, String)> {
        self.state.lock().unwrap().order.clone()
    }
    async fn insert_media(&self, path: &Path) -> Result<(), ChassisError> {
        self.state.lock().unwrap().media = Some(path.to_owned());
        Ok(())
    }
    async fn eject_media(&self) -> Result<(), ChassisError> {
        self.state.lock().unwrap().media = None;
        Ok(())
    }
    fn console(&self) -> broadcast::Receiver<Bytes> {
        self.console.subscribe()
    }
    async fn type_in(&self, input: Bytes) {
        let mut state = self.state.lock().unwrap();
        state.typed.extend_from_slice(&input);
        while let Some(end) = state.typed.iter().position(|b| *b == b'\r') {
            let line: Vec<u8> = state.typed.drain(..=end).collect();
            let echo = format!("echo {}\r\n", String::from_utf8_lossy(&line[..end]));
            let _nobody_listens = self.console.send(echo.into());
        }
    }
}

/// A BMC of that protocol in that directory.
pub(crate) fn spec(protocol: BmcProtocol, dir: PathBuf) -> BmcEmulatorSpec {
    BmcEmulatorSpec {
        name: "bmc-t".into(),
        protocol,
        interface: "eth0".into(),
        mac: "52:54:00:77:09:0b".parse().unwrap(),
        addressing: Addressing::Given,
        dir,
        user: "root".into(),
        password: Secret::new("calvin".into()),
        identity: Identity {
            manufacturer: "Dayzero".into(),
            product: "VRACK-1U".into(),
            serial: "SN0001".into(),
            uuid: "00112233-4455-6677-8899-aabbccddeeff".into(),
            board_serial: "BSN0001".into(),
            firmware_version: "lab-1.0".into(),
        },
        nic_macs: vec!["52:54:00:77:00:01".parse().unwrap(), "52:54:00:77:00:02".parse().unwrap()],
        firmware: Firmware::Uefi,
        ledger: super::Ledger::default(),
        stale_media: std::sync::Arc::default(),
    }
}

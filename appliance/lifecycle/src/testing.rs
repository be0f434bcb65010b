//! Fixtures for this crate's tests: the lab's plan, and facts of a host at each point of its life.

use crate::snapshot::Surroundings;
use dayzero_model::boot::BootWindow;
use dayzero_model::facts::*;
use dayzero_model::ids::{BootId, Sha256};
use dayzero_model::site::Site;
use dayzero_model::units::Timestamp;

pub(crate) fn site() -> Site {
    let text = include_str!("testing/lab.json");
    serde_json::from_str(text).unwrap()
}

pub(crate) fn around() -> Surroundings {
    Surroundings {
        agent_server: "10.77.0.2:7443".parse().unwrap(),
        enrol_server: "10.77.0.2:8444".parse().unwrap(),
        manifest_url: "http://10.77.0.2:8080/host/manifest.json".to_owned(),
        chunks_url: "http://10.77.0.2:8080/host".to_owned(),
        manifest_sha256: Some(Sha256([7; 32])),
        elected: Some("host1".parse().unwrap()),
        volume_group: true,
        drift: Some(Vec::new()),
    }
}

pub(crate) fn window(host: &str) -> WindowFacts {
    WindowFacts {
        window: BootWindow { boot: BootId(0xaa), host: host.parse().unwrap() },
        opened: Timestamp(1000),
        override_read_back: "Pxe once".to_owned(),
        powered: Some(Timestamp(2000)),
        channel: "virtual media".to_owned(),
        ipxe_served: None,
        script_served: None,
        kernel_served: None,
        enrol_asked: None,
    }
}

//! Finding out what a BMC speaks, and logging in.

use crate::ipmi::IpmiBmc;
use crate::lane::Lane;
use crate::redfish::RedfishBmc;
use crate::{Bmc, BmcError};
use dayzero_model::site::BmcProtocol;
use dayzero_model::{Secret, Sha256};
use std::net::{IpAddr, SocketAddr};

/// A user and a password.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Account name.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
}

impl Credential {
    /// A credential from its two parts.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Secret::new(password.into()) }
    }
}

/// Where a BMC is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Protocol; `Auto` tries Redfish first.
    pub protocol: BmcProtocol,
    /// The certificate that it must show; none trusts the first one.
    pub pin: Option<Sha256>,
    /// TLS port of Redfish.
    pub redfish_port: u16,
    /// UDP port of RMCP+.
    pub ipmi_port: u16,
}

impl Target {
    /// A BMC at the standard ports (443 and 623).
    pub fn new(address: IpAddr, protocol: BmcProtocol) -> Self {
        Self { address, protocol, pin: None, redfish_port: 443, ipmi_port: 623 }
    }

    /// With a certificate to insist on.
    #[must_use]
    pub fn pinned(self, pin: Option<Sha256>) -> Self {
        Self { pin, ..self }
    }
}

/// Connects and logs in. With `Auto`, a BMC whose certificate is pinned is never spoken to by IPMI: whoever holds back Redfish
/// answers would else choose the weaker protocol.
///
/// # Errors
/// [`BmcError`], each variant a different next action for a person.
pub async fn connect(target: &Target, credential: &Credential) -> Result<Box<dyn Bmc>, BmcError> {
    let lane = Lane::of(target.address);
    match target.protocol {
        BmcProtocol::Redfish => Ok(Box::new(redfish(target, credential, lane).await?)),
        BmcProtocol::Ipmi => Ok(Box::new(ipmi(target, credential, lane).await?)),
        BmcProtocol::Auto => match redfish(target, credential, lane.clone()).await {
            Ok(bmc) => Ok(Box::new(bmc)),
            Err(error) if target.pin.is_none() && speaks_no_redfish(&error) => {
                Ok(Box::new(ipmi(target, credential, lane).await?))
            }
            Err(error) => Err(error),
        },
    }
}

/// Nothing there, or something that is no Redfish service. A refused credential is one.
fn speaks_no_redfish(error: &BmcError) -> bool {
    matches!(error, BmcError::Unreachable { .. } | BmcError::Protocol { .. } | BmcError::Unsupported { .. })
}

async fn redfish(target: &Target, credential: &Credential, lane: Lane) -> Result<RedfishBmc, BmcError> {
    let address = SocketAddr::new(target.address, target.redfish_port);
    RedfishBmc::connect(address, credential, target.pin, lane).await
}

async fn ipmi(target: &Target, credential: &Credential, lane: Lane) -> Result<IpmiBmc, BmcError> {
    let address = SocketAddr::new(target.address, target.ipmi_port);
    IpmiBmc::connect(address, credential, lane).await
}

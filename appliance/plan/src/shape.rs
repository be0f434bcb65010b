//! The plan's shape as one table: which keys an object has, what each value must look like, what it is for.
//!
//! The JSON Schema (`schema`) and the check of keys and values (`keys`) are made from this table; a test holds it
//! against the model's types. Invariants: it knows no relation between objects: those are the lints.

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Any text that is not empty.
    Text,
    /// A name: an RFC 1123 label in lower case.
    Name,
    /// An Ethernet address.
    Mac,
    /// An IPv4 address.
    Ipv4,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An IPv4 prefix.
    Cidr,
    /// An IPv6 prefix of at most 96 bits.
    Cidr6,
    /// Octets of a DHCP option: text, or `0x` and hex.
    Octets,
    /// A size such as `4 GiB`.
    Size,
    /// A World Wide Name.
    Wwn,
    /// A SHA-256 digest in hex.
    Sha256,
    /// A UUID.
    Uuid,
    /// `true` or `false`.
    Bool,
    /// A whole number, both bounds included.
    Number(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A mapping.
    Object(&'static Object),
    /// A list.
    List(&'static Kind),
}

/// One key of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
}

/// One kind of object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Its name in the schema, and in messages.
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

const fn need(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, required: true, doc }
}

const fn may(key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { key, kind, required: false, doc }
}

use Kind::{
    Bool, Cidr, Cidr6, Ip, Ipv4, List, Mac, Name, Number, Object as Obj, Octets, OneOf, Sha256, Size, Text,
    Uuid, Wwn,
};

const HYPERVISORS: Kind =
    OneOf(&["kvm", "xen", "xenserver", "vsphere", "lxc", "hyper-v", "oracle-vm", "bare-metal"]);

/// The plan.
pub(crate) static SITE: Object = Object {
    name: "site",
    fields: &[
        need("name", Name, "The site's name."),
        need("domain", Text, "DNS domain of the management network, such as lab.example."),
        need("secrets", Text, "File with the BMCs' factory credentials, relative to this file; mode 0600."),
        need("networks", List(&Obj(&NETWORK)), "All networks."),
        need("switches", List(&Obj(&SWITCH)), "All switches that hosts are cabled to."),
        may("primary_storage", List(&Obj(&PRIMARY)), "Storage that VMs' volumes lie on."),
        may("secondary_storage", List(&Obj(&SECONDARY)), "Where templates and ISOs lie."),
        may("offerings", List(&Obj(&OFFERING)), "Sizes of VM that may be asked for."),
        may("templates", List(&Obj(&TEMPLATE)), "Images that VMs start from."),
        need("zones", List(&Obj(&ZONE)), "Zones: rooms or buildings."),
    ],
};

static NETWORK: Object = Object {
    name: "network",
    fields: &[
        need("name", Name, "Its name."),
        need("role", OneOf(&["management", "bmc", "storage", "guest"]), "What it carries."),
        need("cidr", Cidr, "Its prefix, such as 10.77.0.0/24."),
        may("gateway", Ipv4, "The router on it."),
        may("vlan", Number(1, 4094), "802.1Q tag; left out: untagged on its ports."),
        may("mtu", Number(1280, 9216), "Largest IP packet in bytes; 1500 if left out."),
        may("appliance", Ipv4, "The appliance's own address on it."),
        may("pool", Obj(&RANGE), "Addresses that DHCP gives to clients without a reservation."),
        may("open_pool", Bool, "The pool is for clients that nobody planned, too; false if left out."),
        may(
            "dhcp",
            OneOf(&["serve", "proxy", "off"]),
            "serve if left out; proxy: another server gives addresses, ours says what to boot; off: silent.",
        ),
        may("relays", List(&Ipv4), "DHCP relays that bring its clients: their addresses as in giaddr."),
        may("relay_sources", List(&Ip), "Addresses that these relays send from, if that is not giaddr."),
        may(
            "cidr6",
            Cidr6,
            "IPv6 prefix, at most a /96; a machine's IPv6 address ends with its IPv4 address.",
        ),
        may("dns", List(&Ipv4), "Name servers told to its clients."),
        may("reservations", List(&Obj(&RESERVATION)), "Addresses of machines that are no hosts or BMCs."),
    ],
};

static RESERVATION: Object = Object {
    name: "reservation",
    fields: &[
        need("name", Name, "The machine's name."),
        need("address", Ipv4, "Its address."),
        may("mac", Mac, "Its MAC address."),
        may("client_id", Octets, "Its DHCP client identifier (option 61) with the type octet, such as 0x01…"),
        may("duid", Octets, "Its DHCP unique identifier, such as 0x0003…"),
        may("circuit", Obj(&CIRCUIT), "The relay's port that it is cabled to."),
    ],
};

static CIRCUIT: Object = Object {
    name: "circuit",
    fields: &[
        need("id", Octets, "Agent circuit id of option 82, such as Ethernet1/7 or 0x0004…"),
        may("remote", Octets, "Agent remote id of option 82; left out: any."),
    ],
};

static RANGE: Object = Object {
    name: "range",
    fields: &[need("first", Ipv4, "First address."), need("last", Ipv4, "Last address, included.")],
};

static SWITCH: Object = Object {
    name: "switch",
    fields: &[
        need("name", Name, "The system name that it announces by LLDP."),
        may("stack", Name, "Switches with the same stack name share one LACP system id (stack or MLAG)."),
        need("role", OneOf(&["access", "storage", "bmc"]), "What it connects."),
    ],
};

static PRIMARY: Object = Object {
    name: "primary storage",
    fields: &[
        need("name", Name, "Its name."),
        need("kind", OneOf(&["iscsi", "fibre-channel", "nfs", "local", "smb"]), "Its kind."),
        need("size", Size, "Its size; at most 6 TB (6 x 10^12 bytes) a LUN or mount."),
        may(
            "layout",
            OneOf(&["thick-lv", "shared-mount-point", "clvm", "vmfs"]),
            "How volumes lie on block storage. thick-lv is Dayzero's own row, the others are the document's.",
        ),
        may("multipath", Bool, "Several paths: two disjoint subnets, each with its own gateway."),
        may("target", Text, "iSCSI target name (IQN)."),
        may("wwn", Wwn, "The LUN's World Wide Name, by which hosts find it."),
        may("portals", List(&Obj(&PORTAL)), "Where it answers, one a path."),
        may("path", Text, "Export path (nfs) or share (smb)."),
    ],
};

static PORTAL: Object = Object {
    name: "portal",
    fields: &[
        need("network", Name, "Storage network, by name."),
        need("address", Ipv4, "Address on it."),
        may("port", Number(1, 65535), "TCP port; 3260 if left out."),
    ],
};

static SECONDARY: Object = Object {
    name: "secondary storage",
    fields: &[
        need("name", Name, "Its name."),
        need("url", Text, "Base URL, http or https, on the management network."),
    ],
};

static OFFERING: Object = Object {
    name: "offering",
    fields: &[
        need("name", Name, "Its name."),
        need("cpus", Number(1, 1024), "Virtual CPUs."),
        need("mhz", Number(1, 100_000), "MHz a CPU that count against a host's capacity."),
        need("memory_mib", Number(1, 64 << 20), "Memory in MiB."),
        need("disk", Size, "Root volume."),
    ],
};

static TEMPLATE: Object = Object {
    name: "template",
    fields: &[
        need("name", Name, "Its name."),
        need("store", Name, "Secondary storage, by name."),
        need("file", Text, "File in it: a raw disk image."),
        may("sha256", Sha256, "Its digest; left out: taken from FILE.sha256 beside it."),
    ],
};

static ZONE: Object = Object {
    name: "zone",
    fields: &[need("name", Name, "Its name."), need("pods", List(&Obj(&POD)), "Its pods.")],
};

static POD: Object = Object {
    name: "pod",
    fields: &[
        need("name", Name, "Its name."),
        need("network", Name, "Its management network, by name."),
        need("bmc_network", Name, "Its BMC network, by name."),
        need("racks", List(&Obj(&RACK)), "Its racks."),
        need("clusters", List(&Obj(&CLUSTER)), "Its clusters."),
    ],
};

static RACK: Object = Object {
    name: "rack",
    fields: &[
        need("name", Name, "Its name."),
        may("units", Number(1, 60), "Height in rack units; 42 if left out."),
    ],
};

static CLUSTER: Object = Object {
    name: "cluster",
    fields: &[
        need("name", Name, "Its name."),
        need("hypervisor", HYPERVISORS, "Hypervisor of all its hosts."),
        may("failover", OneOf(&["n-1", "none"]), "What is kept free for a host's failure; n-1 if left out."),
        need("vms_per_host", Number(1, 100_000), "Most VMs on one host."),
        may("vm_cap", Number(0, 100_000_000), "Most VMs in the cluster; (N-1) x vms_per_host if left out."),
        may("dom0_memory_mib", Number(1, 1 << 20), "Memory of XenServer's control domain in MiB."),
        may("primary_storage", List(&Name), "Primary storage, by name."),
        may("guest_network", Name, "Guest network, by name."),
        need("profile", Name, "Hardware profile that each host must match."),
        need("hosts", List(&Obj(&HOST)), "Its hosts."),
    ],
};

static HOST: Object = Object {
    name: "host",
    fields: &[
        need("name", Name, "Its name."),
        need("rack", Name, "The rack it is in."),
        need("u", Number(1, 60), "Lowest rack unit that it fills, from 1."),
        may("hypervisor", HYPERVISORS, "The cluster's hypervisor, said again; another one is refused."),
        need("serial", Text, "System serial number, as on the label."),
        may("uuid", Uuid, "SMBIOS UUID, in the order of /sys/class/dmi/id/product_uuid."),
        need("bmc", Obj(&BMC), "Its management controller."),
        need("address", Ipv4, "Its management address."),
        need("bond", Obj(&BOND), "NICs of the pod networks: bonded."),
        may(
            "storage_nics",
            List(&Obj(&STORAGE_NIC)),
            "NICs of the storage networks: not bonded under multipath.",
        ),
        need("os_disk", Obj(&DISK), "The disk that the operating system is written to."),
        may(
            "secure_boot",
            OneOf(&["off", "uki", "mok", "shim"]),
            "By what it boots discovery; as its BMC tells if left out. uki: one signed file; mok: the same behind shim; shim: shim, GRUB, kernel, agent unverified.",
        ),
        may(
            "https_boot",
            Bool,
            "Its firmware boots by HTTPS, with https-boot.pem of the appliance's data directory among its authorities: its BMC is given it, or a person does that where the BMC has no such list. As its BMC tells if left out; false: HTTP.",
        ),
    ],
};

static BMC: Object = Object {
    name: "BMC",
    fields: &[
        need("mac", Mac, "Its MAC address, as on the label."),
        need("address", Ipv4, "The address that it gets from us."),
        may("protocol", OneOf(&["redfish", "ipmi", "auto"]), "auto if left out: Redfish, else IPMI."),
        need("credential", Name, "Name of its factory credential in the secret file."),
    ],
};

static BOND: Object = Object {
    name: "bond",
    fields: &[
        need(
            "mode",
            OneOf(&["802.3ad", "active-backup"]),
            "802.3ad needs a stack or MLAG; active-backup does not.",
        ),
        need("nics", List(&Obj(&NIC)), "Its NICs, the one that boots by PXE first."),
    ],
};

static NIC: Object = Object {
    name: "NIC",
    fields: &[
        need("role", Name, "Role in the hardware profile, such as pod-a."),
        need("mac", Mac, "Its MAC address."),
        need("port", Obj(&PORT), "Switch port that its cable goes to."),
    ],
};

static STORAGE_NIC: Object = Object {
    name: "storage NIC",
    fields: &[
        need("role", Name, "Role in the hardware profile, such as storage-a."),
        need("mac", Mac, "Its MAC address."),
        need("port", Obj(&PORT), "Switch port that its cable goes to."),
        need("network", Name, "Storage network, by name."),
        need("address", Ipv4, "Its address there."),
        may("bonded", Bool, "Must not be true under multipath."),
    ],
};

static PORT: Object = Object {
    name: "switch port",
    fields: &[
        need("switch", Name, "The switch, by name."),
        need("port", Text, "Its port id as LLDP says it, such as \"7\" or xe-0/0/7."),
    ],
};

static DISK: Object = Object {
    name: "disk",
    fields: &[may("serial", Text, "Its serial number."), may("wwn", Wwn, "Its World Wide Name.")],
};
